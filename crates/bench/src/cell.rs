//! A cell of the table: one benchmark, one allocator, one number of threads, run by a process of its own.
//!
//! The supervisor describes a cell to its child on the command line; the child prints one [`Outcome`]. Everything here
//! is volatile, but for the heap that the child makes in the cell's directory.

use std::{fmt, panic, path::PathBuf, process};

use pmalloc::{
    Heap, HeapOptions,
    persist::{Counts, Exclusive, Mapped},
};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use crate::{Launcher, alloc::Subject, bench, clock::per_op, run::Error};

/// Number of distances by which reflushes are told apart.
pub const REFLUSH_DISTANCES: usize = 9;

/// How much is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scale {
    /// So little that it shows whether everything works, and nothing else.
    Quick,
    /// What a developer waits for.
    Usual,
    /// What figures are published from.
    Full,
}

impl Scale {
    /// The one of three values that belongs to this scale.
    pub(crate) fn choose<T>(self, quick: T, usual: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Usual => usual,
            Self::Full => full,
        }
    }
}

/// What a child finds out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// What operations cost; nothing else is done meanwhile.
    Time,
    /// What operations flush and fence, on a medium that counts.
    Count,
    /// How long single operations take, each between two looks at the clock.
    Latency,
    /// Nothing: it leaves a heap behind, closed.
    LeaveClosed,
    /// Nothing: it leaves a heap behind and kills itself.
    LeaveOpen,
}

/// One run of one cell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// Name of the benchmark.
    pub bench: String,
    /// Which of its variants.
    pub variant: String,
    /// The allocator.
    pub subject: Subject,
    /// Number of threads.
    pub threads: usize,
    /// What to find out.
    pub mode: Mode,
    /// How much to run.
    pub scale: Scale,
    /// Number of the round, which varies what is random.
    pub round: u64,
    /// What is random depends on this and the round alone.
    pub seed: u64,
    /// Where the heap is made; nothing else is there.
    pub directory: PathBuf,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bench, variant, subject, threads, mode, round, .. } = self;
        write!(f, "{bench}/{variant}, {subject}, {threads} threads, {mode:?}, round {round}")
    }
}

impl Cell {
    /// File of the heap.
    #[must_use]
    pub fn heap_path(&self) -> PathBuf {
        self.directory.join("heap")
    }

    /// The random numbers of thread number `thread`.
    #[must_use]
    pub fn rng(&self, thread: usize) -> fastrand::Rng {
        let mut seeds = fastrand::Rng::with_seed(self.seed ^ (self.round << 32));
        (0..thread).for_each(|_| drop(seeds.fork()));
        seeds.fork()
    }
}

/// What a child found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// What operations cost.
    Timed(Timing),
    /// What operations flush and fence.
    Counted(PerOp),
    /// How long single operations take.
    Latency(Latency),
    /// A heap was left.
    Left,
}

/// What operations cost in one round, in nanoseconds per operation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Processor time of all threads.
    pub cpu_ns: f64,
    /// Wall-clock time of all threads together.
    pub wall_ns: f64,
    /// Processor time of a bare persist, by as many threads, in the same process and file.
    pub bare_ns: f64,
    /// What more threads than one bring, where that is the question.
    pub speedup: Option<Speedup>,
}

/// Throughput of many threads over that of one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speedup {
    /// Of the allocator.
    pub own: f64,
    /// Of the bare ring.
    pub ring: f64,
}

/// Flushes and fences per operation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PerOp {
    /// Lines flushed.
    pub flushes: f64,
    /// Fences.
    pub fences: f64,
    /// Lines flushed again, by the number of other lines that the thread flushed since; the last stands for all above.
    pub reflush: [f64; REFLUSH_DISTANCES],
}

impl PerOp {
    /// The `counts` of so many operations.
    #[must_use]
    pub fn of(counts: &Counts, operations: u64) -> Self {
        Self {
            flushes: per_op(counts.flushes, operations),
            fences: per_op(counts.fences, operations),
            reflush: counts.reflushes.map(|count| per_op(count, operations)),
        }
    }
}

