/*
 * Slots in bytes, as the program has declared them: the check finds what is wrong with them, and blocks that nothing owns
 * are adopted or freed: `owners FOLDER`. Leaves a heap behind with a dangling slot and an orphan, and prints its path.
 */
#include "check.h"

#include <string.h>

enum { LIST = 1, TABLE = 2, NODE = 10, LEAF = 11 };

struct node {
  uint64_t key;
  pma_slot next, leaf;
};

static pma_heap *heap;
static char said[4096];

static void tell(const char *problem, void *arg) {
  (void)arg;
  size_t length = strlen(said);
  snprintf(said + length, sizeof said - length, "%s\n", problem);
}

static uint64_t problems(void) {
  uint64_t count = UINT64_MAX;
  said[0] = '\0';
  OK(pma_check(heap, tell, NULL, &count));
  return count;
}

static int note(pma_off block, size_t usable, uint8_t tag, void *arg) {
  pma_off *found = arg;
  CHECK(usable > 0 && (tag == NODE || tag == LEAF || tag == 0));
  found[++found[0]] = block;
  return found[0] == 7;
}

/* The orphans, behind their number. */
static const pma_off *orphans(void) {
  static pma_off found[8];
  memset(found, 0, sizeof found);
  OK(pma_orphans(heap, note, found));
  return found;
}

static struct node *push(pma_slot *head, uint64_t key) {
  pma_off block;
  OK(pma_reserve_tagged(heap, sizeof(struct node), 0, NODE, &block));
  struct node *node = pma_ptr(heap, block);
  memset(node, 0, sizeof *node);
  node->key = key;
  pma_action actions[] = {{PMA_A_MOVE, 0, &node->next, head, 0, 0}, {PMA_A_ALLOC, 0, head, NULL, block, 0}};
  if (pma_slot_is_empty(heap, head) == 1)
    OK(pma_publish(heap, &actions[1], 1));
  else
    OK(pma_publish(heap, actions, 2));
  return node;
}

static void declarations_are_checked(void) {
  pma_run run = {4, 8, 1, PMA_R_SLOTS, 0}, two[] = {{0, 24, 5, PMA_R_SLOTS, 0}, {16, 16, 0, PMA_R_SLOTS, 0}};
  EXPECT(PMA_E_INVAL, pma_declare(heap, PMA_S_TAG, NODE, &run, 1));
  run.offset = 8, run.stride = 12;
  EXPECT(PMA_E_INVAL, pma_declare(heap, PMA_S_TAG, NODE, &run, 1));
  run.stride = 8, run.kind = 2;
  EXPECT(PMA_E_INVAL, pma_declare(heap, PMA_S_TAG, NODE, &run, 1));
  run.kind = PMA_R_SLOTS, run.zero = 1;
  EXPECT(PMA_E_INVAL, pma_declare(heap, PMA_S_TAG, NODE, &run, 1));
  run.zero = 0;
  EXPECT(PMA_E_INVAL, pma_declare(heap, PMA_S_TAG, 256, &run, 1));
  EXPECT(PMA_E_INVAL, pma_declare(heap, 3, 0, &run, 1));
  EXPECT(PMA_E_INVAL, pma_declare(heap, PMA_S_TAG, NODE, NULL, 1));
  EXPECT(PMA_E_LIMIT, pma_declare(heap, PMA_S_TAG, NODE, &run, 1 << 16));
  /* 48 is the third of the one and the third of the other. */
  EXPECT(PMA_E_INVAL, pma_declare(heap, PMA_S_TAG, NODE, two, 2));
  CHECK(strstr(pma_last_error(), "overlap") != NULL);
  run.offset = 800, run.count = 1;
  EXPECT(PMA_E_INVAL, pma_declare(heap, PMA_S_ROOT, LIST, &run, 1));
  CHECK(strstr(pma_last_error(), "\"list\"") != NULL);
}

static void declare(void) {
  pma_run node[] = {{offsetof(struct node, next), 0, 1, PMA_R_SLOTS, 0}, {offsetof(struct node, leaf), 0, 1, PMA_R_SLOTS, 0}};
  pma_run slots = {0, 8, 0, PMA_R_SLOTS, 0}, words = {0, 8, 0, PMA_R_MAYBE, 0};
  /* The last one counts. */
  OK(pma_declare(heap, PMA_S_TAG, NODE, &words, 1));
  OK(pma_declare(heap, PMA_S_TAG, NODE, node, 2));
  OK(pma_declare(heap, PMA_S_TAG, LEAF, NULL, 0));
  OK(pma_declare(heap, PMA_S_ROOT, LIST, &slots, 1));
  OK(pma_declare(heap, PMA_S_ROOT, TABLE, &words, 1));
}

