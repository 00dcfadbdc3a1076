/*
 * Every function of the header, each from four threads: `every FOLDER DURABILITY ROUNDS`. A test sees that none is missing.
 *
 * For tools that watch a program: what they report here is the library's, for the program itself is plain. The threads
 * share a heap, each with slots of its own, and then each has a heap to itself for what must be alone.
 */
#define _XOPEN_SOURCE 700
#include "check.h"

#include <pthread.h>
#include <string.h>

#define THREADS 4
#define SLOTS 64
#define TAG 9

static pma_heap *shared;
static pma_options options;
static const char *folder;
static int rounds;
static pthread_barrier_t all_here;

static void fill(void *block, void *arg) { memset(block, *(unsigned char *)arg, 100); }

static int count(pma_off block, size_t usable, uint8_t tag, void *arg) {
  CHECK(block != 0 && usable >= 8 && (tag == 0 || tag == TAG));
  ++*(unsigned *)arg;
  return 0;
}

static void complain(const char *problem, void *arg) {
  (void)arg;
  fprintf(stderr, "%s\n", problem);
}

/* Adds up the bytes of a block: a tool that knows which bytes were ever written looks at each. */
static unsigned sum(const void *block, size_t size) {
  unsigned total = 0;
  for (size_t at = 0; at < size; at++)
    total += ((const unsigned char *)block)[at];
  return total;
}

static void the_library(void) {
  CHECK(pma_version() == PMA_VERSION);
  CHECK(strlen(pma_strerror(PMA_E_FULL)) > 0);
  pma_options mine;
  pma_options_init(&mine, sizeof mine);
  CHECK(mine.size == sizeof mine && mine.capacity == 0);
}

/* Allocates, changes and frees blocks of all sizes: small ones, large ones, and such that are mapped alone. */
static void slots_in(pma_heap *heap, pma_slot *slots) {
  static const size_t sizes[] = {100, 1000, 5000, 40000, 300000};
  char text[128];
  memset(text, 'x', sizeof text);
  for (unsigned at = 0; at < 10; at++) {
    OK(pma_alloc_to(heap, &slots[at], sizes[at % 5], 0));
    void *block = pma_get(heap, &slots[at]);
    memset(block, 1, 100);
    pma_persist(heap, block, 100);
    CHECK(sum(block, 100) == 100);
  }
  unsigned char with = 3;
  OK(pma_alloc_init(heap, &slots[10], 100, 64, fill, &with));
  OK(pma_alloc_copy(heap, &slots[11], text, sizeof text, 0));
  pma_pin(heap);
  const void *old = pma_get(heap, &slots[11]);
  OK(pma_replace(heap, &slots[11], "new", 4, 0));
  CHECK(sum(old, sizeof text) == sizeof text * 'x');
  pma_unpin(heap);
  CHECK(strcmp(pma_get(heap, &slots[11]), "new") == 0);
  OK(pma_move(heap, &slots[12], &slots[11]));
  OK(pma_swap(heap, &slots[12], &slots[10]));
  CHECK(sum(pma_get(heap, &slots[12]), 100) == 300);
  EXPECT(PMA_E_SLOT_EMPTY, pma_free_from(heap, &slots[11]));
  CHECK(strlen(pma_last_error()) > 0);
}

/* Blocks with a tag; what slots say; blocks of zeros. */
static void kinds_in(pma_heap *heap, pma_slot *slots) {
  pma_off block = 0;
  void *found = NULL;
  CHECK(pma_slot_is_empty(heap, &slots[30]) == 1);
  OK(pma_zalloc_to(heap, &slots[30], 5000, 0));
  OK(pma_get_checked(heap, &slots[30], &found));
  CHECK(found == pma_get(heap, &slots[30]) && sum(found, 5000) == 0);
  OK(pma_alloc_tagged(heap, &slots[31], 100, 0, TAG, NULL));
  OK(pma_reserve_tagged(heap, 100, 0, TAG, &block));
  OK(pma_cancel(heap, block));
}

