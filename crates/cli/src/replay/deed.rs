//! One operation of a replay: what is done, to which blocks, in which slots. Volatile.

use std::fmt;

use super::{journal::Entry, slots::SlotId, trace::BlockId};

/// What an operation is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Allocates a block with contents.
    Alloc,
    /// Frees one.
    Free,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 2] = [Self::Alloc, Self::Free];

    /// Number of kinds.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// The kind as an index.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// The name of the kind, for reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Alloc => "alloc",
            Self::Free => "free",
        }
    }
}

/// One thing that an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Allocates `block` with contents into the empty slot `to`.
    Alloc { block: BlockId, to: SlotId },
    /// Frees `block`, which the slot `from` owns.
    Free { block: BlockId, from: SlotId },
}

/// What becomes of a block by an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// The block.
    pub(crate) block: BlockId,
    /// Where it is when the operation is done.
    pub(crate) after: Entry,
}

impl Act {
    /// What becomes of the blocks.
    pub(crate) fn changes(self) -> impl Iterator<Item = Change> {
        let change = match self {
            Self::Alloc { block, to } => Change { block, after: Entry::Live(to) },
            Self::Free { block, .. } => Change { block, after: Entry::Freed },
        };
        std::iter::once(change)
    }
}

/// An operation of a thread. No block is in two of its acts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deed<'a> {
    /// What it is called.
    pub(crate) kind: Kind,
    /// What it does, in this order.
    pub(crate) acts: &'a [Act],
    /// Steps of its program that the thread has done when this is done.
    pub(crate) position: u64,
}

impl Deed<'_> {
    /// What becomes of the blocks.
    pub(crate) fn changes(&self) -> impl Iterator<Item = Change> {
        self.acts.iter().copied().flat_map(Act::changes)
    }
}

impl fmt::Display for Deed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of", self.kind.name())?;
        self.changes().try_for_each(|change| write!(f, " {}", change.block))
    }
}
