//! What the steps of an operation come to: its records, its words, its blocks.
//!
//! The steps take effect in order, as if each were an operation of its own, but of each slot and cell only the last word is
//! stored. A plan keeps its memory from one operation to the next.

use pmalloc_persist::{Medium, Span, Word};

use super::{
    Result,
    changes::{Changes, Scratch, Store, word_at},
    engine::Engine,
    free::Unlinked,
    home::Homes,
};
use crate::{
    arena::Block,
    error::Error,
    lane::Draft,
    layout::{
        cell::{CellValue, CellWord},
        lane::Op,
        slot::{SlotWord, Version},
    },
    value::SlotMap,
};

/// Bytes of a slot or cell.
const WORD_BYTES: u64 = 8;

/// A slot that a step names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotAt {
    /// Byte offset.
    pub(crate) offset: u64,
    /// Whether it lies in a block that the operation allocates, and not in a live one.
    pub(crate) is_new: bool,
}

impl SlotAt {
    /// A slot in a live block.
    pub(crate) fn live(offset: u64) -> Self {
        Self { offset, is_new: false }
    }
}

/// A cell that a step names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CellAt {
    /// Byte offset.
    pub(crate) offset: u64,
}

/// What is known of a block by the type of the slot that owns it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inside {
    /// Where its slots are.
    pub(crate) slots: SlotMap,
    /// Bytes that it must have.
    pub(crate) size_bytes: usize,
}

impl Inside {
    /// Nothing is known.
    pub(crate) const NOTHING: Self = Self { slots: SlotMap::None, size_bytes: 0 };

    /// Calls `visit` with the byte offset of each slot in the block at byte `block`, until it returns true; returns
    /// whether it did.
    fn any(&self, block: u64, visit: &mut dyn FnMut(u64) -> bool) -> bool {
        self.slots.any(0, &mut |at| visit(block + at as u64))
    }
}

/// One change.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// The empty slot gets a block that was reserved.
    Alloc(SlotAt, Block),
    /// The slot's block is freed, and its slots must be empty then.
    Free(SlotAt, Inside),
    /// The block of the first slot goes to the second, which is empty.
    Move(SlotAt, SlotAt),
    /// Two slots exchange what they own.
    Swap(SlotAt, SlotAt),
    /// The cell gets a value.
    Set(CellAt, CellValue),
    /// The empty slot gets the live block at this byte, which no slot owns.
    Adopt(SlotAt, u64),
}

impl Step {
    /// The slots and cells.
    pub(super) fn places(&self) -> impl Iterator<Item = SlotAt> + use<> {
        let (first, second) = match *self {
            Self::Alloc(slot, _) | Self::Free(slot, _) | Self::Adopt(slot, _) => (slot, None),
            Self::Move(a, b) | Self::Swap(a, b) => (a, Some(b)),
            Self::Set(cell, _) => (SlotAt::live(cell.offset), None),
        };
        [Some(first), second].into_iter().flatten()
    }
}

/// A block that an operation frees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Freed {
    /// The block.
    pub(super) block: Block,
    /// Whether it was live until then.
    pub(super) was_live: bool,
    /// What is known of it.
    pub(super) inside: Inside,
}

impl Freed {
    /// A block that is to be freed.
    pub(super) fn new(block: Block, inside: Inside) -> Self {
        Self { block, was_live: true, inside }
    }

    fn span(&self) -> Span {
        Span::new(self.block.offset(), self.block.usable_bytes())
    }
}

/// What an operation comes to.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Its records.
    drafts: Vec<Draft>,
    /// Its slots and cells, and what they hold after the steps so far.
    stores: Vec<Store>,
    allocated: Vec<Block>,
    freed: Vec<Freed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exchange {
    Move,
    Swap,
}

impl Plan {
    /// Makes the plan of `steps`, whose slots and cells are owned, if they can be made.
    pub(super) fn make<M: Medium>(
        &mut self,
        engine: &Engine<M>,
        homes: &mut Homes,
        steps: &[Step],
    ) -> Result<()> {
        self.clear();
        // Under the locks: who frees a typed block holds those of its slots.
        let mut live = steps.iter().flat_map(Step::places).filter(|place| !place.is_new);
        live.try_for_each(|place| homes.check(engine, place.offset))?;
        steps.iter().try_for_each(|step| self.add(engine, step))
    }

    /// What it comes to.
    pub(super) fn changes<'p>(&'p mut self, scratch: &'p mut Scratch) -> Changes<'p> {
        Changes {
            drafts: &self.drafts,
            stores: &self.stores,
            allocated: &self.allocated,
            freed: &mut self.freed,
            scratch,
        }
    }

