//! One operation of a replay: what is done, to which blocks, in which slots. Volatile.

use std::fmt;

use super::slots::SlotId;
use crate::trace::BlockId;

/// What an operation is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Allocates a block with contents.
    Alloc,
    /// Frees one.
    Free,
    /// Puts a new block into the slot of another one, which it frees.
    Replace,
    /// Moves a block to an empty slot.
    Move,
    /// Exchanges two blocks.
    Swap,
    /// Sets the thread's cell.
    Set,
    /// All of that and as much of it as fits, as one.
    Publish,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 7] =
        [Self::Alloc, Self::Free, Self::Replace, Self::Move, Self::Swap, Self::Set, Self::Publish];

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
            Self::Replace => "replace",
            Self::Move => "move",
            Self::Swap => "swap",
            Self::Set => "set",
            Self::Publish => "publish",
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
    /// Moves `block` to the empty slot `to`.
    Move { block: BlockId, from: SlotId, to: SlotId },
    /// Exchanges two blocks, each given with the slot that owns it.
    Swap { one: (BlockId, SlotId), other: (BlockId, SlotId) },
    /// Sets the thread's cell.
    Set { value: u64 },
}

/// How far the life of a block has come, by the operations that have returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Not begun.
    Untouched,
    /// Owned by a slot.
    Live(SlotId),
    /// Over.
    Freed,
}

impl Entry {
    /// The slot, while there is one.
    pub(crate) const fn slot(self) -> Option<SlotId> {
        match self {
            Self::Live(slot) => Some(slot),
            Self::Untouched | Self::Freed => None,
        }
    }
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
        let live = |block, slot| Some(Change { block, after: Entry::Live(slot) });
        let (first, second) = match self {
            Self::Alloc { block, to } | Self::Move { block, to, .. } => (live(block, to), None),
            Self::Free { block, .. } => (Some(Change { block, after: Entry::Freed }), None),
            Self::Swap { one, other } => (live(one.0, other.1), live(other.0, one.1)),
            Self::Set { .. } => (None, None),
        };
        [first, second].into_iter().flatten()
    }
}

/// An operation of a thread. No block is in two of its acts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// What it is called.
    pub(crate) kind: Kind,
    /// What it does, in this order.
    pub(crate) acts: &'a [Act],
    /// Steps of its program that the thread has done when this is done.
    pub(crate) position: u64,
}

impl Request<'_> {
    /// What becomes of the blocks.
    pub(crate) fn changes(&self) -> impl Iterator<Item = Change> {
        self.acts.iter().copied().flat_map(Act::changes)
    }

    /// The value that the thread's cell gets, if any.
    pub(crate) fn cell(&self) -> Option<u64> {
        self.acts.iter().rev().find_map(|act| match act {
            Act::Set { value } => Some(*value),
            _ => None,
        })
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of", self.kind.name())?;
        self.changes().try_for_each(|change| write!(f, " {}", change.block))
    }
}
