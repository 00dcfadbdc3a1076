//! A cell of the table: one benchmark, one allocator, one number of threads, run by a process of its own; and what such a
//! process finds out.
//!
//! The supervisor describes a cell to its child on the command line; the child prints one [`Outcome`]. Everything here
//! is volatile.

use std::{fmt, path::PathBuf};

use pmalloc::persist::Counts;
use serde::{Deserialize, Serialize};

use crate::{alloc::Subject, clock::per_op};

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

/// What the tests of other modules make cells with.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use pmalloc::Policy;

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

    #[test]
    fn a_description_is_read_as_it_was_written() {
        let cell = cell("threadtest", "packed", Subject::Heap(Policy::Eager), 2, Mode::Count);
        let text = serde_json::to_string(&cell).expect("string keys");
        let read: Cell = serde_json::from_str(&text).expect("the same");
        assert_eq!(format!("{read:?}"), format!("{cell:?}"));
    }

    #[test]
    fn random_numbers_depend_on_seed_round_and_thread_alone() {
        let first = cell("b", "v", Subject::Heap(Policy::Eager), 2, Mode::Time);
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