    /// Whether it changes nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.drafts.is_empty()
    }

    /// The blocks that it has freed, in `epoch`.
    pub(super) fn unlinked(&self, epoch: u64) -> impl Iterator<Item = Unlinked> {
        let unlinked =
            move |freed: &Freed| Unlinked { block: freed.block, was_live: freed.was_live, epoch };
        self.freed.iter().map(unlinked)
    }

    /// The byte offsets of the slots in blocks that it frees, as far as their types tell.
    pub(super) fn children(&self, visit: &mut dyn FnMut(u64)) {
        for freed in &self.freed {
            freed.inside.any(freed.block.offset(), &mut |slot| {
                visit(slot);
                false
            });
        }
    }

    /// Sees that no slot in a block that is freed owns anything when the operation is done.
    pub(super) fn check_children<M: Medium>(&self, engine: &Engine<M>) -> Result<()> {
        let is_freed = |slot: u64| {
            let word = Span::new(slot, WORD_BYTES);
            self.freed.iter().any(|freed| freed.span().contains(word))
        };
        let is_full = |store: &&Store| SlotWord::from_bits(store.word).place().is_some();
        let mut full_slots = self.stores.iter().filter(|store| !store.is_cell).filter(is_full);
        if let Some(store) = full_slots.find(|store| is_freed(store.offset)) {
            return Err(Error::ChildrenAlive { slot: store.offset }.into());
        }
        let mut full = None;
        for freed in &self.freed {
            freed.inside.any(freed.block.offset(), &mut |slot| {
                let is_named = self.stores.iter().any(|store| store.offset == slot);
                if !is_named && read(engine, slot).holds.place().is_some() {
                    full = Some(slot);
                }
                full.is_some()
            });
        }
        full.map_or(Ok(()), |slot| Err(Error::ChildrenAlive { slot }.into()))
    }

    fn clear(&mut self) {
        self.drafts.clear();
        self.stores.clear();
        self.allocated.clear();
        self.freed.clear();
    }

    fn add<M: Medium>(&mut self, engine: &Engine<M>, step: &Step) -> Result<()> {
        match *step {
            Step::Alloc(slot, block) => self.alloc(engine, slot, block),
            Step::Free(slot, inside) => self.free(engine, slot, inside),
            Step::Move(from, to) => self.exchange(engine, from, to, Exchange::Move),
            Step::Swap(a, b) => self.exchange(engine, a, b, Exchange::Swap),
            Step::Set(cell, value) => {
                self.set(engine, cell, value);
                Ok(())
            }
            Step::Adopt(slot, block) => self.adopt(engine, slot, block),
        }
    }

    fn alloc<M: Medium>(&mut self, engine: &Engine<M>, to: SlotAt, block: Block) -> Result<()> {
        let at = self.find_empty(engine, to)?;
        self.allocated.push(block);
        self.change(at, alloc_op(&block), &block);
        Ok(())
    }

    /// The record is that of a slot which takes a block over: recovery believes it, as the block is live.
    fn adopt<M: Medium>(&mut self, engine: &Engine<M>, to: SlotAt, block: u64) -> Result<()> {
        let at = self.find_empty(engine, to)?;
        self.check_owned(engine, to, block)?;
        self.record(at, Op::Fill, block, 0);
        Ok(())
    }

    fn free<M: Medium>(&mut self, engine: &Engine<M>, from: SlotAt, inside: Inside) -> Result<()> {
        let at = self.find(engine, from)?;
        let Some(offset) = self.word(at).place() else {
            return Err(Error::SlotEmpty { slot: from.offset }.into());
        };
        engine.check_no_root(from.offset, offset)?;
        if self.freed.iter().any(|freed| freed.block.offset() == offset) {
            return Err(Error::NotLive { offset }.into());
        }
        // A block that the operation itself allocates has no live bit yet, and is refused here, too.
        let block = engine.space.live_block(offset)?;
        if block.usable_bytes() < inside.size_bytes as u64 {
            let what = "a slot owns a block that is too small for its type";
            return Err(Error::corrupted(from.offset, what).into());
        }
        self.freed.push(Freed::new(block, inside));
        self.change(at, free_op(&block), &block);
        Ok(())
    }

    /// Exchanges what two slots own, if that is what is wanted.
    fn exchange<M: Medium>(
        &mut self,
        engine: &Engine<M>,
        a: SlotAt,
        b: SlotAt,
        want: Exchange,
    ) -> Result<()> {
        let (at_a, at_b) = (self.find(engine, a)?, self.find(engine, b)?);
        let (of_a, of_b) = (self.word(at_a).place(), self.word(at_b).place());
        if want == Exchange::Move && of_a.is_none() {
            return Err(Error::SlotEmpty { slot: a.offset }.into());
        }
        if want == Exchange::Move && of_b.is_some() {
            return Err(Error::SlotFull { slot: b.offset }.into());
        }
        if of_a == of_b {
            return Ok(());
        }
        for (slot, block) in [(a, of_a), (b, of_b)] {
            block.map_or(Ok(()), |block| self.check_owned(engine, slot, block))?;
        }
        for (at, block) in [(at_a, of_b), (at_b, of_a)] {
            match block {
                Some(block) => self.record(at, Op::Fill, block, 0),
                None => self.record(at, Op::Empty, 0, 0),
            }
        }
        Ok(())
    }

    /// What a slot hands on must be a block of a slot's: a damaged word must not spread, and no record may name what
    /// recovery would not believe.
    fn check_owned<M: Medium>(&self, engine: &Engine<M>, owner: SlotAt, block: u64) -> Result<()> {
        engine.check_no_root(owner.offset, block)?;
        let is_new = self.allocated.iter().any(|new| new.offset() == block);
        let is_freed = self.freed.iter().any(|freed| freed.block.offset() == block);
        if is_new || engine.is_live(block) && !is_freed {
            return Ok(());
        }
        Err(Error::corrupted(owner.offset, "a slot owns no live block").into())
    }

    /// Gives the cell a value, and its next version (rule 7).
    fn set<M: Medium>(&mut self, engine: &Engine<M>, cell: CellAt, value: CellValue) {
        let at = self.find_word(engine, SlotAt::live(cell.offset), true);
        let version = CellWord::from_bits(self.stores[at].word).version().next();
        self.push(at, Draft { op: Op::Set(value), block: 0, pages: 0, slot: cell.offset, version });
    }

    /// Where the slot stands in `stores`; it owns nothing.
    fn find_empty<M: Medium>(&mut self, engine: &Engine<M>, slot: SlotAt) -> Result<usize> {
        let at = self.find(engine, slot)?;
        match self.word(at).place() {
            Some(_) => Err(Error::SlotFull { slot: slot.offset }.into()),
            None => Ok(at),
        }
    }

    /// Where the slot stands in `stores`.
    fn find<M: Medium>(&mut self, engine: &Engine<M>, slot: SlotAt) -> Result<usize> {
        let known = self.stores.len();
        let at = self.find_word(engine, slot, false);
        if at == known && slot.is_new && self.word(at).place().is_some() {
            let why = "its block was written with something in it: a slot owns nothing before it is given a block";
            return Err(Error::Invalid { what: "slot in a new block", why: why.into() }.into());
        }
        Ok(at)
    }

    fn find_word<M: Medium>(&mut self, engine: &Engine<M>, slot: SlotAt, is_cell: bool) -> usize {
        let SlotAt { offset, is_new } = slot;
        if let Some(at) = self.stores.iter().position(|store| store.offset == offset) {
            return at;
        }
        let word = read(engine, offset).holds.bits();
        self.stores.push(Store { offset, word, is_new, is_cell });
        self.stores.len() - 1
    }

    fn word(&self, at: usize) -> SlotWord {
        SlotWord::from_bits(self.stores[at].word)
    }

    fn change(&mut self, at: usize, op: Op, block: &Block) {
        self.record(at, op, block.offset(), pages_of(block));
    }

    /// Adds the record of a slot, and gives it its next version (rule 7).
    fn record(&mut self, at: usize, op: Op, block: u64, pages: u32) {
        let version: Version = self.word(at).version().next();
        self.push(at, Draft { op, block, pages, slot: self.stores[at].offset, version });
    }

    fn push(&mut self, at: usize, draft: Draft) {
        self.stores[at].word = draft.word();
        self.drafts.push(draft);
    }
}

