//! What both `open` and `check` refuse: one list.
//!
//! [`admit`] goes through all that can keep a heap from being served. `open` gives up at the first problem, `check` notes each
//! and goes on as far as there is a heap to look at; so there is nothing that one of them refuses and the other does not.

use std::borrow::Cow;

use pmalloc_persist::Medium;

use super::{
    check::{Problem, ProblemKind},
    core::Core,
    root_table,
};
use crate::{
    error::{Error, Result},
    layout::{geometry::Geometry, state::Clean, superblock::Header},
    recovery::{
        recover,
        state::{self, LeftBehind},
    },
};

/// Who is told of a problem. An error ends the look.
pub(super) type Tell<'a> = &'a mut dyn FnMut(Problem) -> Result<()>;

/// What tells whether a heap in a file lost power.
#[derive(Debug, Clone, Copy)]
pub(super) struct Power {
    /// The boot that this process runs in.
    pub(super) boot: u128,
    /// What is left of a heap that was open then.
    pub(super) kept: Kept,
}

/// What a power loss leaves of stores that were flushed and fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// All of them.
    Whole,
    /// Those that the kernel happened to write: it may have written any page at any time.
    InPart,
}

impl Power {
    /// Whether a heap that was left so is a mixture of moments: it was being written when the machine went down, on a
    /// page-cache file, or a write of it failed.
    fn was_lost(self, left: &LeftBehind) -> bool {
        let same_boot = left.owner.boot() == Some(self.boot);
        match left.clean {
            Clean::Closed | Clean::Synced => false,
            Clean::No => !same_boot && self.kept == Kept::InPart,
            Clean::Unwritten => true,
        }
    }
}

/// Recovers the heap on `medium`, whose superblock says `header`, and sees that it can be served.
///
/// # Errors
///
/// What recovery can't do without, [`Error::Version`], and what `tell` makes of the problems it is told.
///
/// # Crash consistency
///
/// As [`recover`].
pub(super) fn admit<M: Medium>(
    medium: M,
    header: Header,
    power: Option<Power>,
    tell: Tell<'_>,
) -> Result<Core<M>> {
    let left = state::left_behind(&medium)?;
    let state = state::read(&medium, &header.geometry).and_then(|state| {
        root_table::require_known(&medium, &header.geometry, state.roots_used)?;
        Ok(state)
    });
    // First what a newer program wrote, which nothing here can mend. Then the loss of power: of a mixture nothing else is
    // true, not even the length of the file.
    let is_newer = matches!(state, Err(Error::Version { .. }));
    if !is_newer && power.is_some_and(|power| power.was_lost(&left)) {
        tell(Problem::power_loss())?;
    }
    let state = state?;
    let recovered = recover(medium, header.geometry)?;
    let core = Core::new(header, recovered);
    match state.clean {
        Clean::Closed => root_table::examine_check(&core, tell)?,
        Clean::No | Clean::Synced | Clean::Unwritten => root_table::examine_slots(&core, tell)?,
    }
    root_table::examine(&core, tell)?;
    Ok(core)
}

/// What `open` makes of a problem: it refuses the heap.
pub(super) fn refuse(problem: Problem) -> Result<()> {
    match problem.kind {
        ProblemKind::PowerLoss => Err(Error::PowerLoss),
        _ => Err(Error::corrupted(problem.offset, problem.text)),
    }
}

impl Problem {
    /// Damage at byte `offset`.
    pub(super) fn damaged(offset: u64, text: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: ProblemKind::Damaged, offset, text: text.into().into_owned() }
    }

    /// The slot at byte `slot` owns no live block.
    pub(super) fn dangling(slot: u64, block: u64) -> Self {
        let text = format!("the slot at {slot:#x} owns {block:#x}, where no live block starts");
        Self { kind: ProblemKind::Dangling, offset: slot, text }
    }

    /// The file has bytes behind the end of the heap.
    pub(super) fn too_long(heap_bytes: u64) -> Self {
        Self::damaged(heap_bytes, "the file is longer than the heap, and is not opened like this")
    }

    /// The machine went down while the heap was written.
    pub(super) fn power_loss() -> Self {
        let text = "power was lost, or a write failed, while the heap was written: contents may be of different moments";
        Self { kind: ProblemKind::PowerLoss, offset: Geometry::state(), text: text.into() }
    }
}
