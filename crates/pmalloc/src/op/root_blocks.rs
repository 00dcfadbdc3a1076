//! Which blocks hold roots: slots may neither free nor read them.
//!
//! References into a root live as long as the heap. A damaged or hostile slot could name the root's own block; freed, the
//! block would be written by its next owner under those references. So the two operations that follow a slot to its
//! block ask here first. For the same reason a root that was handed out is not removed, and no block is handed out as two
//! roots, which a hostile table could ask for.
//!
//! Volatile: filled from the root table at open, and as roots are made.

use rustc_hash::FxHashMap;

use pmalloc_persist::sync::{AtomicU64, Mutex, Ordering, lock};

/// Words of the filter: 2 KiB, which stays in the nearest cache.
const FILTER_WORDS: usize = 256;

/// The set. Nearly every question is answered by one load from the filter.
#[derive(Debug)]
pub(crate) struct RootBlocks {
    /// A bit per hash value that a block in the set has; changed under the lock of `blocks`.
    filter: Box<[AtomicU64]>,
    blocks: Mutex<FxHashMap<u64, Exposure>>,
    /// How many blocks were taken out.
    removed: AtomicU64,
}

/// Who can see a root's block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exposure {
    /// Nobody since the heap was opened.
    Hidden,
    /// References to it were handed out, for the root of this index in the table.
    HandedOut(u32),
}

impl RootBlocks {
    /// The empty set.
    pub(crate) fn new() -> Self {
        let filter = (0..FILTER_WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { filter, blocks: Mutex::default(), removed: AtomicU64::new(0) }
    }

    /// Adds the block at byte `block`.
    pub(crate) fn insert(&self, block: u64) {
        let mut blocks = lock(&self.blocks);
        blocks.entry(block).or_insert(Exposure::Hidden);
        let (word, bit) = place(block);
        // Release: pairs with the acquire in `contains`.
        self.filter[word].fetch_or(bit, Ordering::Release);
    }

    /// Notes that references to the block at byte `block`, which is in the set, are handed out for the root at `index`.
    ///
    /// Returns whether that is allowed: it is not if they were for another root.
    pub(crate) fn hand_out(&self, block: u64, index: u32) -> bool {
        let mut blocks = lock(&self.blocks);
        let exposure = blocks.entry(block).or_insert(Exposure::Hidden);
        match *exposure {
            Exposure::HandedOut(other) => other == index,
            Exposure::Hidden => {
                *exposure = Exposure::HandedOut(index);
                true
            }
        }
    }

    /// Whether references to the block at byte `block` were handed out.
    pub(crate) fn is_handed_out(&self, block: u64) -> bool {
        matches!(lock(&self.blocks).get(&block), Some(Exposure::HandedOut(_)))
    }

    /// Takes the block at byte `block`, which holds no root any more, out of the set.
    pub(crate) fn remove(&self, block: u64) {
        let mut blocks = lock(&self.blocks);
        blocks.remove(&block);
        // Release: pairs with the acquire in `removed`.
        self.removed.fetch_add(1, Ordering::Release);
        let (word, bit) = place(block);
        if !blocks.keys().any(|other| place(*other) == (word, bit)) {
            // Relaxed: a bit too many costs a look at the set.
            self.filter[word].fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// How many blocks were taken out of the set so far: what was in it stays there as long as the number does.
    #[inline]
    pub(super) fn removed(&self) -> u64 {
        self.removed.load(Ordering::Acquire)
    }

    /// Whether the block at byte `block` holds a root.
    #[inline(always)]
    pub(crate) fn contains(&self, block: u64) -> bool {
        let (word, bit) = place(block);
        // Acquire: pairs with the release in `insert`.
        self.filter[word].load(Ordering::Acquire) & bit != 0 && self.contains_exactly(block)
    }

    #[cold]
    fn contains_exactly(&self, block: u64) -> bool {
        lock(&self.blocks).contains_key(&block)
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
    use std::collections::HashMap;

    use super::*;

    /// Blocks of which two and two share a bit of the filter, and no others do.
    fn sharing() -> Vec<[u64; 2]> {
        let mut by_bit: HashMap<_, Vec<u64>> = HashMap::new();
        for block in (0..40_000).map(|nth| nth * 64) {
            by_bit.entry(place(block)).or_default().push(block);
        }
        let mut pairs: Vec<[u64; 2]> =
            by_bit.into_values().filter_map(|blocks| blocks.first_chunk().copied()).collect();
        pairs.sort_unstable();
        assert!(pairs.len() > 1000, "{} pairs", pairs.len());
        pairs
    }

    #[test]
    fn holds_what_was_inserted_and_nothing_else() {
        let set = RootBlocks::new();
        let pairs = sharing();
        let (held, others) = pairs.split_at(pairs.len() / 2);
        held.iter().for_each(|[one, _]| set.insert(*one));
        assert!(held.iter().all(|[one, other]| set.contains(*one) && !set.contains(*other)));
        assert!(!others.as_flattened().iter().any(|block| set.contains(*block)));
        held.iter().for_each(|[_, other]| set.insert(*other));
        // What is removed takes no other with it that shares its bit.
        for [one, other] in held {
            set.remove(*one);
            assert!(!set.contains(*one) && set.contains(*other), "{one:#x} and {other:#x}");
        }
    }

    #[test]
    fn the_filter_forgets_a_bit_with_the_last_block_of_it() {
        let set = RootBlocks::new();
        let is_set = |block| {
            let (word, bit) = place(block);
            set.filter[word].load(Ordering::Relaxed) & bit != 0
        };
        for [one, other] in sharing() {
            set.insert(one);
            set.insert(other);
            set.remove(other);
            assert!(is_set(one), "{one:#x}");
            set.remove(one);
            assert!(!is_set(one), "{one:#x}");
        }
    }

    #[test]
    fn a_block_is_handed_out_for_one_root() {
        let set = RootBlocks::new();
        set.insert(64);
        assert!(!set.is_handed_out(64));
        assert!(set.hand_out(64, 1) && set.hand_out(64, 1) && !set.hand_out(64, 2));
        set.insert(64);
        assert!(set.is_handed_out(64), "a second entry of the table hides nothing");
        set.remove(64);
        assert!(!set.is_handed_out(64) && !set.contains(64));
    }
}
