/*
 * pmalloc.h: a persistent heap for C and C++.
 *
 * A heap is a file that the program maps and allocates in. After a crash at any instruction it opens again: every call
 * that had returned is there, every one that had not is there wholly or not at all. docs/c.md of the repository is a
 * guide; this file is the reference.
 *
 * For all functions:
 * - An int result is 0 or one of PMA_E_*, but where something else is said. An error changes nothing. pma_last_error() says
 *   in a sentence what went wrong. PMA_E_IO leaves the system's reason in errno; so does PMA_E_FULL (ENOSPC, EDQUOT,
 *   EFBIG), with ENOMEM for a heap that has reached its capacity.
 * - A NULL where nothing else is said is PMA_E_INVAL. Pointers that are not NULL must be valid for what they point to;
 *   a pointer to a slot may be any address: one that is no slot of the heap is PMA_E_SLOT_FOREIGN.
 * - All may be called from any thread at any time, but pma_close, which must be the last call on its heap. None may be
 *   called from a signal handler. A forked child gets PMA_E_FORKED (or NULL, or 0) from a heap that its parent opened.
 * - A function that the program passes in returns normally: it does not longjmp out, throw, or end its thread.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef PMALLOC_H
#define PMALLOC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Version of this header: major << 16 | minor << 8 | patch. pma_version() is that of the library. */
#define PMA_VERSION 0x000100

/* Errors. The numbers never change. */
#define PMA_E_INVAL 1        /* an argument that no heap accepts */
#define PMA_E_FULL 2         /* no room left in the heap or its file system: free blocks, and try again */
#define PMA_E_NOT_LIVE 3     /* not a live or reserved block, or no root of this name */
#define PMA_E_SLOT_FULL 4    /* the slot owns a block already */
#define PMA_E_SLOT_EMPTY 5   /* the slot owns no block */
#define PMA_E_SLOT_FOREIGN 6 /* the slot or cell lies in no live block of this heap */
#define PMA_E_CHILDREN 7     /* what is freed holds a slot that owns a block */
#define PMA_E_LIMIT 8        /* a fixed limit: actions of a publish, number of roots, room for an answer */
#define PMA_E_MODEL 9        /* not an operation, or an option, of this consistency model */
#define PMA_E_IN_USE 10      /* the heap, the root or the block is in use */
#define PMA_E_EXISTS 11      /* there is a file of this name */
#define PMA_E_NOT_HEAP 12    /* the file is not a heap */
#define PMA_E_VERSION 13     /* the heap has a format that this library does not know */
#define PMA_E_LAYOUT 14      /* the heap or the root holds something else than asked for */
#define PMA_E_CORRUPT 15     /* the heap contradicts itself */
#define PMA_E_POWER_LOSS 16  /* the machine went down while a heap on a page-cache file was open */
#define PMA_E_IO 17          /* the operating system refused */
#define PMA_E_FORKED 18      /* the heap was opened by the parent of this process */
#define PMA_E_INTERNAL 19    /* a defect of the library; close the heap, recovery puts it right */

/* pma_options.consistency. Heaps of this version are PMA_LOG. */
#define PMA_LOG 0
#define PMA_GC 1
#define PMA_IC 2

/* pma_options.durability: what an operation survives that returned. */
#define PMA_D_AUTO 0      /* the best that the memory under the file has */
#define PMA_D_POWERFAIL 1 /* a loss of power: lines are flushed */
#define PMA_D_EADR 2      /* a loss of power, on a machine that saves its caches: nothing is flushed */
#define PMA_D_PROCESS 3   /* the death of the process */
#define PMA_D_MSYNC 4     /* the death of the process; a loss of power only after pma_sync */

/* pma_options.policy: when the effects of a call are made durable. Whatever it is, a call that has returned survives. It
   belongs to the heap: opening with another one than it has switches it, for good. pma_policy says which it has. */
#define PMA_P_AUTO 0    /* what the heap has; of a new one, the library's choice */
#define PMA_P_EAGER 1   /* before the call returns: three fences */
#define PMA_P_BATCHED 2 /* later, for many calls at once: one fence, and now and then a call that takes some microseconds
                           more. Memory that is freed comes back a little later. pma_close leaves nothing to do */

