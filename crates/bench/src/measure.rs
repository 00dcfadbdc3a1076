//! Runs a workload of passes over an allocator: timed beside bare persists, counted, or operation by operation.
//! Volatile, but for the heap.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use pmalloc::{
    Heap,
    persist::{Counts, Mapped, Medium, Traced},
};

use crate::{
    alloc::{BareLines, PersistentAlloc, Visitor, Worker, visit},
    cell::{Cell, Latency, Mode, Outcome, PerOp, Scale, Speedup, Timing},
    clock::{cpu_ns, per_op},
    context::Context,
    crew::{self, Phase, Reading},
    relay::{Arrays, Workload},
};

/// How often a workload is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Timed passes of a round.
    pub(crate) passes: usize,
    /// Bare persists of a thread before each of them.
    pub(crate) bare_persists: usize,
}

impl Effort {
    /// As many passes as the scale has, and bare persists that take some milliseconds.
    pub(crate) fn of(scale: Scale, [quick, usual, full]: [usize; 3]) -> Self {
        Self {
            passes: scale.choose(quick, usual, full),
            bare_persists: scale.choose(2_000, 50_000, 50_000),
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    WarmUp,
    Bare,
    Ring,
    Pass,
}

/// Words of a record of the bare ring: what a log of fixed records stores for each operation.
const RING_WORDS: usize = 4;

/// Significant digits of latencies.
const LATENCY_DIGITS: u8 = 3;

/// Runs `workload` as the cell of `context` says, on a new heap that `prepare` has filled.
pub(crate) fn measure<L: Workload>(
    context: &Context<'_>,
    workload: &L,
    effort: Effort,
    prepare: &impl Prepare,
) -> Outcome {
    run(context, prepare, &Passes { cell: context.cell, workload, effort })
}

/// As [`measure`], and one thread is timed beside the cell's many, over the bare ring.
pub(crate) fn measure_speedup<L: Workload>(
    context: &Context<'_>,
    workload: &L,
    effort: Effort,
) -> Outcome {
    let passes = Passes { cell: context.cell, workload, effort };
    if context.cell.mode != Mode::Time {
        return run(context, &Empty, &passes);
    }
    let heap = context.make_heap(|mapped| mapped);
    Outcome::Timed(visit(context.cell.subject, &heap, SpeedupIn { heap: &heap, passes: &passes }))
}

/// Fills a new heap before it is measured.
pub(crate) trait Prepare {
    /// Fills `heap`.
    fn fill<M: Medium + 'static>(&self, heap: &Heap<M>);
}

/// Leaves the heap empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Empty;

impl Prepare for Empty {
    fn fill<M: Medium + 'static>(&self, _: &Heap<M>) {}
}

/// A workload, and how it is run.
struct Passes<'a, L> {
    cell: &'a Cell,
    workload: &'a L,
    effort: Effort,
}

fn run<L: Workload>(
    context: &Context<'_>,
    prepare: &impl Prepare,
    passes: &Passes<'_, L>,
) -> Outcome {
    let cell = context.cell;
    if cell.mode == Mode::Count {
        let heap = context.make_heap(Traced::new);
        prepare.fill(&heap);
        return Outcome::Counted(visit(cell.subject, &heap, CountIn { heap: &heap, passes }));
    }
    let heap = context.make_heap(|mapped| mapped);
    prepare.fill(&heap);
    match cell.mode {
        Mode::Time => Outcome::Timed(visit(cell.subject, &heap, TimeIn { heap: &heap, passes })),
        Mode::Latency => Outcome::Latency(visit(cell.subject, &heap, LatencyIn { passes })),
        Mode::Count | Mode::LeaveClosed | Mode::LeaveOpen => {
            unreachable!("{cell} asks passes for what they don't do")
        }
    }
}

impl<L: Workload> Passes<'_, L> {
    /// Runs `phases` over `alloc`; each thread has `heap`'s bare lines beside it.
    fn crew<A: PersistentAlloc, M: Medium + 'static, P>(
        &self,
        alloc: &A,
        heap: &Heap<M>,
        phases: &[Phase<Task>],
        probe: impl Fn() -> P,
    ) -> Vec<Reading<Task, P>> {
        let arrays = Arrays::new(self.workload, self.cell.threads);
        let make = |thread| {
            let worker = alloc.worker(thread, self.workload.slots());
            arrays.bring(thread, worker, self.cell.rng(thread));
            (thread, BareLines::new(heap, thread))
        };
        let work = |(thread, bare): &mut (usize, BareLines<'_, M>), task| match task {
            Task::WarmUp | Task::Pass => arrays.pass(*thread),
            Task::Bare => bare.persists::<1>(self.effort.bare_persists),
            Task::Ring => bare.persists::<RING_WORDS>(self.effort.bare_persists),
        };
        crew::run(phases, probe, make, work, |_| ()).0
    }

    /// A phase of all threads.
    fn phase(&self, task: Task) -> Phase<Task> {
        Phase { task, threads: self.cell.threads }
    }

    /// `tasks`, as often as there are passes, behind what warms up.
    fn phases(&self, tasks: &[Phase<Task>]) -> Vec<Phase<Task>> {
        let mut phases = vec![self.phase(Task::WarmUp), self.phase(Task::Bare)];
        (0..self.effort.passes).for_each(|_| phases.extend(tasks));
        phases
    }
}

