//! Guards: while one lives, memory that it may still see is not reused.
//!
//! Two counters of live guards, one per parity of a volatile epoch, decide when freed memory is safe: memory
//! freed in epoch `e` is reusable in epoch `e + 2`, and the epoch moves only when no guard of the epoch
//! before the present one lives. While no guard lives at all, nothing waits.

use std::{collections::VecDeque, fmt};

use pmalloc_persist::{
    Medium,
    sync::{AtomicU64, AtomicUsize, Mutex, Ordering, fence, lock},
};

use super::core::Core;
use crate::{book::LogId, layout::geometry::PageRange};

/// Memory that was freed while guards lived.
#[derive(Debug, Clone, Copy)]
pub(super) enum Freed {
    /// A block of a slab of `arena`.
    Small {
        /// The owner of the slab.
        arena: LogId,
        /// The block.
        offset: u64,
    },
    /// An extent.
    Large {
        /// Its pages.
        range: PageRange,
        /// The log that held it.
        log: LogId,
    },
}

/// The guards of a heap, and the memory that waits for them.
#[derive(Debug)]
pub(super) struct Guards {
    epoch: AtomicU64,
    /// Live guards of even and odd epochs.
    live: [AtomicU64; 2],
    /// Freed memory with the epoch of its free, oldest first.
    limbo: Mutex<VecDeque<(u64, Freed)>>,
    /// Length of `limbo`, read without its lock.
    waiting: AtomicUsize,
}

impl Guards {
    /// No guard, nothing waiting.
    pub(super) fn new() -> Self {
        Self {
            epoch: AtomicU64::new(0),
            live: [AtomicU64::new(0), AtomicU64::new(0)],
            limbo: Mutex::new(VecDeque::new()),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Registers a guard and returns its epoch.
    fn enter(&self) -> u64 {
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

    fn leave(&self, epoch: u64) {
        self.counter(epoch).fetch_sub(1, Ordering::SeqCst);
    }

    fn counter(&self, epoch: u64) -> &AtomicU64 {
        &self.live[usize::from(epoch % 2 == 1)]
    }

    /// Whether no guard lives that could see what was unlinked before this call. Pairs with `enter`.
    #[inline]
    pub(super) fn quiescent(&self) -> bool {
        fence(Ordering::SeqCst);
        self.live.iter().all(|live| live.load(Ordering::SeqCst) == 0)
    }

    /// Whether freed memory waits for guards.
    #[inline]
    pub(super) fn has_waiting(&self) -> bool {
        // Relaxed: a hint; who misses an entry leaves it for the next.
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Keeps `freed` until no guard that lives now lives any more.
    #[cold]
    pub(super) fn defer(&self, freed: Freed) {
        let mut limbo = lock(&self.limbo);
        limbo.push_back((self.epoch.load(Ordering::SeqCst), freed));
        self.waiting.store(limbo.len(), Ordering::Relaxed);
    }

    /// Moves the epoch as far as the live guards allow and returns what nobody can see any more.
    #[cold]
    pub(super) fn collect(&self) -> VecDeque<Freed> {
        let mut limbo = lock(&self.limbo);
        for _ in 0..2 {
            let epoch = self.epoch.load(Ordering::SeqCst);
            // The other parity holds the guards of the epoch before, and is the one that the next epoch uses.
            if self.counter(epoch + 1).load(Ordering::SeqCst) != 0 {
                break;
            }
            self.epoch.store(epoch + 1, Ordering::SeqCst);
        }
        let epoch = self.epoch.load(Ordering::SeqCst);
        let safe = limbo.iter().take_while(|(freed_in, _)| freed_in + 2 <= epoch).count();
        let freed = limbo.drain(..safe).map(|(_, freed)| freed).collect();
        self.waiting.store(limbo.len(), Ordering::Relaxed);
        freed
    }
}

/// While it lives, memory that slots owned when it was made, or later, is not reused, not given back to the
/// system and not changed by the heap.
///
/// Made by [`Heap::pin`](super::Heap::pin). Guards nest. A guard that is kept for long keeps all memory
/// freed meanwhile from being reused.
pub struct Guard<'h, M: Medium> {
    core: &'h Core<M>,
    epoch: u64,
}

impl<'h, M: Medium> Guard<'h, M> {
    pub(super) fn new(core: &'h Core<M>) -> Self {
        Self { epoch: core.guards.enter(), core }
    }

    pub(super) fn core(&self) -> &'h Core<M> {
        self.core
    }
}

impl<M: Medium> Drop for Guard<'_, M> {
    fn drop(&mut self) {
        self.core.guards.leave(self.epoch);
        if self.core.guards.has_waiting()
            && let Ok(_entered) = self.core.enter()
        {
            self.core.collect();
        }
    }
}

impl<M: Medium> fmt::Debug for Guard<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::alloc::Layout;

