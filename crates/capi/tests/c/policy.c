/* The policy of a heap: asked for, kept, and changed, with blocks in it and after a crash: `policy FOLDER`. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOTS 400

static const uint32_t policies[] = {PMA_P_EAGER, PMA_P_BATCHED};
static char path[4096];
static pma_options options;

/* Opens the heap with the policy that is asked for, and sees that it has the expected one. */
static pma_heap *open_with(uint32_t asked, uint32_t expected) {
  pma_heap *heap = NULL;
  options.policy = asked;
  OK(pma_open(path, &options, &heap));
  CHECK(pma_policy(heap) == expected);
  return heap;
}

static pma_slot *slots_of(pma_heap *heap) {
  void *root = NULL;
  OK(pma_root(heap, "slots", SLOTS * sizeof(pma_slot), 0, &root));
  return root;
}

/* So many slots own a block with their number; the heap is whole. */
static void expect_blocks(pma_heap *heap, int blocks) {
  pma_slot *slots = slots_of(heap);
  uint64_t problems = 1;
  for (int at = 0; at < SLOTS; at++) {
    const int *found = pma_get(heap, &slots[at]);
    CHECK(at < blocks ? found != NULL && *found == at : found == NULL);
  }
  OK(pma_check(heap, NULL, NULL, &problems));
  CHECK(problems == 0);
}

/* Small blocks, and now and then a large one: more than one round of a synchronizer makes durable. */
static void add_blocks(pma_heap *heap, int from, int to) {
  pma_slot *slots = slots_of(heap);
  for (int at = from; at < to; at++) {
    OK(pma_zalloc_to(heap, &slots[at], at % 20 == 0 ? 20000 : 100, 0));
    OK(pma_replace(heap, &slots[at], &at, sizeof at, 0));
  }
}

/* As by a program that dies without closing its heap. */
static void add_blocks_and_die(uint32_t asked, uint32_t expected, int from, int to) {
  int status = -1;
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    add_blocks(open_with(asked, expected), from, to);
    _exit(0);
  }
  CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

/* Flushes and fences of an allocation and of a free, in steady state. */
static void costs(pma_heap *heap, uint64_t flushes, uint64_t fences) {
  pma_slot *slots = slots_of(heap);
  pma_counts before = {0}, after = {0};
  before.size = after.size = sizeof before;
  OK(pma_alloc_to(heap, &slots[SLOTS - 1], 64, 0));
  for (int at = 9; at < 26; at += 16) {
    OK(pma_counts_get(heap, &before));
    OK(pma_alloc_to(heap, &slots[SLOTS - at], 64, 0));
    OK(pma_counts_get(heap, &after));
    CHECK(after.flushes - before.flushes == flushes && after.fences - before.fences == fences);
  }
  for (int at = 9; at < 26; at += 16) {
    OK(pma_counts_get(heap, &before));
    OK(pma_free_from(heap, &slots[SLOTS - at]));
    OK(pma_counts_get(heap, &after));
    CHECK(after.flushes - before.flushes == flushes && after.fences - before.fences == fences);
  }
  OK(pma_free_from(heap, &slots[SLOTS - 1]));
}

/* With a thread of its own a heap is what it is without, until it is closed. */
static void life_with_a_thread(void) {
  pma_heap *heap = NULL;
  options.policy = PMA_P_BATCHED;
  options.flags |= PMA_F_BACKGROUND;
  OK(pma_create(path, &options, &heap));
  pma_slot *slots = slots_of(heap);
  for (int round = 0; round < 5; round++) {
    add_blocks(heap, 0, SLOTS);
    for (int at = 0; at < SLOTS; at++)
      OK(pma_free_from(heap, &slots[at]));
  }
  add_blocks(heap, 0, 100);
  OK(pma_close(heap));
  add_blocks_and_die(PMA_P_AUTO, PMA_P_BATCHED, 100, SLOTS);
  heap = open_with(PMA_P_AUTO, PMA_P_BATCHED);
  expect_blocks(heap, SLOTS);
  OK(pma_close(heap));
  /* There is nothing for it to do under the other policy. */
  heap = open_with(PMA_P_EAGER, PMA_P_EAGER);
  expect_blocks(heap, SLOTS);
  OK(pma_close(heap));
  CHECK(unlink(path) == 0);
}

static void life_of_a_heap(uint32_t first, uint32_t second) {
  pma_heap *heap = NULL;
  options.policy = first;
  OK(pma_create(path, &options, &heap));
  CHECK(pma_policy(heap) == first);
  costs(heap, first == PMA_P_BATCHED ? 1 : 4, first == PMA_P_BATCHED ? 1 : 3);
  add_blocks(heap, 0, 60);
  OK(pma_close(heap));
  /* It stays until another one is asked for. */
  heap = open_with(PMA_P_AUTO, first);
  expect_blocks(heap, 60);
  OK(pma_close(heap));
  heap = open_with(second, second);
  expect_blocks(heap, 60);
  costs(heap, second == PMA_P_BATCHED ? 1 : 4, second == PMA_P_BATCHED ? 1 : 3);
  add_blocks(heap, 60, 100);
  OK(pma_close(heap));
  heap = open_with(PMA_P_AUTO, second);
  expect_blocks(heap, 100);
  OK(pma_close(heap));
  /* What a crash leaves is recovered by the policy that wrote it, whichever comes next. */
  add_blocks_and_die(PMA_P_AUTO, second, 100, 200);
  add_blocks_and_die(first, first, 200, 300);
  add_blocks_and_die(first, first, 300, 301);
  add_blocks_and_die(second, second, 301, 301);
  heap = open_with(PMA_P_AUTO, second);
  expect_blocks(heap, 301);
  OK(pma_sync(heap));
  OK(pma_close(heap));
  CHECK(unlink(path) == 0);
}

int main(int argc, char **argv) {
  pma_heap *heap = NULL;
  CHECK(argc == 2 && snprintf(path, sizeof path, "%s/heap", argv[1]) > 0);
  OK(pma_create(path, NULL, &heap));
  uint32_t chosen = pma_policy(heap);
  CHECK(chosen == PMA_P_EAGER || chosen == PMA_P_BATCHED);
  OK(pma_close(heap));
  pma_options_init(&options, sizeof options);
  options.policy = 3;
  EXPECT(PMA_E_INVAL, pma_open(path, &options, &heap));
  CHECK(strstr(pma_last_error(), "policy") != NULL);
  OK(pma_open(path, NULL, &heap));
  CHECK(pma_policy(heap) == chosen);
  OK(pma_close(heap));
  CHECK(unlink(path) == 0);
  CHECK(pma_policy(NULL) == 0 && strlen(pma_last_error()) > 0);
  options.flags = PMA_F_COUNT | PMA_F_UNSAFE_FORCE;
  options.durability = PMA_D_POWERFAIL;
  options.capacity = 64 << 20;
  for (int at = 0; at < 2; at++)
    life_of_a_heap(policies[at], policies[1 - at]);
  life_with_a_thread();
  return 0;
}