/// The readings of a task, summed.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    operations: u64,
    cpu_ns: u64,
    wall: Duration,
}

impl Sum {
    /// The sum over what `threads` threads read while they did `task`; the first two phases warm up.
    fn of(readings: &[Reading<Task, u64>], task: Task, threads: usize) -> Self {
        let readings = readings.iter().skip(2);
        readings.filter(|seen| seen.task == task && seen.threads == threads).fold(
            Self::default(),
            |sum, seen| Self {
                operations: sum.operations + seen.operations,
                cpu_ns: sum.cpu_ns + (seen.after - seen.before),
                wall: sum.wall + seen.wall,
            },
        )
    }

    fn cpu_ns_per_op(&self) -> f64 {
        per_op(self.cpu_ns, self.operations)
    }

    fn wall_ns_per_op(&self) -> f64 {
        let wall_ns = u64::try_from(self.wall.as_nanos()).expect("a measurement ends");
        per_op(wall_ns, self.operations)
    }
}

/// Times passes beside bare persists.
struct TimeIn<'a, L> {
    heap: &'a Heap<Mapped>,
    passes: &'a Passes<'a, L>,
}

impl<L: Workload> Visitor for TimeIn<'_, L> {
    type Out = Timing;

    fn visit<A: PersistentAlloc>(self, alloc: &A) -> Timing {
        let tasks = [Task::Bare, Task::Pass].map(|task| self.passes.phase(task));
        let phases = self.passes.phases(&tasks);
        let readings = self.passes.crew(alloc, self.heap, &phases, cpu_ns);
        timing(&readings, self.passes.cell.threads, None)
    }
}

/// Times passes and the bare ring on one thread and on many.
struct SpeedupIn<'a, L> {
    heap: &'a Heap<Mapped>,
    passes: &'a Passes<'a, L>,
}

impl<L: Workload> Visitor for SpeedupIn<'_, L> {
    type Out = Timing;

    fn visit<A: PersistentAlloc>(self, alloc: &A) -> Timing {
        let many = self.passes.cell.threads;
        let one = |task| Phase { task, threads: 1 };
        let all = |task| self.passes.phase(task);
        let phases = self.passes.phases(&[
            all(Task::Bare),
            one(Task::Ring),
            all(Task::Ring),
            one(Task::Pass),
            all(Task::Pass),
        ]);
        let readings = self.passes.crew(alloc, self.heap, &phases, cpu_ns);
        let wall_ns = |task, threads| Sum::of(&readings, task, threads).wall_ns_per_op();
        let speedup = |task| wall_ns(task, 1) / wall_ns(task, many);
        let speedup = Speedup { own: speedup(Task::Pass), ring: speedup(Task::Ring) };
        timing(&readings, many, Some(speedup))
    }
}

/// What passes of `threads` threads cost, beside bare persists of as many.
fn timing(readings: &[Reading<Task, u64>], threads: usize, speedup: Option<Speedup>) -> Timing {
    let pass = Sum::of(readings, Task::Pass, threads);
    Timing {
        cpu_ns: pass.cpu_ns_per_op(),
        wall_ns: pass.wall_ns_per_op(),
        bare_ns: Sum::of(readings, Task::Bare, threads).cpu_ns_per_op(),
        speedup,
    }
}

/// Counts what a pass flushes and fences.
struct CountIn<'a, L> {
    heap: &'a Heap<Traced<Mapped>>,
    passes: &'a Passes<'a, L>,
}

impl<L: Workload> Visitor for CountIn<'_, L> {
    type Out = PerOp;

    fn visit<A: PersistentAlloc>(self, alloc: &A) -> PerOp {
        let phases = [Task::WarmUp, Task::Pass].map(|task| self.passes.phase(task));
        let probe = || self.heap.counts();
        let readings = self.passes.crew(alloc, self.heap, &phases, probe);
        let Reading { before, after, operations, .. } = readings[1];
        let counts: Counts = after - before;
        PerOp::of(&counts, operations)
    }
}

/// Looks at the clock before and after each operation of a pass.
struct LatencyIn<'a, L> {
    passes: &'a Passes<'a, L>,
}

impl<L: Workload> Visitor for LatencyIn<'_, L> {
    type Out = Latency;

    fn visit<A: PersistentAlloc>(self, alloc: &A) -> Latency {
        let Passes { cell, workload, .. } = self.passes;
        let arrays = Arrays::new(*workload, cell.threads);
        let all = RefCell::new(histogram());
        let make = |thread| {
            let worker = alloc.worker(thread, workload.slots());
            let worker = Clocked { worker, latencies: histogram() };
            arrays.bring(thread, worker, cell.rng(thread));
            thread
        };
        let work = |thread: &mut usize, ()| arrays.pass(*thread);
        // Before each phase, and after it: what remains is of the last one, as the first warms up.
        let probe = || {
            let mut all = all.borrow_mut();
            all.reset();
            arrays.each_worker(|worker| {
                *all += &worker.latencies;
                worker.latencies.reset();
            });
        };
        crew::run(&[Phase { task: (), threads: cell.threads }; 2], probe, make, work, |_| ());
        let all = all.into_inner();
        latency_of(&all)
    }
}

