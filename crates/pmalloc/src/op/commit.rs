//! Record, apply, retire: the one sequence by which operations become durable, and the only fences of theirs.
//!
//! This is the policy `Eager`: the effects are durable when the operation returns, and the record is retired then.

use pmalloc_persist::Medium;

use super::engine::Engine;
use crate::{
    arena::Space,
    error::Result,
    lane::{Claim, Draft},
};

/// An operation that was planned: nothing keeps it from being made but want of room in the bookkeeping logs.
///
/// Its slots and cells are owned, and the contents of the blocks that it allocates are durable.
pub(super) trait Effects<M: Medium> {
    /// Its records.
    fn drafts(&self) -> &[Draft];

    /// Takes what may be wanting; without it, nothing has happened.
    ///
    /// # Errors
    ///
    /// As [`Book::reserve_all`](crate::book::Book::reserve_all).
    #[inline]
    fn reserve(&mut self, space: &Space<M>) -> Result<()> {
        let _ = space;
        Ok(())
    }

    /// Does what is volatile, and may be seen before the operation is decided.
    #[inline]
    fn enter(&mut self, space: &Space<M>) {
        let _ = space;
    }

    /// Stores and flushes bits, log entries, slots and cells.
    fn apply(&mut self, space: &Space<M>);

    /// Does what is volatile, and comes after the effects are durable.
    #[inline]
    fn finish(&mut self, space: &Space<M>) {
        let _ = space;
    }
}

/// Makes an operation durable.
///
/// # Errors
///
/// [`Error::Limit`](crate::Error::Limit) for more records than a lane takes at once, and those of
/// [`Effects::reserve`]. Nothing changed then.
///
/// # Crash consistency
///
/// Before the last record is durable, nothing happened; from then on recovery finishes all of it: bits and log entries,
/// allocations before frees, and of each slot and cell the newest version. The retirement is durable before the caller
/// releases the slots and reuses the memory: nothing newer can be undone by these records (rule 1).
#[inline]
pub(super) fn commit<M: Medium>(
    engine: &Engine<M>,
    claim: &mut Option<Claim>,
    effects: &mut impl Effects<M>,
) -> Result<()> {
    let (space, m) = (&engine.space, engine.medium());
    let mut held = None;
    let lane = claim.as_mut().expect("prepared with a lane").lane(&mut held)?;
    lane.check_group(effects.drafts().len())?;
    // The last thing that may fail: it is done with the lane held, whose own refusal comes first.
    effects.reserve(space)?;
    lane.record(m, effects.drafts());
    // Volatile work between a flush and its fence costs nothing: the line is on its way meanwhile.
    effects.enter(space);
    // CRASH: the operation is decided by this fence.
    m.fence();
    effects.apply(space);
    // CRASH: the effects are durable before the mark that stops their being redone.
    m.fence();
    lane.retire(m);
    effects.finish(space);
    // CRASH: the mark is durable before the memory is reused, the slots released and the operation returns.
    m.fence();
    Ok(())
}
