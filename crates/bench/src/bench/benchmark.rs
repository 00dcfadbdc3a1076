//! What a benchmark is. Volatile, but for the heap of the cell that it runs.

use crate::{
    alloc::Subject,
    cell::{Outcome, Scale},
    context::Context,
};

/// A benchmark.
pub trait Bench: Sync {
    /// The name, as the command line has it.
    fn name(&self) -> &'static str;

    /// What it measures, in one sentence.
    fn about(&self) -> &'static str;

    /// Its variants, each a row for each allocator and number of threads.
    fn variants(&self, scale: Scale) -> Vec<String>;

    /// Whether it says anything about this allocator and number of threads.
    fn fits(&self, subject: Subject, threads: usize) -> bool {
        let _ = (subject, threads);
        true
    }

    /// Memory, or space in the heap's file system, that a cell with so many threads takes, in bytes.
    fn need_bytes(&self, variant: &str, threads: usize) -> u64 {
        let _ = variant;
        base_bytes(threads)
    }

    /// Runs a cell.
    fn run(&self, context: &Context<'_>) -> Outcome;
}

/// What a heap with so many threads takes at most beside large blocks: metadata, the ring of each thread, and some megabytes
/// of small blocks, live or at hand.
pub(super) fn base_bytes(threads: usize) -> u64 {
    (128 << 20) + ((threads as u64) << 24)
}

/// The names of `variants` as owned strings.
pub(super) fn names(variants: &[&str]) -> Vec<String> {
    variants.iter().map(|&name| name.to_owned()).collect()
}
