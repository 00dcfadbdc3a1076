//! The process that a campaign kills: replays from the journal's end on, until it dies or is done.

use std::path::Path;

use pmalloc_persist::{Access, MapOptions, Mapped, MediaFile};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::{
    Shape,
    engine::{Engine, Spectator, Trigger, Verdict},
    heap,
    journal::{Journal, Tally},
    plan::Plan,
    trace::Trace,
};
use crate::{args::WorkerArgs, exit::Failure};

/// A worker is not watched: whoever wants it to stop kills it.
struct Nobody;

impl Spectator for Nobody {
    fn tick(&mut self, _steps: u64) -> Verdict {
        Verdict::GoOn
    }
}

/// Runs the worker that `args` describe.
pub(crate) fn run(args: &WorkerArgs) -> Result<(), Failure> {
    // Without its supervisor a worker has no reason to go on.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| Failure::io("tie the worker to its supervisor")(errno.into()))?;
    let trace = Trace::open(&args.trace)
        .map_err(|error| Failure::Trace { name: args.trace.display().to_string(), error })?;
    let plan = Plan::of(trace);
    let journal = open_journal(&args.journal, Shape::of(&plan))?;
    let heap = heap::open(&args.heap, args.heap_flags)?;
    let trigger = args.arm_at.map(|arm_at| Trigger { arm_at, countdown: args.countdown });
    let before = journal.tally(Tally::Violations);
    Engine::new(&heap, &journal, &plan, args.verification)?
        .armed(trigger)
        .run(args.order, &mut Nobody)?;
    heap.close().map_err(Failure::heap(&args.heap))?;
    match journal.tally(Tally::Violations) - before {
        0 => Ok(()),
        count => Err(Failure::Inconsistent(format!("{count} violations"))),
    }
}

/// Maps the journal in the file `path`.
pub(super) fn open_journal(path: &Path, shape: Shape) -> Result<Journal<Mapped>, Failure> {
    let options = MapOptions::new(shape.len_bytes());
    let mapped = MediaFile::open(path, Access::Shared).and_then(|file| file.map(&options));
    let mapped = mapped.map_err(|error| Failure::Worker(format!("the journal: {error}")))?;
    let journal = Journal::attach(mapped, shape);
    journal.ok_or_else(|| Failure::Worker("the journal is another trace's".to_owned()))
}
