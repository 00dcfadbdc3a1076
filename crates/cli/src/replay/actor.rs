//! One thread of a trace: does its steps in order, with a session of its own. Volatile.

use std::alloc::Layout;

use pmalloc::{Error, Session, Slot};
use pmalloc_persist::{Medium, sync::Ordering, sync::thread};

use super::{
    content::Pattern,
    deed::{Act, Deed, Kind},
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

    /// Does what comes next in the program; whether there was anything, and the threads go on.
    pub(super) fn step(&mut self) -> Result<bool, Failure> {
        let program = &self.engine.plan.programs[usize::from(self.thread)];
        let next = usize::try_from(self.position).expect("a program fits memory");
        let Some(&step) = program.get(next) else { return Ok(false) };
        let Some(act) = self.act_of(step)? else { return Ok(false) };
        let kind = match step.operation() {
            Operation::Alloc => Kind::Alloc,
            Operation::Free => Kind::Free,
        };
        self.perform(Deed { kind, acts: &[act], position: self.position + 1 })?;
        Ok(!self.engine.is_stopped())
    }

    /// What `step` comes to, as soon as it can be done; `None` if all threads stop instead.
    fn act_of(&mut self, step: Step) -> Result<Option<Act>, Failure> {
        let block = step.block();
        Ok(match step.operation() {
            Operation::Alloc => Some(Act::Alloc { block, to: self.take_slot()? }),
            Operation::Free => self.await_live(block).map(|from| Act::Free { block, from }),
        })
    }

    /// Does `deed`, and notes it in the journal before and after.
    fn perform(&mut self, deed: Deed<'_>) -> Result<(), Failure> {
        let engine = self.engine;
        if engine.verification == Verification::Full {
            self.verify_freed(deed.acts);
        }
        engine.journal.begin(self.thread, &deed);
        self.call(&deed)?;
        self.weigh(deed.acts);
        engine.journal.complete(self.thread, |waiter| {
            debug_assert!(waiter != self.thread, "it waits for itself");
            engine.wake(waiter);
        });
        self.put_back_slots(deed.acts);
        engine.count_steps(deed.position - self.position);
        if deed.position / SAMPLE_STEPS != self.position / SAMPLE_STEPS {
            engine.heap.medium().probe().sample();
        }
        self.position = deed.position;
        Ok(())
    }

    /// Makes the call of the heap that `deed` is.
    fn call(&mut self, deed: &Deed<'_>) -> Result<(), Failure> {
        for act in deed.acts {
            match *act {
                Act::Alloc { block, to } => {
                    let layout = layout_of(self.engine.plan.size_of(block))?;
                    let slot = self.slot(to);
                    let fill = |bytes: &mut [u8]| Pattern::of(block).fill(bytes);
                    self.session.alloc_init(slot, layout, fill)
                }
                Act::Free { from, .. } => {
                    let slot = self.slot(from);
                    self.session.free_from(slot)
                }
            }
            .map_err(|error| self.failed(deed, error))?;
        }
        Ok(())
    }

    /// Compares the contents of the blocks that are about to be freed.
    fn verify_freed(&mut self, acts: &[Act]) {
        for act in acts {
            let Act::Free { block, from } = *act else { continue };
            let slot = self.slot(from);
            let size_bytes = self.engine.plan.size_of(block);
            let guard = self.engine.heap.pin();
            match Pattern::whole(block, slot.get(&guard), size_bytes) {
                Ok(()) => drop(self.engine.verified.fetch_add(1, Ordering::Relaxed)),
                Err(what) => self.engine.violation(&format!("before its free, {what}")),
            }
        }
    }

    /// Brings the gauge up to date, before another thread can learn of the blocks and free them.
    fn weigh(&self, acts: &[Act]) {
        let (gauge, plan) = (&self.engine.gauge, self.engine.plan);
        for act in acts {
            match *act {
                Act::Alloc { block, .. } => gauge.add(plan.size_of(block)),
                Act::Free { block, .. } => gauge.remove(plan.size_of(block)),
            }
        }
    }

    /// Puts emptied slots into the purse, as soon as the journal names them no more.
    fn put_back_slots(&mut self, acts: &[Act]) {
        for act in acts {
            if let Act::Free { from, .. } = *act {
                self.purse.put(from);
            }
        }
        while self.purse.is_over_full() {
            self.engine.relieve(&mut self.purse);
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

    /// The failure of `deed`. That a slot isn't as it was left is the heap's fault.
    fn failed(&self, deed: &Deed<'_>, error: Error) -> Failure {
        match error {
            Error::SlotFull { .. } | Error::SlotEmpty { .. } | Error::NotLive { .. } => {
                let what = format!("{deed}: {error}");
                self.engine.violation(&what);
                Failure::Inconsistent(what)
            }
            other => Failure::heap(self.engine.heap.medium().path())(other),
        }
    }
}

fn layout_of(size_bytes: u64) -> Result<Layout, Failure> {
    let size = usize::try_from(size_bytes).ok();
    size.and_then(|size| Layout::from_size_align(size, ALIGN_BYTES).ok())
        .ok_or_else(|| Failure::Usage(format!("no block can have {size_bytes} bytes")))
}
