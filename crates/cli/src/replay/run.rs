//! Runs an engine: the threads of the plan, and the one that watches over them.
//!
//! The figures go to the journal's tallies a few hundred times a second. Volatile, but for the journal.

use std::{
    panic::resume_unwind,
    time::{Duration, Instant},
};

use pmalloc_persist::{
    Medium,
    sync::{
        Ordering, lock,
        thread::{self, Thread},
    },
};
use rustix::time::{ClockId, clock_gettime};

use super::{actor::Actor, engine::Engine, journal::Tally, medium::Watched};
use crate::{args::Order, exit::Failure};

/// How often the figures are published and the user's wishes looked at.
const TICK: Duration = Duration::from_millis(4);

/// What happens while an engine runs: whom it tells, and whom it asks whether to go on.
pub(crate) trait Spectator {
    /// Told the number of steps done, now and then; whether to stop.
    fn tick(&mut self, steps: u64) -> Verdict;
}

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    GoOn,
    Stop,
}

/// The journal's figures when a run began, and when that was.
struct Start {
    wall: Instant,
    cpu_ns: u64,
    steps: u64,
    before: [u64; 5],
}

/// Figures that a run adds to; the order is that of [`Start::before`].
const ADDED: [Tally; 5] =
    [Tally::Operations, Tally::WallNs, Tally::CpuNs, Tally::VerifiedBlocks, Tally::Violations];

impl<M: Watched, J: Medium> Engine<'_, M, J> {
    /// Replays the rest of the plan.
    pub(crate) fn run(&self, order: Order, spectator: &mut impl Spectator) -> Result<(), Failure> {
        let start = self.start();
        let threads = if order == Order::Trace { 1 } else { self.plan.threads() };
        self.running.store(u64::from(threads), Ordering::Relaxed);
        let watcher = thread::current();
        thread::scope(|scope| {
            let spawn = |thread| {
                let seat = Seat { engine: self, watcher: watcher.clone() };
                scope.spawn(move || seat.replay(order, thread))
            };
            let threads: Vec<_> = (0..threads).map(spawn).collect();
            // Pairs with the Release in the drop of `Seat`.
            while self.running.load(Ordering::Acquire) > 0 {
                thread::park_timeout(TICK);
                self.publish(&start);
                if spectator.tick(self.journal.steps()) == Verdict::Stop {
                    self.stop(Some(Failure::Interrupted));
                }
            }
            // A scope waits for the closures only, a join for the whole threads: as long as one of them gives
            // back what it held of the heap, the heap can't be closed and opened again.
            for thread in threads {
                thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            }
        });
        self.publish(&start);
        let stats = self.heap.stats().map_err(Failure::heap(Watched::path(self.heap)))?;
        self.journal.raise_tally(Tally::DramBytes, stats.dram_bytes);
        lock(&self.failure).take().map_or(Ok(()), Err)
    }

    fn in_program_order(&self, thread: u16) -> Result<(), Failure> {
        *lock(&self.seats[usize::from(thread)]) = Some(thread::current());
        let mut actor = Actor::new(self, thread);
        while !self.is_stopped() && actor.step()? {}
        Ok(())
    }

    fn in_trace_order(&self) -> Result<(), Failure> {
        let mut actors: Vec<_> =
            (0..self.plan.threads()).map(|thread| Actor::new(self, thread)).collect();
        // Of each thread, how many steps are due; it may have done them before the last kill, or together with others.
        let mut due = vec![0; actors.len()];
        for &thread in &self.plan.order {
            let thread = usize::from(thread);
            if actors[thread].position() <= due[thread] {
                actors[thread].step()?;
            }
            due[thread] += 1;
            if self.is_stopped() {
                break;
            }
        }
        Ok(())
    }

    fn start(&self) -> Start {
        Start {
            wall: Instant::now(),
            cpu_ns: cpu_ns(),
            steps: self.journal.steps(),
            before: ADDED.map(|tally| self.journal.tally(tally)),
        }
    }

    /// Brings the journal's figures up to date. Only the watching thread does.
    fn publish(&self, start: &Start) {
        let probe = Watched::probe(self.heap);
        probe.sample(self.heap.occupied_bytes().ok());
        self.journal.raise_tally(Tally::PeakHeapBytes, probe.peak_bytes());
        self.journal.raise_tally(Tally::PeakLiveBytes, self.usage.peak_bytes());
        self.journal.raise_tally(Tally::PeakLiveBlocks, self.usage.peak_blocks());
        let wall_ns = u64::try_from(start.wall.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let since = [
            self.journal.steps() - start.steps,
            wall_ns,
            cpu_ns() - start.cpu_ns,
            self.verified.load(Ordering::Relaxed),
            self.violations.load(Ordering::Relaxed),
        ];
        for ((tally, before), since) in ADDED.into_iter().zip(start.before).zip(since) {
            self.journal.set_tally(tally, before + since);
        }
    }
}

/// A running thread. However it ends, the watcher learns it; if by a panic, so do the others, which might
/// wait for it.
struct Seat<'e, 'h, M: Watched, J: Medium> {
    engine: &'e Engine<'h, M, J>,
    watcher: Thread,
}

impl<M: Watched, J: Medium> Seat<'_, '_, M, J> {
    /// The body of the thread; `thread` is its number if it is one of the trace's.
    fn replay(self, order: Order, thread: u16) {
        let done = match order {
            Order::Trace => self.engine.in_trace_order(),
            Order::Threads => self.engine.in_program_order(thread),
        };
        if let Err(failure) = done {
            self.engine.stop(Some(failure));
        }
    }
}

impl<M: Watched, J: Medium> Drop for Seat<'_, '_, M, J> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.engine.stop(None);
        }
        // Pairs with the Acquire in `run`.
        self.engine.running.fetch_sub(1, Ordering::Release);
        self.watcher.unpark();
    }
}

/// Processor time of this process so far, in nanoseconds.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
