//! Replays allocation traces on real heaps, and kills the replay.
//!
//! A replay has two passes over the trace: one on a heap whose flushes are counted, which nobody times,
//! and one that is timed, measured and verified. With kills, the second pass is done by worker
//! processes; [`supervisor`] kills them and checks what they leave.
//!
//! | file | what it does |
//! |---|---|
//! | [`crate::trace`], [`plan`] | read a trace, arrange it by threads |
//! | [`content`] | what each block contains |
//! | [`request`] | one operation |
//! | [`mix`], [`compose`] | which operations are of the publish family, and what they do |
//! | [`journal`], [`slots`], [`cells`] | what was done so far, which slot owns what, each thread's cell |
//! | [`mod@run`], [`engine`], [`actor`], [`caller`], [`usage`] | do it, one actor per thread of the trace |
//! | [`probe`], [`medium`], [`mod@heap`] | the watched heaps that it is done on |
//! | [`mod@audit`], [`resolve`] | compare heap and journal, tell what became of operations in flight |
//! | [`supervisor`], [`worker`] | kills, and the process that is killed |
//! | [`setup`], [`scratch`], [`progress`], [`report`] | what passes share, temporary files, bar, figures |

mod actor;
mod audit;
mod caller;
mod cells;
mod compose;
mod content;
mod engine;
mod heap;
mod journal;
mod medium;
mod mix;
mod plan;
mod probe;
mod progress;
mod report;
mod request;
mod resolve;
mod run;
mod scratch;
mod setup;
mod slots;
mod supervisor;
mod usage;
mod worker;

use std::fs;

use pmalloc_persist::{Anon, Counts};

use self::{
    audit::{Stage, audit},
    engine::{Engine, Manner},
    journal::{Journal, Tally},
    progress::Progress,
    setup::Setup,
    supervisor::Supervisor,
};
pub(crate) use self::{report::Report, worker::run as run_worker};
use crate::{
    args::{ReplayArgs, Verification},
    exit::Failure,
    interrupt::Interrupt,
    output::warn_if_forced,
    trace::Trace,
};

/// The trace that is replayed if none is named.
const BUNDLED: &[u8] = include_bytes!("../../traces/node-threads.mtr.zst");

/// Replays what `args` ask for.
pub(crate) fn run(args: &ReplayArgs) -> Result<Report, Failure> {
    let interrupt = Interrupt::listen()?;
    let (name, trace) = read_trace(args)?;
    let setup = Setup::prepare(args, trace)?;
    let counts = count(&setup, &interrupt)?;
    let mut report = match args.kills {
        0 => replay(&setup, &counts, &interrupt)?,
        kills => campaign(&setup, &counts, &interrupt, kills)?,
    };
    (report.trace, report.order) = (name, args.order);
    report.tell(setup.flags.policy, setup.manner.mix);
    finish(args, setup, &report)?;
    Ok(report)
}

fn read_trace(args: &ReplayArgs) -> Result<(String, Trace), Failure> {
    let (name, trace) = match &args.trace {
        Some(path) => (path.display().to_string(), Trace::open(path)),
        None => ("bundled (node-threads)".to_owned(), Trace::read(BUNDLED)),
    };
    match trace {
        Ok(trace) => Ok((name, trace)),
        Err(error) => Err(Failure::Trace { name, error }),
    }
}

/// Replays once to count flushes and fences: counting takes locks, which would spoil any timing.
fn count(setup: &Setup, interrupt: &Interrupt) -> Result<Counts, Failure> {
    let path = setup.scratch.file("counted");
    let heap = heap::create_counted(&path, &setup.plan, setup.flags)?;
    warn_if_forced(&heap.media());
    let journal = Journal::create(Anon::new(setup.shape().len_bytes()), setup.shape());
    let before = heap.counts();
    let manner = Manner { verification: Verification::Off, ..setup.manner };
    Engine::new(&heap, &journal, &setup.plan, manner)?
        .run(setup.order, &mut Progress::new("counting", setup.plan.events(), interrupt))?;
    let counts = heap.counts() - before;
    heap.close().map_err(Failure::heap(&path))?;
    fs::remove_file(&path).map_err(Failure::io("remove a heap"))?;
    Ok(counts)
}

/// Replays once, in this process.
fn replay(setup: &Setup, counts: &Counts, interrupt: &Interrupt) -> Result<Report, Failure> {
    let path = setup.scratch.heap();
    let heap = heap::create(path, &setup.plan, setup.flags)?;
    let survival = heap::survival(&heap);
    let journal = Journal::create(Anon::new(setup.shape().len_bytes()), setup.shape());
    let mut progress = Progress::new("replaying", setup.plan.events(), interrupt);
    let run =
        Engine::new(&heap, &journal, &setup.plan, setup.manner)?.run(setup.order, &mut progress);
    drop(progress);
    heap.close().map_err(Failure::heap(path))?;
    match run {
        // The report tells the violations.
        Ok(()) | Err(Failure::Inconsistent(_)) => {}
        Err(failure) => return Err(failure),
    }
    if journal.tally(Tally::Violations) == 0 {
        let heap = heap::open(path, setup.flags)?;
        audit(&heap, &journal, &setup.plan, setup.manner, Stage::AtEnd)?;
        heap.close().map_err(Failure::heap(path))?;
    }
    Ok(Report::new(&setup.plan, &journal, counts, survival))
}

/// Replays in workers that are killed.
fn campaign(
    setup: &Setup,
    counts: &Counts,
    interrupt: &Interrupt,
    kills: u32,
) -> Result<Report, Failure> {
    let progress = Progress::new("killing", setup.plan.events(), interrupt);
    let (survival, campaign) = Supervisor::new(setup, progress, kills).run()?;
    let journal = worker::open_journal(&setup.journal_path(), setup.shape())?;
    let mut report = Report::new(&setup.plan, &journal, counts, survival);
    report.campaign = campaign;
    Ok(report)
}

/// Keeps the heap or lets it go: a heap that contradicts itself is evidence.
fn finish(args: &ReplayArgs, setup: Setup, report: &Report) -> Result<(), Failure> {
    let is_evidence = report.violations > 0;
    if (args.keep || is_evidence) && !setup.scratch.heap_stays() {
        for file in [setup.journal_path(), setup.trace_path()] {
            if !is_evidence && file.exists() {
                fs::remove_file(file).map_err(Failure::io("clean up"))?;
            }
        }
        eprintln!("the heap is kept: {}", setup.scratch.keep().display());
    }
    Ok(())
}
