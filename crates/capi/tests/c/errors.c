/* Every error that a program can provoke, each at least once: `errors FOLDER`. */
#define _XOPEN_SOURCE 700
#include "check.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

static char path[4096];

static const char *in(const char *folder, const char *name) {
  CHECK((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) < sizeof path);
  return path;
}

/* Changes a byte in both copies of the superblock. */
static void damage(const char *file, long at, unsigned char by) {
  FILE *heap = fopen(file, "r+b");
  CHECK(heap != NULL);
  for (long copy = 0; copy <= 4096; copy += 4096) {
    CHECK(fseek(heap, copy + at, SEEK_SET) == 0);
    int byte = fgetc(heap);
    CHECK(byte != EOF && fseek(heap, copy + at, SEEK_SET) == 0);
    CHECK(fputc(byte ^ by, heap) != EOF);
  }
  CHECK(fclose(heap) == 0);
}

/* A copy of an open heap whose record of its owner says that it was being written in another boot of the machine. */
static void copy_of_another_boot(const char *from, const char *to) {
  static unsigned char bytes[1 << 16];
  FILE *heap = fopen(from, "rb"), *copy = fopen(to, "wb");
  CHECK(heap != NULL && copy != NULL);
  for (size_t length; (length = fread(bytes, 1, sizeof bytes, heap)) > 0;)
    CHECK(fwrite(bytes, 1, length, copy) == length);
  long owner = 2 * 4096 + 3 * 64;
  memset(bytes, 0xab, 16);
  CHECK(fseek(copy, owner, SEEK_SET) == 0 && fwrite(bytes, 1, 16, copy) == 16);
  memset(bytes, 0xff, 8);
  CHECK(fseek(copy, owner + 56, SEEK_SET) == 0 && fwrite(bytes, 1, 8, copy) == 8);
  CHECK(fclose(heap) == 0 && fclose(copy) == 0);
}

static void options_are_checked(const char *folder) {
  pma_heap *heap = NULL;
  pma_options options;
  const char *file = in(folder, "options");
  EXPECT(PMA_E_INVAL, pma_create(file, NULL, NULL));
  EXPECT(PMA_E_INVAL, pma_create(NULL, NULL, &heap));
  EXPECT(PMA_E_INVAL, pma_open(NULL, NULL, &heap));
#define REFUSED(error, member, value)                                                                                  \
  do {                                                                                                                 \
    pma_options_init(&options, sizeof options);                                                                        \
    options.member = value;                                                                                            \
    EXPECT(error, pma_create(file, &options, &heap));                                                                  \
    CHECK(strlen(pma_last_error()) > 10);                                                                              \
  } while (0)
  REFUSED(PMA_E_INVAL, size, 8);
  REFUSED(PMA_E_INVAL, size, sizeof options + 8);
  REFUSED(PMA_E_MODEL, consistency, PMA_GC);
  REFUSED(PMA_E_MODEL, consistency, PMA_IC);
  REFUSED(PMA_E_INVAL, consistency, 3);
  REFUSED(PMA_E_INVAL, policy, 3);
  REFUSED(PMA_E_INVAL, durability, 5);
  REFUSED(PMA_E_INVAL, durability, PMA_D_POWERFAIL);
  REFUSED(PMA_E_INVAL, stripes, 99);
  REFUSED(PMA_E_INVAL, capacity, 10);
  REFUSED(PMA_E_INVAL, capacity, UINT64_MAX);
  REFUSED(PMA_E_INVAL, initial, UINT64_MAX);
  REFUSED(PMA_E_INVAL, flags, 0x80);
  REFUSED(PMA_E_MODEL, nvisitors, 1);
  REFUSED(PMA_E_INVAL, layout, "\xff");
  EXPECT(PMA_E_INVAL, pma_create_nodes(&file, NULL, 1, NULL, &heap));
  CHECK(heap == NULL && fopen(file, "rb") == NULL);
}

