//! Compares two runs: what became slower, or flushes more. Volatile.

use std::fmt;

use serde::Serialize;

use crate::{
    report::{Report, Row},
    stats::Estimate,
};

/// A median that grew by less is no regression, however narrow its interval: what the compiler aligns differently is
/// worth so much.
const TOLERANCE: f64 = 0.05;

/// Counts don't depend on the machine; threads that meet differently change them by less than this.
const COUNT_TOLERANCE: f64 = 0.02;

/// What became of the rows of an older run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The rows of both runs.
    pub rows: Vec<Difference>,
    /// Rows that only the old run has.
    pub only_old: Vec<String>,
    /// Rows that only the new run has.
    pub only_new: Vec<String>,
    /// Whether both ran on the same machine, in the same place.
    pub same_machine: bool,
    /// Number of regressions.
    pub regressions: usize,
}

/// A row of both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Benchmark and variant.
    pub bench: String,
    /// The allocator.
    pub allocator: String,
    /// Number of threads.
    pub threads: usize,
    /// Ratio to a bare persist in the old run.
    pub old: Estimate,
    /// Ratio to a bare persist in the new run.
    pub new: Estimate,
    /// The new median over the old one.
    pub change: f64,
    /// What that means.
    pub verdict: Verdict,
}

/// What a difference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Operations became slower: the intervals don't overlap, and the medians are more than 5 % apart.
    Slower,
    /// Operations flush or fence more.
    MorePersists,
    /// Operations became faster, by the same measure.
    Faster,
    /// Nothing that the runs can tell from noise.
    Same,
}

impl Verdict {
    /// Whether it is a change for the worse.
    #[must_use]
    pub fn is_regression(self) -> bool {
        matches!(self, Self::Slower | Self::MorePersists)
    }

    fn of(old: &Row, new: &Row) -> Self {
        let grew = |old: f64, new: f64| new > old * (1.0 + COUNT_TOLERANCE);
        let (before, after) = (old.ratio_to_bare, new.ratio_to_bare);
        if grew(old.flushes_per_op, new.flushes_per_op)
            || grew(old.fences_per_op, new.fences_per_op)
        {
            Self::MorePersists
        } else if exceeds(after, before) {
            Self::Slower
        } else if exceeds(before, after) {
            Self::Faster
        } else {
            Self::Same
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Slower => "SLOWER",
            Self::MorePersists => "MORE PERSISTS",
            Self::Faster => "faster",
            Self::Same => "same",
        })
    }
}

/// Whether `one` is greater than `other` beyond noise and tolerance.
fn exceeds(one: Estimate, other: Estimate) -> bool {
    one.lo > other.hi && one.value > other.value * (1.0 + TOLERANCE)
}

impl Comparison {
    /// Compares the rows that `old` and `new` share.
    #[must_use]
    pub fn of(old: &Report, new: &Report) -> Self {
        let rows: Vec<Difference> = old
            .rows
            .iter()
            .filter_map(|row| Some((row, counterpart(row, new)?)))
            .map(|(old, new)| Difference::of(old, new))
            .collect();
        let only = |one: &Report, other: &Report| {
            let alone = one.rows.iter().filter(|row| counterpart(row, other).is_none());
            alone.map(name_of).collect::<Vec<_>>()
        };
        Self {
            regressions: rows.iter().filter(|row| row.verdict.is_regression()).count(),
            rows,
            only_old: only(old, new),
            only_new: only(new, old),
            same_machine: old.machine == new.machine,
        }
    }
}

impl Difference {
    fn of(old: &Row, new: &Row) -> Self {
        Self {
            bench: old.bench.clone(),
            allocator: new.allocator.clone(),
            threads: old.threads,
            old: old.ratio_to_bare,
            new: new.ratio_to_bare,
            change: new.ratio_to_bare.value / old.ratio_to_bare.value,
            verdict: Verdict::of(old, new),
        }
    }
}

/// The row of `report` that measured the same as `row`.
fn counterpart<'r>(row: &Row, report: &'r Report) -> Option<&'r Row> {
    type Key<'r> = (&'r str, Option<&'r str>, Option<&'r str>, Option<&'r str>, usize);
    fn key(row: &Row) -> Key<'_> {
        let Row { bench, allocator, model, policy, threads, .. } = row;
        // The name of a heap says whether its policy is the library's choice: that may be another one in the other run.
        let allocator = policy.is_none().then_some(&**allocator);
        (bench, allocator, model.as_deref(), policy.as_deref(), *threads)
    }
    report.rows.iter().find(|other| key(other) == key(row))
}

