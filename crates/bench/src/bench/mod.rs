//! The benchmarks, one file each.
//!
//! A benchmark is a type with [`Bench`] and a line in [`ALL`]. Most of them are a workload that `measure` runs; `pairs` is
//! the one that they share. Volatile, but for the heaps.

mod benchmark;
mod heap_size;
mod large;
mod larson;
mod pairs;
mod prodcon;
mod reopen;
mod shbench;
mod small;
mod speedup;
mod threadtest;

pub use self::benchmark::Bench;
use crate::error::Error;

/// All benchmarks, in the order in which they run.
pub static ALL: &[&dyn Bench] = &[
    &threadtest::Threadtest,
    &shbench::Shbench,
    &larson::Larson,
    &prodcon::ProdCon,
    &small::Small,
    &large::Large,
    &speedup::SpeedupOfThreads,
    &heap_size::HeapSize,
    &reopen::Reopen,
];

/// The benchmark of this name.
///
/// # Errors
///
/// [`Error::UnknownBench`], which lists those that there are.
pub fn find(name: &str) -> Result<&'static dyn Bench, Error> {
    let found = ALL.iter().find(|bench| bench.name() == name);
    found.copied().ok_or_else(|| Error::UnknownBench { name: name.to_owned(), known: known() })
}

/// The benchmarks and what they measure, for a message.
fn known() -> String {
    let line = |bench: &&dyn Bench| format!("\n  {:<12} {}", bench.name(), bench.about());
    ALL.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pmalloc::Policy;
    use pmalloc_bench_peers::Peer;

    use super::*;
    use crate::{
        alloc::Subject,
        cell::{Mode, Outcome, PerOp, Scale, tests::cell},
        context::tests::run_here,
    };

    /// Runs a cell in this process.
    fn run(bench: &str, variant: &str, subject: Subject, threads: usize, mode: Mode) -> Outcome {
        let cell = cell(bench, variant, subject, threads, mode);
        run_here(cell, |context| find(bench).expect("a benchmark").run(context))
    }

    #[test]
    fn names_are_distinct_and_found() {
        let names: BTreeSet<_> = ALL.iter().map(|bench| bench.name()).collect();
        assert_eq!(names.len(), ALL.len());
        for name in names {
            assert_eq!(find(name).expect("it is listed").name(), name);
        }
        let text = find("nothing").err().expect("there is none").to_string();
        assert!(text.contains("nothing") && text.contains("threadtest"), "{text}");
    }

    /// Flushes and fences per operation of a counted cell.
    fn counted(bench: &str, variant: &str, subject: Subject, threads: usize) -> PerOp {
        match run(bench, variant, subject, threads, Mode::Count) {
            Outcome::Counted(counts) => counts,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pass_costs_the_persists_of_its_operations_and_those_of_a_few_slabs() {
        for (variant, threads, flushes, fences) in [
            ("own-line", 1, 4.0, 3.0),
            ("own-line", 2, 4.0, 3.0),
            ("packed", 1, 4.0, 3.0),
            // An allocation flushes the line of its contents, behind a fence of its own; a free does not.
            ("contents", 1, 4.5, 3.5),
        ] {
            let counts = counted("small", variant, Subject::Heap(Policy::Eager), threads);
            let of_slabs = [counts.flushes - flushes, counts.fences - fences];
            for count in of_slabs {
                assert!((0.0..0.02).contains(&count), "{variant}, {threads} threads: {counts:?}");
            }
        }
    }

    /// Under Batched an operation flushes and fences its record; the lines that it leaves are those of many, and no line is
    /// flushed again soon.
    #[test]
    fn operations_of_batched_cost_a_fence_and_two_flushes_with_those_of_their_rounds() {
        for (bench, variant, threads) in [
            ("threadtest", "packed", 1),
            ("threadtest", "packed", 2),
            ("threadtest", "own-line", 1),
            ("small", "packed", 1),
            ("small", "own-line", 2),
        ] {
            let counts = counted(bench, variant, Subject::Heap(Policy::Batched), threads);
            let what = format!("{bench}/{variant}, {threads} threads: {counts:?}");
            assert!((1.0..=2.2).contains(&counts.flushes), "{what}");
            assert!((1.0..=1.05).contains(&counts.fences), "{what}");
            // Of two threads one may begin a round right behind the other's.
            let again = if threads == 1 { 0.0 } else { 0.002 };
            assert!(counts.reflush[..8].iter().all(|share| *share <= again), "{what}");
        }
        // An allocation flushes and fences its contents, too.
        let counts = counted("small", "contents", Subject::Heap(Policy::Batched), 1);
        assert!((1.5..=2.7).contains(&counts.flushes), "{counts:?}");
        assert!((1.5..=1.55).contains(&counts.fences), "{counts:?}");
    }

    /// What is allocated and freed by other threads costs no more persists; slabs come and go with mixed sizes.
    #[test]
    fn mixed_blocks_and_those_of_other_threads_cost_the_same_persists() {
        for (bench, variant, threads, of_slabs) in [
            ("shbench", "packed", 1, 0.3),
            ("shbench", "own-line", 2, 0.3),
            ("larson", "small", 2, 0.1),
            ("larson", "large", 2, 0.8),
            ("prod-con", "packed", 2, 0.1),
            ("prod-con", "own-line", 4, 0.1),
        ] {
            let counts = counted(bench, variant, Subject::Heap(Policy::Eager), threads);
            for more in [counts.flushes - 4.0, counts.fences - 3.0] {
                assert!((0.0..of_slabs).contains(&more), "{bench}/{variant}: {counts:?}");
            }
            let counts = counted(bench, variant, Subject::Heap(Policy::Batched), threads);
            for more in [counts.flushes - 2.2, counts.fences - 1.05] {
                assert!(more < of_slabs, "{bench}/{variant}, batched: {counts:?}");
            }
            for subject in [Subject::Bare, Subject::Pointer(Peer::Glibc)] {
                let counts = counted(bench, variant, subject, threads);
                assert_eq!((counts.flushes, counts.fences), (1.0, 1.0), "{bench}, {subject}");
            }
        }
    }

    #[test]
    fn a_pair_has_a_producer_and_a_consumer() {
        let fits =
            |threads| find("prod-con").expect("listed").fits(Subject::Heap(Policy::Eager), threads);
        assert!(fits(2) && fits(8) && !fits(1) && !fits(3));
        let outcome = run("prod-con", "packed", Subject::Heap(Policy::Eager), 2, Mode::Latency);
        let Outcome::Latency(latency) = outcome else { panic!("{outcome:?}") };
        assert!(latency.p50_ns > 0 && latency.p50_ns <= latency.p999_ns, "{latency:?}");
    }

    #[test]
    fn a_bare_persist_is_one_flush_and_one_fence_and_no_line_is_near() {
        let counts = counted("threadtest", "packed", Subject::Bare, 2);
        assert_eq!((counts.flushes, counts.fences), (1.0, 1.0));
        assert_eq!(counts.reflush[..8], [0.0; 8]);
    }

    #[test]
    fn a_timed_cell_has_times_and_a_clocked_one_has_quantiles_in_order() {
        let outcome = run("threadtest", "own-line", Subject::Heap(Policy::Eager), 2, Mode::Time);
        let Outcome::Timed(timing) = outcome else { panic!("{outcome:?}") };
        assert!(timing.cpu_ns > 0.0 && timing.wall_ns > 0.0 && timing.bare_ns > 0.0, "{timing:?}");
        assert_eq!(timing.speedup, None);
        let outcome = run("threadtest", "own-line", Subject::Heap(Policy::Eager), 2, Mode::Latency);
        let Outcome::Latency(latency) = outcome else { panic!("{outcome:?}") };
        assert!(latency.p50_ns > 0, "{latency:?}");
        assert!(latency.p50_ns <= latency.p99_ns && latency.p99_ns <= latency.p999_ns);
    }

    #[test]
    fn a_speed_up_is_told_beside_that_of_the_ring() {
        let outcome = run("speedup", "small", Subject::Heap(Policy::Eager), 2, Mode::Time);
        let Outcome::Timed(timing) = outcome else { panic!("{outcome:?}") };
        let speedup = timing.speedup.expect("it is the question");
        assert!(speedup.own > 0.0 && speedup.ring > 0.0, "{speedup:?}");
    }

    #[test]
    fn large_blocks_and_full_heaps_run() {
        run("large", "own-line", Subject::Heap(Policy::Eager), 1, Mode::Time);
        for variant in find("heap-size").expect("listed").variants(Scale::Quick) {
            run("heap-size", &variant, Subject::Heap(Policy::Eager), 1, Mode::Count);
        }
    }
}