/* pma_options.flags */
#define PMA_F_COUNT 0x1        /* count flushes and fences for pma_counts_get; costs a lock for each */
#define PMA_F_UNSAFE_FORCE 0x2 /* take the durability asked for on memory that does not have it: a power loss destroys */
#define PMA_F_BACKGROUND 0x4   /* a thread of the heap's own does that later part of PMA_P_BATCHED, until pma_close */

/* pma_action.kind */
#define PMA_A_ALLOC 1 /* the reserved `block` goes to `slot`, which is empty */
#define PMA_A_FREE 2  /* the block that `slot` owns is freed */
#define PMA_A_MOVE 3  /* the block that `slot2` owns goes to `slot`, which is empty */
#define PMA_A_SET 4   /* the cell at `slot` is set to `value` */

/* What pma_declare is about. */
#define PMA_S_ROOT 1 /* roots of the type `key` */
#define PMA_S_TAG 2  /* blocks with the tag `key` */

/* pma_run.kind */
#define PMA_R_SLOTS 0 /* each word is a slot */
#define PMA_R_MAYBE 1 /* each word may be a slot, or something else */

/* Most actions of one publish. */
#define PMA_PUBLISH_MAX 64

/*
 * The value of a cell is `cell->raw & PMA_CELL_MAX`, which is also the largest value. A cell is eight bytes in a block or
 * root that only PMA_A_SET changes, and starts with a value that the program wrote before it published the block, or
 * with zero. It has the form of a slot and is none: no word may be used as both.
 */
#define PMA_CELL_MAX 0xFFFFFFFFFFFu

typedef struct pma_heap pma_heap;              /* thread-safe */
/* A slot whose bits are all zero is empty. One that owned something once is empty with other bits: ask pma_slot_is_empty,
   and don't compare `raw`. A copy of a full slot can't be told from the slot: as soon as the block is freed, the copy shows what
   is allocated in its place, and calls on the copy free or move that. pma_check finds a block that two slots own, where it
   knows of both. */
typedef struct { uint64_t raw; } pma_slot;     /* in heap memory; all-zero = empty; never memcpy a full one */
typedef uint64_t pma_off;                      /* byte offset from the heap's base, 0 = null */
typedef struct {
  size_t size;                                 /* = sizeof(pma_options), set by pma_options_init */
  uint64_t capacity, initial;                  /* bytes; 0 = default */
  uint32_t consistency;                        /* PMA_LOG, PMA_GC, PMA_IC */
  uint32_t durability;                         /* PMA_D_AUTO, _POWERFAIL, _EADR, _PROCESS, _MSYNC */
  uint32_t policy;                             /* PMA_P_AUTO, _EAGER, _BATCHED */
  uint32_t stripes;                            /* 0 = default, 1 = no interleaving */
  const char *layout;                          /* name checked at open, NULL = any */
  uint64_t flags;                              /* PMA_F_COUNT, PMA_F_UNSAFE_FORCE, PMA_F_BACKGROUND */
  const struct pma_visitor *visitors; size_t nvisitors;   /* GC model */
} pma_options;

/* The library. */

uint32_t    pma_version(void);
/* What an error means, in general; never NULL. */
const char *pma_strerror(int);
/* What went wrong in this thread's last call, in a sentence; "" if it succeeded. The functions of this section are no calls
   in that sense. */
const char *pma_last_error(void);              /* this thread, until its next call */
/* Sets all options to their defaults; the second argument is sizeof(pma_options). */
void pma_options_init(pma_options *, size_t);

/* Heaps. Options may be NULL: the defaults. The default capacity is 256 GiB of addresses, not of memory; where the process has
   no addresses for that (RLIMIT_AS, valgrind), it is less, a power of two. A heap opens only where its capacity fits. What only a new heap can be given (capacity, initial, stripes) is not looked at
   by pma_open. `initial` bytes of the file have memory from the start. */

int  pma_create(const char *path, const pma_options *, pma_heap **);
/* Not in this version, which keeps a heap in one file: PMA_E_INVAL. */
int  pma_create_nodes(const char *const *paths, const int *nodes, size_t n, const pma_options *, pma_heap **);
/* Recovers the heap first if it was not closed. */
int  pma_open(const char *path, const pma_options *, pma_heap **);
/* Gives up reservations and pins, and closes. Whatever it returns, the handle is gone; after an error the heap is as after
   a crash. A forked child lets go of its parent's heap with it, and harms nobody. */
