//! Applying: bits, entries, then slots, stored behind the record's fence and not flushed (rule 19).

use super::{At, look::truth_after};
use crate::{
    packed::Effect,
    rule::Break,
    scenario::{Op, Policy},
    world::{Model, Use, World},
};

impl Model<'_> {
    pub(super) fn apply(&self, world: &mut World, thread: usize, op: Op) -> &'static str {
        let is_eager = self.policy(world) == Policy::Eager;
        if !self.breaks(Break::NoEffects) {
            self.store_bits(world, thread, is_eager);
            self.store_entries(world, thread, is_eager);
        }
        if !self.breaks(Break::SlotBeforeRecord) {
            self.store_slots(world, thread, op);
        }
        if is_eager {
            for (slot, _) in world.threads[thread].stores.clone() {
                world.memory.flush(&self.layout, thread, self.layout.slot(slot));
            }
            world.threads[thread].at = At::ApplyFence;
            return "stores bits, entries, slots, flush";
        }
        world.threads[thread].at = At::Land;
        "stores bits, entries, slots"
    }

    fn store_bits(&self, world: &mut World, thread: usize, is_flushed: bool) {
        for change in world.threads[thread].changes.clone() {
            let Some(block) = change.concerned().filter(|block| !self.is_large(*block)) else {
                continue;
            };
            let (word, value) = (self.layout.bit(block), u32::from(change.effect == Effect::Alloc));
            if world.memory.load(word) != value {
                world.memory.store(&self.layout, word, value);
            }
            if is_flushed {
                world.memory.flush(&self.layout, thread, word);
            }
        }
    }

    fn store_entries(&self, world: &mut World, thread: usize, is_flushed: bool) {
        let epoch = world.threads[thread].stamp;
        for place in world.threads[thread].places.clone() {
            self.store_entry(world, &place, epoch);
            if is_flushed {
                self.flush_entry(world, thread, &place);
            } else {
                world.unflushed.push((place.chunk, place.nth, epoch));
                world.unflushed.sort_unstable();
            }
        }
    }

    /// Stores the slots: from here on others see the operation.
    pub(super) fn store_slots(&self, world: &mut World, thread: usize, op: Op) {
        let changes = &world.threads[thread].changes;
        world.truth = truth_after(&world.truth, changes, op);
        world.threads[thread].is_decided = false;
        for (slot, value) in world.threads[thread].stores.clone() {
            world.memory.store(&self.layout, self.layout.slot(slot), value.encode());
        }
    }

    /// Counts the entries, puts freed blocks into limbo, and gives the slots up.
    pub(super) fn land(&self, world: &mut World, thread: usize) -> &'static str {
        self.land_places(world, thread);
        let stamp = world.threads[thread].stamp;
        self.set_freed(world, thread, Use::Limbo(stamp));
        world.owned &= !world.threads[thread].owned;
        world.threads[thread].owned = 0;
        world.threads[thread].at = At::Unmark;
        "freed blocks go into limbo; gives its slots up"
    }

    /// Says what the blocks are that the operation freed.
    pub(super) fn set_freed(&self, world: &mut World, thread: usize, usage: Use) {
        for change in &world.threads[thread].changes {
            if let (Effect::Free, Some(block)) = (change.effect, change.block) {
                world.uses[block.index()] = usage;
            }
        }
    }

    pub(super) fn unmark_and_return(&self, world: &mut World, thread: usize) -> &'static str {
        Self::unmark(world, thread);
        Self::finish(world, thread);
        "unmarks, returns"
    }
}
