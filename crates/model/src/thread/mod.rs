//! A thread as a small step machine: each step is what others, and crashes, can tell apart.
//!
//! Steps of one thread are merged where nobody else reads or writes the words in between: a crash between
//! two stores leaves no image that a crash behind both, before the next fence, does not leave too.

mod apply;
mod collect;
mod eager;
mod look;
mod place;
mod record;
mod slab;
mod start;

pub(crate) use look::truth_after;
pub(crate) use slab::HEADER;

use crate::{
    explore::{Actor, Label, Step},
    rule::Break,
    scenario::{Op, Order, Policy},
    world::{Model, Thread, Use, World},
};

/// Where a thread is: the step that it makes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum At {
    Start,
    WriteFence,
    ContentsFence,
    Mark,
    Look,
    Place,
    ChunkFence,
    LinkFence,
    Stamp,
    Record,
    RecordFence,
    Apply,
    Land,
    Unmark,
    ApplyFence,
    Retire,
    RetireFence,
    SlabFence,
    SlabEntry,
    SlabEntryFence,
    SlabLand,
    CopyFence,
    SwitchFence,
    UnlinkFence,
}

impl Model<'_> {
    /// The steps that a thread can make.
    pub(crate) fn step(&self, world: &World, thread: usize, out: &mut Vec<Step>) {
        let Some(op) = self.op(world, thread) else { return };
        let label = |what| Label { actor: Actor::Thread(thread), op: Some(op), what };
        if world.lanes[thread].is_buffered {
            let mut next = world.clone();
            next.lanes[thread].drain();
            out.push(Step { world: next, label: label("(the mark becomes visible)") });
        }
        if world.threads[thread].at == At::Start {
            self.start(world, thread, op, out);
        } else if self.is_enabled(world, thread) {
            let mut next = world.clone();
            let what = self.advance(&mut next, thread, op);
            out.push(Step { world: next, label: label(what) });
        }
    }

    /// Whether the next step does not wait for others.
    fn is_enabled(&self, world: &World, thread: usize) -> bool {
        let at = &world.threads[thread];
        match at.at {
            At::Look => {
                let op = self.op(world, thread).expect("it is in an operation");
                world.owned & op.slots() == 0 || self.breaks(Break::NoSlotLock)
            }
            At::Place => self.may_take_place(world, thread),
            At::Land | At::SlabLand | At::Retire => {
                at.places.iter().all(|place| !world.logs[usize::from(place.log)].locked)
            }
            _ => true,
        }
    }

    fn advance(&self, world: &mut World, thread: usize, op: Op) -> &'static str {
        match world.threads[thread].at {
            At::Start => unreachable!("a start may have several outcomes"),
            At::WriteFence => self.finish_write(world, thread),
            At::ContentsFence => {
                world.memory.fence(thread);
                world.threads[thread].at = self.behind_contents(world);
                "fence: contents are durable"
            }
            At::Mark => self.mark(world, thread),
            At::Look => self.look(world, thread, op),
            At::Place => self.take_place(world, thread),
            At::ChunkFence => self.link_chunk(world, thread),
            At::LinkFence => self.finish_chunk(world, thread),
            At::Stamp => self.stamp(world, thread),
            At::Record => self.record(world, thread, op),
            At::RecordFence => self.fence_record(world, thread),
            At::Apply => self.apply(world, thread, op),
            At::Land => self.land(world, thread),
            At::Unmark => self.unmark_and_return(world, thread),
            At::ApplyFence => self.fence_effects_of(world, thread),
            At::Retire => self.retire(world, thread),
            At::RetireFence => self.finish_eager(world, thread),
            At::SlabFence => self.finish_header(world, thread),
            At::SlabEntry => self.store_slab_entry(world, thread),
            At::SlabEntryFence => self.fence_slab_entry(world, thread),
            At::SlabLand => self.finish_slab(world, thread, op),
            At::CopyFence => self.switch(world, thread, op),
            At::SwitchFence => self.finish_copy(world, thread, op),
            At::UnlinkFence => self.finish_unlink(world, thread, op),
        }
    }

    /// The step behind the reservation, and the contents' fence.
    fn behind_contents(&self, world: &World) -> At {
        match (self.policy(world), self.order()) {
            (Policy::Eager, _) => At::Look,
            _ if self.breaks(Break::StampBeforeLook) && self.order() == Order::LookFirst => {
                At::Stamp
            }
            (Policy::Batched, Order::MarkFirst) => At::Mark,
            (Policy::Batched, Order::LookFirst) => At::Look,
        }
    }

    /// The step behind the mark.
    fn behind_mark(&self) -> At {
        match (self.order(), self.breaks(Break::StampBeforeLook)) {
            (Order::MarkFirst, false) => At::Look,
            (Order::MarkFirst, true) | (Order::LookFirst, false) => At::Stamp,
            (Order::LookFirst, true) => At::Record,
        }
    }

    /// The step behind the look, when all places are taken.
    fn behind_places(&self, world: &World) -> At {
        match (self.policy(world), self.order(), self.breaks(Break::StampBeforeLook)) {
            (Policy::Eager, ..) | (_, Order::MarkFirst, true) => At::Record,
            (_, Order::MarkFirst, false) => At::Stamp,
            (_, Order::LookFirst, _) => At::Mark,
        }
    }

    /// The step behind the stamp.
    fn behind_stamp(&self) -> At {
        if self.breaks(Break::StampBeforeLook) { At::Look } else { At::Record }
    }

    /// Ends the operation.
    fn finish(world: &mut World, thread: usize) {
        let done = &world.threads[thread];
        world.owned &= !done.owned;
        if done.owns_node {
            world.is_node_owned = false;
        }
        world.threads[thread] = Thread::new(done.op + 1);
    }

    /// Ends an operation that finds its slots in the wrong state: nothing has happened.
    fn refuse(&self, world: &mut World, thread: usize) {
        for block in std::mem::take(&mut world.threads[thread].reserved) {
            world.uses[block.index()] = Use::Free;
            if self.breaks(Break::CachedBit) && !self.is_large(block) {
                world.memory.store(&self.layout, self.layout.bit(block), 0);
            }
        }
        Self::unmark(world, thread);
        Self::finish(world, thread);
    }

    fn unmark(world: &mut World, thread: usize) {
        let lane = &mut world.lanes[thread];
        lane.drain();
        if lane.mark % 2 == 1 {
            lane.mark += 1;
        }
    }
}
