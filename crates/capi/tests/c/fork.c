/* A forked child is refused by every call, and does its parent's heap no harm: `fork FOLDER`. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define REFUSED(call) EXPECT(PMA_E_FORKED, call)

static void nothing(void *block, void *arg) { (void)block, (void)arg; }
static int no_block(pma_off block, size_t usable, uint8_t tag, void *arg) {
  return (void)block, (void)usable, (void)tag, (void)arg, 0;
}

static void child(pma_heap *heap, pma_slot *slots, pma_off reserved) {
  pma_action action = {PMA_A_ALLOC, 0, &slots[2], NULL, reserved, 0};
  pma_off block;
  size_t size;
  void *root;
  pma_stats stats = {0};
  stats.size = sizeof stats;
  REFUSED(pma_sync(heap));
  REFUSED(pma_trim(heap, NULL));
  REFUSED(pma_alloc_to(heap, &slots[1], 100, 0));
  REFUSED(pma_alloc_init(heap, &slots[1], 100, 0, nothing, NULL));
  REFUSED(pma_alloc_copy(heap, &slots[1], "", 1, 0));
  REFUSED(pma_free_from(heap, &slots[0]));
  REFUSED(pma_replace(heap, &slots[0], "", 1, 0));
  REFUSED(pma_move(heap, &slots[1], &slots[0]));
  REFUSED(pma_swap(heap, &slots[1], &slots[0]));
  REFUSED(pma_alloc(heap, 100, 0, &block));
  REFUSED(pma_free(heap, reserved));
  REFUSED(pma_reserve(heap, 100, 0, &block));
  REFUSED(pma_cancel(heap, reserved));
  REFUSED(pma_publish(heap, &action, 1));
  REFUSED(pma_usable(heap, reserved, &size));
  REFUSED(pma_root(heap, "slots", 4 * sizeof(pma_slot), 0, &root));
  REFUSED(pma_root_find(heap, "slots", 0, &root, &size));
  REFUSED(pma_root_remove(heap, "slots"));
  REFUSED(pma_iter(heap, no_block, NULL));
  REFUSED(pma_check(heap, NULL, NULL, NULL));
  REFUSED(pma_stats_get(heap, &stats));
  REFUSED(pma_stats_json(heap, NULL, 0, &size));
  REFUSED(pma_alloc_tagged(heap, &slots[1], 100, 0, 1, NULL));
  REFUSED(pma_reserve_tagged(heap, 100, 0, 1, &block));
  REFUSED(pma_declare(heap, PMA_S_TAG, 0, NULL, 0));
  REFUSED(pma_orphans(heap, no_block, NULL));
  REFUSED(pma_adopt(heap, reserved, &slots[1]));
  REFUSED(pma_free_orphan(heap, reserved));
  REFUSED(pma_free_orphans(heap, 0, NULL));
  REFUSED(pma_zalloc_to(heap, &slots[1], 100, 0));
  root = NULL;
  REFUSED(pma_get_checked(heap, &slots[0], &root));
  CHECK(root == NULL && pma_get(heap, &slots[0]) == NULL && pma_slot_is_empty(heap, &slots[1]) == 0);
  CHECK(pma_policy(heap) == 0);
  CHECK(pma_ptr(heap, reserved) == NULL && pma_offset(heap, slots) == 0);
  pma_pin(heap);
  pma_unpin(heap);
  pma_persist(heap, slots, 8);
  pma_thread_release(heap);
  CHECK(strstr(pma_last_error(), "fork") != NULL);
  /* It lets go of the file, and of nothing else. */
  OK(pma_close(heap));
}

int main(int argc, char **argv) {
  char path[4096];
  pma_heap *heap;
  void *root;
  pma_off reserved;
  int status = -1;
  CHECK(argc == 2 && snprintf(path, sizeof path, "%s/heap", argv[1]) > 0);
  OK(pma_create(path, NULL, &heap));
  OK(pma_root(heap, "slots", 4 * sizeof(pma_slot), 0, &root));
  pma_slot *slots = root;
  OK(pma_alloc_copy(heap, &slots[0], "mine", 5, 0));
  OK(pma_reserve(heap, 100, 0, &reserved));
  pma_pin(heap);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    child(heap, slots, reserved);
    /* With all that a thread does when it ends: its pin was made by the parent. */
    exit(0);
  }
  CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  pid = fork();
  CHECK(pid >= 0);
  if (pid == 0)
    exit(0); /* also without a pma_close */
  CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  /* The parent's pin and reservation are there as before, and so is its heap. */
  pma_unpin(heap);
  CHECK(strcmp(pma_last_error(), "") == 0);
  pma_action action = {PMA_A_ALLOC, 0, &slots[2], NULL, reserved, 0};
  OK(pma_publish(heap, &action, 1));
  CHECK(strcmp(pma_get(heap, &slots[0]), "mine") == 0);
  OK(pma_close(heap));
  OK(pma_open(path, NULL, &heap));
  OK(pma_root(heap, "slots", 4 * sizeof(pma_slot), 0, &root));
  slots = root;
  CHECK(pma_get(heap, &slots[0]) != NULL && pma_get(heap, &slots[1]) == NULL && pma_get(heap, &slots[2]) != NULL);
  OK(pma_close(heap));
  return 0;
}
