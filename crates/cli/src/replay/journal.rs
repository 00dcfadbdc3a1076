//! What a replay has done so far, kept outside the heap so that it outlives the killed worker.
//!
//! One word per block says how far its life has come and which slot owns it; one line per thread says how
//! far its program has come; a page of tallies holds the figures. A worker announces an operation before
//! it begins and notes it when it has returned, so after a kill the journal tells which operations
//! had returned and which were in flight. The same words let a free wait for its allocation.
//!
//! A plain replay keeps its journal in anonymous memory, one with kills in a mapped file.

use std::num::NonZeroU16;

use pmalloc_persist::{LINE_BYTES, Medium, Offset, PAGE_BYTES, Word};

use super::{plan::Plan, slots::SlotId, trace::BlockId};

const MAGIC: u64 = u64::from_le_bytes(*b"PMAJRNL1");

/// Bytes of a line, as a length in memory.
const LINE_LEN: usize = 64;

const STATE_MASK: u64 = 0x7;
const WAITER_SHIFT: u32 = 8;
const WAITER_MASK: u64 = 0xffff << WAITER_SHIFT;
const SLOT_SHIFT: u32 = 32;

/// How far the life of a block has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Not begun.
    Untouched,
    /// The allocation has begun and not returned.
    Allocating(SlotId),
    /// The allocation has returned.
    Live(SlotId),
    /// The free has begun and not returned.
    Freeing(SlotId),
    /// The free has returned.
    Freed,
}

impl Entry {
    fn encode(self) -> u64 {
        let (state, slot) = match self {
            Self::Untouched => (0, 0),
            Self::Allocating(slot) => (1, slot.get()),
            Self::Live(slot) => (2, slot.get()),
            Self::Freeing(slot) => (3, slot.get()),
            Self::Freed => (4, 0),
        };
        state | (u64::from(slot) << SLOT_SHIFT)
    }

    fn decode(word: u64) -> Option<Self> {
        let slot = SlotId::new(u32::try_from(word >> SLOT_SHIFT).expect("32 bits remain"));
        match word & STATE_MASK {
            0 => Some(Self::Untouched),
            1 => Some(Self::Allocating(slot)),
            2 => Some(Self::Live(slot)),
            3 => Some(Self::Freeing(slot)),
            4 => Some(Self::Freed),
            _ => None,
        }
    }

    /// The slot, while the entry names one.
    pub(crate) const fn slot(self) -> Option<SlotId> {
        match self {
            Self::Allocating(slot) | Self::Live(slot) | Self::Freeing(slot) => Some(slot),
            Self::Untouched | Self::Freed => None,
        }
    }

    /// Whether an operation has begun and not returned.
    pub(crate) const fn is_in_flight(self) -> bool {
        matches!(self, Self::Allocating(_) | Self::Freeing(_))
    }
}

/// A figure kept over all workers of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Tally {
    /// Slot arrays whose creation has begun.
    ArraysBegun,
    /// Slot arrays that exist.
    ArraysMade,
    /// Peak of the requested bytes of live blocks.
    PeakLiveBytes,
    /// Peak of the number of live blocks.
    PeakLiveBlocks,
    /// Peak of what the heap file occupies, in bytes.
    PeakHeapBytes,
    /// Blocks whose whole content was compared.
    VerifiedBlocks,
    /// Contradictions found.
    Violations,
    /// Steps done, counted up to the same moment as the times.
    Operations,
    /// Time spent replaying, in nanoseconds.
    WallNs,
    /// Processor time spent replaying, in nanoseconds.
    CpuNs,
    /// The allocator's volatile memory, in bytes.
    DramBytes,
}

/// What a journal has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Number of threads.
    pub(crate) threads: u16,
    /// Number of blocks.
    pub(crate) blocks: u32,
}

impl Shape {
    /// The shape of a journal of `plan`.
    pub(crate) fn of(plan: &Plan) -> Self {
        let blocks = u32::try_from(plan.allocs()).expect("block ids have 32 bits");
        Self { threads: plan.threads(), blocks }
    }

    /// Where in the journal's bytes the threads' positions lie, and how many bytes they are.
    pub(crate) fn positions(self) -> (u64, usize) {
        (Self::THREADS_AT, usize::from(self.threads) * LINE_LEN)
    }

    /// Sum of the positions in `bytes`, which were read from there.
    pub(crate) fn steps_in(self, bytes: &[u8]) -> u64 {
        let word = |line: &[u8]| u64::from_le_bytes(line[..8].try_into().expect("eight bytes"));
        bytes.chunks_exact(LINE_LEN).map(word).sum()
    }