/// A slot as an operation finds it that owns it.
#[derive(Clone, Copy)]
pub(super) struct FoundSlot<'m> {
    /// Byte offset.
    pub(super) offset: u64,
    /// The word.
    pub(super) word: &'m Word,
    /// What it holds.
    pub(super) holds: SlotWord,
}

/// Reads the slot at byte `offset`.
#[inline(always)]
pub(super) fn read<M: Medium>(engine: &Engine<M>, offset: u64) -> FoundSlot<'_> {
    let m = engine.medium();
    let word = word_at(m, offset);
    FoundSlot { offset, word, holds: SlotWord::from_bits(m.load(word)) }
}

/// What is recorded where the block is allocated.
fn alloc_op(block: &Block) -> Op {
    match block {
        Block::Small(_) => Op::AllocSmall,
        Block::Large(block) => Op::AllocLarge(block.extent.tag),
    }
}

/// What is recorded where the block is freed.
fn free_op(block: &Block) -> Op {
    match block {
        Block::Small(_) => Op::FreeSmall,
        Block::Large(_) => Op::FreeLarge,
    }
}

/// The pages that a record names.
fn pages_of(block: &Block) -> u32 {
    match block {
        Block::Small(_) => 0,
        Block::Large(block) => block.range().pages,
    }
}
