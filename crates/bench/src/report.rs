//! Results, as they are printed and read again: the names of the fields are those of the JSON. Volatile.

use pmalloc_bench_peers::Peer;
use serde::{Deserialize, Serialize};

use crate::{
    cell::{REFLUSH_DISTANCES, Scale},
    machine::Machine,
    stats::{Estimate, Spread},
};

/// The results of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// A row for each benchmark, allocator and number of threads.
    pub rows: Vec<Row>,
    /// Rivals that were to be measured and are not installed.
    pub missing_peers: Vec<String>,
    /// Where it was measured.
    pub machine: Machine,
    /// What a bare persist costs over one line, again and again, in those over 64 lines in turn; `None` where nothing is
    /// flushed.
    #[serde(default)]
    pub flush_again: Option<f64>,
    /// How much was run.
    pub scale: Scale,
    /// Rounds, each a sample of every row.
    pub rounds: usize,
    /// What random sizes were drawn from.
    pub seed: u64,
    /// Whether heaps had a thread of their own for rounds.
    #[serde(default)]
    pub background_thread: bool,
    /// Rows that there was no room for.
    pub left_out: Vec<String>,
}

/// What one allocator's operations cost in one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Benchmark and variant.
    pub bench: String,
    /// The allocator.
    pub allocator: String,
    /// Its consistency model, where it has one.
    pub model: Option<String>,
    /// Its policy, where it has one.
    pub policy: Option<String>,
    /// Number of threads.
    pub threads: usize,
    /// Processor time of all threads per operation, in nanoseconds.
    pub cpu_ns_per_op: Spread,
    /// Wall-clock time of all threads together per operation, in nanoseconds.
    pub wall_ns_per_op: Spread,
    /// Processor time over that of a bare persist of the same round.
    pub ratio_to_bare: Estimate,
    /// Lines flushed per operation.
    pub flushes_per_op: f64,
    /// Fences per operation.
    pub fences_per_op: f64,
    /// Lines flushed again per operation, by the number of other lines that the thread flushed since; the last stands
    /// for all above.
    pub reflush: [f64; REFLUSH_DISTANCES],
    /// Median latency of an operation, in nanoseconds.
    pub p50_ns: u64,
    /// 99 of 100 operations take no longer.
    pub p99_ns: u64,
    /// 999 of 1000 operations take no longer.
    pub p999_ns: u64,
    /// Throughput of these threads over that of one, where that is the question.
    pub speedup: Option<Estimate>,
    /// The same over that of a bare ring in the same round.
    pub speedup_to_ring: Option<Estimate>,
}

impl Row {
    /// Reflushes per operation of lines that fewer than four others were flushed since.
    #[must_use]
    pub fn near_reflush(&self) -> f64 {
        self.reflush[..4].iter().sum()
    }

    /// The ratio to as many bare persists as the operation has fences, if it has any.
    #[must_use]
    pub fn ratio_per_fence(&self) -> Option<f64> {
        (self.fences_per_op > 0.0).then(|| self.ratio_to_bare.value / self.fences_per_op)
    }
}

/// The names of `peers`, as results have them.
pub(crate) fn names_of(peers: &[Peer]) -> Vec<String> {
    peers.iter().map(|peer| peer.name().to_owned()).collect()
}
