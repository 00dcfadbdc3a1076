//! What both `open` and `check` refuse: one list.
//!
//! [`admit`] goes through all that can keep a heap from being served. `open` gives up at the first problem, `check` notes each
//! and goes on as far as there is a heap to look at; so there is nothing that one of them refuses and the other does not.

use pmalloc_persist::Medium;

use super::{
    owner::Power,
    problem::{Problem, ProblemKind, Tell},
    root_table,
};
use crate::{
    core::Core,
    error::{Error, Result},
    layout::{state::Clean, superblock::Header},
    recovery::{recover, state},
    root::table,
};

/// Recovers the heap on `medium`, whose superblock says `header`, and sees that it can be served.
///
/// # Errors
///
/// What recovery can't do without, [`Error::Version`], and what `tell` makes of the problems it is told.
///
/// # Crash consistency
///
/// As [`recover`].
pub(crate) fn admit<M: Medium>(
    medium: M,
    header: Header,
    power: Option<Power>,
    tell: Tell<'_>,
) -> Result<Core<M>> {
    let left = state::left_behind(&medium)?;
    let state = state::read(&medium, &header.geometry).and_then(|state| {
        table::require_known(&medium, &header.geometry, state.roots_used)?;
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
pub(crate) fn refuse(problem: Problem) -> Result<()> {
    match problem.kind {
        ProblemKind::PowerLoss => Err(Error::PowerLoss),
        _ => Err(Error::corrupted(problem.offset, problem.text)),
    }
}
