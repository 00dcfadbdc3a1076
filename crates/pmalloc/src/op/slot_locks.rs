//! Who may change which slot: a striped table of volatile locks.
//!
//! An operation holds the lock of every slot that it names from before it loads the slot until its retirement
//! is durable (rule 1 in `docs/crash-consistency.md`). Slots share locks, so while an operation holds one it waits for locks
//! to the right of these in the lock order, for the medium, and for nothing else without a bound: where the bookkeeping
//! log is full it gives appends in flight a tenth of a second to land. An operation on several slots takes their locks in
//! the order of the table.

use pmalloc_persist::sync::{Mutex, MutexGuard, lock};
use smallvec::SmallVec;

/// Locks in the table: enough that two threads rarely meet in one.
const STRIPES: usize = 1024;

/// The locks.
#[derive(Debug)]
pub(crate) struct SlotLocks(Box<[Mutex<()>]>);

/// The locks of an operation. Those of a publish as large as can be have room on its stack; a block with more slots than
/// that, which is freed, takes memory for them.
pub(super) type Owned<'a> = SmallVec<[MutexGuard<'a, ()>; OWNED]>;

/// Locks for which there is room on the stack.
const OWNED: usize = 128;

/// A set of locks of the table.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stripes {
    bits: [u64; WORDS],
    /// Which of the words are not zero: most sets are of one lock or two.
    filled: u16,
}

/// Words of a set.
const WORDS: usize = STRIPES / u64::BITS as usize;
const _: () = assert!(WORDS == u16::BITS as usize, "a bit for each word");

impl Stripes {
    /// Adds the lock of the slot at byte `offset`.
    #[inline]
    pub(super) fn insert(&mut self, offset: u64) {
        let stripe = stripe(offset);
        let word = stripe / 64;
        self.filled |= 1 << word;
        self.bits[word] |= 1 << (stripe % 64);
    }

    /// Whether all of `others` are in the set.
    #[inline]
    pub(super) fn contains(&self, others: &Self) -> bool {
        bits(others.filled.into()).all(|word| others.bits[word] & !self.bits[word] == 0)
    }

    /// In the order of the table.
    #[inline]
    fn iter(&self) -> impl Iterator<Item = usize> {
        let of_word = |word| bits(self.bits[word]).map(move |bit| word * 64 + bit);
        bits(self.filled.into()).flat_map(of_word)
    }
}

/// The numbers of the bits that are set, in ascending order.
#[inline]
fn bits(mut left: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
        left &= left - 1;
        Some(bit)
    })
}

impl SlotLocks {
    /// A table with every lock free.
    pub(crate) fn new() -> Self {
        Self((0..STRIPES).map(|_| Mutex::new(())).collect())
    }

    /// Locks the slot at byte `offset`.
    #[inline(always)]
    pub(super) fn lock(&self, offset: u64) -> MutexGuard<'_, ()> {
        lock(&self.0[stripe(offset)])
    }

    /// Locks every slot: none changes, and no block is allocated into one or freed from one, while the guards live.
    pub(crate) fn lock_every(&self) -> Vec<MutexGuard<'_, ()>> {
        self.0.iter().map(lock).collect()
    }

    /// Locks the slots of a set. They are added to `owned`, which is not moved: it is large.
    pub(super) fn lock_all<'a>(&'a self, stripes: &Stripes, owned: &mut Owned<'a>) {
        owned.extend(stripes.iter().map(|stripe| lock(&self.0[stripe])));
    }
}

/// Multiplicative hashing (Knuth, volume 3, section 6.4): neighbouring slots get distant locks.
#[inline(always)]
fn stripe(offset: u64) -> usize {
    let hash = (offset / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(hash >> (64 - STRIPES.trailing_zeros())).expect("a stripe index is small")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_the_locks_of_its_slots_in_the_order_of_the_table() {
        let offsets = || (0..200).map(|nth| 4096 + nth * 24);
        let mut stripes = Stripes::default();
        offsets().for_each(|offset| stripes.insert(offset));
        let mut expected: Vec<usize> = offsets().map(stripe).collect();
        expected.sort_unstable();
        expected.dedup();
        assert!(expected.len() > 100 && stripes.iter().eq(expected));
        let mut one = Stripes::default();
        one.insert(4096);
        assert!(stripes.contains(&one) && !one.contains(&stripes));
    }
}
