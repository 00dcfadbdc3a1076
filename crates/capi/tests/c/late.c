/*
 * A program that opens the library by itself, and whose threads come and go: `late LIBRARY FOLDER`.
 * Nothing is stranded by a thread that ends while it has pinned the heap, by one that first uses and pins it while it ends,
 * nor by one that ends when heap and library are closed already.
 */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

/* Less than what the threads allocate in all. */
#define CAPACITY (4u << 20)
#define LARGE (256u << 10)
#define THREADS 4
#define ROUNDS 40

/* The library's functions, found by name. */
static struct {
  __typeof__(pma_create) *create;
  __typeof__(pma_open) *open;
  __typeof__(pma_close) *close;
  __typeof__(pma_root) *root;
  __typeof__(pma_alloc_to) *alloc_to;
  __typeof__(pma_free_from) *free_from;
  __typeof__(pma_pin) *pin;
  __typeof__(pma_unpin) *unpin;
  __typeof__(pma_thread_release) *thread_release;
  __typeof__(pma_check) *check;
  __typeof__(pma_stats_get) *stats_get;
  __typeof__(pma_options_init) *options_init;
} pma;

static void *load(const char *library) {
  void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (handle == NULL)
    fprintf(stderr, "%s\n", dlerror());
  CHECK(handle != NULL);
  /* POSIX has it that what dlsym returns can be stored like this. */
#define FIND(name) CHECK((*(void **)&pma.name = dlsym(handle, "pma_" #name)) != NULL)
  FIND(create);
  FIND(open);
  FIND(close);
  FIND(root);
  FIND(alloc_to);
  FIND(free_from);
  FIND(pin);
  FIND(unpin);
  FIND(thread_release);
  FIND(check);
  FIND(stats_get);
  FIND(options_init);
  return handle;
}

static pma_heap *heap;
static pma_slot *slots;

static int use(pma_slot *slot, size_t size) {
  int error = pma.alloc_to(heap, slot, size, 0);
  return error != 0 ? error : pma.free_from(heap, slot);
}

/* What a thread's data is given to when the thread ends: it uses the heap a last time. */
static void farewell(void *slot) {
  CHECK(use(slot, 100) == 0);
  pma.pin(heap);
  pma.unpin(heap);
}

static pthread_key_t key;

/* Uses the heap and ends in the middle of it: two pins that nobody undoes, and a lane and caches. */
static void *guest(void *slot) {
  CHECK(pthread_setspecific(key, slot) == 0);
  pma.pin(heap);
  pma.pin(heap);
  CHECK(use(slot, 100) == 0 && use(slot, LARGE) == 0);
  return NULL;
}

/* What a stranger's data is given to: it uses the heap for the first time, and leaves it pinned. */
static void hello_and_farewell(void *slot) {
  pma.pin(heap);
  CHECK(use(slot, 100) == 0);
}

/* Knows the heap by the data that it leaves behind only. */
static void *stranger(void *slot) {
  CHECK(pthread_setspecific(key, slot) == 0);
  return NULL;
}

static pthread_barrier_t met;

/* Uses the heap, and ends only when heap and library are closed. */
static void *resident(void *slot) {
  CHECK(use(slot, 100) == 0);
  pma.pin(heap);
  pthread_barrier_wait(&met);
  pthread_barrier_wait(&met);
  return NULL;
}

static void come_and_go(void *(*visit)(void *), void (*end)(void *)) {
  CHECK(pthread_key_create(&key, end) == 0);
  for (int round = 0; round < ROUNDS; round++) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
      CHECK(pthread_create(&threads[i], NULL, visit, &slots[i]) == 0);
    for (int i = 0; i < THREADS; i++)
      CHECK(pthread_join(threads[i], NULL) == 0);
  }
  CHECK(pthread_key_delete(key) == 0);
}

/* A pin of a thread that lives does keep memory: what the guests did not hold up, this does. */
static void a_pin_holds(void) {
  int error = 0;
  pma.pin(heap);
  for (int i = 0; i < 100 && error == 0; i++)
    error = use(&slots[0], LARGE);
  CHECK(error == PMA_E_FULL);
  pma.unpin(heap);
  CHECK(use(&slots[0], LARGE) == 0);
}

static uint64_t heap_bytes(void) {
  pma_stats stats = {0};
  stats.size = sizeof stats;
  CHECK(pma.stats_get(heap, &stats) == 0);
  return stats.heap_bytes;
}

static void nothing_is_left(void) {
  pma_stats stats = {0};
  uint64_t problems = 1;
  stats.size = sizeof stats;
  CHECK(pma.check(heap, NULL, NULL, &problems) == 0 && problems == 0);
  CHECK(pma.stats_get(heap, &stats) == 0 && stats.live_blocks == 1);
}

int main(int argc, char **argv) {
  char path[4096];
  pma_options options;
  pthread_t thread;
  void *root;
  CHECK(argc == 3 && snprintf(path, sizeof path, "%s/heap", argv[2]) > 0);
  void *library = load(argv[1]);
  pma.options_init(&options, sizeof options);
  options.capacity = CAPACITY;
  CHECK(pma.create(path, &options, &heap) == 0);
  for (int round = 0; round < 3; round++) {
    CHECK(pma.root(heap, "slots", 8 * sizeof(pma_slot), 0, &root) == 0);
    slots = root;
    come_and_go(guest, farewell);
    uint64_t before = heap_bytes();
    come_and_go(stranger, hello_and_farewell);
    /* A session that is stranded keeps a lane and the blocks that it has at hand, five pages. */
    CHECK(heap_bytes() < before + THREADS * ROUNDS * 4096);
    a_pin_holds();
    pma.thread_release(heap);
    CHECK(use(&slots[0], LARGE) == 0);
    nothing_is_left();
    CHECK(pthread_barrier_init(&met, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, resident, &slots[7]) == 0);
    pthread_barrier_wait(&met);
    CHECK(pma.close(heap) == 0 && dlclose(library) == 0);
    pthread_barrier_wait(&met);
    CHECK(pthread_join(thread, NULL) == 0 && pthread_barrier_destroy(&met) == 0);
    library = load(argv[1]);
    CHECK(pma.open(path, &options, &heap) == 0);
  }
  CHECK(pma.close(heap) == 0);
  return 0;
}
