//! Numbers the slots of the named arrays and hands them out.
//!
//! Arrays are made on demand, in steps; slots are recycled. A thread takes and gives back batches of whole
//! cache lines and uses the lines of a batch in turn, so that threads don't share lines and
//! successive operations don't touch the same one. Volatile: rebuilt from the journal after a kill.

use std::collections::VecDeque;

/// Slots of the first arrays.
const FIRST_LEN: u32 = 4096;

/// After this many arrays the length doubles, so that the number of arrays stays far below the number of
/// roots a heap has, and the waste below 2 %.
const ARRAYS_PER_LEN: u32 = 64;

/// Slots that a thread takes or gives back at a time.
const BATCH: usize = 64;

/// Slots per cache line.
const LINE_SLOTS: usize = 8;

/// Number of a slot over all arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotId(u32);

impl SlotId {
    /// The slot with this number.
    pub(crate) const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number itself.
    pub(crate) const fn get(self) -> u32 {
        self.0
    }

    /// The number as an index.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The array that holds the slot, and the slot's index in it.
    pub(crate) const fn place(self) -> (usize, usize) {
        let group = (self.0 / (FIRST_LEN * ARRAYS_PER_LEN) + 1).ilog2();
        let in_group = self.0 - group_first(group);
        let len = FIRST_LEN << group;
        ((group * ARRAYS_PER_LEN + in_group / len) as usize, (in_group % len) as usize)
    }
}

/// First slot number of the arrays of one length.
const fn group_first(group: u32) -> u32 {
    FIRST_LEN * ARRAYS_PER_LEN * ((1 << group) - 1)
}

/// Number of slots in the array `index`.
pub(crate) const fn array_len(index: u32) -> u32 {
    FIRST_LEN << (index / ARRAYS_PER_LEN)
}

/// Number of the first slot in the array `index`.
pub(crate) const fn array_first(index: u32) -> SlotId {
    let group = index / ARRAYS_PER_LEN;
    SlotId(group_first(group) + index % ARRAYS_PER_LEN * array_len(index))
}

/// Root name of the array `index`.
pub(crate) fn array_name(index: u32) -> String {
    format!("replay/{index}")
}

/// The free slots that no thread holds.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: VecDeque<SlotId>,
}

impl Pool {
    /// Adds a new array: its slots, line by line.
    pub(crate) fn add_array(&mut self, index: u32) {
        let first = array_first(index).get();
        self.free.extend((first..first + array_len(index)).map(SlotId));
    }

    /// Adds a slot that a journal shows to be free.
    pub(crate) fn add(&mut self, slot: SlotId) {
        self.free.push_back(slot);
    }

    /// Gives a batch to the thread that holds `purse`; whether there was any.
    pub(crate) fn refill(&mut self, purse: &mut Purse) -> bool {
        let count = BATCH.min(self.free.len());
        let mut batch: Vec<_> = self.free.drain(..count).collect();
        batch.sort_unstable_by_key(|slot| (slot.index() % LINE_SLOTS, slot.index()));
        purse.free.extend(batch);
        count > 0
    }

    /// Takes a batch back.
    fn take_back(&mut self, purse: &mut Purse) {
        self.free.extend(purse.free.drain(..BATCH));
    }
}

/// The free slots that one thread holds.
#[derive(Debug, Default)]
pub(crate) struct Purse {
    free: VecDeque<SlotId>,
}

impl Purse {
    /// Takes a slot.
    pub(crate) fn take(&mut self) -> Option<SlotId> {
        self.free.pop_front()
    }

    /// Puts back a slot that was freed.
    pub(crate) fn put(&mut self, slot: SlotId) {
        self.free.push_back(slot);
    }

    /// Whether so many slots are held that others may lack them.
    pub(crate) fn is_over_full(&self) -> bool {
        self.free.len() >= 2 * BATCH
    }

    /// Gives a batch back to `pool`.
    pub(crate) fn relieve(&mut self, pool: &mut Pool) {
        pool.take_back(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_slot_is_the_inverse_of_the_arrays() {
        for index in 0..ARRAYS_PER_LEN * 4 {
            let (first, len) = (array_first(index).get(), array_len(index));
            assert_eq!(SlotId(first).place(), (index as usize, 0));
            assert_eq!(SlotId(first + len - 1).place(), (index as usize, len as usize - 1));
            assert_eq!(array_first(index + 1).get(), first + len);
        }
    }

    #[test]
    fn a_batch_is_whole_lines_used_in_turn() {
        let (mut pool, mut purse) = (Pool::default(), Purse::default());
        pool.add_array(0);
        assert!(pool.refill(&mut purse));
        let taken: Vec<_> = std::iter::from_fn(|| purse.take()).map(SlotId::index).collect();
        assert_eq!(taken.len(), BATCH);
        assert!(taken.iter().all(|&slot| slot < BATCH), "the lines of the batch and no others");
        for window in taken.windows(BATCH / LINE_SLOTS) {
            let mut lines: Vec<_> = window.iter().map(|slot| slot / LINE_SLOTS).collect();
            lines.sort_unstable();
            lines.dedup();
            assert_eq!(lines.len(), BATCH / LINE_SLOTS, "no line twice in a row of takes");
        }
    }

    #[test]
    fn no_slot_is_lost_or_doubled_between_pool_and_purses() {
        let mut pool = Pool::default();
        pool.add_array(0);
        let (mut one, mut other) = (Purse::default(), Purse::default());
        for _ in 0..1000 {
            let slot = one.take().or_else(|| {
                pool.refill(&mut one);
                one.take()
            });
            other.put(slot.expect("an array is enough"));
            if other.is_over_full() {
                other.relieve(&mut pool);
            }
        }
        let mut all: Vec<_> = pool.free.into_iter().chain(one.free).chain(other.free).collect();
        all.sort_unstable();
        assert_eq!(all, (0..array_len(0)).map(SlotId).collect::<Vec<_>>());
    }
}
