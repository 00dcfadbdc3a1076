/*
 * Work that is killed: `work HEAP POLICY work SEED` changes slots from two threads until it is killed, `work HEAP POLICY
 * show` prints what is there. POLICY is a number of PMA_P_*.
 *
 * Each change is announced by a line `? slot item [slot item]` and confirmed by `! ..` when its call has returned: an item is
 * the number that the block in the slot is made of, 0 for an empty slot. Lines go to a pipe, which outlives the program.
 */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define THREADS 2
#define SLOTS 24 /* of each thread */

/* The root: slots, and for each a cell with its item, which publishes set together. */
struct board {
  pma_slot slots[THREADS * SLOTS];
  pma_slot cells[THREADS * SLOTS];
};

struct item {
  uint64_t number;
  unsigned char bytes[];
};

static pma_heap *heap;
static struct board *board;

/* Items are small, and now and then large enough for an extent of their own. */
static size_t size_of(uint64_t number) {
  return sizeof(struct item) + (number % 11 == 0 ? 20000 + number % 30000 : number % 700);
}

static unsigned char byte_of(uint64_t number, size_t at) { return (unsigned char)(number * 31 + at * 7 + (at >> 8)); }

static void write_item(void *block, void *arg) {
  struct item *item = block;
  item->number = *(uint64_t *)arg;
  size_t size = size_of(item->number) - sizeof *item;
  for (size_t at = 0; at < size; at++)
    item->bytes[at] = byte_of(item->number, at);
}

static uint64_t random_of(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

static void say(char what, int a, uint64_t in_a, int b, uint64_t in_b) {
  char line[128];
  int length = b < 0 ? snprintf(line, sizeof line, "%c %d %" PRIu64 "\n", what, a, in_a)
                     : snprintf(line, sizeof line, "%c %d %" PRIu64 " %d %" PRIu64 "\n", what, a, in_a, b, in_b);
  /* Less than a pipe takes in one piece. */
  CHECK(write(STDOUT_FILENO, line, (size_t)length) == length);
}

/* The item of a slot, after a look at all of it. */
static uint64_t item_in(int slot) {
  const struct item *item = pma_get(heap, &board->slots[slot]);
  uint64_t cell = board->cells[slot].raw & PMA_CELL_MAX;
  if (item == NULL) {
    CHECK(cell == 0);
    return 0;
  }
  size_t usable = 0, size = size_of(item->number);
  OK(pma_usable(heap, pma_offset(heap, item), &usable));
  CHECK(item->number != 0 && item->number == cell && size <= usable);
  for (size_t at = 0; at < size - sizeof *item; at++)
    CHECK(item->bytes[at] == byte_of(item->number, at));
  return item->number;
}

static pma_action set(int slot, uint64_t value) {
  pma_action action = {PMA_A_SET, 0, &board->cells[slot], NULL, 0, value};
  return action;
}

/* An item in a reserved block, by an action that gives it to a slot. */
static pma_action put(int slot, uint64_t number) {
  pma_action action = {PMA_A_ALLOC, 0, &board->slots[slot], NULL, 0, 0};
  OK(pma_reserve(heap, size_of(number), 0, &action.block));
  write_item(pma_ptr(heap, action.block), &number);
  return action;
}

/* One change of slot `a`, or of `a` and `b`, by a publish. */
static void change(int a, int b, uint64_t number) {
  pma_action take = {PMA_A_FREE, 0, &board->slots[a], NULL, 0, 0};
  pma_action move = {PMA_A_MOVE, 0, &board->slots[b], &board->slots[a], 0, 0};
  uint64_t in_a = item_in(a), in_b = item_in(b);
  pma_off unused;
  OK(pma_reserve(heap, 50, 0, &unused));
  if (in_a == 0) {
    say('?', a, number, -1, 0);
    pma_action actions[] = {put(a, number), set(a, number)};
    OK(pma_publish(heap, actions, 2));
    say('!', a, number, -1, 0);
  } else if (in_b == 0 && number % 3 != 0) {
    say('?', a, 0, b, in_a);
    pma_action actions[] = {move, set(b, in_a), set(a, 0)};
    OK(pma_publish(heap, actions, 3));
    say('!', a, 0, b, in_a);
  } else if (number % 2 != 0) {
    say('?', a, number, -1, 0);
    pma_action actions[] = {take, put(a, number), set(a, number)};
    OK(pma_publish(heap, actions, 3));
    say('!', a, number, -1, 0);
  } else {
    say('?', a, 0, -1, 0);
    pma_action actions[] = {take, set(a, 0)};
    OK(pma_publish(heap, actions, 2));
    say('!', a, 0, -1, 0);
  }
  OK(pma_cancel(heap, unused));
}

static uint64_t seed;

/* Changes the thread's own slots without end. */
static void *work(void *arg) {
  int first = *(int *)arg * SLOTS;
  uint64_t state = seed + (uint64_t)first * 0x9E3779B97F4A7C15u + 1;
  for (;;) {
    int a = first + (int)(random_of(&state) % SLOTS);
    int b = first + (int)(random_of(&state) % SLOTS);
    if (a != b)
      change(a, b, random_of(&state) % 1000000 + 1);
  }
  return NULL;
}

static int count(pma_off block, size_t usable, uint8_t tag, void *arg) {
  (void)block, (void)usable, (void)tag;
  return ++*(int *)arg, 0;
}

static void show(void) {
  int blocks = 0, expected = 1; /* the root */
  uint64_t problems = 1;
  for (int slot = 0; slot < THREADS * SLOTS; slot++) {
    uint64_t number = item_in(slot);
    expected += number != 0;
    printf("%d %" PRIu64 "\n", slot, number);
  }
  OK(pma_iter(heap, count, &blocks));
  OK(pma_check(heap, NULL, NULL, &problems));
  CHECK(blocks == expected && problems == 0);
}

int main(int argc, char **argv) {
  void *root;
  CHECK(argc >= 4);
  pma_options options;
  pma_options_init(&options, sizeof options);
  options.policy = (uint32_t)atoi(argv[2]);
  int error = pma_create(argv[1], &options, &heap);
  OK(error == PMA_E_EXISTS ? pma_open(argv[1], &options, &heap) : error);
  CHECK(options.policy == PMA_P_AUTO || pma_policy(heap) == options.policy);
  OK(pma_root(heap, "board", sizeof *board, 1, &root));
  board = root;
  if (strcmp(argv[3], "show") == 0) {
    show();
    OK(pma_close(heap));
    return 0;
  }
  CHECK(argc == 5 && strcmp(argv[3], "work") == 0);
  seed = strtoull(argv[4], NULL, 10);
  int numbers[THREADS];
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) {
    numbers[i] = i;
    CHECK(pthread_create(&threads[i], NULL, work, &numbers[i]) == 0);
  }
  CHECK(pthread_join(threads[0], NULL) == 0);
  return 1;
}
