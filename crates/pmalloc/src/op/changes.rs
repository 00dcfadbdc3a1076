//! What an operation changes: its effects, from the first that may fail to the last that is volatile.
//!
//! Operations of one record have effects of their own, as speed matters for them; everything else is [`Changes`].

use pmalloc_persist::{LINE_BYTES, Medium, Offset, Word};

use super::{
    Result,
    commit::{Effects, Lines},
    plan::{FoundSlot, Freed},
};
use crate::{
    arena::{Block, LargeBlock, SmallBlock, Space},
    book::{Append, Request},
    lane::Draft,
    layout::lane::Op,
    slab::LiveBit,
};

/// The record of an operation that has no other, and the slot that it names.
pub(super) struct Single<'m> {
    draft: [Draft; 1],
    slot: &'m Word,
}

impl<'m> Single<'m> {
    /// Does `op` with the block at byte `block`, of so many pages if it is large, and the slot that was `found`.
    #[inline(always)]
    pub(super) fn new(found: &FoundSlot<'m>, op: Op, block: u64, pages: u32) -> Self {
        let version = found.holds.version().next();
        let draft = Draft { op, block, pages, slot: found.offset, version };
        Self { draft: [draft], slot: found.word }
    }

    #[inline(always)]
    fn store_slot<M: Medium>(&self, m: &M) {
        // CRASH: the record that names the slot and this version is durable: recovery stores the same word.
        m.store(self.slot, self.draft[0].word());
    }

    #[inline(always)]
    fn slot_line(&self) -> u64 {
        line_of(self.draft[0].slot)
    }
}

/// A small block becomes live in a slot.
pub(super) struct SmallAlloc<'m> {
    /// The record.
    pub(super) single: Single<'m>,
    /// The block's live bit.
    pub(super) bit: LiveBit,
}

/// A small block becomes free, and its slot empty.
pub(super) struct SmallFree<'m> {
    /// The record.
    pub(super) single: Single<'m>,
    /// The block's live bit.
    pub(super) bit: LiveBit,
    /// Whether it was set until then.
    pub(super) was_live: bool,
}

impl<M: Medium> Effects<M> for SmallAlloc<'_> {
    #[inline(always)]
    fn drafts(&self) -> &[Draft] {
        &self.single.draft
    }

    #[inline(always)]
    fn apply(&mut self, space: &Space<M>, lines: &mut impl Lines) {
        let m = &space.medium;
        self.bit.store(m, true);
        self.single.store_slot(m);
        lines.stored(line_of(self.bit.place()));
        lines.stored(self.single.slot_line());
    }
}

impl<M: Medium> Effects<M> for SmallFree<'_> {
    #[inline(always)]
    fn drafts(&self) -> &[Draft] {
        &self.single.draft
    }

    /// The slot first: see [`Changes`].
    #[inline(always)]
    fn apply(&mut self, space: &Space<M>, lines: &mut impl Lines) {
        let m = &space.medium;
        self.single.store_slot(m);
        self.was_live = self.bit.store(m, false);
        lines.stored(line_of(self.bit.place()));
        lines.stored(self.single.slot_line());
    }
}

/// A large block becomes live in a slot.
pub(super) struct LargeAlloc<'m> {
    /// The record.
    pub(super) single: Single<'m>,
    /// The block.
    pub(super) block: LargeBlock,
    /// Its entry in the log, once there is a place for it.
    pub(super) append: Option<Append>,
}

/// A large block becomes free, and its slot empty.
pub(super) struct LargeFree<'m> {
    /// The record.
    pub(super) single: Single<'m>,
    /// The block.
    pub(super) block: LargeBlock,
    /// The entry in its log, once there is a place for it.
    pub(super) append: Option<Append>,
}

impl<M: Medium> Effects<M> for LargeAlloc<'_> {
    #[inline]
    fn drafts(&self) -> &[Draft] {
        &self.single.draft
    }

    #[inline]
    fn reserve(&mut self, space: &Space<M>) -> Result<()> {
        let LargeBlock { log, extent, .. } = self.block;
        self.append = Some(space.book.reserve_alloc(&space.medium, log, extent)?);
        Ok(())
    }

    #[inline]
    fn enter(&mut self, space: &Space<M>) {
        enter_pages(space, &self.block);
    }

    #[inline]
    fn apply(&mut self, space: &Space<M>, lines: &mut impl Lines) {
        apply_large(space, self.append.as_ref(), &self.single, lines);
    }

    #[inline]
    fn finish(&mut self, space: &Space<M>) {
        self.append.take().into_iter().for_each(|append| space.book.commit(append));
    }
}

impl<M: Medium> Effects<M> for LargeFree<'_> {
    #[inline]
    fn drafts(&self) -> &[Draft] {
        &self.single.draft
    }

    #[inline]
    fn reserve(&mut self, space: &Space<M>) -> Result<()> {
        let LargeBlock { log, extent, .. } = self.block;
        let (append, _) = space.book.reserve_free(&space.medium, log, extent.range.start)?;
        self.append = Some(append);
        Ok(())
    }

    #[inline]
    fn apply(&mut self, space: &Space<M>, lines: &mut impl Lines) {
        apply_large(space, self.append.as_ref(), &self.single, lines);
    }

    #[inline]
    fn finish(&mut self, space: &Space<M>) {
        self.append.take().into_iter().for_each(|append| space.book.commit(append));
        space.page_map.clear(self.block.range());
    }
}

