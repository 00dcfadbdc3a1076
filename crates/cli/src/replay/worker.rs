//! The process that a campaign kills: replays from the journal's end on, until it dies or is done, or dies in
//! the recovery of the heap that another left.

use std::path::Path;

use pmalloc_persist::{Access, MapOptions, Mapped, MediaFile};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::{
    engine::{Engine, Manner, Trigger},
    heap,
    journal::{Journal, Shape, Tally},
    mix::Mix,
    plan::Plan,
    run::{Spectator, Verdict},
};
use crate::{args::WorkerArgs, exit::Failure, trace::Trace};

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
    match args.die_in_recovery {
        Some(seed) => die_in_recovery(args, seed),
        None => replay(args, &plan),
    }
}

/// Replays until it dies or is done.
fn replay(args: &WorkerArgs, plan: &Plan) -> Result<(), Failure> {
    let journal = open_journal(&args.journal, Shape::of(plan))?;
    let heap = heap::open(&args.heap, args.heap_flags)?;
    let trigger =
        args.arm_at.map(|arm_at| Trigger { arm_at, countdown: args.countdown, calls: args.calls });
    let mix = Mix { percent: args.publish, seed: args.seed };
    let manner = Manner { verification: args.verification, mix };
    let before = journal.tally(Tally::Violations);
    Engine::new(&heap, &journal, plan, manner)?.armed(trigger).run(args.order, &mut Nobody)?;
    heap.close().map_err(Failure::heap(&args.heap))?;
    match journal.tally(Tally::Violations) - before {
        0 => Ok(()),
        count => Err(Failure::Inconsistent(format!("{count} violations"))),
    }
}

/// Opens the heap and dies at a persist call of that.
fn die_in_recovery(args: &WorkerArgs, seed: u64) -> Result<(), Failure> {
    let calls = heap::persist_calls_to_open(&args.heap, args.heap_flags)?;
    let countdown = draw_countdown(&mut fastrand::Rng::with_seed(seed), calls);
    drop(heap::open_armed(&args.heap, args.heap_flags, countdown)?);
    Err(Failure::Worker(format!("recovery made fewer than {countdown} of {calls} persist calls")))
}

/// Half of the time each of the `calls` is as likely as any other; else it is rather an early one: operations in
/// flight are redone first, and the long rest wipes the rings.
fn draw_countdown(rng: &mut fastrand::Rng, calls: u64) -> u64 {
    if rng.bool() {
        return rng.u64(1..=calls);
    }
    let bits = rng.u32(0..=calls.ilog2());
    1 + rng.u64(0..1 << bits)
}

/// Maps the journal in the file `path`.
pub(super) fn open_journal(path: &Path, shape: Shape) -> Result<Journal<Mapped>, Failure> {
    let options = MapOptions::new(shape.len_bytes());
    let mapped = MediaFile::open(path, Access::Shared).and_then(|file| file.map(&options));
    let mapped = mapped.map_err(|error| Failure::Worker(format!("the journal: {error}")))?;
    let journal = Journal::attach(mapped, shape);
    journal.ok_or_else(|| Failure::Worker("the journal is another trace's".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_countdown_ends_within_the_calls_and_often_early() {
        let mut rng = fastrand::Rng::with_seed(1);
        for calls in [1, 2, 15, 1000] {
            let draws: Vec<_> = (0..1000).map(|_| draw_countdown(&mut rng, calls)).collect();
            assert!(draws.iter().all(|draw| (1..=calls).contains(draw)), "{calls}");
            assert!(draws.contains(&1) && draws.iter().any(|draw| *draw > calls / 2), "{calls}");
            assert!(draws.iter().filter(|draw| **draw <= 32).count() > 250, "{calls}");
        }
    }
}