int  pma_close(pma_heap *);
/* PMA_P_EAGER or PMA_P_BATCHED; 0, and pma_last_error says why, in a forked child. */
uint32_t    pma_policy(const pma_heap *);
/* Writes all to the disk where that is another step; elsewhere leaves recovery nothing to redo of the calls that have returned. */
int  pma_sync(pma_heap *);
/* Gives free memory back to the file system; `freed` may be NULL. */
int  pma_trim(pma_heap *, uint64_t *freed);

/* LOG: atomic with the slot. IC: block durable, then slot. GC: see docs. align 0 = 16. Bare = uninitialised: the block holds
   what its memory held before, and words of that may look like full slots, even of blocks that others own. A program that has
   slots in a block makes it with pma_zalloc_to, pma_alloc_copy or pma_alloc_init, and all its slots empty. */
int  pma_alloc_to(pma_heap *, pma_slot *, size_t size, size_t align);
/* All bytes of the block are zero, and durable before it can be reached: what slots it has are empty. */
int  pma_zalloc_to(pma_heap *, pma_slot *, size_t size, size_t align);
/* A tag is a number of the program's for a kind of blocks, which pma_iter tells and pma_declare speaks of; other functions
   give the tag 0. The block holds a copy of `src` or, if that is NULL, zeros. */
int  pma_alloc_tagged(pma_heap *, pma_slot *, size_t size, size_t align, uint8_t tag, const void *src);
/* `init` may use the heap. What it writes is durable before the block can be reached. */
int  pma_alloc_init(pma_heap *, pma_slot *, size_t size, size_t align, void (*init)(void *p, void *arg), void *arg);
int  pma_alloc_copy(pma_heap *, pma_slot *, const void *src, size_t size, size_t align);
/* Slots inside the block are not looked at: free first what they own. */
int  pma_free_from(pma_heap *, pma_slot *);
int  pma_replace(pma_heap *, pma_slot *, const void *src, size_t size, size_t align);
int  pma_move(pma_heap *, pma_slot *dst, pma_slot *src);
int  pma_swap(pma_heap *, pma_slot *, pma_slot *);
void *pma_get(const pma_heap *, const pma_slot *);           /* NULL if empty or invalid */
/* As pma_get, and says why there is no block: PMA_E_SLOT_EMPTY, PMA_E_SLOT_FOREIGN, PMA_E_FORKED; PMA_E_NOT_LIVE or
   PMA_E_CORRUPT if what the slot holds is damaged, as by a copy of a full slot whose block is gone. */
int  pma_get_checked(const pma_heap *, const pma_slot *, void **);
/* 1 if the slot owns nothing, 0 if it does; 0, and pma_last_error says why, if it is no slot of the heap. */
int  pma_slot_is_empty(const pma_heap *, const pma_slot *);

int  pma_alloc(pma_heap *, size_t size, size_t align, pma_off *);   /* GC, IC; LOG: PMA_E_MODEL */
int  pma_free(pma_heap *, pma_off);
/* A reserved block is uninitialised, is written by its pma_ptr, and is there after a crash only once it was published. */
int  pma_reserve(pma_heap *, size_t size, size_t align, pma_off *);
int  pma_reserve_tagged(pma_heap *, size_t size, size_t align, uint8_t tag, pma_off *);
int  pma_cancel(pma_heap *, pma_off);
/* `zero` is 0. Actions take effect in their order, as if each was a call of its own. But what is new or freed is so for all of
   them: slots in blocks that the publish allocates can be named by earlier actions, too, and those in blocks that it frees by
   later ones. After an error the blocks are still reserved. */
typedef struct { uint32_t kind, zero; pma_slot *slot, *slot2; pma_off block; uint64_t value; } pma_action;
int  pma_publish(pma_heap *, const pma_action *, size_t n);  /* PMA_A_ALLOC, _FREE, _MOVE, _SET; contents of reserved blocks are flushed */