static void files_are_checked(const char *folder) {
  pma_heap *heap = NULL, *second = NULL;
  pma_options options;
  pma_options_init(&options, sizeof options);
  options.layout = "mine";
  const char *file = in(folder, "heap");
  EXPECT(PMA_E_IO, pma_open(file, NULL, &heap));
  CHECK(errno == ENOENT);
  OK(pma_create(file, &options, &heap));
  EXPECT(PMA_E_EXISTS, pma_create(file, NULL, &second));
  EXPECT(PMA_E_IN_USE, pma_open(file, NULL, &second));
  OK(pma_close(heap));
  options.layout = "yours";
  EXPECT(PMA_E_LAYOUT, pma_open(file, &options, &second));
  damage(file, 8, 0x40);
  EXPECT(PMA_E_VERSION, pma_open(file, NULL, &second));
  damage(file, 8, 0x40);
  damage(file, 40, 1);
  EXPECT(PMA_E_CORRUPT, pma_open(file, NULL, &second));
  damage(file, 40, 1);
  OK(pma_open(file, NULL, &heap));
  OK(pma_close(heap));
  damage(file, 0, 1);
  EXPECT(PMA_E_NOT_HEAP, pma_open(file, NULL, &second));
  EXPECT(PMA_E_NOT_HEAP, pma_open(folder, NULL, &second));
  EXPECT(PMA_E_INVAL, pma_close(NULL));
  CHECK(second == NULL);
}

/* What can't be the path of a file is an error before anything is made. */
static void paths_are_checked(const char *folder) {
  const char *names[] = {"new/", "new//", "new/.", "new/..", "./", "."};
  pma_heap *heap = NULL;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *file = in(folder, names[i]);
    EXPECT(PMA_E_INVAL, pma_create(file, NULL, &heap));
    EXPECT(PMA_E_INVAL, pma_open(file, NULL, &heap));
  }
  EXPECT(PMA_E_INVAL, pma_create("", NULL, &heap));
  EXPECT(PMA_E_INVAL, pma_open("", NULL, &heap));
  char name[300] = "";
  memset(name, 'n', sizeof name - 1);
  EXPECT(PMA_E_IO, pma_create(in(folder, name), NULL, &heap));
  CHECK(strstr(pma_last_error(), "shorter name") != NULL);
  CHECK(heap == NULL && fopen(in(folder, "new"), "rb") == NULL);
}

static void never(void *block, void *arg) {
  (void)block;
  *(int *)arg = 1;
}