static int note(pma_off block, size_t usable, uint8_t tag, void *arg) {
  CHECK(usable >= 16 && tag == TAG);
  *(pma_off *)arg = block;
  return 1;
}

/* Leaves a block behind that nothing owns, and returns it. */
static pma_off orphan_in(pma_heap *heap, pma_slot *slot) {
  pma_off orphan = 0;
  OK(pma_alloc_tagged(heap, slot, sizeof(pma_slot), 0, TAG, NULL));
  OK(pma_alloc_tagged(heap, pma_get(heap, slot), 16, 0, TAG, NULL));
  OK(pma_free_from(heap, slot));
  OK(pma_orphans(heap, note, &orphan));
  CHECK(orphan != 0);
  return orphan;
}

static void owners_in(pma_heap *heap, pma_slot *slots) {
  pma_run first = {0, 0, 1, PMA_R_SLOTS, 0};
  uint64_t freed = 0;
  OK(pma_declare(heap, PMA_S_TAG, TAG, &first, 1));
  OK(pma_adopt(heap, orphan_in(heap, slots), slots));
  OK(pma_free_from(heap, slots));
  OK(pma_free_orphan(heap, orphan_in(heap, slots)));
  orphan_in(heap, slots);
  OK(pma_free_orphans(heap, TAG, &freed));
  CHECK(freed == 1);
}

static void publishes_in(pma_heap *heap, pma_slot *slots) {
  pma_off block = 0, spare = 0;
  OK(pma_reserve(heap, 200, 0, &block));
  OK(pma_reserve(heap, 200, 0, &spare));
  OK(pma_cancel(heap, spare));
  memset(pma_ptr(heap, block), 0, 200);
  pma_action actions[] = {
      {PMA_A_ALLOC, 0, &slots[20], NULL, block, 0},
      {PMA_A_FREE, 0, &slots[0], NULL, 0, 0},
      {PMA_A_MOVE, 0, &slots[21], &slots[1], 0, 0},
      {PMA_A_SET, 0, &slots[22], NULL, 0, 4711},
  };
  OK(pma_publish(heap, actions, 4));
  CHECK((slots[22].raw & PMA_CELL_MAX) == 4711);
  CHECK(pma_offset(heap, pma_get(heap, &slots[20])) == block);
  size_t usable = 0;
  OK(pma_usable(heap, block, &usable));
  CHECK(usable >= 200);
  EXPECT(PMA_E_MODEL, pma_alloc(heap, 100, 0, &spare));
  EXPECT(PMA_E_MODEL, pma_free(heap, block));
}

static void free_all(pma_heap *heap, pma_slot *slots) {
  for (unsigned at = 0; at < SLOTS; at++)
    if (pma_get(heap, &slots[at]) != NULL)
      OK(pma_free_from(heap, &slots[at]));
}

static void roots_in(pma_heap *heap, unsigned thread) {
  char name[32];
  snprintf(name, sizeof name, "words of %u", thread);
  void *words = NULL, *found = NULL;
  size_t size = 0;
  OK(pma_root(heap, name, 256, 7, &words));
  CHECK(sum(words, 256) == 0);
  memset(words, 5, 256);
  pma_flush(heap, words, 256);
  pma_fence(heap);
  OK(pma_root_find(heap, name, 7, &found, &size));
  CHECK(found == words && size == 256);
  OK(pma_root_remove(heap, name));
}

static void figures_of(pma_heap *heap) {
  pma_stats stats = {.size = sizeof stats};
  OK(pma_stats_get(heap, &stats));
  CHECK(stats.heap_bytes > 0);
  size_t need = 0;
  OK(pma_stats_json(heap, NULL, 0, &need));
  /* Others go on meanwhile, and change how many digits there are. */
  char *json = malloc(need + 4096);
  CHECK(json != NULL);
  OK(pma_stats_json(heap, json, need + 4096, &need));
  CHECK(strlen(json) + 1 == need);
  free(json);
  pma_counts counts = {.size = sizeof counts};
  OK(pma_counts_get(heap, &counts));
  CHECK(counts.fences > 0);
  unsigned blocks = 0;
  OK(pma_iter(heap, count, &blocks));
  CHECK(blocks > 0);
}