/* NULL for an offset that is 0 or lies outside the heap. Heaps may be mapped elsewhere at each open: keep offsets. */
void *pma_ptr(const pma_heap *, pma_off);
/* 0 for an address outside the heap. */
pma_off pma_offset(const pma_heap *, const void *);
int  pma_usable(const pma_heap *, pma_off, size_t *);        /* PMA_E_NOT_LIVE if not a live block's start */
/* PMA_E_LAYOUT if the root exists with another size or type, a number of the program's. At a multiple of 64 bytes. */
int  pma_root(pma_heap *, const char *name, size_t size, uint64_t type, void **);   /* get, or create zeroed, atomic */
/* PMA_E_NOT_LIVE if there is none; the size may go to NULL. */
int  pma_root_find(pma_heap *, const char *name, uint64_t type, void **, size_t *);
/* Pointers into the root dangle then, and what its slots own is lost. */
int  pma_root_remove(pma_heap *, const char *name);
/* For what the program writes by pointers: durable after flush and fence, and maybe before. Bytes outside the heap are
   left alone, and pma_last_error says so. */
void pma_flush(pma_heap *, const void *, size_t);
void pma_fence(pma_heap *);
void pma_persist(pma_heap *, const void *, size_t);
/* Of the calling thread; its end undoes them. */
void pma_pin(pma_heap *);  void pma_unpin(pma_heap *);       /* nests; memory freed meanwhile is not reused */
void pma_thread_release(pma_heap *);                         /* gives back this thread's caches */
typedef int (*pma_block_fn)(pma_off, size_t usable, uint8_t tag, void *arg);        /* non-zero stops */
/* The live blocks, those of roots too, in the order of their offsets. The function may use the heap. */
int  pma_iter(pma_heap *, pma_block_fn, void *arg);
/* Looks at slots as far as it knows of them: see pma_declare. Returns 0 if it could look, whatever it found; `problem` and `nproblems` may be NULL. Only while no other call runs. */
int  pma_check(pma_heap *, void (*problem)(const char *, void *), void *arg, uint64_t *nproblems);
/*
 * Where the program has slots, said to pma_check, to pma_orphans and to the command pmalloc, also of a heap that is closed:
 * a root or block has `count` slots (0: as many as it has room for), from byte `offset` on, one every `stride` bytes (0: 8).
 * `zero` is 0. What is said about a type or tag takes the place of what was said before, and is there after a crash, or that
 * is; no runs (`n` 0) say that there are no slots. {0, 8, 0, PMA_R_MAYBE, 0} says that every word may be one. Cells are no
 * slots. PMA_E_INVAL for slots that are not at multiples of 8, overlap, or lie outside a root of the type.
 */
typedef struct { uint64_t offset, stride, count; uint32_t kind, zero; } pma_run;
int  pma_declare(pma_heap *, uint32_t scope, uint64_t key, const pma_run *, size_t n);
/* The live blocks that nothing owns: those that slots owned whose own block was freed. A block that a word names of which
   nothing is known may be owned, and is not among them; pma_declare says what is. The function may use the heap. */
int  pma_orphans(pma_heap *, pma_block_fn, void *arg);
/* Gives a block that nothing owns to an empty slot, or frees it: PMA_E_IN_USE if something owns it, or may, and while a
   thread has the heap pinned. The whole heap is looked through, and other calls wait meanwhile. */
int  pma_adopt(pma_heap *, pma_off, pma_slot *);
int  pma_free_orphan(pma_heap *, pma_off);
/* All with a tag, and those that nothing owns when they are gone; each is freed by itself. `freed` may be NULL. */
int  pma_free_orphans(pma_heap *, uint8_t tag, uint64_t *freed);
/* The caller sets `size` to sizeof the structure; it comes back as the number of bytes that were filled. */
typedef struct { size_t size; uint64_t live_blocks, live_bytes, heap_bytes, peak_heap_bytes, free_bytes, largest_free,
  dram_bytes, recovery_ns, replayed; } pma_stats;
int  pma_stats_get(pma_heap *, pma_stats *);
/* One object, with the keys of `pmalloc stats --json`, ended by a zero byte. `need`, which may be NULL, gets its bytes,
   with that. PMA_E_LIMIT, and nothing written, if `cap` is less; `cap` 0, with any `buf`, only asks. */
int  pma_stats_json(pma_heap *, char *buf, size_t cap, size_t *need);
typedef struct { size_t size; uint64_t flushes, fences, bytes, reflush[9]; } pma_counts;   /* [d] = d distinct other lines flushed since this line's last flush, by the same thread; [8] = 8 and more; first flushes not counted */
int  pma_counts_get(pma_heap *, pma_counts *);               /* with PMA_F_COUNT: all threads since open */

#ifdef __cplusplus
}
#endif

#endif