static void slots_are_checked(pma_heap *heap, pma_slot *slots) {
  pma_slot mine = {0};
  int called = 0;
  OK(pma_alloc_to(heap, &slots[0], 100, 0));
  EXPECT(PMA_E_SLOT_FULL, pma_alloc_to(heap, &slots[0], 100, 0));
  EXPECT(PMA_E_SLOT_EMPTY, pma_free_from(heap, &slots[1]));
  EXPECT(PMA_E_SLOT_EMPTY, pma_move(heap, &slots[2], &slots[1]));
  EXPECT(PMA_E_SLOT_FOREIGN, pma_alloc_to(heap, &mine, 100, 0));
  EXPECT(PMA_E_SLOT_FOREIGN, pma_free_from(heap, (pma_slot *)(void *)((char *)slots + 4)));
  EXPECT(PMA_E_SLOT_FOREIGN, pma_swap(heap, &slots[0], (pma_slot *)pma_ptr(heap, 64)));
  EXPECT(PMA_E_SLOT_FOREIGN, pma_swap(heap, &slots[0], (pma_slot *)(UINTPTR_MAX - 7)));
  /* Where the heap has not grown to yet: touching it would be a bus error. */
  pma_slot *behind = slots + (900 << 10) / sizeof *slots;
  CHECK(pma_ptr(heap, pma_offset(heap, behind)) == NULL);
  EXPECT(PMA_E_SLOT_FOREIGN, pma_free_from(heap, behind));
  EXPECT(PMA_E_SLOT_FOREIGN, pma_move(heap, &slots[1], behind));
  CHECK(pma_get(heap, behind) == NULL);
  EXPECT(PMA_E_INVAL, pma_alloc_to(heap, NULL, 100, 0));
  EXPECT(PMA_E_INVAL, pma_alloc_to(NULL, &slots[1], 100, 0));
  EXPECT(PMA_E_INVAL, pma_alloc_to(heap, &slots[1], 0, 0));
  EXPECT(PMA_E_INVAL, pma_alloc_to(heap, &slots[1], 100, 24));
  EXPECT(PMA_E_INVAL, pma_alloc_to(heap, &slots[1], 100, 8192));
  EXPECT(PMA_E_INVAL, pma_alloc_to(heap, &slots[1], 100, (size_t)1 << 63));
  CHECK(strstr(pma_last_error(), "alignment") != NULL);
  EXPECT(PMA_E_SLOT_FULL, pma_zalloc_to(heap, &slots[0], 100, 0));
  EXPECT(PMA_E_INVAL, pma_zalloc_to(heap, &slots[1], 0, 0));
  EXPECT(PMA_E_FULL, pma_alloc_to(heap, &slots[1], 2 << 20, 0));
  CHECK(errno == ENOMEM);
  EXPECT(PMA_E_FULL, pma_alloc_to(heap, &slots[1], SIZE_MAX, 0));
  EXPECT(PMA_E_INVAL, pma_alloc_copy(heap, &slots[1], NULL, 100, 0));
  EXPECT(PMA_E_INVAL, pma_replace(heap, &slots[0], NULL, 100, 0));
  EXPECT(PMA_E_SLOT_EMPTY, pma_replace(heap, &slots[1], "", 1, 0));
  EXPECT(PMA_E_INVAL, pma_alloc_init(heap, &slots[1], 100, 0, NULL, NULL));
  EXPECT(PMA_E_INVAL, pma_alloc_init(heap, &slots[1], 0, 0, never, &called));
  CHECK(!called);
  CHECK(pma_get(heap, &slots[1]) == NULL && pma_get(heap, &mine) == NULL && pma_get(NULL, slots) == NULL);
  CHECK(pma_get(heap, NULL) == NULL);
  void *out = &called;
  EXPECT(PMA_E_SLOT_EMPTY, pma_get_checked(heap, &slots[1], &out));
  EXPECT(PMA_E_SLOT_FOREIGN, pma_get_checked(heap, &mine, &out));
  EXPECT(PMA_E_INVAL, pma_get_checked(heap, &slots[0], NULL));
  CHECK(out == &called && pma_slot_is_empty(heap, &mine) == 0 && *pma_last_error() != '\0');
  /* A call that succeeds takes the sentence back: NULL then means that the slot is empty. */
  CHECK(pma_get(heap, &slots[1]) == NULL && *pma_last_error() == '\0');
  pma_off block = 0;
  EXPECT(PMA_E_MODEL, pma_alloc(heap, 100, 0, &block));
  EXPECT(PMA_E_MODEL, pma_free(heap, pma_offset(heap, pma_get(heap, &slots[0]))));
  OK(pma_free_from(heap, &slots[0]));
}

/* What a slot says of itself through its life; its bits are not zero again when it is empty again. */
static void slots_tell(pma_heap *heap, pma_slot *slots) {
  void *block = NULL;
  pma_slot *slot = &slots[3];
  CHECK(slot->raw == 0 && pma_slot_is_empty(heap, slot) == 1);
  OK(pma_alloc_copy(heap, slot, "full", 5, 0));
  CHECK(pma_slot_is_empty(heap, slot) == 0);
  OK(pma_get_checked(heap, slot, &block));
  CHECK(block == pma_get(heap, slot) && strcmp(block, "full") == 0);
  /* A copy of a full slot: its block is gone with the slot's. */
  slots[4] = *slot;
  OK(pma_free_from(heap, slot));
  CHECK(slot->raw != 0 && pma_slot_is_empty(heap, slot) == 1);
  EXPECT(PMA_E_NOT_LIVE, pma_get_checked(heap, &slots[4], &block));
  slots[4].raw = 0;
  /* Memory that held slots is zero again, whatever they held. */
  for (int round = 0; round < 100; round++) {
    OK(pma_zalloc_to(heap, slot, 64, 0));
    pma_slot *inside = pma_get(heap, slot);
    for (int i = 0; i < 8; i++)
      CHECK(inside[i].raw == 0);
    OK(pma_zalloc_to(heap, &inside[round % 8], 16, 0));
    OK(pma_free_from(heap, &inside[round % 8]));
    OK(pma_free_from(heap, slot));
  }
}