static void orphans_come_back(pma_slot *list, pma_slot *table) {
  for (uint64_t key = 0; key < 5; key++)
    OK(pma_alloc_tagged(heap, &push(&list[0], key)->leaf, 100, 0, LEAF, NULL));
  OK(pma_alloc_tagged(heap, &table[3], 100, 0, LEAF, NULL));
  CHECK(problems() == 0 && orphans()[0] == 0);
  struct node *first = pma_get(heap, &list[0]);
  pma_off next = pma_offset(heap, pma_get(heap, &first->next)), leaf = pma_offset(heap, pma_get(heap, &first->leaf));
  EXPECT(PMA_E_IN_USE, pma_adopt(heap, next, &list[1]));
  EXPECT(PMA_E_IN_USE, pma_free_orphan(heap, leaf));
  EXPECT(PMA_E_IN_USE, pma_free_orphan(heap, pma_offset(heap, pma_get(heap, &table[3]))));
  EXPECT(PMA_E_IN_USE, pma_free_orphan(heap, pma_offset(heap, list)));
  /* The first node goes, and leaves the others and its leaf without an owner. */
  OK(pma_free_from(heap, &list[0]));
  CHECK(problems() == 0 && orphans()[0] == 2);
  pma_pin(heap);
  EXPECT(PMA_E_IN_USE, pma_adopt(heap, next, &list[0]));
  CHECK(strstr(pma_last_error(), "pinned") != NULL);
  pma_unpin(heap);
  EXPECT(PMA_E_NOT_LIVE, pma_adopt(heap, next + 16, &list[0]));
  EXPECT(PMA_E_NOT_LIVE, pma_adopt(heap, pma_offset(heap, first), &list[0]));
  OK(pma_adopt(heap, next, &list[0]));
  CHECK(orphans()[0] == 1 && orphans()[1] == leaf);
  EXPECT(PMA_E_SLOT_FULL, pma_adopt(heap, leaf, &list[0]));
  EXPECT(PMA_E_SLOT_FOREIGN, pma_adopt(heap, leaf, (pma_slot *)(void *)said));
  OK(pma_free_orphan(heap, leaf));
  EXPECT(PMA_E_NOT_LIVE, pma_free_orphan(heap, leaf));
  CHECK(problems() == 0 && orphans()[0] == 0);
  /* Now all nodes, of which each owns the next; then the leaves. */
  struct node *second = pma_get(heap, &list[0]);
  CHECK(second->key == 3);
  OK(pma_free_from(heap, &list[0]));
  uint64_t freed = 0;
  OK(pma_free_orphans(heap, NODE, &freed));
  CHECK(freed == 3 && orphans()[0] == 4);
  OK(pma_free_orphans(heap, NODE, &freed));
  CHECK(freed == 0);
  OK(pma_free_orphans(heap, LEAF, &freed));
  CHECK(freed == 4 && problems() == 0 && orphans()[0] == 0);
}

/* A copy of a full slot; its block is freed. */
static void damage_is_found(pma_slot *list) {
  OK(pma_alloc_copy(heap, &list[1], "x", 2, 0));
  list[2] = list[1];
  CHECK(problems() == 1 && strncmp(said, "shared-block", 12) == 0);
  OK(pma_free_from(heap, &list[1]));
  CHECK(problems() == 1 && strncmp(said, "dangling", 8) == 0);
  list[2].raw = 0;
  CHECK(problems() == 0);
  OK(pma_alloc_tagged(heap, &list[1], 8, 0, NODE, NULL));
  CHECK(problems() == 1 && strncmp(said, "misdeclared", 11) == 0);
  OK(pma_free_from(heap, &list[1]));
}

int main(int argc, char **argv) {
  char path[4096];
  void *root;
  CHECK(argc == 2 && snprintf(path, sizeof path, "%s/owners", argv[1]) > 0);
  OK(pma_create(path, NULL, &heap));
  OK(pma_root(heap, "list", 8 * sizeof(pma_slot), LIST, &root));
  pma_slot *list = root;
  OK(pma_root(heap, "table", 100 * sizeof(pma_slot), TABLE, &root));
  pma_slot *table = root;
  EXPECT(PMA_E_INVAL, pma_root(heap, "pmalloc:slots", 16, 0, &root));
  /* Before anything is declared, a block that a word names may be owned; one that none names is not. */
  push(&list[0], 0);
  OK(pma_alloc_tagged(heap, &list[1], sizeof(pma_slot), 0, NODE, NULL));
  OK(pma_alloc_tagged(heap, pma_get(heap, &list[1]), 100, 0, LEAF, NULL));
  CHECK(problems() == 0 && orphans()[0] == 0);
  pma_off leaf = pma_offset(heap, pma_get(heap, pma_get(heap, &list[1])));
  EXPECT(PMA_E_IN_USE, pma_free_orphan(heap, leaf));
  CHECK(strstr(pma_last_error(), "declare") != NULL);
  OK(pma_free_from(heap, &list[1]));
  CHECK(orphans()[0] == 1 && orphans()[1] == leaf);
  OK(pma_free_orphan(heap, leaf));
  OK(pma_free_from(heap, &list[0]));
  declarations_are_checked();
  declare();
  for (int round = 0; round < 2; round++) {
    orphans_come_back(list, table);
    damage_is_found(list);
    OK(pma_free_from(heap, &table[3]));
    /* All of it is durable. */
    OK(pma_close(heap));
    OK(pma_open(path, NULL, &heap));
    OK(pma_root(heap, "list", 8 * sizeof(pma_slot), LIST, &root));
    list = root;
    OK(pma_root(heap, "table", 100 * sizeof(pma_slot), TABLE, &root));
    table = root;
  }
  OK(pma_alloc_tagged(heap, &push(&list[0], 1)->leaf, 100, 0, LEAF, NULL));
  OK(pma_free_from(heap, &list[0]));
  OK(pma_alloc_to(heap, &list[1], 100, 0));
  list[2] = list[1];
  OK(pma_free_from(heap, &list[1]));
  OK(pma_close(heap));
  puts(path);
  return 0;
}