    use pmalloc_persist::Anon;

    use super::*;
    use crate::heap::Heap;

    fn freed() -> Freed {
        Freed::Small { arena: LogId(0), offset: 16 }
    }

    #[test]
    fn what_is_freed_under_a_guard_waits_for_it_and_not_for_later_ones() {
        let guards = Guards::new();
        assert!(guards.quiescent());
        let old = guards.enter();
        assert!(!guards.quiescent());
        guards.defer(freed());
        assert!(guards.collect().is_empty());
        let young = guards.enter();
        assert!(guards.collect().is_empty(), "the old one lives");
        guards.leave(old);
        assert_eq!(guards.collect().len(), 1, "a later guard holds nothing");
        assert!(!guards.has_waiting() && !guards.quiescent());
        guards.leave(young);
        assert!(guards.quiescent());
    }

    #[test]
    fn a_guard_counts_in_whichever_epoch_it_was_made() {
        let guards = Guards::new();
        for _ in 0..4 {
            let guard = guards.enter();
            // Each time as far as the guard allows: it is of the present epoch, then of the one before.
            for _ in 0..3 {
                assert!(!guards.quiescent());
                guards.defer(freed());
                assert!(guards.collect().is_empty());
            }
            guards.leave(guard);
            assert!(guards.quiescent());
            assert_eq!(guards.collect().len(), 3);
        }
    }

    #[test]
    fn what_waits_is_handed_out_in_the_order_of_its_frees_and_once() {
        let guards = Guards::new();
        let offsets = |freed: VecDeque<Freed>| -> Vec<u64> {
            let offset = |freed| match freed {
                Freed::Small { offset, .. } => offset,
                Freed::Large { range, .. } => u64::from(range.start.0),
            };
            freed.into_iter().map(offset).collect()
        };
        let large = |nth: u32| {
            let range = PageRange::new(crate::layout::geometry::Page(nth), 1);
            Freed::Large { range, log: LogId(0) }
        };
        // Overlapping guards: behind each, twenty large blocks are freed, which the next one does not hold.
        let mut guard = guards.enter();
        let mut out = Vec::new();
        for round in 0..50 {
            (20 * round..20 * (round + 1)).for_each(|nth| guards.defer(large(nth)));
            out.extend(offsets(guards.collect()));
            assert!(out.len() <= 20 * round as usize, "a guard lives: {}", out.len());
            let next = guards.enter();
            guards.leave(guard);
            guard = next;
        }
        guards.leave(guard);
        out.extend(offsets(guards.collect()));
        assert_eq!(out, (0..1000).collect::<Vec<u64>>());
    }

    #[test]
    fn a_guard_made_after_a_free_does_not_hold_it_for_ever() {
        let guards = Guards::new();
        let old = guards.enter();
        guards.defer(freed());
        guards.collect();
        let mut next = guards.enter();
        guards.leave(old);
        // Overlapping guards without end: each is made before the one before it is dropped.
        for _ in 0..4 {
            guards.collect();
            let after = guards.enter();
            guards.leave(next);
            next = after;
        }
        assert!(!guards.has_waiting());
        guards.leave(next);
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
            let epoch = guard.epoch;
            std::mem::forget(guard);
            heap.core().guards.leave(epoch);
            assert!(heap.core().guards.has_waiting());
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
            let guards = Guards::new();
            let slot = AtomicU64::new(1);
            let (found, was_quiescent) = std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    guards.enter();
                    slot.load(Ordering::Acquire)
                });
                slot.store(0, Ordering::Release);
                let was_quiescent = guards.quiescent();
                (reader.join().expect("the reader does not panic"), was_quiescent)
            });
            assert!(found == 0 || !was_quiescent, "a guard reads a block that counts as unseen");
        }
    }
}
