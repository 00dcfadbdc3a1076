//! Threads that work in phases: what is measured begins when all are ready and ends when all are done. Volatile.
//!
//! The threads live as long as the crew, so that none of what is measured is the making of a thread, of its lane or of
//! its caches. A panic in a thread leaves the others waiting for ever; a process that measures dies of one instead
//! ([`crate::cell`]).

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// A phase: a task, and how many of the threads do it. The others wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase<T> {
    /// What is done.
    pub(crate) task: T,
    /// By how many threads.
    pub(crate) threads: usize,
}

/// What was seen of a phase.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading<T, P> {
    /// What was done.
    pub(crate) task: T,
    /// By how many threads.
    pub(crate) threads: usize,
    /// Operations of all threads.
    pub(crate) operations: u64,
    /// From the first thread's begin to the last one's end.
    pub(crate) wall: Duration,
    /// What the probe showed before and after.
    pub(crate) before: P,
    /// See there.
    pub(crate) after: P,
}

/// When a thread did its part of a phase, and how many operations that were.
#[derive(Debug, Clone, Copy)]
struct Stint {
    began: Instant,
    ended: Instant,
    operations: u64,
}

/// Runs `phases` one after the other.
///
/// Each thread makes its worker with `make`, does its part of each phase with `work`, which returns the number of
/// operations, and turns its worker into a result with `finish`. `probe` is asked before and after each phase.
pub(crate) fn run<W, R: Send, T: Copy + Sync, P>(
    phases: &[Phase<T>],
    probe: impl Fn() -> P,
    make: impl Fn(usize) -> W + Sync,
    work: impl Fn(&mut W, T) -> u64 + Sync,
    finish: impl Fn(W) -> R + Sync,
) -> (Vec<Reading<T, P>>, Vec<R>) {
    let threads = phases.iter().map(|phase| phase.threads).max().unwrap_or(0);
    let barrier = Barrier::new(threads + 1);
    let serve = |thread| {
        let mut worker = make(thread);
        let mut stints = Vec::with_capacity(phases.len());
        for phase in phases {
            barrier.wait();
            stints.push((thread < phase.threads).then(|| stint(&mut worker, phase.task, &work)));
            barrier.wait();
        }
        (stints, finish(worker))
    };
    let (probes, served) = thread::scope(|scope| {
        let serve = &serve;
        let crew: Vec<_> = (0..threads).map(|thread| scope.spawn(move || serve(thread))).collect();
        let conduct = |_| {
            let before = probe();
            barrier.wait();
            barrier.wait();
            (before, probe())
        };
        let probes: Vec<(P, P)> = phases.iter().map(conduct).collect();
        let joined = crew.into_iter().map(|thread| thread.join().expect("no panic"));
        (probes, joined.collect::<Vec<_>>())
    });
    let (stints, results): (Vec<_>, Vec<R>) = served.into_iter().unzip();
    let readings = phases.iter().zip(probes).enumerate().map(|(at, (phase, probes))| {
        let stints: Vec<Stint> = stints.iter().filter_map(|thread| thread[at]).collect();
        reading(*phase, probes, &stints)
    });
    (readings.collect(), results)
}

fn stint<W, T>(worker: &mut W, task: T, work: impl Fn(&mut W, T) -> u64) -> Stint {
    let began = Instant::now();
    let operations = work(worker, task);
    Stint { began, ended: Instant::now(), operations }
}

fn reading<T, P>(phase: Phase<T>, (before, after): (P, P), stints: &[Stint]) -> Reading<T, P> {
    let began = stints.iter().map(|stint| stint.began).min().expect("a phase has a thread");
    let ended = stints.iter().map(|stint| stint.ended).max().expect("a phase has a thread");
    Reading {
        task: phase.task,
        threads: phase.threads,
        operations: stints.iter().map(|stint| stint.operations).sum(),
        wall: ended - began,
        before,
        after,
    }
}

#[cfg(test)]
mod tests {
    use pmalloc::persist::sync::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn each_phase_is_done_by_its_threads_between_its_probes() {
        let done = AtomicU64::new(0);
        let phases = [Phase { task: 1, threads: 1 }, Phase { task: 10, threads: 3 }];
        let work = |worker: &mut u64, task: u64| {
            *worker += task;
            done.fetch_add(task, Ordering::SeqCst);
            task
        };
        let probe = || done.load(Ordering::SeqCst);
        let (readings, mut results) = run(&phases, probe, |_| 0, work, |worker| worker);
        results.sort_unstable();
        assert_eq!(results, [10, 10, 11]);
        let seen: Vec<_> = readings
            .iter()
            .map(|seen| (seen.task, seen.threads, seen.operations, seen.before, seen.after))
            .collect();
        assert_eq!(seen, [(1, 1, 1, 0, 1), (10, 3, 30, 1, 31)]);
    }

    #[test]
    fn the_wall_clock_runs_from_the_first_begin_to_the_last_end() {
        let nap = Duration::from_millis(20);
        let work = |thread: &mut usize, (): ()| {
            thread::sleep(nap * u32::try_from(*thread).expect("few"));
            1
        };
        let (readings, _) =
            run(&[Phase { task: (), threads: 2 }], || (), |thread| thread, work, |_| ());
        assert!(readings[0].wall >= nap, "{:?}", readings[0].wall);
    }
}
