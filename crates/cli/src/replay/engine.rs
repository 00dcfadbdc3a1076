//! A replay on one heap: the state that all its threads share.
//!
//! What was done stands in the journal, so an engine may begin where a killed one ended. Volatile, but for the journal.

use pmalloc::{Heap, Slot};
use pmalloc_persist::{
    Medium,
    sync::{AtomicBool, AtomicU64, Mutex, Ordering, lock, thread::Thread},
};

use super::{
    cells::Cells,
    journal::{Journal, Tally},
    medium::Watched,
    mix::Mix,
    plan::Plan,
    slots::{Pool, Purse, SlotId, array_first, array_len, array_name},
    usage::Usage,
};
use crate::{
    args::{Calls, Verification},
    exit::Failure,
};

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
    pub(super) usage: Usage,
    pub(super) verified: AtomicU64,
    slots: Mutex<Slots<'h>>,
    pub(super) seats: Vec<Mutex<Option<Thread>>>,
    trigger: Option<Trigger>,
    steps: AtomicU64,
    pub(super) violations: AtomicU64,
    stopped: AtomicBool,
    pub(super) running: AtomicU64,
    pub(super) failure: Mutex<Option<Failure>>,
}

/// The slot arrays made so far, and their free slots.
#[derive(Debug, Default)]
struct Slots<'h> {
    arrays: Vec<&'h [Slot]>,
    pool: Pool,
}

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
            usage: Usage::default(),
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
                self.usage.add(size_bytes);
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
    pub(super) fn stop(&self, failure: Option<Failure>) {
        if let Some(failure) = failure {
            lock(&self.failure).get_or_insert(failure);
        }
        // Pairs with the Acquire in `is_stopped`.
        self.stopped.store(true, Ordering::Release);
        (0..self.plan.threads()).for_each(|thread| self.wake(thread));
    }
}

/// A number of arrays.
fn count_of(arrays: u64) -> u32 {
    u32::try_from(arrays).expect("a heap has far fewer roots")
}
