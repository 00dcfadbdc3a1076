//! Record and apply: the one sequence by which operations become durable, and the only fences of theirs.
//!
//! Under either policy an operation is decided when its records are durable, and its effects are stored at once. Under
//! `Eager` they are durable, and the records retired, when the operation returns. Under `Batched` the operation notes
//! which lines it has stored in, and a [synchronizer](super::synchronizer) flushes them.

use core::time::Duration;

use pmalloc_persist::{LINE_BYTES, Medium};

use super::{
    Result,
    changes::word_at,
    engine::Engine,
    synchronizer::{Outcome, Patience},
};
use crate::{
    arena::Space,
    lane::{Claim, Draft, Lane},
    layout::state::Policy,
};

/// The epoch of an operation under Eager: it is durable.
const NO_EPOCH: u64 = 0;

/// How long an operation whose lane is full waits for a thread that is stopped inside an operation, before it takes another
/// lane.
const STALL: Duration = Duration::from_millis(1);

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

    /// Stores bits, log entries, slots and cells, and then tells each line that it stored in.
    fn apply(&mut self, space: &Space<M>, lines: &mut impl Lines);

    /// Does what is volatile, and comes after the effects were stored, and under Eager are durable.
    #[inline]
    fn finish(&mut self, space: &Space<M>) {
        let _ = space;
    }
}

/// What becomes of the lines that an operation has stored in.
pub(super) trait Lines {
    /// All that the operation stores in this line was stored.
    fn stored(&mut self, line: u64);
}

/// Lines that are flushed at once.
struct Flushed<'m, M>(&'m M);

impl<M: Medium> Lines for Flushed<'_, M> {
    #[inline(always)]
    fn stored(&mut self, line: u64) {
        flush_line(self.0, line);
    }
}

impl Lines for Lane {
    /// A synchronizer flushes it.
    #[inline(always)]
    fn stored(&mut self, line: u64) {
        self.note(line);
    }
}

/// Makes an operation durable, and returns the epoch that stamps it, or [`NO_EPOCH`].
///
/// # Errors
///
/// [`Error::Limit`](crate::Error::Limit) for more records than a lane takes at once, and those of [`Effects::reserve`].
/// Nothing changed then.
///
/// # Crash consistency
///
/// Before the last record is durable, nothing happened; from then on recovery finishes all of it: bits and log entries,
/// allocations before frees, and of each slot and cell the newest version. The memory that it frees is not reused before
/// its records are dead: retired, or of an epoch that is durable.
#[inline(always)]
pub(super) fn commit<M: Medium>(
    engine: &Engine<M>,
    claim: &mut Option<Claim>,
    effects: &mut impl Effects<M>,
) -> Result<u64> {
    let claim = claim.as_mut().expect("prepared with a lane");
    let records = effects.drafts().len();
    if let Claim::Own(lane) = claim
        && !has_room(engine, lane, records)
    {
        make_room(engine, claim, records)?;
    }
    let mut held = None;
    let lane = claim.lane(&mut held);
    lane.check_group(records)?;
    // The lane of many sessions may be full although it was exchanged for another one.
    while !has_room(engine, lane, records) {
        engine.synchronize(Patience::For(STALL))?;
    }
    match engine.policy {
        Policy::Eager => commit_eager(engine, lane, effects),
        Policy::Batched => commit_batched(engine, lane, effects),
    }
}

/// Whether `records` records find places in the lane: under Eager its earlier ones are retired.
#[inline(always)]
fn has_room<M: Medium>(engine: &Engine<M>, lane: &mut Lane, records: usize) -> bool {
    engine.policy == Policy::Eager || lane.has_room(|| engine.epochs.durable(), records)
}

/// # Crash consistency
///
/// As [`commit`]. The retirement is durable before the caller releases the slots and reuses the memory: nothing newer can
/// be undone by these records (rule 18).
#[inline(always)]
fn commit_eager<M: Medium>(
    engine: &Engine<M>,
    lane: &mut Lane,
    effects: &mut impl Effects<M>,
) -> Result<u64> {
    let (space, m) = (&engine.space, engine.medium());
    lane.renew_if_used_up(m);
    // The last thing that may fail: it is done with the lane held, whose own refusal comes first.
    effects.reserve(space)?;
    lane.record(m, effects.drafts());
    // Volatile work between a flush and its fence costs nothing: the line is on its way meanwhile.
    effects.enter(space);
    // CRASH: the operation is decided by this fence.
    m.fence();
    effects.apply(space, &mut Flushed(m));
    // CRASH: the effects are durable before the mark that stops their being redone.
    m.fence();
    lane.retire(m);
    effects.finish(space);
    // CRASH: the mark is durable before the memory is reused, the slots released and the operation returns.
    m.fence();
    Ok(NO_EPOCH)
}

/// # Crash consistency
///
/// As [`commit`]. The epoch that stamps the records is looked at when the lane is marked and the slots are owned, and the
/// lane is unmarked when the effects are stored (rule 2): a synchronizer flushes all of them before it says that the epoch
/// is durable. Effects that reach media before that are those of a durable record (rule 19).
#[inline(always)]
fn commit_batched<M: Medium>(
    engine: &Engine<M>,
    lane: &mut Lane,
    effects: &mut impl Effects<M>,
) -> Result<u64> {
    let (space, m) = (&engine.space, engine.medium());
    effects.reserve(space)?;
    lane.enter();
    let epoch = engine.epochs.present();
    lane.record_in(m, effects.drafts(), epoch);
    effects.enter(space);
    // CRASH: the operation is decided by this fence.
    m.fence();
    effects.apply(space, lane);
    lane.leave();
    // It may take a lock, and nothing waits while the lane is marked.
    effects.finish(space);
    Ok(epoch)
}

/// Sees to it that a session's own lane takes `records` records: the durable epoch moves on, or else the lane is exchanged
/// for another one.
#[cold]
fn make_room<M: Medium>(engine: &Engine<M>, claim: &mut Claim, records: usize) -> Result<()> {
    match engine.synchronize(Patience::For(STALL))? {
        Outcome::Done => Ok(()),
        Outcome::Stalled => engine.exchange_lane(claim, records),
    }
}

/// Starts writing back the line with this number: by its first word, as a word is known to have one line.
#[inline(always)]
pub(super) fn flush_line<M: Medium>(m: &M, line: u64) {
    m.flush_of(word_at(m, line * LINE_BYTES));
}
