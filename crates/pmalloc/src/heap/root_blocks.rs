//! Which blocks hold root arrays: slots may neither free nor read them.
//!
//! References to the slots of a root array live as long as the heap. A damaged or hostile slot could name the array's
//! own block; freed, the block would be written by its next owner under those references. So the two operations that
//! follow a slot to its block ask here first.
//!
//! Volatile: filled from the root table at open, and as arrays are made.

use std::collections::HashSet;

use pmalloc_persist::sync::{AtomicU64, Mutex, Ordering, lock};

/// Words of the filter: 2 KiB, which stays in the nearest cache.
const FILTER_WORDS: usize = 256;

/// The set. Nearly every question is answered by one load from the filter.
#[derive(Debug)]
pub(super) struct RootBlocks {
    /// A bit per hash value that a block in the set has.
    filter: Box<[AtomicU64]>,
    blocks: Mutex<HashSet<u64>>,
}

impl RootBlocks {
    /// The empty set.
    pub(super) fn new() -> Self {
        let filter = (0..FILTER_WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { filter, blocks: Mutex::new(HashSet::new()) }
    }

    /// Adds the block at byte `block`.
    pub(super) fn insert(&self, block: u64) {
        lock(&self.blocks).insert(block);
        let (word, bit) = place(block);
        // Release: pairs with the acquire in `contains`.
        self.filter[word].fetch_or(bit, Ordering::Release);
    }

    /// Whether the block at byte `block` holds a root array.
    #[inline]
    pub(super) fn contains(&self, block: u64) -> bool {
        let (word, bit) = place(block);
        // Acquire: pairs with the release in `insert`.
        self.filter[word].load(Ordering::Acquire) & bit != 0 && self.contains_exactly(block)
    }

    #[cold]
    fn contains_exactly(&self, block: u64) -> bool {
        lock(&self.blocks).contains(&block)
    }
}

/// The filter word and the bit of `block`, by multiplicative hashing as for the slot locks.
#[inline]
fn place(block: u64) -> (usize, u64) {
    const BITS: u32 = (FILTER_WORDS * 64).trailing_zeros();
    let hash = (block / 16).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - BITS);
    (usize::try_from(hash / 64).expect("a filter word"), 1 << (hash % 64))
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_inserted_and_nothing_else() {
        let set = RootBlocks::new();
        (0..4096_u64).step_by(3).for_each(|nth| set.insert(nth * 64));
        for nth in 0..4096 {
            assert_eq!(set.contains(nth * 64), nth % 3 == 0, "{nth}");
        }
    }
}
