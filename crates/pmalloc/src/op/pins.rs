//! Pins: who may still see freed memory.
//!
//! A guard pins the epoch in which it was made, on a line of its session's own: no other thread writes there. Memory
//! that was freed in epoch `f` may be seen by guards of epochs up to `f + 1`, and by no later one: epoch `f + 2` begins when
//! every operation of `f` has emptied its slots.

use std::sync::OnceLock;

use crossbeam_utils::CachePadded;
use pmalloc_persist::sync::{AtomicBool, AtomicU64, Mutex, Ordering, fence, lock};

/// Pins that are made at once.
const PART: u32 = 16;

/// Parts of the table. Sessions beyond share a pin: it holds the epoch of its oldest guard for all of them.
const PARTS: u32 = 64;

/// The pins of a heap.
#[derive(Debug)]
pub(crate) struct Pins {
    parts: [OnceLock<Box<[CachePadded<Pin>]>>; PARTS as usize],
    /// Pins that no session has, and how many were ever taken.
    free: Mutex<(Vec<u32>, u32)>,
    /// Whether there ever was a guard.
    used: AtomicBool,
}

/// The pin of a session: how many guards live, and the epoch of the oldest.
#[derive(Debug, Default)]
pub(crate) struct Pin(AtomicU64);

/// Bits for the number of guards.
const COUNT_BITS: u32 = 20;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

impl Pin {
    /// Counts a guard that is made in `epoch`.
    #[inline]
    fn enter(&self, epoch: u64) {
        let counted = |word: u64| match word & COUNT {
            0 => Some(epoch << COUNT_BITS | 1),
            COUNT => None,
            _ => Some(word + 1),
        };
        // SeqCst, and the fence: a guard's first load of a slot must not be served from before its count is seen. Pairs with
        // the fence in `Pins::oldest`: either the count is seen there, or the guard sees what was unlinked before.
        let was = self.0.fetch_update(Ordering::SeqCst, Ordering::Relaxed, counted);
        was.expect("a thread has fewer than a million guards at once");
        fence(Ordering::SeqCst);
    }

    /// Counts a guard less.
    #[inline]
    pub(crate) fn leave(&self) {
        let counted = |word: u64| Some(if word & COUNT == 1 { 0 } else { word - 1 });
        // Release: what the guard has read, it has read before.
        let was = self.0.fetch_update(Ordering::Release, Ordering::Relaxed, counted);
        debug_assert!(
            was.is_ok_and(|word| word & COUNT > 0),
            "a guard is counted until it is gone"
        );
    }

    /// The epoch of the oldest guard.
    fn epoch(&self) -> Option<u64> {
        // Acquire: pairs with the release of the last guard.
        let word = self.0.load(Ordering::Acquire);
        (word & COUNT > 0).then_some(word >> COUNT_BITS)
    }
}

impl Pins {
    /// No guard, no pin.
    pub(super) fn new() -> Self {
        Self {
            parts: [const { OnceLock::new() }; PARTS as usize],
            free: Mutex::new((Vec::new(), 0)),
            used: AtomicBool::new(false),
        }
    }

    /// Takes a pin for a session.
    pub(super) fn take(&self) -> u32 {
        let (free, taken) = &mut *lock(&self.free);
        if let Some(index) = free.pop() {
            return index;
        }
        let index = *taken % (PART * PARTS);
        *taken = taken.wrapping_add(1);
        self.parts[(index / PART) as usize]
            .get_or_init(|| (0..PART).map(|_| CachePadded::default()).collect());
        index
    }

    /// Takes the pin of a session back, with whatever guards it still has.
    pub(super) fn give(&self, index: u32) {
        lock(&self.free).0.push(index);
    }

    /// Counts a guard that is made in `epoch`, on the pin at `index`.
    #[inline]
    pub(super) fn pin(&self, index: u32, epoch: u64) -> &Pin {
        // Relaxed, and only once: the fence of the guard's own count comes behind.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        let part = self.parts[(index / PART) as usize].get().expect("made when it was taken");
        let pin = &part[(index % PART) as usize];
        pin.enter(epoch);
        pin
    }

    /// The oldest epoch that a guard pins, of the guards that may see what was unlinked before this call.
    pub(super) fn oldest(&self) -> Option<u64> {
        fence(Ordering::SeqCst);
        if !self.used.load(Ordering::Relaxed) {
            return None;
        }
        let made = self.parts.iter().map_while(OnceLock::get);
        made.flatten().filter_map(|pin| pin.epoch()).min()
    }

    /// Whether there ever was a guard that may see what was unlinked before this call. Fences.
    #[inline]
    pub(super) fn were_used(&self) -> bool {
        fence(Ordering::SeqCst);
        self.used.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_guard_of_all_sessions_counts() {
        let pins = Pins::new();
        let (one, other) = (pins.take(), pins.take());
        assert!(one != other && pins.oldest().is_none() && !pins.were_used());
        let old = pins.pin(one, 3);
        let young = pins.pin(other, 5);
        assert_eq!(pins.oldest(), Some(3));
        // It nests: the guards of a session count as its oldest.
        pins.pin(one, 7);
        old.leave();
        assert_eq!(pins.oldest(), Some(3));
        old.leave();
        assert_eq!(pins.oldest(), Some(5));
        young.leave();
        assert!(pins.oldest().is_none() && pins.were_used());
    }

    #[test]
    fn a_pin_goes_from_session_to_session_with_its_guards() {
        let pins = Pins::new();
        let index = pins.take();
        let guard = pins.pin(index, 1);
        pins.give(index);
        assert_eq!(pins.take(), index);
        pins.pin(index, 9).leave();
        assert_eq!(pins.oldest(), Some(1), "a guard outlives its session");
        guard.leave();
        let all: Vec<u32> = (0..2 * PART * PARTS).map(|_| pins.take()).collect();
        all.iter().for_each(|index| pins.pin(*index, 4).leave());
        assert!(pins.oldest().is_none());
    }

    /// A thread that stores and sees no guard, and a guard that reads what was stored before: one of the two must
    /// notice the other. Miri, which emulates weak memory, looks for the outcome in which neither does.
    #[test]
    fn a_guard_sees_what_was_unlinked_before_it_or_is_seen() {
        let rounds = if cfg!(miri) { 60 } else { 2_000 };
        for _ in 0..rounds {
            let pins = Pins::new();
            let index = pins.take();
            let slot = AtomicU64::new(1);
            let (found, is_seen) = std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    pins.pin(index, 1);
                    slot.load(Ordering::Acquire)
                });
                slot.store(0, Ordering::Release);
                let is_seen = pins.oldest().is_some();
                (reader.join().expect("the reader does not panic"), is_seen)
            });
            assert!(found == 0 || is_seen, "a guard reads a block that counts as unseen");
        }
    }
}