/// A histogram of nanoseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new(LATENCY_DIGITS).expect("a histogram has up to five digits")
}

/// The quantiles of `latencies` that are reported.
pub(crate) fn latency_of(latencies: &Histogram<u64>) -> Latency {
    let quantile = |quantile| latencies.value_at_quantile(quantile);
    Latency { p50_ns: quantile(0.5), p99_ns: quantile(0.99), p999_ns: quantile(0.999) }
}

/// A worker whose operations are timed one by one.
struct Clocked<W> {
    worker: W,
    latencies: Histogram<u64>,
}

impl<W> Clocked<W> {
    #[inline]
    fn time(&mut self, operation: impl FnOnce(&mut W)) {
        let start = Instant::now();
        operation(&mut self.worker);
        let ns = u64::try_from(start.elapsed().as_nanos()).expect("an operation ends");
        self.latencies.record(ns).expect("the histogram grows");
    }
}

impl<W: Worker> Worker for Clocked<W> {
    #[inline]
    fn alloc(&mut self, at: usize, size_bytes: usize) {
        self.time(|worker| worker.alloc(at, size_bytes));
    }

    #[inline]
    fn alloc_filled(&mut self, at: usize, size_bytes: usize) {
        self.time(|worker| worker.alloc_filled(at, size_bytes));
    }

    #[inline]
    fn free(&mut self, at: usize) {
        self.time(|worker| worker.free(at));
    }

    type Given = W::Given;

    #[inline]
    fn give(&mut self, at: usize) -> W::Given {
        self.worker.give(at)
    }

    #[inline]
    fn free_given(&mut self, given: W::Given) {
        self.time(|worker| worker.free_given(given));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        alloc::{Slots, Spacing, Subject},
        cell::tests::cell,
        context::tests::run_here,
    };
    use pmalloc::Policy;

    /// A few pairs: no slab is made or given back on the way.
    struct FewPairs;

    impl Workload for FewPairs {
        type State = ();

        fn slots(&self) -> Slots {
            Slots { count: 16, spacing: Spacing::OwnLine }
        }

        fn state(&self, _: usize, _: fastrand::Rng) {}

        type Shared<T: Send> = ();

        fn shared<T: Send>(&self, _: usize) {}

        fn pass<W: Worker>(&self, worker: &mut W, (): &mut (), (): &()) -> u64 {
            (0..16).for_each(|at| worker.alloc(at, 64));
            (0..16).for_each(|at| worker.free(at));
            32
        }
    }

    #[test]
    fn counts_are_exact() {
        for (subject, threads, flushes, fences) in [
            (Subject::Heap(Policy::Eager), 1, 4.0, 3.0),
            (Subject::Heap(Policy::Eager), 2, 4.0, 3.0),
            // Too few for a round.
            (Subject::Heap(Policy::Batched), 1, 1.0, 1.0),
            (Subject::Heap(Policy::Batched), 2, 1.0, 1.0),
            (Subject::Bare, 2, 1.0, 1.0),
        ] {
            let cell = cell("few pairs", "", subject, threads, Mode::Count);
            let effort = Effort { passes: 2, bare_persists: 64 };
            let outcome = run_here(cell, |context| measure(context, &FewPairs, effort, &Empty));
            let Outcome::Counted(counts) = outcome else { panic!("{outcome:?}") };
            assert_eq!((counts.flushes, counts.fences), (flushes, fences), "{subject} {counts:?}");
        }
    }

    #[test]
    fn what_warms_up_is_not_in_the_sum() {
        let seen = |task, operations| Reading {
            task,
            threads: 2,
            operations,
            wall: Duration::from_nanos(operations * 3),
            before: 100,
            after: 100 + operations * 5,
        };
        let readings = [
            seen(Task::WarmUp, 1000),
            seen(Task::Bare, 1000),
            seen(Task::Bare, 1),
            seen(Task::Pass, 2),
            seen(Task::Bare, 4),
            seen(Task::Pass, 8),
            Reading { threads: 1, ..seen(Task::Pass, 1000) },
        ];
        let sum = Sum::of(&readings, Task::Pass, 2);
        assert_eq!((sum.operations, sum.cpu_ns), (10, 50));
        assert_eq!((sum.cpu_ns_per_op(), sum.wall_ns_per_op()), (5.0, 3.0));
        assert_eq!(Sum::of(&readings, Task::Bare, 2).operations, 5);
    }

    #[test]
    fn quantiles_are_those_of_the_latencies() {
        let mut all = histogram();
        (1..=1000).for_each(|ns| all.record(ns).expect("it grows"));
        assert_eq!(latency_of(&all), Latency { p50_ns: 500, p99_ns: 990, p999_ns: 999 });
    }
}
