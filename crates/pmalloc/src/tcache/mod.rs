//! Thread caches: per kind, free blocks that one session can take without a lock.
//!
//! A bin keeps its blocks in *banks*, one per bitmap stripe, and takes them from the banks in turn: the bits of
//! successive allocations lie in different lines even after blocks were freed in any order (mechanism R1). A bin
//! that is left with blocks of the line just flushed is topped up with others, if the arena has some.
//!
//! Volatile: a cached block has no bit set, and a crash gives it back.

use pmalloc_persist::Medium;

use crate::{
    arena::{Arena, SmallBlock, Space},
    error::Result,
    size_class::SLAB_PAGES_MIN,
    slab::{Interleave, Kind, PerKind},
};

/// Blocks that a bin may hold at first; doubles with each refill up to the class's limit.
const LIMIT_START: u32 = 4;

/// Most blocks that are asked of the arena at once. What a session has freed it may keep more of: under the policy Batched
/// all that a round lets go of comes back together.
const REFILL_MAX: u32 = 16;

/// The caches of one session.
#[derive(Debug)]
pub(crate) struct Cache {
    stripes: u32,
    bins: PerKind<Option<Box<Bin>>>,
}

/// The cached blocks of one kind.
#[derive(Debug)]
struct Bin {
    stripes: u32,
    /// By block index modulo their number.
    banks: Box<[Bank]>,
    /// The bank to take from next.
    cursor: usize,
    /// The line whose bits the session changed last.
    last_line: u32,
    /// Whether the arena had no block of another line than the last one when asked.
    narrow: bool,
    count: u32,
    /// Blocks at which the bin overflows.
    limit: u32,
}

/// Blocks whose bits are in one stripe.
#[derive(Debug)]
struct Bank {
    /// The stripe in the smallest slabs, which have the fewest: banks that differ here differ in the line of every
    /// slab.
    line: u32,
    /// Free blocks.
    blocks: Vec<SmallBlock>,
}

/// No line.
const NO_LINE: u32 = u32::MAX;

impl Cache {
    /// Empty caches for a heap with `stripes` bitmap stripes.
    pub(crate) fn new(stripes: u32) -> Self {
        Self { stripes, bins: PerKind::new() }
    }

    /// Takes a block of `kind` if there is one whose bit is in another line than the one that the session changed last.
    #[inline(always)]
    pub(crate) fn take_at_hand(&mut self, kind: Kind) -> Option<SmallBlock> {
        self.bin(kind).pop_from_other_line()
    }

    /// Takes a block of `kind`, refilling from `arena` if there is none.
    pub(crate) fn take<M: Medium>(
        &mut self,
        space: &Space<M>,
        arena: &Arena,
        kind: Kind,
    ) -> Result<SmallBlock> {
        let bin = self.bin(kind);
        match bin.pop_from_other_line() {
            Some(block) => Ok(block),
            None => bin.take_slowly(space, arena, kind),
        }
    }

    /// Puts a free block of `arena` here.
    #[inline]
    pub(crate) fn put<M: Medium>(&mut self, space: &Space<M>, arena: &Arena, block: SmallBlock) {
        let bin = self.bin(block.slab().kind());
        bin.push(block);
        if bin.count > bin.limit {
            bin.drain(space, arena, bin.limit / 2);
        }
    }

    /// Gives every block back to `arena`.
    pub(crate) fn drain<M: Medium>(&mut self, space: &Space<M>, arena: &Arena) {
        for bin in self.bins.values_mut().flatten() {
            bin.drain(space, arena, 0);
        }
    }

    #[inline(always)]
    fn bin(&mut self, kind: Kind) -> &mut Bin {
        self.bins.get_mut(kind).get_or_insert_with(|| Bin::new(self.stripes))
    }
}

/// Blocks that a bin with this limit asks the arena for.
fn refill_blocks(limit: u32) -> u32 {
    (limit / 2).clamp(1, REFILL_MAX)
}