/* What must be alone on its heap, on one of the thread's own. */
static void life_of_a_heap(unsigned thread) {
  char path[4096];
  CHECK((size_t)snprintf(path, sizeof path, "%s/own-%u", folder, thread) < sizeof path);
  const char *paths[] = {path};
  const int nodes[] = {0};
  pma_heap *heap = NULL;
  pma_options mine = options;
  mine.policy = thread % 2 == 0 ? PMA_P_EAGER : PMA_P_BATCHED;
  EXPECT(PMA_E_INVAL, pma_create_nodes(paths, nodes, 1, &mine, &heap));
  OK(pma_create(path, &mine, &heap));
  void *slots = NULL;
  OK(pma_root(heap, "slots", SLOTS * sizeof(pma_slot), 0, &slots));
  slots_in(heap, slots);
  publishes_in(heap, slots);
  CHECK(pma_policy(heap) == mine.policy);
  OK(pma_close(heap));
  /* The other way round from here on. */
  mine.policy = thread % 2 == 0 ? PMA_P_BATCHED : PMA_P_EAGER;
  OK(pma_open(path, &mine, &heap));
  uint64_t problems = 1, freed = 0;
  OK(pma_root_find(heap, "slots", 0, &slots, NULL));
  free_all(heap, slots);
  owners_in(heap, slots);
  OK(pma_sync(heap));
  OK(pma_trim(heap, &freed));
  CHECK(freed > 0);
  OK(pma_check(heap, complain, NULL, &problems));
  CHECK(problems == 0);
  OK(pma_close(heap));
}

static void *work(void *arg) {
  unsigned thread = *(unsigned *)arg;
  char name[32];
  snprintf(name, sizeof name, "slots of %u", thread);
  void *slots = NULL;
  OK(pma_root(shared, name, SLOTS * sizeof(pma_slot), 0, &slots));
  pthread_barrier_wait(&all_here);
  for (int round = 0; round < rounds; round++) {
    the_library();
    slots_in(shared, slots);
    kinds_in(shared, slots);
    publishes_in(shared, slots);
    roots_in(shared, thread);
    figures_of(shared);
    free_all(shared, slots);
    OK(pma_sync(shared));
    OK(pma_trim(shared, NULL));
  }
  pma_thread_release(shared);
  life_of_a_heap(thread);
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 4);
  folder = argv[1];
  pma_options_init(&options, sizeof options);
  options.durability = (uint32_t)atoi(argv[2]);
  rounds = atoi(argv[3]);
  options.flags = PMA_F_COUNT | PMA_F_UNSAFE_FORCE;
  char path[4096];
  CHECK((size_t)snprintf(path, sizeof path, "%s/shared", folder) < sizeof path);
  /* Without a capacity: the process may have few addresses. */
  OK(pma_create(path, &options, &shared));
  options.capacity = 64 << 20;
  pthread_barrier_init(&all_here, NULL, THREADS);
  pthread_t threads[THREADS];
  unsigned numbers[THREADS];
  for (unsigned at = 0; at < THREADS; at++) {
    numbers[at] = at;
    CHECK(pthread_create(&threads[at], NULL, work, &numbers[at]) == 0);
  }
  for (unsigned at = 0; at < THREADS; at++)
    CHECK(pthread_join(threads[at], NULL) == 0);
  pthread_barrier_destroy(&all_here);
  uint64_t problems = 1;
  OK(pma_check(shared, complain, NULL, &problems));
  CHECK(problems == 0);
  OK(pma_close(shared));
  return 0;
}
