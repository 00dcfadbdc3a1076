//! One thread of a trace: does its steps in order, alone or as parts of larger operations. Volatile.

use std::mem;

use pmalloc_persist::{Medium, sync::thread};

use super::{
    caller::Caller,
    compose::{Composer, Part},
    engine::Engine,
    medium::Watched,
    request::{Act, Entry, Kind, Request},
    slots::{Purse, SlotId},
};
use crate::{
    args::Verification,
    exit::Failure,
    trace::{BlockId, Operation},
};

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
    caller: Caller<'e, 'h, M, J>,
    purse: Purse,
    /// What the present operation does; empty between operations, like the next.
    acts: Vec<Act>,
    /// Slots that it empties and does not fill.
    vacated: Vec<SlotId>,
}

impl<'e, 'h, M: Watched, J: Medium> Actor<'e, 'h, M, J> {
    /// The thread number `thread`, at the step where the journal says it is.
    pub(super) fn new(engine: &'e Engine<'h, M, J>, thread: u16) -> Self {
        Self {
            engine,
            thread,
            position: engine.journal.position(thread),
            caller: Caller::new(engine, thread),
            purse: Purse::default(),
            acts: Vec::new(),
            vacated: Vec::new(),
        }
    }

    /// Number of steps done.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Does what comes next in the program, at least one step; whether there was any, and the threads go on.
    pub(super) fn step(&mut self) -> Result<bool, Failure> {
        let (plan, thread) = (&self.engine.plan, self.thread);
        let next = usize::try_from(self.position).expect("a program fits memory");
        let Some(&step) = plan.programs[usize::from(thread)].get(next) else { return Ok(false) };
        if let Some(dice) = self.engine.manner.mix.dice(thread, self.position) {
            let composer = Composer { plan, thread, next, dice };
            let is_live = |block| matches!(self.engine.journal.entry(block), Entry::Live(_));
            let next = composer.compose(is_live);
            let goes_on = self.perform(next.kind, &next.parts, next.steps)?;
            if !goes_on || next.steps > 0 {
                return Ok(goes_on);
            }
        }
        let kind = match step.operation() {
            Operation::Alloc => Kind::Alloc,
            Operation::Free => Kind::Free,
        };
        self.perform(kind, &[Part::Step(step)], 1)
    }

    /// Does an operation of so many steps, as soon as it can be done; whether the threads go on.
    fn perform(&mut self, kind: Kind, parts: &[Part], steps: usize) -> Result<bool, Failure> {
        let mut acts = mem::take(&mut self.acts);
        for &part in parts {
            let Some(act) = self.act_of(part, kind)? else { return Ok(false) };
            acts.push(act);
        }
        let position = self.position + steps as u64;
        self.carry_out(&Request { kind, acts: &acts, position })?;
        acts.clear();
        self.acts = acts;
        Ok(!self.engine.is_stopped())
    }

    /// What `part` of an operation comes to; `None` if all threads stop before it can be done.
    fn act_of(&mut self, part: Part, kind: Kind) -> Result<Option<Act>, Failure> {
        Ok(Some(match part {
            Part::Step(step) if step.operation() == Operation::Alloc => {
                Act::Alloc { block: step.block(), to: self.find_slot(step.block(), kind)? }
            }
            Part::Step(step) => {
                let Some(from) = self.await_live(step.block()) else { return Ok(None) };
                self.vacated.push(from);
                Act::Free { block: step.block(), from }
            }
            Part::Move(block) => {
                let (from, to) = (self.slot_of(block), self.find_slot(block, kind)?);
                self.vacated.push(from);
                Act::Move { block, from, to }
            }
            Part::Swap(one, other) => {
                Act::Swap { one: (one, self.slot_of(one)), other: (other, self.slot_of(other)) }
            }
            Part::Set(value) => Act::Set { value },
        }))
    }

    /// Does `request`, and notes before and after in the journal how far it is.
    fn carry_out(&mut self, request: &Request<'_>) -> Result<(), Failure> {
        let engine = self.engine;
        if engine.manner.verification == Verification::Full {
            self.caller.verify_freed(request.acts);
        }
        engine.journal.begin(self.thread, request);
        self.caller.perform(request)?;
        self.count_usage(request.acts);
        engine.journal.complete(self.thread, |waiter| {
            debug_assert!(waiter != self.thread, "it waits for itself");
            engine.wake(waiter);
        });
        self.put_back_slots();
        engine.count_steps(request.position - self.position);
        if request.position / SAMPLE_STEPS != self.position / SAMPLE_STEPS {
            Watched::probe(engine.heap).sample(engine.heap.occupied_bytes().ok());
        }
        self.position = request.position;
        Ok(())
    }

    /// Counts what is live, before another thread can learn of the blocks and free them.
    fn count_usage(&self, acts: &[Act]) {
        let (usage, plan) = (&self.engine.usage, self.engine.plan);
        for act in acts {
            match *act {
                Act::Alloc { block, .. } => usage.add(plan.size_of(block)),
                Act::Free { block, .. } => usage.remove(plan.size_of(block)),
                Act::Move { .. } | Act::Swap { .. } | Act::Set { .. } => {}
            }
        }
    }

    /// Puts emptied slots into the purse, as soon as the journal names them no more.
    fn put_back_slots(&mut self) {
        self.vacated.drain(..).for_each(|slot| self.purse.put(slot));
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

    /// The slot of a block that no other thread touches.
    fn slot_of(&self, block: BlockId) -> SlotId {
        self.engine.journal.entry(block).slot().expect("it was found live")
    }

    /// An empty slot for `block`: that of the block which it replaces, in a publish every other time one that the same
    /// publish empties, if it does.
    fn find_slot(&mut self, block: BlockId, kind: Kind) -> Result<SlotId, Failure> {
        let emptied = match kind {
            Kind::Replace => self.vacated.pop(),
            Kind::Publish if block.get().is_multiple_of(2) => self.vacated.pop(),
            _ => None,
        };
        if let Some(slot) = emptied.or_else(|| self.purse.take()) {
            return Ok(slot);
        }
        self.engine.refill(&mut self.purse)?;
        Ok(self.purse.take().expect("a refill brings slots"))
    }
}
