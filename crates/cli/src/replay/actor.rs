//! One thread of a trace: does its steps in order, with a session of its own. Volatile.

use std::alloc::Layout;

use pmalloc::{Error, Session, Slot};
use pmalloc_persist::{Medium, sync::Ordering, sync::thread};

use super::{
    content::Pattern,
    engine::Engine,
    journal::Entry,
    medium::Watched,
    plan::Step,
    slots::{Purse, SlotId},
    trace::{BlockId, Operation},
};
use crate::{args::Verification, exit::Failure};

/// Alignment of every block: that of `malloc`.
const ALIGN_BYTES: usize = 16;

/// Looks at an entry before a thread goes to sleep: there are mostly more threads than processors, so that
/// spinning only delays the one that is waited for.
const SPINS: u32 = 64;

/// Steps between two looks at the size of the file.
const SAMPLE_STEPS: u64 = 256;

/// Longest sleep: a bound on how late a stop is noticed.
const NAP: std::time::Duration = std::time::Duration::from_millis(10);

/// A thread of a trace.
#[derive(Debug)]
pub(super) struct Actor<'e, 'h, M: Watched, J> {
    engine: &'e Engine<'h, M, J>,
    thread: u16,
    position: u64,
    session: Session<M>,
    purse: Purse,
    arrays: Vec<&'h [Slot]>,
}

impl<'e, 'h, M: Watched, J: Medium> Actor<'e, 'h, M, J> {
    /// The thread number `thread`, at the step where the journal says it is.
    pub(super) fn new(engine: &'e Engine<'h, M, J>, thread: u16) -> Self {
        Self {
            engine,
            thread,
            position: engine.journal.position(thread),
            session: engine.heap.session(),
            purse: Purse::default(),
            arrays: Vec::new(),
        }
    }

    /// Number of steps done.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Does the next step; whether there was one.
    pub(super) fn step(&mut self) -> Result<bool, Failure> {
        let program = &self.engine.plan.programs[usize::from(self.thread)];
        let next = usize::try_from(self.position).expect("a program fits memory");
        let Some(&step) = program.get(next) else { return Ok(false) };
        self.perform(step)?;
        if self.engine.is_stopped() {
            return Ok(false);
        }
        self.position += 1;
        self.engine.journal.set_position(self.thread, self.position);
        self.engine.count_step();
        if self.position.is_multiple_of(SAMPLE_STEPS) {
            self.engine.heap.medium().probe().sample();
        }
        Ok(true)
    }

    /// Does `step`, unless the journal says that a killed worker did it.
    fn perform(&mut self, step: Step) -> Result<(), Failure> {
        let block = step.block();
        match (step.operation(), self.engine.journal.entry(block)) {
            (Operation::Alloc, Entry::Untouched) => self.alloc(block),
            (Operation::Alloc, _) | (Operation::Free, Entry::Freed) => Ok(()),
            (Operation::Free, _) => match self.await_live(block) {
                Some(slot) => self.free(block, slot),
                None => Ok(()),
            },
        }
    }

    fn alloc(&mut self, block: BlockId) -> Result<(), Failure> {
        let size_bytes = self.engine.plan.sizes[block.index()];
        let layout = layout_of(size_bytes)?;
        let slot = self.take_slot()?;
        let place = self.slot(slot);
        let journal = self.engine.journal;
        let waiter = journal.set_entry(block, Entry::Allocating(slot));
        debug_assert!(waiter.is_none_or(|thread| thread != self.thread), "it waits for itself");
        self.session
            .alloc_init(place, layout, |bytes| Pattern::of(block).fill(bytes))
            .map_err(|error| self.failed(block, error))?;
        self.engine.gauge.add(size_bytes);
        self.engine.wake(journal.set_entry(block, Entry::Live(slot)));
        Ok(())
    }

    fn free(&mut self, block: BlockId, slot: SlotId) -> Result<(), Failure> {
        let size_bytes = self.engine.plan.sizes[block.index()];
        let place = self.slot(slot);
        if self.engine.verification == Verification::Full {
            self.verify(block, place, size_bytes);
        }
        self.engine.journal.set_entry(block, Entry::Freeing(slot));
        self.session.free_from(place).map_err(|error| self.failed(block, error))?;
        self.engine.gauge.remove(size_bytes);
        self.engine.journal.set_entry(block, Entry::Freed);
        self.purse.put(slot);
        if self.purse.is_over_full() {
            self.engine.relieve(&mut self.purse);
        }
        Ok(())
    }

    fn verify(&self, block: BlockId, place: &Slot, size_bytes: u64) {
        let guard = self.engine.heap.pin();
        match whole_content(block, place.get(&guard), size_bytes) {
            Ok(()) => drop(self.engine.verified.fetch_add(1, Ordering::Relaxed)),
            Err(what) => self.engine.violation(&format!("before its free, {what}")),
        }
    }

    /// Waits until `block` is allocated; `None` if all threads stop instead.
    fn await_live(&self, block: BlockId) -> Option<SlotId> {
        for _ in 0..SPINS {
            if let Entry::Live(slot) = self.engine.journal.entry(block) {
                return Some(slot);
            }
            std::hint::spin_loop();
        }
        while !self.engine.is_stopped() {
            // Either the entry is seen here, or who makes it sees that this thread waits, and wakes it.
            if let Entry::Live(slot) = self.engine.journal.wait_for(block, self.thread) {
                return Some(slot);
            }
            thread::park_timeout(NAP);
        }
        None
    }

    fn take_slot(&mut self) -> Result<SlotId, Failure> {
        if let Some(slot) = self.purse.take() {
            return Ok(slot);
        }
        self.engine.refill(&mut self.purse, &mut self.arrays)?;
        Ok(self.purse.take().expect("a refill brings slots"))
    }

    fn slot(&mut self, slot: SlotId) -> &'h Slot {
        let (array, index) = slot.place();
        if array >= self.arrays.len() {
            self.engine.all_arrays(&mut self.arrays);
        }
        &self.arrays[array][index]
    }

    /// The failure of an operation on `block`. That a slot isn't as it was left is the heap's fault.
    fn failed(&self, block: BlockId, error: Error) -> Failure {
        match error {
            Error::SlotFull { .. } | Error::SlotEmpty { .. } | Error::NotLive { .. } => {
                self.engine.violation(&format!("{block}: {error}"));
                Failure::Inconsistent(format!("{block}: {error}"))
            }
            other => Failure::heap(self.engine.heap.medium().path())(other),
        }
    }
}

/// Compares the whole content of `block`, of which `bytes` were found, with what was put there.
pub(super) fn whole_content(
    block: BlockId,
    bytes: Option<&[u8]>,
    size_bytes: u64,
) -> Result<(), String> {
    let Some(bytes) = bytes else { return Err(format!("{block} is gone: its slot is empty")) };
    let size = usize::try_from(size_bytes).unwrap_or(usize::MAX);
    let Some(content) = bytes.get(..size) else {
        return Err(format!("{block} has {} of its {size_bytes} bytes", bytes.len()));
    };
    Pattern::of(block).verify(content).map_err(|mismatch| {
        format!("byte {} of the {size_bytes} of {block} is not what was put there", mismatch.at)
    })
}

fn layout_of(size_bytes: u64) -> Result<Layout, Failure> {
    let size = usize::try_from(size_bytes).ok();
    size.and_then(|size| Layout::from_size_align(size, ALIGN_BYTES).ok())
        .ok_or_else(|| Failure::Usage(format!("no block can have {size_bytes} bytes")))
}
