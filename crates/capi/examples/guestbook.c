/*
 * A guest book that survives kill -9: a linked list in a heap, changed by publishes.
 *
 *   guestbook HEAP sign TEXT    adds an entry
 *   guestbook HEAP read         prints title and entries, the last one first
 *   guestbook HEAP tear         removes the last entry
 *   guestbook HEAP title TEXT   gives the book a title
 */
#include <pmalloc.h>

#include <stdio.h>
#include <string.h>

/* What the heap is found by. Created zeroed: all slots empty, no entries. */
struct book {
  pma_slot title;
  pma_slot last;  /* the last entry */
  pma_slot count; /* a cell, and no slot: the number of entries */
};

struct entry {
  pma_slot before; /* the entry before this one */
  char text[];
};

static int failed(int error, const char *doing) {
  if (error != 0)
    fprintf(stderr, "guestbook: %s: %s\n", doing, pma_last_error());
  return error != 0;
}

static uint64_t entries(const struct book *book) { return book->count.raw & PMA_CELL_MAX; }

static int sign(pma_heap *heap, struct book *book, const char *text) {
  size_t length = strlen(text) + 1;
  pma_off block;
  if (failed(pma_reserve(heap, sizeof(struct entry) + length, 0, &block), "reserve"))
    return 1;
  /* Nobody sees the entry yet, and a crash would give its memory back. */
  struct entry *entry = pma_ptr(heap, block);
  memset(entry, 0, sizeof *entry);
  memcpy(entry->text, text, length);
  /* Now it is in the list and counted, or neither. */
  pma_action actions[] = {
      {PMA_A_SET, 0, &book->count, NULL, 0, entries(book) + 1},
      {PMA_A_MOVE, 0, &entry->before, &book->last, 0, 0},
      {PMA_A_ALLOC, 0, &book->last, NULL, block, 0},
  };
  /* The first entry has none before it: a move of nothing would be an error. */
  if (pma_get(heap, &book->last) == NULL) {
    actions[1] = actions[2];
    return failed(pma_publish(heap, actions, 2), "sign");
  }
  return failed(pma_publish(heap, actions, 3), "sign");
}

static int tear(pma_heap *heap, struct book *book) {
  struct entry *entry = pma_get(heap, &book->last);
  if (entry == NULL) {
    fprintf(stderr, "guestbook: tear: there are no entries\n");
    return 1;
  }
  pma_action actions[] = {
      {PMA_A_SET, 0, &book->count, NULL, 0, entries(book) - 1},
      {PMA_A_FREE, 0, &book->last, NULL, 0, 0},
      {PMA_A_MOVE, 0, &book->last, &entry->before, 0, 0},
  };
  size_t n = pma_get(heap, &entry->before) == NULL ? 2 : 3;
  return failed(pma_publish(heap, actions, n), "tear");
}

static int title(pma_heap *heap, struct book *book, const char *text) {
  size_t length = strlen(text) + 1;
  if (pma_get(heap, &book->title) == NULL)
    return failed(pma_alloc_copy(heap, &book->title, text, length, 0), "title");
  return failed(pma_replace(heap, &book->title, text, length, 0), "title");
}

static int print(pma_heap *heap, struct book *book) {
  const char *name = pma_get(heap, &book->title);
  printf("%s: %llu\n", name != NULL ? name : "untitled", (unsigned long long)entries(book));
  for (struct entry *entry = pma_get(heap, &book->last); entry != NULL; entry = pma_get(heap, &entry->before))
    printf("- %s\n", entry->text);
  return 0;
}

static int run(pma_heap *heap, int argc, char **argv) {
  void *root;
  if (failed(pma_root(heap, "book", sizeof(struct book), 1, &root), "root"))
    return 1;
  if (argc == 4 && strcmp(argv[2], "sign") == 0)
    return sign(heap, root, argv[3]);
  if (argc == 4 && strcmp(argv[2], "title") == 0)
    return title(heap, root, argv[3]);
  if (argc == 3 && strcmp(argv[2], "tear") == 0)
    return tear(heap, root);
  if (argc == 3 && strcmp(argv[2], "read") == 0)
    return print(heap, root);
  fprintf(stderr, "usage: guestbook HEAP sign TEXT | read | tear | title TEXT\n");
  return 2;
}

int main(int argc, char **argv) {
  pma_heap *heap;
  pma_options options;
  pma_options_init(&options, sizeof options);
  options.layout = "guestbook-1";
  const char *path = argc > 1 ? argv[1] : "guestbook.heap";
  int error = pma_create(path, &options, &heap);
  if (error == PMA_E_EXISTS)
    error = pma_open(path, &options, &heap);
  if (failed(error, "open"))
    return 1;
  int status = run(heap, argc, argv);
  return failed(pma_close(heap), "close") ? 1 : status;
}
