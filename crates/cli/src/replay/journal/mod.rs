//! What a replay has done so far, kept outside the heap so that it outlives the killed worker.
//!
//! One word per block ([`entry`]) says how far its life has come and which slot owns it; each thread has a line that
//! says how far its program has come and what its cell holds, and a page for the operation that it is doing ([`in_flight`]);
//! a page of tallies holds the figures. A worker lays down an operation before it begins and notes when it has
//! returned, so after a kill the journal tells which operations had returned and which were in flight. The words of the
//! blocks also let a free wait for its allocation.
//!
//! A plain replay keeps its journal in anonymous memory, one with kills in a mapped file.

mod entry;
mod in_flight;

use pmalloc_persist::{LINE_BYTES, Medium, Offset, OnMedia, PAGE_BYTES, Word};

pub(crate) use self::in_flight::{Pending, Stage};
use self::{
    entry::EntryWord,
    in_flight::{Bookmark, InFlight},
};
use super::{
    plan::Plan,
    request::{Entry, Kind, Request},
};
use crate::trace::BlockId;

const MAGIC: u64 = u64::from_le_bytes(*b"PMAJRNL2");

/// Bytes of a line, as a length in memory.
const LINE_LEN: usize = size_of::<Bookmark>();

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

    fn in_flight_at(self) -> u64 {
        (Self::THREADS_AT + u64::from(self.threads) * LINE_BYTES).next_multiple_of(PAGE_BYTES)
    }

    fn blocks_at(self) -> u64 {
        self.in_flight_at() + u64::from(self.threads) * size_of::<InFlight>() as u64
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
        EntryWord::from_bits(self.medium.load(self.word_of(block))).entry()
    }

    /// Notes that `block` has come to `entry`, and returns the thread that waits for that, if any.
    fn set_entry(&self, block: BlockId, entry: Entry) -> Option<u16> {
        let word = self.word_of(block);
        let mut found = EntryWord::from_bits(self.medium.load(word));
        loop {
            let new = found.with(entry);
            match self.medium.compare_exchange(word, found.bits(), new.bits()) {
                Ok(_) => return found.waiter(),
                Err(now) => found = EntryWord::from_bits(now),
            }
        }
    }

    /// Makes the thread that brings `block` to its next entry learn that `thread` waits for it; returns
    /// the entry found.
    pub(crate) fn wait_for(&self, block: BlockId, thread: u16) -> Entry {
        let found = self.medium.fetch_or(self.word_of(block), EntryWord::waiter_bits(thread));
        EntryWord::from_bits(found).entry()
    }

    /// Lays down what `thread` is about to do.
    pub(crate) fn begin(&self, thread: u16, request: &Request<'_>) {
        self.in_flight(thread).begin(&self.medium, request);
    }

    /// Notes that the operation of `thread` has returned, and all that it changes; tells `wake` which threads wait for
    /// that.
    ///
    /// After a kill this is done again for an operation that had returned, whatever was noted of it.
    pub(crate) fn complete(&self, thread: u16, mut wake: impl FnMut(u16)) {
        let (m, in_flight) = (&self.medium, self.in_flight(thread));
        in_flight.returned(m);
        for change in in_flight.changes(m) {
            // Another thread may have freed the block as soon as it was noted to be live.
            if self.entry(change.block) != Entry::Freed {
                let waiter = self.set_entry(change.block, change.after);
                // Who waited for a block that is freed now is the one who frees it.
                let waiter = waiter.filter(|_| change.after != Entry::Freed);
                waiter.into_iter().for_each(&mut wake);
            }
        }
        in_flight.count_it(m);
        let bookmark = self.bookmark(thread);
        if let Some(value) = in_flight.cell(m) {
            m.store(&bookmark.cell, value);
        }
        m.store(&bookmark.position, in_flight.position(m));
        in_flight.clear(m);
    }

    /// Notes that the operation of `thread` did not happen: after a kill.
    pub(crate) fn withdraw(&self, thread: u16) {
        self.in_flight(thread).clear(&self.medium);
    }

    /// The operation that `thread` has in flight.
    pub(crate) fn pending(&self, thread: u16) -> Option<Pending> {
        self.in_flight(thread).pending(&self.medium)
    }

    /// Operations of `kind` that all threads have done.
    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.threads().map(|thread| self.in_flight(thread).count(&self.medium, kind)).sum()
    }

    /// The threads.
    pub(crate) fn threads(&self) -> impl Iterator<Item = u16> + use<M> {
        0..self.shape.threads
    }

    /// Number of steps of its program that `thread` has done.
    pub(crate) fn position(&self, thread: u16) -> u64 {
        self.medium.load(&self.bookmark(thread).position)
    }

    /// The value of the cell of `thread`.
    pub(crate) fn cell(&self, thread: u16) -> u64 {
        self.medium.load(&self.bookmark(thread).cell)
    }

    /// Number of steps that all threads have done.
    pub(crate) fn steps(&self) -> u64 {
        self.threads().map(|thread| self.position(thread)).sum()
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
        self.threads().for_each(|thread| {
            self.medium.store(&self.bookmark(thread).position, 0);
            self.medium.store(&self.bookmark(thread).cell, 0);
            self.withdraw(thread);
        });
        (0..self.shape.blocks).for_each(|id| {
            let word = EntryWord::of(Entry::Untouched);
            self.medium.store(self.word_of(BlockId::new(id)), word.bits());
        });
        self.set_tally(Tally::ArraysBegun, 0);
        self.set_tally(Tally::ArraysMade, 0);
    }

    fn bookmark(&self, thread: u16) -> &Bookmark {
        assert!(thread < self.shape.threads, "a thread that the journal has no room for");
        self.at(Shape::THREADS_AT + u64::from(thread) * LINE_BYTES)
    }

    fn in_flight(&self, thread: u16) -> &InFlight {
        assert!(thread < self.shape.threads, "a thread that the journal has no room for");
        self.at(self.shape.in_flight_at() + u64::from(thread) * size_of::<InFlight>() as u64)
    }

    fn word_of(&self, block: BlockId) -> &Word {
        assert!(block.get() < self.shape.blocks, "a block that the journal has no room for");
        self.at(self.shape.blocks_at() + u64::from(block.get()) * size_of::<Word>() as u64)
    }

    fn at<T: OnMedia>(&self, at: u64) -> &T {
        self.medium.at(Offset::new(at)).expect("the medium has room for the journal's shape")
    }

    fn load(&self, at: u64) -> u64 {
        self.medium.load(self.at(at))
    }

    fn store(&self, at: u64, value: u64) {
        self.medium.store(self.at(at), value);
    }
}