fn name_of(row: &Row) -> String {
    let Row { bench, allocator, threads, .. } = row;
    format!("{bench}, {allocator}, {threads} threads")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Machine, Scale, stats::Spread};

    fn row(bench: &str, value: f64, lo: f64, hi: f64) -> Row {
        Row {
            bench: bench.into(),
            allocator: "pmalloc".into(),
            model: Some("log".into()),
            policy: Some("eager".into()),
            threads: 1,
            cpu_ns_per_op: Spread { median: 1.0, min: 1.0, max: 1.0 },
            wall_ns_per_op: Spread { median: 1.0, min: 1.0, max: 1.0 },
            ratio_to_bare: Estimate { value, lo, hi },
            flushes_per_op: 4.0,
            fences_per_op: 3.0,
            reflush: [0.0; 9],
            p50_ns: 1,
            p99_ns: 1,
            p999_ns: 1,
            speedup: None,
            speedup_to_ring: None,
        }
    }

    fn report(rows: Vec<Row>) -> Report {
        let machine = Machine {
            cpu: "cpu".into(),
            arch: "x86_64".into(),
            cores: 2,
            kernel: "6".into(),
            flush_instruction: None,
            durability: "process".into(),
            durability_is_forced: false,
            storage: "tmpfs".into(),
            directory: "/dev/shm".into(),
        };
        Report {
            rows,
            missing_peers: Vec::new(),
            machine,
            flush_again: None,
            scale: Scale::Quick,
            rounds: 7,
            seed: 1,
            background_thread: false,
            left_out: Vec::new(),
        }
    }

    /// The verdict on a row with the first ratio that came to have the second.
    fn verdict(old: (f64, f64, f64), new: (f64, f64, f64)) -> Verdict {
        let one = |(value, lo, hi)| report(vec![row("b", value, lo, hi)]);
        Comparison::of(&one(old), &one(new)).rows[0].verdict
    }

    #[test]
    fn slower_is_what_noise_and_tolerance_don_t_explain() {
        assert_eq!(verdict((4.0, 3.9, 4.1), (5.0, 4.9, 5.1)), Verdict::Slower);
        assert_eq!(verdict((5.0, 4.9, 5.1), (4.0, 3.9, 4.1)), Verdict::Faster);
        // The intervals overlap.
        assert_eq!(verdict((4.0, 3.0, 4.95), (5.0, 4.9, 5.1)), Verdict::Same);
        // They don't, but the difference is small.
        assert_eq!(verdict((4.0, 3.99, 4.01), (4.1, 4.09, 4.11)), Verdict::Same);
        assert_eq!(verdict((4.0, 3.9, 4.1), (4.0, 3.9, 4.1)), Verdict::Same);
    }

    #[test]
    fn a_flush_or_a_fence_more_is_a_regression_at_any_speed() {
        let old = report(vec![row("b", 4.0, 3.9, 4.1)]);
        let mut new = report(vec![row("b", 3.0, 2.9, 3.1)]);
        assert_eq!(Comparison::of(&old, &new).regressions, 0);
        new.rows[0].fences_per_op = 4.0;
        let compared = Comparison::of(&old, &new);
        assert_eq!((compared.rows[0].verdict, compared.regressions), (Verdict::MorePersists, 1));
        new.rows[0].fences_per_op = 3.01;
        assert_eq!(Comparison::of(&old, &new).regressions, 0);
    }

    #[test]
    fn rows_are_matched_by_what_was_measured() {
        let old = report(vec![row("both", 4.0, 4.0, 4.0), row("gone", 1.0, 1.0, 1.0)]);
        let mut new = report(vec![row("new", 1.0, 1.0, 1.0), row("both", 8.0, 8.0, 8.0)]);
        new.rows[1].policy = None;
        assert_eq!(Comparison::of(&old, &new).rows, []);
        new.rows[1].policy = Some("eager".into());
        let compared = Comparison::of(&old, &new);
        assert_eq!(compared.rows.len(), 1);
        assert!((compared.rows[0].change - 2.0).abs() < f64::EPSILON);
        assert_eq!(compared.only_old, ["gone, pmalloc, 1 threads"]);
        assert_eq!(compared.only_new, ["new, pmalloc, 1 threads"]);
        let text = compared.to_text();
        for part in ["both", "+100.0 %", "SLOWER", "gone, pmalloc, 1 threads: only in the old run"]
        {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
    }

    /// A version that chooses another policy names its heaps otherwise.
    #[test]
    fn heaps_are_matched_by_policy_whatever_they_are_called() {
        let named = |allocator: &str, policy: Option<&str>, value| Row {
            allocator: allocator.into(),
            policy: policy.map(Into::into),
            ..row("b", value, value, value)
        };
        let [eager, batched] = [Some("eager"), Some("batched")];
        let old = report(vec![
            named("pmalloc", eager, 4.0),
            named("pmalloc-batched", batched, 1.5),
            named("bare", None, 1.0),
            named("other", None, 3.0),
        ]);
        let new = report(vec![
            named("pmalloc", batched, 1.5),
            named("pmalloc-eager", eager, 8.0),
            named("bare", None, 1.0),
        ]);
        let compared = Comparison::of(&old, &new);
        let told: Vec<_> =
            compared.rows.iter().map(|row| (&*row.allocator, row.change, row.verdict)).collect();
        assert_eq!(
            told,
            [
                ("pmalloc-eager", 2.0, Verdict::Slower),
                ("pmalloc", 1.0, Verdict::Same),
                ("bare", 1.0, Verdict::Same)
            ]
        );
        assert_eq!((compared.only_old.len(), compared.only_new.len()), (1, 0));
    }

    #[test]
    fn another_machine_is_pointed_out() {
        let old = report(vec![row("b", 4.0, 4.0, 4.0)]);
        let mut new = old.clone();
        assert!(Comparison::of(&old, &new).same_machine);
        new.machine.cpu = "another".into();
        let compared = Comparison::of(&old, &new);
        assert!(!compared.same_machine && compared.to_text().contains("machines differ"));
    }
}
