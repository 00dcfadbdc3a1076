//! Replays a plan on a heap: state that all threads share, and the thread that watches over them.
//!
//! What was done stands in the journal, so an engine may begin where a killed one ended. The figures go
//! to the journal's tallies a few hundred times a second. Volatile, but for the journal.

use std::{
    panic::resume_unwind,
    time::{Duration, Instant},
};

use pmalloc::{Heap, Slot};
use pmalloc_persist::{
    Medium,
    sync::{
        AtomicBool, AtomicU64, Mutex, Ordering, lock,
        thread::{self, Thread},
    },
};
use rustix::time::{ClockId, clock_gettime};

use super::{
    actor::Actor,
    cells::Cells,
    gauge::Gauge,
    journal::{Journal, Tally},
    medium::Watched,
    mix::Mix,
    plan::Plan,
    probe::Calls,
    slots::{Pool, Purse, SlotId, array_first, array_len, array_name},
};
use crate::{
    args::{Order, Verification},
    exit::Failure,
};

/// How often the figures are published and the user's wishes looked at.
const TICK: Duration = Duration::from_millis(4);

/// Violations that are described; the others are only counted.
const DESCRIBED_VIOLATIONS: u64 = 20;

/// When a worker shall kill itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trigger {
    /// Steps, over all workers, after which the switch is armed.
    pub(crate) arm_at: u64,
    /// Persist calls from then on.
    pub(crate) countdown: u64,
    /// Which of them count.
    pub(crate) calls: Calls,
}

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

/// How a replay is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// Whether contents are compared.
    pub(crate) verification: Verification,
    /// Which operations are of the publish family.
    pub(crate) mix: Mix,
}

/// A replay on one heap.
#[derive(Debug)]
pub(crate) struct Engine<'h, M: Watched, J> {
    pub(super) heap: &'h Heap<M>,
    pub(super) journal: &'h Journal<J>,
    pub(super) plan: &'h Plan,
    pub(super) manner: Manner,
    pub(super) cells: Cells<'h>,
    pub(super) gauge: Gauge,
    pub(super) verified: AtomicU64,
    slots: Mutex<Slots<'h>>,
    seats: Vec<Mutex<Option<Thread>>>,
    trigger: Option<Trigger>,
    steps: AtomicU64,
    violations: AtomicU64,
    stopped: AtomicBool,
    running: AtomicU64,
    failure: Mutex<Option<Failure>>,
}

/// The slot arrays made so far, and their free slots.
#[derive(Debug, Default)]
struct Slots<'h> {
    arrays: Vec<&'h [Slot]>,
    pool: Pool,
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

impl<'h, M: Watched, J: Medium> Engine<'h, M, J> {
    /// An engine that goes on where `journal` ends.
    pub(crate) fn new(
        heap: &'h Heap<M>,
        journal: &'h Journal<J>,
        plan: &'h Plan,
        manner: Manner,
    ) -> Result<Self, Failure> {
        let engine = Self {
            heap,
            journal,
            plan,
            manner,
            cells: Cells::open(heap, plan.threads(), manner.mix)?,
            gauge: Gauge::default(),
            verified: AtomicU64::new(0),
            slots: Mutex::default(),
            seats: plan.programs.iter().map(|_| Mutex::default()).collect(),
            trigger: None,
            steps: AtomicU64::new(journal.steps()),
            violations: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            running: AtomicU64::new(0),
            failure: Mutex::default(),
        };
        engine.take_over()?;
        Ok(engine)
    }

    /// Makes the process kill itself when the `trigger` says so.
    pub(crate) fn armed(self, trigger: Option<Trigger>) -> Self {
        Self { trigger, ..self }
    }

