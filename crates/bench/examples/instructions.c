/* What `cargo xtask instructions` runs under callgrind of the C library: see instructions.rs, which does the same in Rust. */

#include <pmalloc.h>

#include <stdio.h>
#include <stdlib.h>

enum { SERIES = 512, LARGE = 64, WARM_UP = 8, PER_LINE = 8 };

struct series {
  pma_heap *heap;
  pma_slot *slots;
  size_t count, size;
};

static void must(int error)
{
  if (error != 0) {
    fprintf(stderr, "%s: %s\n", pma_strerror(error), pma_last_error());
    exit(1);
  }
}

static void alloc_all(const struct series *series)
{
  size_t at;
  for (at = 0; at < series->count; at++)
    must(pma_alloc_to(series->heap, &series->slots[at * PER_LINE], series->size, 8));
}

static void free_all(const struct series *series)
{
  size_t at;
  for (at = 0; at < series->count; at++)
    must(pma_free_from(series->heap, &series->slots[at * PER_LINE]));
}

/* What is counted: the tool knows this function by its name. */
__attribute__((noinline)) void measured(void (*work)(const struct series *), const struct series *series)
{
  work(series);
}

static void report(const char *name, void (*work)(const struct series *), const struct series *series)
{
  measured(work, series);
  printf("%s\t%d\n", name, (int)series->count);
}

static pma_slot *slots_of(pma_heap *heap, const char *name)
{
  void *slots;
  must(pma_root(heap, name, SERIES * PER_LINE * sizeof(pma_slot), 0, &slots));
  return slots;
}

int main(int argc, char **argv)
{
  pma_options options;
  pma_heap *heap;
  pma_slot *slots, *others;
  char path[4096];
  int round;
  if (argc != 2)
    return 2;
  snprintf(path, sizeof path, "%s/heap", argv[1]);
  pma_options_init(&options, sizeof options);
  options.capacity = (uint64_t)1 << 30;
  options.durability = PMA_D_POWERFAIL;
  options.flags = PMA_F_UNSAFE_FORCE;
  must(pma_create(path, &options, &heap));
  slots = slots_of(heap, "slots");
  others = slots_of(heap, "others");
  {
    struct series small = { heap, slots, SERIES, 64 }, stay = { heap, others, SERIES, 64 };
    struct series large = { heap, slots, LARGE, 64 << 10 };
    alloc_all(&stay);
    for (round = 0; round < WARM_UP; round++) {
      alloc_all(&small);
      free_all(&small);
    }
    report("pma_alloc_to 64 B", alloc_all, &small);
    report("pma_free_from 64 B", free_all, &small);
    for (round = 0; round < WARM_UP; round++) {
      alloc_all(&large);
      free_all(&large);
    }
    report("pma_alloc_to 64 KiB", alloc_all, &large);
    report("pma_free_from 64 KiB", free_all, &large);
  }
  must(pma_close(heap));
  return 0;
}
