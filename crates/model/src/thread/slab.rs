//! Making a slab and giving it back: without a record, by order alone, the same under both policies.
//!
//! Header and zeroed bitmap are durable before the entry is stored, the entry is durable before a block is
//! handed out. All of it comes before the mark, and with fences of its own; no epoch has a part in it.

use super::At;
use crate::{
    layout::Block,
    rule::Break,
    scenario::Op,
    world::{Model, SlabUse, World},
};

/// What a whole header holds.
pub(crate) const HEADER: u32 = 7;

impl Model<'_> {
    pub(super) fn start_slab(
        &self,
        world: &World,
        thread: usize,
        op: Op,
    ) -> Option<(World, &'static str)> {
        let mut next = world.clone();
        next.slab = SlabUse::Changing;
        if op == Op::ReturnSlab {
            next.threads[thread].at = At::Place;
            return self.is_slab_idle(world).then_some((next, "finds the slab idle"));
        }
        self.write_header(&mut next, thread);
        next.threads[thread].at = At::SlabFence;
        self.is_slab_room(world).then_some((next, "stores header and bitmap, flush"))
    }

    fn write_header(&self, world: &mut World, thread: usize) {
        for block in [Block::A, Block::B] {
            let word = self.layout.bit(block);
            if world.memory.load(word) != 0 && !self.breaks(Break::SlabBitsKept) {
                world.memory.store(&self.layout, word, 0);
            }
            world.memory.flush(&self.layout, thread, word);
        }
        let word = self.layout.header();
        if world.memory.load(word) != HEADER {
            world.memory.store(&self.layout, word, HEADER);
        }
        world.memory.flush(&self.layout, thread, word);
    }

    pub(super) fn finish_header(&self, world: &mut World, thread: usize) -> &'static str {
        if !self.breaks(Break::SlabUnfenced) {
            world.memory.fence(thread);
        }
        world.threads[thread].at = At::Place;
        "fence: header and bitmap are durable"
    }

    pub(super) fn store_slab_entry(&self, world: &mut World, thread: usize) -> &'static str {
        let place = world.threads[thread].places[0];
        let epoch = world.epoch;
        self.store_entry(world, &place, epoch);
        if self.breaks(Break::SlabEntryUnflushed) {
            world.unflushed.push((place.chunk, place.nth, epoch));
            world.unflushed.sort_unstable();
        } else {
            self.flush_entry(world, thread, &place);
        }
        world.threads[thread].at = At::SlabEntryFence;
        "stores the slab's entry, flush"
    }

    pub(super) fn fence_slab_entry(&self, world: &mut World, thread: usize) -> &'static str {
        if !self.breaks(Break::SlabEntryUnfenced) {
            world.memory.fence(thread);
        }
        world.threads[thread].at = At::SlabLand;
        "fence: the slab's entry is durable"
    }

    pub(super) fn finish_slab(&self, world: &mut World, thread: usize, op: Op) -> &'static str {
        self.land_places(world, thread);
        world.slab = if op == Op::CreateSlab { SlabUse::Present } else { SlabUse::Absent };
        Self::finish(world, thread);
        "the slab serves, or its pages are free"
    }
}
