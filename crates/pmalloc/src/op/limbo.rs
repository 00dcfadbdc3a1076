//! Limbo: where freed memory waits while readers may still see it.
//!
//! Two counters of live guards, one per parity of a volatile epoch, decide when freed memory is safe: memory
//! freed in epoch `e` is reusable in epoch `e + 2`, and the epoch moves only when no guard of the epoch
//! before the present one lives. While no guard lives at all, nothing waits.

use std::collections::VecDeque;

use pmalloc_persist::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, fence, lock};
use smallvec::SmallVec;

use crate::arena::Block;

/// Blocks that are taken out at once: there is room for them on the stack.
const BATCH: usize = 32;

/// The guards of a heap, and the memory that waits for them.
#[derive(Debug)]
pub(crate) struct Limbo {
    epoch: AtomicU64,
    /// Live guards of even and odd epochs.
    live: [AtomicU64; 2],
    /// Freed memory with the epoch of its free, oldest first.
    freed: Mutex<VecDeque<(u64, Block)>>,
    /// Length of `freed`, read without its lock.
    waiting: AtomicUsize,
}

impl Limbo {
    /// No guard, nothing waiting.
    pub(crate) fn new() -> Self {
        Self {
            epoch: AtomicU64::new(0),
            live: [AtomicU64::new(0), AtomicU64::new(0)],
            freed: Mutex::new(VecDeque::new()),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Registers a guard and returns its epoch.
    pub(crate) fn enter(&self) -> u64 {
        loop {
            // SeqCst throughout: the count must be visible before the guard's first slot load, and a free
            // that does not see the count must have emptied its slot before. Pairs with `quiescent`.
            let epoch = self.epoch.load(Ordering::SeqCst);
            self.counter(epoch).fetch_add(1, Ordering::SeqCst);
            // The slot load is an acquire and in no total order: without this fence it may be served from
            // before the count, and find the block of a free that saw no guard.
            fence(Ordering::SeqCst);
            if self.epoch.load(Ordering::SeqCst) == epoch {
                return epoch;
            }
            self.counter(epoch).fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Unregisters a guard of `epoch`.
    pub(crate) fn leave(&self, epoch: u64) {
        self.counter(epoch).fetch_sub(1, Ordering::SeqCst);
    }

    fn counter(&self, epoch: u64) -> &AtomicU64 {
        &self.live[usize::from(epoch % 2 == 1)]
    }

    /// Whether no guard lives that could see what was unlinked before this call. Pairs with `enter`.
    #[inline]
    pub(crate) fn quiescent(&self) -> bool {
        fence(Ordering::SeqCst);
        self.live.iter().all(|live| live.load(Ordering::SeqCst) == 0)
    }

    /// Whether freed memory waits for guards.
    #[inline]
    pub(crate) fn has_waiting(&self) -> bool {
        // Relaxed: a hint; who misses an entry leaves it for the next.
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Keeps `block` until no guard that lives now lives any more.
    #[cold]
    pub(super) fn defer(&self, block: Block) {
        let mut freed = lock(&self.freed);
        freed.push_back((self.epoch.load(Ordering::SeqCst), block));
        self.waiting.store(freed.len(), Ordering::Relaxed);
    }

    /// Moves the epoch as far as the live guards allow, and hands what nobody can see any more to `reuse`, the oldest first.
    ///
    /// `reuse` runs without the lock: it may have to wait for room in a log.
    #[cold]
    pub(super) fn collect(&self, mut reuse: impl FnMut(Block)) {
        loop {
            let batch = self.take_safe();
            let is_last = batch.len() < BATCH;
            batch.into_iter().for_each(&mut reuse);
            if is_last {
                break;
            }
        }
    }

    /// Takes out the oldest of what nobody can see any more, as much as a batch holds.
    fn take_safe(&self) -> SmallVec<[Block; BATCH]> {
        let mut freed = lock(&self.freed);
        for _ in 0..2 {
            let epoch = self.epoch.load(Ordering::SeqCst);
            // The other parity holds the guards of the epoch before, and is the one that the next epoch uses.
            if self.counter(epoch + 1).load(Ordering::SeqCst) != 0 {
                break;
            }
            self.epoch.store(epoch + 1, Ordering::SeqCst);
        }
        let epoch = self.epoch.load(Ordering::SeqCst);
        let safe =
            freed.iter().take(BATCH).take_while(|(freed_in, _)| freed_in + 2 <= epoch).count();
        let batch = freed.drain(..safe).map(|(_, block)| block).collect();
        self.waiting.store(freed.len(), Ordering::Relaxed);
        batch
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::alloc::Layout;

    use pmalloc_persist::Anon;

    use super::*;
    use crate::{
        arena::LargeBlock,
        book::{Extent, LogId},
        heap::Heap,
        layout::{
            book::ExtentKind,
            geometry::{Page, PageRange},
        },
    };

    /// A block of the page `nth`.
    fn block(nth: u32) -> Block {
        let range = PageRange::new(Page(nth), 1);
        let extent = Extent { range, kind: ExtentKind::Large, tag: 0 };
        Block::Large(LargeBlock { extent, log: LogId(0), offset: u64::from(nth) * 4096 })
    }

    fn collected(limbo: &Limbo) -> Vec<u64> {
        let mut offsets = Vec::new();
        limbo.collect(|block| offsets.push(block.offset() / 4096));
        offsets
    }

    #[test]
    fn what_is_freed_under_a_guard_waits_for_it_and_not_for_later_ones() {
        let limbo = Limbo::new();
        assert!(limbo.quiescent());
        let old = limbo.enter();
        assert!(!limbo.quiescent());
        limbo.defer(block(1));
        assert!(collected(&limbo).is_empty());
        let young = limbo.enter();
        assert!(collected(&limbo).is_empty(), "the old one lives");
        limbo.leave(old);
        assert_eq!(collected(&limbo).len(), 1, "a later guard holds nothing");
        assert!(!limbo.has_waiting() && !limbo.quiescent());
        limbo.leave(young);
        assert!(limbo.quiescent());
    }

    #[test]
    fn a_guard_counts_in_whichever_epoch_it_was_made() {
        let limbo = Limbo::new();
        for _ in 0..4 {
            let guard = limbo.enter();
            // Each time as far as the guard allows: it is of the present epoch, then of the one before.
            for _ in 0..3 {
                assert!(!limbo.quiescent());
                limbo.defer(block(1));
                assert!(collected(&limbo).is_empty());
            }
            limbo.leave(guard);
            assert!(limbo.quiescent());
            assert_eq!(collected(&limbo).len(), 3);
        }
    }

    #[test]
    fn what_waits_is_handed_out_in_the_order_of_its_frees_and_once() {
        let limbo = Limbo::new();
        // Overlapping limbo: behind each, twenty large blocks are freed, which the next one does not hold.
        let mut guard = limbo.enter();
        let mut out = Vec::new();
        for round in 0..50 {
            (20 * round..20 * (round + 1)).for_each(|nth| limbo.defer(block(nth)));
            out.extend(collected(&limbo));
            assert!(out.len() <= 20 * round as usize, "a guard lives: {}", out.len());
            let next = limbo.enter();
            limbo.leave(guard);
            guard = next;
        }
        limbo.leave(guard);
        out.extend(collected(&limbo));
        assert_eq!(out, (0..1000).collect::<Vec<u64>>());
    }

    #[test]
    fn a_guard_made_after_a_free_does_not_hold_it_for_ever() {
        let limbo = Limbo::new();
        let old = limbo.enter();
        limbo.defer(block(1));
        collected(&limbo);
        let mut next = limbo.enter();
        limbo.leave(old);
        // Overlapping limbo without end: each is made before the one before it is dropped.
        for _ in 0..4 {
            collected(&limbo);
            let after = limbo.enter();
            limbo.leave(next);
            next = after;
        }
        assert!(!limbo.has_waiting());
        limbo.leave(next);
    }

    /// A guard that goes between the look of a free and what the free leaves waiting collects nothing, and who comes next
    /// must: it may be the only room there is.
    #[test]
    fn what_waits_for_nobody_any_more_is_room() {
        let options = Heap::options().capacity_bytes(1 << 20).arenas(1);
        let heap = options.create_on(Anon::new(options.heap_bytes().unwrap())).unwrap();
        let slots = heap.slots("slots", 512).unwrap();
        for size in [3000, 20_000, 200_000] {
            let layout = Layout::from_size_align(size, 8).unwrap();
            let fill =
                || slots.iter().take_while(|slot| heap.alloc_to(slot, layout).is_ok()).count();
            let room = fill();
            assert!((2..512).contains(&room), "{room} blocks of {size} bytes");
            let guard = heap.pin();
            slots[..room].iter().for_each(|slot| heap.free_from(slot).unwrap());
            assert_eq!(fill(), 0, "a guard lives");
            let epoch = guard.epoch();
            std::mem::forget(guard);
            heap.core().limbo.leave(epoch);
            assert!(heap.core().limbo.has_waiting());
            assert_eq!(fill(), room, "of {size} bytes");
            slots[..room].iter().for_each(|slot| heap.free_from(slot).unwrap());
            heap.trim().unwrap();
        }
    }

    /// A thread that stores and sees no guard, and a guard that reads what was stored before: one of the two must
    /// notice the other. Miri, which emulates weak memory, looks for the outcome in which neither does.
    #[test]
    fn a_guard_sees_what_was_unlinked_before_it_or_is_seen() {
        let rounds = if cfg!(miri) { 60 } else { 2_000 };
        for _ in 0..rounds {
            let limbo = Limbo::new();
            let slot = AtomicU64::new(1);
            let (found, was_quiescent) = std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    limbo.enter();
                    slot.load(Ordering::Acquire)
                });
                slot.store(0, Ordering::Release);
                let was_quiescent = limbo.quiescent();
                (reader.join().expect("the reader does not panic"), was_quiescent)
            });
            assert!(found == 0 || !was_quiescent, "a guard reads a block that counts as unseen");
        }
    }
}