/// Blocks that a bin with this limit keeps while it asks for `want` others: at least one, as other sessions may take all that
/// the arena has, those that were just given back as well.
fn kept_beside(want: u32, limit: u32) -> u32 {
    (limit - want).max(1)
}

impl Bin {
    #[cold]
    fn new(stripes: u32) -> Box<Self> {
        let lines = Interleave::new(stripes, SLAB_PAGES_MIN).stripes();
        let bank = |nth| Bank { line: nth % lines, blocks: Vec::new() };
        Box::new(Self {
            stripes,
            banks: (0..stripes).map(bank).collect(),
            cursor: 0,
            last_line: NO_LINE,
            narrow: false,
            count: 0,
            limit: LIMIT_START,
        })
    }

    /// Takes a block whose bit is in another line than the one changed last.
    #[inline(always)]
    fn pop_from_other_line(&mut self) -> Option<SmallBlock> {
        let last = self.last_line;
        self.pop_where(|bank| bank.line != last)
    }

    /// Takes a block from the next bank that has some and is `suitable`.
    #[inline(always)]
    fn pop_where(&mut self, suitable: impl Fn(&Bank) -> bool) -> Option<SmallBlock> {
        if self.count == 0 {
            return None;
        }
        for _ in 0..self.banks.len() {
            let nth = self.cursor;
            self.cursor = if nth + 1 == self.banks.len() { 0 } else { nth + 1 };
            let bank = &mut self.banks[nth];
            if suitable(bank)
                && let Some(block) = bank.blocks.pop()
            {
                self.last_line = bank.line;
                self.count -= 1;
                return Some(block);
            }
        }
        None
    }

    /// Puts a block here whose bit the session has just changed.
    #[inline(always)]
    fn push(&mut self, block: SmallBlock) {
        self.last_line = self.store(block);
        self.narrow = false;
    }

    /// Puts a block here, and returns its line.
    #[inline(always)]
    fn store(&mut self, block: SmallBlock) -> u32 {
        let bank = &mut self.banks[(block.index() % self.stripes) as usize];
        bank.blocks.push(block);
        self.count += 1;
        bank.line
    }

    /// Takes a block when there is none, or only some of the line changed last.
    #[cold]
    fn take_slowly<M: Medium>(
        &mut self,
        space: &Space<M>,
        arena: &Arena,
        kind: Kind,
    ) -> Result<SmallBlock> {
        if self.count == 0 {
            self.refill(space, arena, kind)?;
        } else if !self.narrow {
            self.top_up(space, arena, kind);
        }
        let block = self.pop_from_other_line().or_else(|| {
            self.narrow = true;
            self.pop_where(|_| true)
        });
        Ok(block.expect("a refill brings a block"))
    }

    /// Exchanges blocks for those of other lines that the arena has at hand: no slab is made for it.
    fn top_up<M: Medium>(&mut self, space: &Space<M>, arena: &Arena, kind: Kind) {
        let want = refill_blocks(self.limit);
        self.drain(space, arena, kept_beside(want, self.limit));
        arena.top_up(space, kind, want, |block| {
            self.store(block);
        });
    }

    #[cold]
    fn refill<M: Medium>(&mut self, space: &Space<M>, arena: &Arena, kind: Kind) -> Result<()> {
        self.narrow = false;
        let want = refill_blocks(self.limit);
        self.limit = (self.limit * 2).min(kind.class.cache_max());
        arena.refill(space, kind, want, |block| {
            self.store(block);
        })
    }

    /// Gives blocks back, from each bank in turn, until `keep` are left.
    #[cold]
    fn drain<M: Medium>(&mut self, space: &Space<M>, arena: &Arena, keep: u32) {
        let excess =
            std::iter::from_fn(|| if self.count > keep { self.pop_where(|_| true) } else { None });
        arena.give_back(space, excess);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn a_bin_that_asks_for_blocks_of_other_lines_keeps_one_and_has_room() {
        for limit in 1..=256 {
            let want = refill_blocks(limit);
            let kept = kept_beside(want, limit);
            assert!(kept >= 1 && (kept + want <= limit || limit == 1), "{limit}");
        }
    }
}
