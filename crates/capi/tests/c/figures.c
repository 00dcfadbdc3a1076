/* What a heap counts and shows: `figures FOLDER POLICY`. Prints pma_stats as lines, and then the same as JSON. */
#include "check.h"

#include <inttypes.h>
#include <string.h>

struct seen {
  uint64_t blocks, bytes;
  unsigned stop_after;
};

static int see(pma_off block, size_t usable, uint8_t tag, void *arg) {
  struct seen *seen = arg;
  CHECK(block != 0 && tag == 0);
  seen->blocks++;
  seen->bytes += usable;
  return seen->blocks == seen->stop_after;
}

static void costs(pma_heap *heap, pma_slot *slots) {
  pma_counts before = {0}, after = {0};
  before.size = after.size = sizeof before;
  OK(pma_alloc_to(heap, &slots[0], 64, 0));
  OK(pma_counts_get(heap, &before));
  OK(pma_alloc_to(heap, &slots[8], 64, 0));
  OK(pma_counts_get(heap, &after));
  int batched = pma_policy(heap) == PMA_P_BATCHED;
  CHECK(after.flushes - before.flushes == (batched ? 1 : 4) && after.fences - before.fences == (batched ? 1 : 3));
  CHECK(after.bytes > before.bytes);
  /* The program's own flushes are counted with them: a line, and the same line at once again. */
  uint64_t *word = pma_get(heap, &slots[8]);
  CHECK(word != NULL);
  *word = 7;
  pma_persist(heap, word, sizeof *word);
  OK(pma_counts_get(heap, &before));
  pma_flush(heap, word, sizeof *word);
  pma_fence(heap);
  OK(pma_counts_get(heap, &after));
  CHECK(after.flushes - before.flushes == 1 && after.fences - before.fences == 1);
  CHECK(after.reflush[0] - before.reflush[0] == 1);
}

static void blocks(pma_heap *heap, const pma_stats *stats) {
  struct seen all = {0, 0, 0}, one = {0, 0, 1};
  OK(pma_iter(heap, see, &all));
  CHECK(all.blocks == stats->live_blocks && all.bytes == stats->live_bytes);
  OK(pma_iter(heap, see, &one));
  CHECK(one.blocks == 1);
}

int main(int argc, char **argv) {
  char path[4096];
  pma_heap *heap;
  pma_options options;
  pma_counts counts = {0};
  void *root;
  CHECK(argc == 3 && snprintf(path, sizeof path, "%s/heap", argv[1]) > 0);
  pma_options_init(&options, sizeof options);
  options.flags = PMA_F_COUNT | PMA_F_UNSAFE_FORCE;
  options.durability = PMA_D_POWERFAIL;
  options.initial = 1 << 20;
  options.policy = (uint32_t)atoi(argv[2]);
  OK(pma_create(path, &options, &heap));
  counts.size = sizeof counts;
  OK(pma_counts_get(heap, &counts));
  CHECK(counts.flushes == 0 && counts.fences == 0);
  OK(pma_root(heap, "slots", 16 * sizeof(pma_slot), 0, &root));
  pma_slot *slots = root;
  costs(heap, slots);

  struct {
    pma_stats known;
    uint64_t unknown;
  } stats = {{0}, 7};
  stats.known.size = sizeof stats;
  OK(pma_stats_get(heap, &stats.known));
  /* A program that knows more than the library finds out. */
  CHECK(stats.known.size == sizeof stats.known && stats.unknown == 7);
  CHECK(stats.known.live_blocks == 3 && stats.known.heap_bytes >= options.initial);
  blocks(heap, &stats.known);

  size_t need = 0;
  OK(pma_stats_json(heap, NULL, 0, &need));
  char *text = malloc(need);
  CHECK(text != NULL);
  OK(pma_stats_json(heap, text, need, &need));
  CHECK(strlen(text) + 1 == need);
#define SHOW(member) printf(#member " %" PRIu64 "\n", stats.known.member)
  SHOW(live_blocks), SHOW(live_bytes), SHOW(heap_bytes), SHOW(peak_heap_bytes), SHOW(free_bytes);
  SHOW(largest_free), SHOW(dram_bytes), SHOW(recovery_ns), SHOW(replayed);
  printf("policy %" PRIu32 "\n", pma_policy(heap));
  printf("json %s\n", text);
  free(text);
  uint64_t freed = 0;
  OK(pma_free_from(heap, &slots[0]));
  OK(pma_alloc_to(heap, &slots[0], 300000, 0));
  OK(pma_free_from(heap, &slots[0]));
  OK(pma_trim(heap, &freed));
  CHECK(freed >= 300000);
  OK(pma_sync(heap));
  OK(pma_close(heap));
  return 0;
}