    const THREADS_AT: u64 = PAGE_BYTES;

    fn blocks_at(self) -> u64 {
        Self::THREADS_AT + u64::from(self.threads) * LINE_BYTES
    }

    /// Bytes that a journal of this shape needs.
    pub(crate) fn len_bytes(self) -> u64 {
        (self.blocks_at() + u64::from(self.blocks) * size_of::<Word>() as u64)
            .next_multiple_of(PAGE_BYTES)
    }
}

/// The journal of one replay.
#[derive(Debug)]
pub(crate) struct Journal<M> {
    medium: M,
    shape: Shape,
}

impl<M: Medium> Journal<M> {
    const MAGIC_AT: u64 = 0;
    const SHAPE_AT: u64 = 8;
    const TALLIES_AT: u64 = LINE_BYTES;

    /// A new journal in `medium`, which is zeroed and has room for `shape`.
    pub(crate) fn create(medium: M, shape: Shape) -> Self {
        let journal = Self { medium, shape };
        let packed = (u64::from(shape.threads) << 32) | u64::from(shape.blocks);
        journal.store(Self::SHAPE_AT, packed);
        journal.store(Self::MAGIC_AT, MAGIC);
        journal
    }

    /// The journal that `medium` holds, or `None` if it holds none of this shape.
    pub(crate) fn attach(medium: M, shape: Shape) -> Option<Self> {
        if medium.len() < shape.len_bytes() {
            return None;
        }
        let journal = Self { medium, shape };
        let packed = (u64::from(shape.threads) << 32) | u64::from(shape.blocks);
        let fits = journal.load(Self::MAGIC_AT) == MAGIC && journal.load(Self::SHAPE_AT) == packed;
        fits.then_some(journal)
    }

    /// How far the life of `block` has come.
    pub(crate) fn entry(&self, block: BlockId) -> Entry {
        Entry::decode(self.medium.load(self.word_of(block)))
            .expect("the journal writes valid entries")
    }

    /// Notes that `block` has come to `entry`, and returns the thread that waits for that, if any.
    pub(crate) fn set_entry(&self, block: BlockId, entry: Entry) -> Option<u16> {
        let word = self.word_of(block);
        let mut found = self.medium.load(word);
        loop {
            let new = entry.encode() | (found & WAITER_MASK);
            match self.medium.compare_exchange(word, found, new) {
                Ok(_) => return waiter_of(found),
                Err(now) => found = now,
            }
        }
    }

    /// Makes the thread that brings `block` to its next entry learn that `thread` waits for it; returns
    /// the entry found.
    pub(crate) fn wait_for(&self, block: BlockId, thread: u16) -> Entry {
        let waiter = u64::from(thread + 1) << WAITER_SHIFT;
        let found = self.medium.fetch_or(self.word_of(block), waiter);
        Entry::decode(found).expect("the journal writes valid entries")
    }

    /// Notes that `block` has come to `entry` and that nobody waits: after a kill, with no worker running.
    pub(crate) fn resolve(&self, block: BlockId, entry: Entry) {
        self.medium.store(self.word_of(block), entry.encode());
    }

    /// Number of steps of its program that `thread` has done.
    pub(crate) fn position(&self, thread: u16) -> u64 {
        self.load(Shape::THREADS_AT + u64::from(thread) * LINE_BYTES)
    }

    /// Notes the number of steps that `thread` has done.
    pub(crate) fn set_position(&self, thread: u16, steps: u64) {
        self.store(Shape::THREADS_AT + u64::from(thread) * LINE_BYTES, steps);
    }

    /// Number of steps that all threads have done.
    pub(crate) fn steps(&self) -> u64 {
        (0..self.shape.threads).map(|thread| self.position(thread)).sum()
    }

    /// The figure.
    pub(crate) fn tally(&self, tally: Tally) -> u64 {
        self.load(Self::TALLIES_AT + tally as u64 * 8)
    }

    /// Sets a figure; only one thread at a time does.
    pub(crate) fn set_tally(&self, tally: Tally, value: u64) {
        self.store(Self::TALLIES_AT + tally as u64 * 8, value);
    }

    /// Raises a figure to `value` if it is lower; only one thread at a time does.
    pub(crate) fn raise_tally(&self, tally: Tally, value: u64) {
        self.set_tally(tally, self.tally(tally).max(value));
    }

    /// Adds to a figure; only one thread at a time does.
    pub(crate) fn add_tally(&self, tally: Tally, value: u64) {
        self.set_tally(tally, self.tally(tally) + value);
    }

