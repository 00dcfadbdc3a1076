//! What one thread has done and is doing: how far its program has come, and the operation in flight.
//!
//! An operation is written down on the thread's page before it begins. It is *begun* from then on, *returned* as soon as the
//! heap has, and gone when all that it changes is noted. All that is noted is the same if it is noted twice, so that
//! an operation which had returned is finished by whoever comes after a kill.

use pmalloc_persist::{Medium, Word, on_media};

use super::super::{
    request::{Change, Entry, Kind, Request},
    slots::SlotId,
};
use crate::trace::BlockId;

/// Most changes of blocks that an operation can make.
const CHANGES_MAX: usize = 488;

/// Places for counts: one for each kind, and some to spare.
const COUNTS: usize = 16;

const _: () = assert!(Kind::COUNT <= COUNTS);

const STAGE_MASK: u64 = 0xff;
const KIND_SHIFT: u32 = 8;
const LEN_SHIFT: u32 = 32;

/// Stands for the slot of a block that is freed. No replay has so many slots.
const NO_SLOT: u32 = u32::MAX;

/// Stands for the value of a cell that is not set: larger than any.
const NO_VALUE: u64 = u64::MAX;

on_media! {
    /// How far a thread has come.
    pub(super) struct Bookmark: 64 {
        /// Persistent: steps of its program that are done.
        pub(super) position: Word,
        /// Persistent: the value of its cell.
        pub(super) cell: Word,
        /// Unused.
        unused: [Word; 6],
    }
}

on_media! {
    /// The page of a thread: what it does.
    pub(super) struct InFlight: 4096 {
        /// Persistent: stage, kind and number of changes of the operation in flight; 0 if there is none.
        state: Word,
        /// Persistent: the position behind it.
        position: Word,
        /// Persistent: operations of its kind, it included.
        count: Word,
        /// Persistent: the value that the thread's cell gets, or [`NO_VALUE`].
        cell: Word,
        /// Unused.
        unused: [Word; 4],
        /// Persistent: operations done, by kind.
        counts: [Word; COUNTS],
        /// Persistent: what becomes of each block.
        changes: [Word; CHANGES_MAX],
    }
}

/// How far an operation in flight has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// It was about to begin, or had.
    Begun = 1,
    /// It had returned.
    Returned = 2,
}

/// An operation in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    /// How far it has come.
    pub(crate) stage: Stage,
    /// What it is called.
    pub(crate) kind: Kind,
    /// What becomes of each block.
    pub(crate) changes: Vec<Change>,
    /// The value that the thread's cell gets, if any.
    pub(crate) cell: Option<u64>,
}

impl InFlight {
    /// Writes down `request`, which is begun from then on.
    pub(super) fn begin<M: Medium>(&self, m: &M, request: &Request<'_>) {
        let mut len = 0;
        for change in request.changes() {
            m.store(&self.changes[len], encode(change));
            len += 1;
        }
        m.store(&self.position, request.position);
        m.store(&self.cell, request.cell().unwrap_or(NO_VALUE));
        let count = m.load(&self.counts[request.kind.index()]) + 1;
        m.store(&self.count, count);
        let state = state(Stage::Begun, request.kind, len);
        // Read, changed and written at once, so that no store of the operation can come before it.
        let before = m.fetch_or(&self.state, state);
        assert_eq!(before, 0, "a thread does one operation after the other");
    }

    /// The heap has returned.
    pub(super) fn returned<M: Medium>(&self, m: &M) {
        let state = m.load(&self.state) & !STAGE_MASK;
        m.store(&self.state, state | Stage::Returned as u64);
    }

    /// Clears the page; the operation did not happen, or all that it changes is noted.
    pub(super) fn clear<M: Medium>(&self, m: &M) {
        m.store(&self.state, 0);
    }

    /// Counts the operation.
    pub(super) fn count_it<M: Medium>(&self, m: &M) {
        let kind = self.kind(m).expect("there is one");
        m.store(&self.counts[kind.index()], m.load(&self.count));
    }

    /// The position behind the operation.
    pub(super) fn position<M: Medium>(&self, m: &M) -> u64 {
        m.load(&self.position)
    }

    /// The value that the thread's cell gets by the operation, if any.
    pub(super) fn cell<M: Medium>(&self, m: &M) -> Option<u64> {
        let value = m.load(&self.cell);
        (value != NO_VALUE).then_some(value)
    }

    /// Operations of `kind` done.
    pub(super) fn count<M: Medium>(&self, m: &M, kind: Kind) -> u64 {
        m.load(&self.counts[kind.index()])
    }

    /// What becomes of each block by the operation.
    pub(super) fn changes<M: Medium>(&self, m: &M) -> impl Iterator<Item = Change> {
        let len = usize::try_from(m.load(&self.state) >> LEN_SHIFT).expect("32 bits remain");
        self.changes[..len].iter().map(|word| decode(m.load(word)))
    }

    /// The operation in flight.
    pub(super) fn pending<M: Medium>(&self, m: &M) -> Option<Pending> {
        let kind = self.kind(m)?;
        let is_returned = m.load(&self.state) & STAGE_MASK == Stage::Returned as u64;
        let stage = if is_returned { Stage::Returned } else { Stage::Begun };
        Some(Pending { stage, kind, changes: self.changes(m).collect(), cell: self.cell(m) })
    }

    fn kind<M: Medium>(&self, m: &M) -> Option<Kind> {
        let state = m.load(&self.state);
        let number = usize::try_from((state >> KIND_SHIFT) & 0xff).expect("8 bits");
        (state != 0).then(|| Kind::ALL[number])
    }
}

fn state(stage: Stage, kind: Kind, len: usize) -> u64 {
    assert!(len <= CHANGES_MAX, "an operation with too many changes");
    stage as u64 | ((kind as u64) << KIND_SHIFT) | ((len as u64) << LEN_SHIFT)
}

fn encode(change: Change) -> u64 {
    let slot = match change.after {
        Entry::Live(slot) => slot.get(),
        Entry::Freed => NO_SLOT,
        Entry::Untouched => unreachable!("no operation unmakes a block"),
    };
    (u64::from(change.block.get()) << 32) | u64::from(slot)
}

fn decode(word: u64) -> Change {
    let half = |word: u64| u32::try_from(word & u64::from(u32::MAX)).expect("32 bits");
    let after = match half(word) {
        NO_SLOT => Entry::Freed,
        slot => Entry::Live(SlotId::new(slot)),
    };
    Change { block: BlockId::new(half(word >> 32)), after }
}