static void publishes_are_checked(pma_heap *heap, pma_slot *slots) {
  pma_off block, other;
  pma_action actions[65];
  memset(actions, 0, sizeof actions);
  EXPECT(PMA_E_LIMIT, pma_publish(heap, actions, 65));
  EXPECT(PMA_E_INVAL, pma_publish(heap, actions, 1));
  EXPECT(PMA_E_INVAL, pma_publish(heap, NULL, 1));
  OK(pma_publish(heap, NULL, 0));
  EXPECT(PMA_E_INVAL, pma_reserve(heap, 100, 0, NULL));
  OK(pma_reserve(heap, 100, 0, &block));
  OK(pma_reserve(heap, 100, 0, &other));
  memset(pma_ptr(heap, block), 0, 100);
  size_t usable;
  EXPECT(PMA_E_NOT_LIVE, pma_usable(heap, block, &usable));
  pma_slot *inside = pma_ptr(heap, block);
  pma_action alloc = {PMA_A_ALLOC, 0, &slots[0], NULL, block, 0};
  pma_action alloc_inside = {PMA_A_ALLOC, 0, inside, NULL, other, 0};
  pma_action free_it = {PMA_A_FREE, 0, &slots[0], NULL, 0, 0};
  /* A slot of a block that is not allocated with it; one block for two slots; an address between slots. */
  EXPECT(PMA_E_SLOT_FOREIGN, pma_publish(heap, &alloc_inside, 1));
  actions[0] = alloc, actions[1] = alloc, actions[1].slot = &slots[1];
  EXPECT(PMA_E_NOT_LIVE, pma_publish(heap, actions, 2));
  actions[1] = alloc_inside, actions[1].slot = (pma_slot *)(void *)((char *)inside + 4);
  EXPECT(PMA_E_SLOT_FOREIGN, pma_publish(heap, actions, 2));
  actions[1] = alloc_inside, actions[1].zero = 1;
  EXPECT(PMA_E_INVAL, pma_publish(heap, actions, 2));
  actions[1] = alloc_inside, actions[1].slot = (pma_slot *)(void *)((char *)inside + 96);
  EXPECT(PMA_E_SLOT_FOREIGN, pma_publish(heap, actions, 2));
  actions[1] = alloc_inside, actions[1].slot = &slots[0];
  EXPECT(PMA_E_SLOT_FULL, pma_publish(heap, actions, 2));
  pma_action set = {PMA_A_SET, 0, &slots[2], NULL, 0, PMA_CELL_MAX + 1};
  EXPECT(PMA_E_INVAL, pma_publish(heap, &set, 1));
  /* After all that both blocks are still reserved. */
  actions[0] = alloc_inside, actions[1] = alloc;
  OK(pma_publish(heap, actions, 2));
  CHECK(pma_get(heap, inside) == pma_ptr(heap, other));
  EXPECT(PMA_E_NOT_LIVE, pma_publish(heap, actions, 2));
  EXPECT(PMA_E_NOT_LIVE, pma_cancel(heap, block));
  /* The block that is freed would keep what is moved into it. */
  OK(pma_move(heap, &slots[1], inside));
  pma_action move = {PMA_A_MOVE, 0, inside, &slots[1], 0, 0};
  actions[0] = move, actions[1] = free_it;
  EXPECT(PMA_E_CHILDREN, pma_publish(heap, actions, 2));
  OK(pma_free_from(heap, &slots[1]));
  OK(pma_free_from(heap, &slots[0]));
  EXPECT(PMA_E_NOT_LIVE, pma_usable(heap, block, &usable));
  EXPECT(PMA_E_INVAL, pma_usable(heap, block, NULL));
}

static void roots_are_checked(pma_heap *heap) {
  void *root;
  size_t size;
  EXPECT(PMA_E_NOT_LIVE, pma_root_find(heap, "root", 7, &root, &size));
  EXPECT(PMA_E_NOT_LIVE, pma_root_remove(heap, "root"));
  EXPECT(PMA_E_INVAL, pma_root(heap, "root", 0, 7, &root));
  EXPECT(PMA_E_INVAL, pma_root(heap, "root", 100, 7, NULL));
  EXPECT(PMA_E_INVAL, pma_root(heap, NULL, 100, 7, &root));
  EXPECT(PMA_E_INVAL, pma_root(heap, "", 100, 7, &root));
  EXPECT(PMA_E_FULL, pma_root(heap, "root", 2 << 20, 7, &root));
  OK(pma_root(heap, "root", 100, 7, &root));
  EXPECT(PMA_E_LAYOUT, pma_root(heap, "root", 101, 7, &root));
  EXPECT(PMA_E_LAYOUT, pma_root(heap, "root", 100, 8, &root));
  EXPECT(PMA_E_LAYOUT, pma_root_find(heap, "root", 8, &root, NULL));
  void *found;
  OK(pma_root_find(heap, "root", 7, &found, &size));
  CHECK(found == root && size == 100);
  OK(pma_root_remove(heap, "root"));
}