    /// Takes over the arrays and live blocks that the journal names.
    fn take_over(&self) -> Result<(), Failure> {
        let mut owned = Vec::new();
        for (block, size_bytes) in self.plan.blocks() {
            if let Some(slot) = self.journal.entry(block).slot() {
                owned.push(slot);
                self.gauge.add(size_bytes);
            }
        }
        owned.sort_unstable();
        let slots = &mut *lock(&self.slots);
        for index in 0..count_of(self.journal.tally(Tally::ArraysBegun)) {
            slots.arrays.push(self.array(index)?);
            let first = array_first(index).get();
            (first..first + array_len(index))
                .map(SlotId::new)
                .filter(|slot| owned.binary_search(slot).is_err())
                .for_each(|slot| slots.pool.add(slot));
        }
        Ok(())
    }

    fn array(&self, index: u32) -> Result<&'h [Slot], Failure> {
        let (name, len) = (array_name(index), u64::from(array_len(index)));
        self.heap.slots(&name, len).map_err(Failure::heap(Watched::path(self.heap)))
    }

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
        self.journal.raise_tally(Tally::PeakLiveBytes, self.gauge.peak_bytes());
        self.journal.raise_tally(Tally::PeakLiveBlocks, self.gauge.peak_blocks());
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

    /// Fills `purse` with free slots, of a new array if need be.
    #[cold]
    pub(super) fn refill(&self, purse: &mut Purse) -> Result<(), Failure> {
        let slots = &mut *lock(&self.slots);
        if !slots.pool.refill(purse) {
            let index = count_of(slots.arrays.len() as u64);
            // Announced first: after a kill in between, whoever looks makes the array, or finds it.
            self.journal.set_tally(Tally::ArraysBegun, u64::from(index) + 1);
            slots.arrays.push(self.array(index)?);
            self.journal.set_tally(Tally::ArraysMade, u64::from(index) + 1);
            slots.pool.add_array(index);
            slots.pool.refill(purse);
        }
        Ok(())
    }

    /// Takes slots from a purse that holds too many.
    #[cold]
    pub(super) fn relieve(&self, purse: &mut Purse) {
        purse.relieve(&mut lock(&self.slots).pool);
    }

    /// Fills `arrays` with all arrays.
    #[cold]
    pub(super) fn all_arrays(&self, arrays: &mut Vec<&'h [Slot]>) {
        arrays.extend_from_slice(&lock(&self.slots).arrays[arrays.len()..]);
    }

    /// Notes that so many more steps are done, and arms the kill switch when it is time.
    pub(super) fn count_steps(&self, steps: u64) {
        if let Some(trigger) = self.trigger {
            // Relaxed: only the count matters.
            let before = self.steps.fetch_add(steps, Ordering::Relaxed);
            if (before + 1..=before + steps).contains(&trigger.arm_at) {
                Watched::probe(self.heap).arm(trigger.countdown, trigger.calls);
            }
        }
    }

    /// Wakes `thread`, which waits for a block.
    pub(super) fn wake(&self, thread: u16) {
        let seat = self.seats.get(usize::from(thread));
        if let Some(thread) = seat.and_then(|seat| lock(seat).clone()) {
            thread.unpark();
        }
    }

    /// Notes a contradiction and goes on.
    pub(super) fn violation(&self, what: &str) {
        if self.violations.fetch_add(1, Ordering::Relaxed) < DESCRIBED_VIOLATIONS {
            eprintln!("violation: {what}");
        }
    }

    /// Whether the threads shall end.
    pub(super) fn is_stopped(&self) -> bool {
        // Pairs with the Release in `stop`.
        self.stopped.load(Ordering::Acquire)
    }

    /// Makes all threads end; the first failure is the one that is told.
    fn stop(&self, failure: Option<Failure>) {
        if let Some(failure) = failure {
            lock(&self.failure).get_or_insert(failure);
        }
        // Pairs with the Acquire in `is_stopped`.
        self.stopped.store(true, Ordering::Release);
        (0..self.plan.threads()).for_each(|thread| self.wake(thread));
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

/// A number of arrays.
fn count_of(arrays: u64) -> u32 {
    u32::try_from(arrays).expect("a heap has far fewer roots")
}