    /// Forgets everything but the figures: the trace begins again on another heap.
    pub(crate) fn restart(&self) {
        (0..self.shape.threads).for_each(|thread| self.set_position(thread, 0));
        (0..self.shape.blocks).for_each(|id| self.resolve(BlockId::new(id), Entry::Untouched));
        self.set_tally(Tally::ArraysBegun, 0);
        self.set_tally(Tally::ArraysMade, 0);
    }

    fn word_of(&self, block: BlockId) -> &Word {
        assert!(block.get() < self.shape.blocks, "a block that the journal has no room for");
        self.word(self.shape.blocks_at() + u64::from(block.get()) * size_of::<Word>() as u64)
    }

    fn word(&self, at: u64) -> &Word {
        self.medium.at(Offset::new(at)).expect("the medium has room for the journal's shape")
    }

    fn load(&self, at: u64) -> u64 {
        self.medium.load(self.word(at))
    }

    fn store(&self, at: u64, value: u64) {
        self.medium.store(self.word(at), value);
    }
}

/// The waiting thread that an entry's word names.
fn waiter_of(word: u64) -> Option<u16> {
    let number = u16::try_from((word & WAITER_MASK) >> WAITER_SHIFT).expect("16 bits remain");
    NonZeroU16::new(number).map(|number| number.get() - 1)
}

#[cfg(test)]
mod tests {
    use pmalloc_persist::Anon;

    use super::*;

    const SHAPE: Shape = Shape { threads: 3, blocks: 1000 };

    fn journal() -> Journal<Anon> {
        Journal::create(Anon::new(SHAPE.len_bytes()), SHAPE)
    }

    #[test]
    fn a_block_lives_through_its_entries() {
        let journal = journal();
        let (block, slot) = (BlockId::new(999), SlotId::new(u32::MAX));
        assert_eq!(journal.entry(block), Entry::Untouched);
        for entry in
            [Entry::Allocating(slot), Entry::Live(slot), Entry::Freeing(slot), Entry::Freed]
        {
            assert_eq!(journal.set_entry(block, entry), None);
            assert_eq!(journal.entry(block), entry);
            assert_eq!(journal.entry(BlockId::new(998)), Entry::Untouched);
        }
    }

    #[test]
    fn who_waits_is_told_to_the_one_who_notes() {
        let journal = journal();
        let (block, slot) = (BlockId::new(0), SlotId::new(5));
        assert_eq!(journal.wait_for(block, 2), Entry::Untouched);
        assert_eq!(journal.set_entry(block, Entry::Allocating(slot)), Some(2));
        assert_eq!(journal.set_entry(block, Entry::Live(slot)), Some(2));
        assert_eq!(journal.entry(block), Entry::Live(slot));
        journal.resolve(block, Entry::Live(slot));
        assert_eq!(journal.set_entry(block, Entry::Freeing(slot)), None);
    }

    #[test]
    fn another_shape_is_refused() {
        let medium = std::sync::Arc::new(Anon::new(SHAPE.len_bytes()));
        assert!(Journal::attach(std::sync::Arc::clone(&medium), SHAPE).is_none(), "no journal yet");
        drop(Journal::create(std::sync::Arc::clone(&medium), SHAPE));
        let other = Shape { blocks: 999, ..SHAPE };
        assert!(Journal::attach(std::sync::Arc::clone(&medium), other).is_none());
        assert!(Journal::attach(medium, SHAPE).is_some());
        assert!(Journal::attach(Anon::new(PAGE_BYTES), SHAPE).is_none(), "too short");
    }

    #[test]
    fn the_positions_are_read_from_the_bytes_alone() {
        let journal = journal();
        journal.set_position(0, 5);
        journal.set_position(2, 1 << 40);
        let (at, len) = SHAPE.positions();
        let span = pmalloc_persist::Span::new(at, len as u64);
        let words = journal.medium.region().array::<Word>(Offset::new(span.start), span.len / 8);
        let bytes: Vec<u8> = words
            .expect("inside")
            .iter()
            .flat_map(|word| journal.medium.load(word).to_le_bytes())
            .collect();
        assert_eq!(SHAPE.steps_in(&bytes), journal.steps());
    }

    #[test]
    fn a_restart_keeps_only_the_figures() {
        let journal = journal();
        journal.set_entry(BlockId::new(1), Entry::Freed);
        journal.set_position(2, 7);
        journal.add_tally(Tally::Operations, 3);
        assert_eq!(journal.steps(), 7);
        journal.restart();
        assert_eq!((journal.steps(), journal.entry(BlockId::new(1))), (0, Entry::Untouched));
        assert_eq!(journal.tally(Tally::Operations), 3);
    }
}