/// How long single operations take, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of them take no longer.
    pub p50_ns: u64,
    /// 99 of 100 take no longer.
    pub p99_ns: u64,
    /// 999 of 1000 take no longer.
    pub p999_ns: u64,
}

/// Runs the cell that `description` describes, and returns what to print: what a child does.
///
/// `options` are those of the cell's heap, `launcher` starts further children.
///
/// # Errors
///
/// [`Error::Description`] if `description` is not one of a cell; [`Error::UnknownBench`]; [`Error::Io`].
///
/// # Panics
///
/// If the benchmark does. The process is aborted then, also by a panic of a thread that others wait for.
pub fn run_cell(
    description: &str,
    options: &HeapOptions,
    launcher: &Launcher,
) -> Result<String, Error> {
    let cell: Cell = serde_json::from_str(description).map_err(Error::Description)?;
    // A supervisor that is killed leaves nothing running.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| Error::io("follow the supervisor")(errno.into()))?;
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        report(info);
        process::abort();
    }));
    let outcome = bench::find(&cell.bench)?.run(&Context { cell: &cell, options, launcher });
    Ok(serde_json::to_string(&outcome).expect("an outcome has string keys"))
}

/// What a benchmark is given to run a cell.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The cell.
    pub cell: &'a Cell,
    /// Options of its heap.
    pub options: &'a HeapOptions,
    /// Starts further children.
    pub launcher: &'a Launcher,
}

impl Context<'_> {
    /// Makes the cell's heap, on the medium that `wrap` makes of its file.
    ///
    /// # Panics
    ///
    /// If it can't be made.
    pub fn make_heap<M: Exclusive + 'static>(&self, wrap: impl FnOnce(Mapped) -> M) -> Heap<M> {
        let path = self.cell.heap_path();
        let made = self.options.create_with(&path, wrap);
        made.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// What the tests of other modules make cells with.
#[cfg(test)]
pub(crate) mod tests {
    use pmalloc::persist::DurabilityChoice;

    use super::*;

    /// The first round of a quick cell.
    pub(crate) fn cell(
        bench: &str,
        variant: &str,
        subject: Subject,
        threads: usize,
        mode: Mode,
    ) -> Cell {
        Cell {
            bench: bench.into(),
            variant: variant.into(),
            subject,
            threads,
            mode,
            scale: Scale::Quick,
            round: 0,
            seed: 1,
            directory: PathBuf::new(),
        }
    }

    /// Runs `cell` in this process with `run`, on memory that needs no flushing.
    pub(crate) fn run_here(cell: Cell, run: impl FnOnce(&Context<'_>) -> Outcome) -> Outcome {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let cell = Cell { directory: directory.path().to_owned(), ..cell };
        let options = Heap::options()
            .capacity_bytes(1 << 30)
            .arenas(2)
            .durability(DurabilityChoice::ProcessCrash);
        let launcher = Launcher { program: "/no/such/program".into(), args: Vec::new() };
        run(&Context { cell: &cell, options: &options, launcher: &launcher })
    }

    #[test]
    fn a_description_is_read_as_it_was_written() {
        let cell = cell("threadtest", "packed", Subject::Heap, 2, Mode::Count);
        let text = serde_json::to_string(&cell).expect("string keys");
        let read: Cell = serde_json::from_str(&text).expect("the same");
        assert_eq!(format!("{read:?}"), format!("{cell:?}"));
    }

    #[test]
    fn random_numbers_depend_on_seed_round_and_thread_alone() {
        let first = cell("b", "v", Subject::Heap, 2, Mode::Time);
        let drawn = |cell: &Cell, thread| cell.rng(thread).u64(..);
        assert_eq!(drawn(&first, 1), drawn(&Cell { mode: Mode::Count, ..first.clone() }, 1));
        for (other, thread) in [
            (first.clone(), 0),
            (Cell { round: 1, ..first.clone() }, 1),
            (Cell { seed: 2, ..first.clone() }, 1),
        ] {
            assert_ne!(drawn(&first, 1), drawn(&other, thread));
        }
    }
}
