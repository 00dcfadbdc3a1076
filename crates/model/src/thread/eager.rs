//! The end of an Eager operation: effects are fenced, then the mark (rule 18).

use super::At;
use crate::{
    rule::Break,
    world::{Model, Use, World},
};

impl Model<'_> {
    pub(super) fn fence_effects_of(&self, world: &mut World, thread: usize) -> &'static str {
        world.memory.fence(thread);
        if self.breaks(Break::FreeEarly) {
            self.set_freed(world, thread, Use::Free);
        }
        if self.breaks(Break::UnlockEarly) {
            world.owned &= !world.threads[thread].owned;
            world.threads[thread].owned = 0;
        }
        world.threads[thread].at = At::Retire;
        "fence: the effects are durable"
    }

    pub(super) fn retire(&self, world: &mut World, thread: usize) -> &'static str {
        let number = world.lanes[thread].number;
        let word = self.layout.mark(thread, usize::from(number) % self.layout.shape().marks);
        world.memory.store(&self.layout, word, number.into());
        world.memory.flush(&self.layout, thread, word);
        // Behind the fence of its entries, before that of the mark: as the heap does.
        self.land_places(world, thread);
        world.threads[thread].at = At::RetireFence;
        "stores its number as a mark, flush"
    }

    pub(super) fn finish_eager(&self, world: &mut World, thread: usize) -> &'static str {
        if !self.breaks(Break::NoRetireFence) {
            world.memory.fence(thread);
        }
        if !self.breaks(Break::FreeEarly) {
            self.set_freed(world, thread, Use::Free);
        }
        Self::finish(world, thread);
        "fence: retired; returns"
    }
}