/* A file system that gives no more, here for the limit on the size of files, is no broken disk: a cache evicts. */
static void a_full_file_system_is_told_apart(pma_heap *heap, pma_slot *slots, const char *folder) {
  pma_heap *second = NULL;
  struct stat now;
  struct rlimit before, tight;
  CHECK(stat(in(folder, "small"), &now) == 0 && getrlimit(RLIMIT_FSIZE, &before) == 0);
  tight = before;
  tight.rlim_cur = (rlim_t)now.st_size;
  CHECK(setrlimit(RLIMIT_FSIZE, &tight) == 0);
  int error = 0, at = 0;
  while (at < 8 && (error = pma_alloc_to(heap, &slots[at], 60000, 0)) == 0)
    at++;
  CHECK(error == PMA_E_FULL && errno == EFBIG);
  EXPECT(PMA_E_FULL, pma_create(in(folder, "second"), NULL, &second));
  CHECK(errno == EFBIG);
  CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
  OK(pma_alloc_to(heap, &slots[at], 60000, 0));
  for (; at >= 0; at--)
    OK(pma_free_from(heap, &slots[at]));
}

static void the_rest_is_checked(pma_heap *heap) {
  pma_counts counts = {0};
  pma_stats stats = {0};
  char text[8] = "untouch";
  size_t need = 0;
  EXPECT(PMA_E_INVAL, pma_counts_get(heap, NULL));
  counts.size = sizeof counts;
  EXPECT(PMA_E_MODEL, pma_counts_get(heap, &counts));
  EXPECT(PMA_E_INVAL, pma_stats_get(heap, &stats));
  EXPECT(PMA_E_LIMIT, pma_stats_json(heap, text, sizeof text, &need));
  CHECK(need > sizeof text && strcmp(text, "untouch") == 0);
  EXPECT(PMA_E_INVAL, pma_stats_json(heap, NULL, 8, &need));
  EXPECT(PMA_E_INVAL, pma_iter(heap, NULL, NULL));
  CHECK(pma_ptr(heap, 0) == NULL && pma_ptr(heap, UINT64_MAX) == NULL);
  CHECK(pma_offset(heap, text) == 0 && pma_offset(heap, NULL) == 0 && pma_offset(NULL, text) == 0);
  pma_unpin(heap);
  CHECK(strstr(pma_last_error(), "not pinned") != NULL);
  pma_flush(heap, text, sizeof text);
  CHECK(strstr(pma_last_error(), "outside the heap") != NULL);
  CHECK(strcmp(pma_strerror(PMA_E_FULL), pma_strerror(PMA_E_IO)) != 0 && pma_strerror(-5) != NULL);
}

int main(int argc, char **argv) {
  CHECK(argc == 2 && pma_version() == PMA_VERSION);
  options_are_checked(argv[1]);
  files_are_checked(argv[1]);
  paths_are_checked(argv[1]);
  pma_heap *heap;
  pma_options options;
  void *slots;
  pma_options_init(&options, sizeof options);
  options.capacity = 1 << 20;
  OK(pma_create(in(argv[1], "small"), &options, &heap));
  OK(pma_root(heap, "slots", 8 * sizeof(pma_slot), 0, &slots));
  slots_are_checked(heap, slots);
  slots_tell(heap, slots);
  publishes_are_checked(heap, slots);
  roots_are_checked(heap);
  a_full_file_system_is_told_apart(heap, slots, argv[1]);
  the_rest_is_checked(heap);
  /* An error changes nothing: the root is the one block. */
  pma_stats stats = {0};
  uint64_t problems = 1;
  stats.size = sizeof stats;
  OK(pma_stats_get(heap, &stats));
  OK(pma_check(heap, NULL, NULL, &problems));
  CHECK(stats.live_blocks == 1 && problems == 0);
  char lost[sizeof path];
  strcpy(lost, in(argv[1], "lost"));
  copy_of_another_boot(in(argv[1], "small"), lost);
  OK(pma_close(heap));
  EXPECT(PMA_E_POWER_LOSS, pma_open(lost, NULL, &heap));
  return 0;
}