#[cfg(test)]
mod tests {
    use pmalloc_persist::Anon;

    use super::*;
    use crate::replay::{request::Act, slots::SlotId};

    const SHAPE: Shape = Shape { threads: 3, blocks: 1000 };

    fn journal() -> Journal<Anon> {
        Journal::create(Anon::new(SHAPE.len_bytes()), SHAPE)
    }

    /// Lets `thread` begin an operation of `act`.
    fn begin(journal: &Journal<Anon>, thread: u16, act: Act) {
        let kind = match act {
            Act::Alloc { .. } => Kind::Alloc,
            Act::Free { .. } => Kind::Free,
            Act::Set { .. } => Kind::Set,
            Act::Move { .. } => Kind::Move,
            Act::Swap { .. } => Kind::Swap,
        };
        let position = journal.position(thread) + 1;
        journal.begin(thread, &Request { kind, acts: &[act], position });
    }

    #[test]
    fn a_block_lives_through_its_entries() {
        let journal = journal();
        let (block, slot) = (BlockId::new(999), SlotId::new(u32::MAX - 1));
        let alloc = Act::Alloc { block, to: slot };
        let free = Act::Free { block, from: slot };
        for (thread, act, before, after) in [
            (0, alloc, Entry::Untouched, Entry::Live(slot)),
            (2, free, Entry::Live(slot), Entry::Freed),
        ] {
            begin(&journal, thread, act);
            assert_eq!((journal.entry(block), journal.position(thread)), (before, 0));
            let pending = journal.pending(thread).expect("in flight");
            assert_eq!((pending.stage, pending.changes), (Stage::Begun, act.changes().collect()));
            journal.complete(thread, |waiter| panic!("{waiter} waits"));
            assert_eq!((journal.entry(block), journal.position(thread)), (after, 1));
            assert_eq!(journal.pending(thread), None);
            assert_eq!(journal.entry(BlockId::new(998)), Entry::Untouched);
        }
        assert_eq!((journal.count(Kind::Alloc), journal.count(Kind::Free)), (1, 1));
    }

    #[test]
    fn what_did_not_happen_leaves_nothing() {
        let journal = journal();
        begin(&journal, 1, Act::Alloc { block: BlockId::new(0), to: SlotId::new(5) });
        journal.withdraw(1);
        assert_eq!((journal.pending(1), journal.entry(BlockId::new(0))), (None, Entry::Untouched));
        assert_eq!((journal.position(1), journal.count(Kind::Alloc)), (0, 0));
    }

    #[test]
    fn an_operation_that_was_half_noted_is_noted_once() {
        let journal = journal();
        let (block, slot) = (BlockId::new(0), SlotId::new(5));
        begin(&journal, 0, Act::Alloc { block, to: slot });
        // A kill behind the note that the block is live: another thread has freed it meanwhile.
        let in_flight = journal.in_flight(0);
        in_flight.returned(&journal.medium);
        journal.set_entry(block, Entry::Live(slot));
        begin(&journal, 1, Act::Free { block, from: slot });
        journal.complete(1, |_| {});
        in_flight.count_it(&journal.medium);
        assert_eq!(journal.pending(0).map(|pending| pending.stage), Some(Stage::Returned));
        journal.complete(0, |_| {});
        assert_eq!((journal.entry(block), journal.position(0)), (Entry::Freed, 1));
        assert_eq!(journal.count(Kind::Alloc), 1);
    }

    #[test]
    fn who_waits_is_told_to_the_one_who_notes() {
        let journal = journal();
        let (block, slot) = (BlockId::new(0), SlotId::new(5));
        assert_eq!(journal.wait_for(block, 2), Entry::Untouched);
        begin(&journal, 0, Act::Alloc { block, to: slot });
        let mut woken = Vec::new();
        journal.complete(0, |waiter| woken.push(waiter));
        assert_eq!((woken, journal.entry(block)), (vec![2], Entry::Live(slot)));
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
        journal.medium.store(&journal.bookmark(0).position, 5);
        journal.medium.store(&journal.bookmark(2).position, 1 << 40);
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
        begin(&journal, 2, Act::Alloc { block: BlockId::new(1), to: SlotId::new(0) });
        journal.complete(2, |_| {});
        journal.add_tally(Tally::Operations, 3);
        assert_eq!(journal.steps(), 1);
        journal.restart();
        assert_eq!((journal.steps(), journal.entry(BlockId::new(1))), (0, Entry::Untouched));
        assert_eq!(journal.count(Kind::Alloc), 1);
        assert_eq!(journal.tally(Tally::Operations), 3);
    }
}