/// Stores a log entry and a slot.
#[inline]
fn apply_large<M: Medium>(
    space: &Space<M>,
    append: Option<&Append>,
    single: &Single<'_>,
    lines: &mut impl Lines,
) {
    let m = &space.medium;
    let append = append.expect("reserved before it is applied");
    space.book.store(m, append);
    single.store_slot(m);
    lines.stored(line_of(append.place()));
    lines.stored(single.slot_line());
}

/// The line of byte `offset`.
#[inline(always)]
fn line_of(offset: u64) -> u64 {
    offset / LINE_BYTES
}

/// Enters a large block in the page map: nobody can look it up before a slot names it.
#[inline]
fn enter_pages<M: Medium>(space: &Space<M>, block: &LargeBlock) {
    space.page_map.set_large(block.range(), block.log.code(), block.extent.tag);
}

/// As many blocks, slots and cells as a lane takes records.
pub(super) struct Changes<'p> {
    /// The records.
    pub(super) drafts: &'p [Draft],
    /// What slots and cells are to hold, each once.
    pub(super) stores: &'p [Store],
    /// The blocks that become live.
    pub(super) allocated: &'p [Block],
    /// The blocks that become free.
    pub(super) freed: &'p mut [Freed],
    /// Where it notes what it needs itself.
    pub(super) scratch: &'p mut Scratch,
}

/// A word of a slot or cell that is to be stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Store {
    /// Byte offset of the slot or cell.
    pub(super) offset: u64,
    /// The word.
    pub(super) word: u64,
    /// Whether it lies in a block that the operation allocates.
    pub(super) is_new: bool,
    /// Whether it is a cell.
    pub(super) is_cell: bool,
}

/// What an operation notes until it is done; empty between operations, so that none allocates.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Entries of the bookkeeping logs.
    appends: Vec<Append>,
    /// Lines that were stored in.
    lines: Vec<u64>,
}

impl<M: Medium> Effects<M> for Changes<'_> {
    fn drafts(&self) -> &[Draft] {
        self.drafts
    }

    fn reserve(&mut self, space: &Space<M>) -> Result<()> {
        let allocated = self.allocated.iter().filter_map(|block| match block {
            Block::Large(block) => Some(Request::Alloc(block.log, block.extent)),
            Block::Small(_) => None,
        });
        let freed = self.freed.iter().filter_map(|freed| match &freed.block {
            Block::Large(block) => Some(Request::Free(block.log, block.range().start)),
            Block::Small(_) => None,
        });
        let requests = allocated.chain(freed);
        Ok(space.book.reserve_all(&space.medium, requests, &mut self.scratch.appends)?)
    }

    fn enter(&mut self, space: &Space<M>) {
        for block in self.allocated {
            if let Block::Large(block) = block {
                enter_pages(space, block);
            }
        }
    }

    /// The slots in blocks that the operation allocates come first, in whatever order they were named. Nobody reaches those
    /// blocks yet: what leads there from outside is a slot in a live block. Once that is stored, a reader may look at the
    /// new block's bytes, which must not change under it. The store is a release, and pairs with the acquire of who reads a
    /// slot.
    ///
    /// Bits are cleared after the slots were stored: who reads a slot and finds its block not live any more reads it again,
    /// and must not find the same block.
    fn apply(&mut self, space: &Space<M>, lines: &mut impl Lines) {
        let m = &space.medium;
        let touched = &mut self.scratch.lines;
        for append in &self.scratch.appends {
            space.book.store(m, append);
            touched.push(line_of(append.place()));
        }
        for block in self.allocated.iter().filter_map(as_small) {
            block.live_bit().store(m, true);
            touched.push(line_of(block.live_bit().place()));
        }
        for in_new in [true, false] {
            for store in self.stores.iter().filter(|store| store.is_new == in_new) {
                // CRASH: the record that names the word and this version is durable: recovery stores the same.
                m.store(word_at(m, store.offset), store.word);
                touched.push(line_of(store.offset));
            }
        }
        for freed in &mut *self.freed {
            if let Block::Small(block) = &freed.block {
                freed.was_live = block.live_bit().store(m, false);
                touched.push(line_of(block.live_bit().place()));
            }
        }
        touched.sort_unstable();
        touched.dedup();
        touched.drain(..).for_each(|line| lines.stored(line));
    }

    /// Lets the log entries count, and takes freed large blocks out of the page map.
    fn finish(&mut self, space: &Space<M>) {
        self.scratch.appends.drain(..).for_each(|append| space.book.commit(append));
        for freed in &*self.freed {
            if let Block::Large(block) = &freed.block {
                space.page_map.clear(block.range());
            }
        }
    }
}

fn as_small(block: &Block) -> Option<&SmallBlock> {
    match block {
        Block::Small(block) => Some(block),
        Block::Large(_) => None,
    }
}

/// The word of the slot or cell at byte `offset`.
#[inline(always)]
pub(super) fn word_at<M: Medium>(m: &M, offset: u64) -> &Word {
    m.at(Offset::<Word>::new(offset)).expect("a slot or cell lies inside its heap")
}
