//! The synchronizer: closes an epoch, makes its effects durable, moves D, releases what waited for that.
//!
//! It stores no effect (rule 19): the operating threads have. It flushes, for each record of the closing
//! epoch, the bit, the entry and the slot, fences, and then moves D.

use crate::{
    explore::{Actor, Label, Step},
    layout::{Block, Slot},
    rule::Break,
    scenario::{Barrier, Policy},
    world::{Model, Synchronizer, Use, World},
};

/// Where a synchronizer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sync {
    Idle,
    /// The epoch is closed.
    Barrier,
    Wait,
    Fence,
    StoreDurable,
    FenceDurable,
    Release,
}

impl Synchronizer {
    pub(crate) fn new(lanes: usize) -> Self {
        Self { at: Sync::Idle, closing: 0, waits: vec![None; lanes] }
    }
}

impl Model<'_> {
    /// The next step of a synchronizer, if it can make one.
    pub(crate) fn synchronize(&self, world: &World, nth: usize, out: &mut Vec<Step>) {
        if self.policy(world) == Policy::Eager || !self.may_go_on(world, nth) {
            return;
        }
        let mut next = world.clone();
        let what = match world.synchronizers[nth].at {
            Sync::Idle => Self::close(&mut next, nth),
            Sync::Barrier => self.sample(&mut next, nth),
            Sync::Wait => self.flush_effects(&mut next, nth),
            Sync::Fence => self.fence_effects(&mut next, nth),
            Sync::StoreDurable => self.store_durable(&mut next, nth),
            Sync::FenceDurable => {
                next.memory.fence(self.agent(nth));
                next.synchronizers[nth].at = Sync::Release;
                "fence: D is durable"
            }
            Sync::Release => self.finish_round(&mut next, nth),
        };
        out.push(Step {
            world: next,
            label: Label { actor: Actor::Synchronizer(nth), op: None, what },
        });
    }

    fn may_go_on(&self, world: &World, nth: usize) -> bool {
        let synchronizer = &world.synchronizers[nth];
        match synchronizer.at {
            Sync::Idle => {
                let is_free = !world.is_synchronizing || self.breaks(Break::TwoAtOnce);
                world.rounds > 0 && is_free
            }
            Sync::Wait if self.breaks(Break::NoWait) => true,
            Sync::Wait => {
                let mut waits = synchronizer.waits.iter().zip(&world.lanes);
                waits.all(|(wait, lane)| wait.is_none_or(|mark| mark != lane.mark))
            }
            _ => true,
        }
    }

    fn close(world: &mut World, nth: usize) -> &'static str {
        world.is_synchronizing = true;
        world.rounds -= 1;
        world.synchronizers[nth].closing = world.epoch;
        world.synchronizers[nth].at = Sync::Barrier;
        world.epoch += 1;
        "closes the epoch"
    }

    fn sample(&self, world: &mut World, nth: usize) -> &'static str {
        if self.scenario.barrier == Barrier::Membarrier && !self.breaks(Break::NoBarrier) {
            world.lanes.iter_mut().for_each(super::world::Lane::drain);
        }
        let odd = |mark: u8| (mark % 2 == 1).then_some(mark);
        let synchronizer = &mut world.synchronizers[nth];
        synchronizer.waits = world.lanes.iter().map(|lane| odd(lane.mark)).collect();
        synchronizer.at = Sync::Wait;
        "barrier; samples the marks"
    }

    /// Flushes what the records of the closing epoch name. At once, which is harshest: what another thread
    /// stores later is caught by no flush.
    fn flush_effects(&self, world: &mut World, nth: usize) -> &'static str {
        let (agent, closing) = (self.agent(nth), world.synchronizers[nth].closing);
        let (slots, blocks) = self.named(world, closing);
        if !self.breaks(Break::NoBitFlush) {
            for &block in &blocks {
                world.memory.flush(&self.layout, agent, self.layout.bit(block));
            }
        }
        if !self.breaks(Break::NoSlotFlush) {
            for &slot in &slots {
                world.memory.flush(&self.layout, agent, self.layout.slot(slot));
            }
        }
        self.flush_entries(world, agent, closing);
        let synchronizer = &mut world.synchronizers[nth];
        synchronizer.waits.fill(None);
        synchronizer.at = Sync::Fence;
        "all lanes left; flushes bits, entries and slots of the epoch"
    }

    fn flush_entries(&self, world: &mut World, agent: usize, closing: u8) {
        let of_epoch = |place: &(u8, u8, u8)| place.2 == closing;
        let due: Vec<_> = world.unflushed.iter().copied().filter(of_epoch).collect();
        world.unflushed.retain(|place| !of_epoch(place));
        if self.breaks(Break::NoEntryFlush) {
            return;
        }
        for (chunk, entry, _) in due {
            for word in self.layout.entry(chunk.into(), entry.into()) {
                world.memory.flush(&self.layout, agent, word);
            }
        }
    }

    /// Slots and small blocks that the records of an epoch name.
    fn named(&self, world: &World, epoch: u8) -> (Vec<Slot>, Vec<Block>) {
        let (mut slots, mut blocks) = (Vec::new(), Vec::new());
        let shape = *self.layout.shape();
        for (lane, place) in (0..shape.lanes).flat_map(|l| (0..shape.ring).map(move |p| (l, p))) {
            let Some(record) = self.record_at(world.memory.cache(), lane, place) else { continue };
            if record.number == epoch {
                slots.push(record.change.slot);
                blocks.extend(record.change.concerned().filter(|block| !self.is_large(*block)));
            }
        }
        (slots, blocks)
    }

    fn fence_effects(&self, world: &mut World, nth: usize) -> &'static str {
        if !self.breaks(Break::OneFence) {
            world.memory.fence(self.agent(nth));
        }
        world.synchronizers[nth].at = Sync::StoreDurable;
        "fence: the epoch's effects are durable"
    }

    fn store_durable(&self, world: &mut World, nth: usize) -> &'static str {
        let (word, closing) = (self.layout.durable(), world.synchronizers[nth].closing);
        world.memory.store(&self.layout, word, closing.into());
        world.memory.flush(&self.layout, self.agent(nth), word);
        world.synchronizers[nth].at = Sync::FenceDurable;
        if self.breaks(Break::ReleaseEarly) {
            Self::release(world, closing);
        }
        "D = the epoch, flush"
    }

    fn finish_round(&self, world: &mut World, nth: usize) -> &'static str {
        let closing = world.synchronizers[nth].closing;
        Self::release(world, closing);
        world.synchronizers[nth].at = Sync::Idle;
        world.synchronizers[nth].closing = 0;
        world.is_synchronizing = false;
        "releases limbo and ring places"
    }

    fn release(world: &mut World, closing: u8) {
        world.durable = world.durable.max(closing);
        for usage in &mut world.uses {
            if matches!(usage, Use::Limbo(epoch) if *epoch <= closing) {
                *usage = Use::Free;
            }
        }
    }
}
