//! What can be wrong with a heap, and how it is told.

use std::borrow::Cow;

use crate::{
    error::{Finding, Result},
    layout::geometry::Geometry,
};

/// Who is told of a problem. An error ends the look.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(Problem) -> Result<()>;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Of what kind.
    pub kind: ProblemKind,
    /// Where, as a byte offset from the base of the heap.
    pub offset: u64,
    /// In words.
    pub text: String,
}

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// Metadata does not match its checksum or contradicts other metadata.
    Damaged,
    /// A slot owns a place that is not the start of a live block.
    Dangling,
    /// Two slots own one block.
    SharedBlock,
    /// The heap lost power while it was written: its contents may be of different moments.
    PowerLoss,
    /// A root or block is too small for the slots that are declared for it.
    Misdeclared,
    /// A bitmap and the volatile state disagree about free blocks.
    Miscounted,
}

impl ProblemKind {
    /// The kind that reports call `name`.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let kinds = [
            Self::Damaged,
            Self::Dangling,
            Self::SharedBlock,
            Self::PowerLoss,
            Self::Misdeclared,
            Self::Miscounted,
        ];
        kinds.into_iter().find(|kind| kind.name() == name)
    }

    /// A word for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Dangling => "dangling",
            Self::SharedBlock => "shared-block",
            Self::PowerLoss => "power-loss",
            Self::Misdeclared => "misdeclared",
            Self::Miscounted => "miscounted",
        }
    }
}

impl Problem {
    /// Damage at byte `offset`.
    pub(crate) fn damaged(offset: u64, text: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: ProblemKind::Damaged, offset, text: text.into().into_owned() }
    }

    /// The slot at byte `slot` owns no live block.
    pub(crate) fn dangling(slot: u64, block: u64) -> Self {
        let text = format!("the slot at {slot:#x} owns {block:#x}, where no live block starts");
        Self { kind: ProblemKind::Dangling, offset: slot, text }
    }

    /// The file has bytes behind the end of the heap.
    pub(crate) fn too_long(heap_bytes: u64) -> Self {
        Self::damaged(heap_bytes, "the file is longer than the heap, and is not opened like this")
    }

    /// The machine went down while the heap was written.
    pub(crate) fn power_loss() -> Self {
        let text = "power was lost, or a write failed, while the heap was written: contents may be of different moments";
        Self { kind: ProblemKind::PowerLoss, offset: Geometry::state(), text: text.into() }
    }
}

impl From<Finding> for Problem {
    fn from(Finding { offset, what }: Finding) -> Self {
        Self::damaged(offset, what)
    }
}
