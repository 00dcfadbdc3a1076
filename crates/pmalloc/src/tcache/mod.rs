//! Thread caches: per class, free blocks that one session can take without a lock.
//!
//! A bin keeps its blocks in *banks*, one per bitmap stripe, and takes them from the banks in turn: the bits of
//! successive allocations lie in different lines even after blocks were freed in any order (mechanism R1).
//!
//! Volatile: a cached block has no bit set, and a crash gives it back.

use pmalloc_persist::Medium;

use crate::{
    arena::{Arena, Space},
    error::Result,
    size_class::SizeClass,
};

/// Blocks that a bin may hold at first; doubles with each refill up to the class's limit.
const LIMIT_START: u32 = 4;

/// The caches of one session.
#[derive(Debug)]
pub(crate) struct Cache {
    stripes: u32,
    bins: Vec<Option<Box<Bin>>>,
}

/// The cached blocks of one class.
#[derive(Debug)]
struct Bin {
    stripes: u32,
    /// Offsets of free blocks, by block index modulo the number of banks.
    banks: Box<[Vec<u64>]>,
    /// The bank to take from next.
    cursor: usize,
    count: u32,
    /// Blocks at which the bin overflows.
    limit: u32,
}

impl Cache {
    /// Empty caches for a heap with `stripes` bitmap stripes.
    pub(crate) fn new(stripes: u32) -> Self {
        Self { stripes, bins: (0..SizeClass::COUNT).map(|_| None).collect() }
    }

    /// Takes a block of `class`, refilling from `arena` if there is none.
    #[inline]
    pub(crate) fn take<M: Medium>(
        &mut self,
        space: &Space<M>,
        arena: &Arena,
        class: SizeClass,
    ) -> Result<u64> {
        let bin = self.bins[class.index()].get_or_insert_with(|| Box::new(Bin::new(self.stripes)));
        if let Some(block) = bin.pop() {
            return Ok(block);
        }
        bin.refill(space, arena, class)?;
        Ok(bin.pop().expect("a refill brings a block"))
    }

    /// Puts a free block of `arena` with index `block` in its slab here.
    #[inline]
    pub(crate) fn put<M: Medium>(
        &mut self,
        space: &Space<M>,
        arena: &Arena,
        class: SizeClass,
        (offset, block): (u64, u32),
    ) {
        let bin = self.bins[class.index()].get_or_insert_with(|| Box::new(Bin::new(self.stripes)));
        bin.push(offset, block);
        if bin.count > bin.limit {
            bin.drain(space, arena, bin.limit / 2);
        }
    }

    /// Gives every block back to `arena`.
    pub(crate) fn drain<M: Medium>(&mut self, space: &Space<M>, arena: &Arena) {
        for bin in self.bins.iter_mut().flatten() {
            bin.drain(space, arena, 0);
        }
    }
}

impl Bin {
    fn new(stripes: u32) -> Self {
        let banks = (0..stripes).map(|_| Vec::new()).collect();
        Self { stripes, banks, cursor: 0, count: 0, limit: LIMIT_START }
    }

    #[inline]
    fn pop(&mut self) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        loop {
            let bank = self.cursor;
            self.cursor = if bank + 1 == self.banks.len() { 0 } else { bank + 1 };
            if let Some(block) = self.banks[bank].pop() {
                self.count -= 1;
                return Some(block);
            }
        }
    }

    #[inline]
    fn push(&mut self, offset: u64, block: u32) {
        let bank = (block % self.stripes) as usize;
        self.banks[bank].push(offset);
        self.count += 1;
    }

    #[cold]
    fn refill<M: Medium>(
        &mut self,
        space: &Space<M>,
        arena: &Arena,
        class: SizeClass,
    ) -> Result<()> {
        let want = (self.limit / 2).max(1);
        self.limit = (self.limit * 2).min(class.cache_max());
        arena.refill(space, class, want, |offset, block| self.push(offset, block))
    }

    /// Gives blocks back, from each bank in turn, until `keep` are left.
    #[cold]
    fn drain<M: Medium>(&mut self, space: &Space<M>, arena: &Arena, keep: u32) {
        let excess: Vec<u64> =
            std::iter::from_fn(|| if self.count > keep { self.pop() } else { None }).collect();
        arena.give_back(space, excess);
    }
}
