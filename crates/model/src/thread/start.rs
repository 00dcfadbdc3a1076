//! The beginning of an operation: what it needs, it takes; all of it volatile, but for contents.

use super::At;
use crate::{
    explore::{Actor, Label, Step},
    layout::{Block, Slot},
    packed::CONTENTS,
    rule::Break,
    scenario::{Contents, Op, Policy},
    world::{Model, Use, World},
};

/// What an initialiser writes.
const INITIAL: u32 = CONTENTS | 1;

/// What a user writes later.
const WRITTEN: u32 = CONTENTS | 2;

impl Model<'_> {
    /// All ways in which an operation may begin: one for each choice of blocks.
    pub(super) fn start(&self, world: &World, thread: usize, op: Op, out: &mut Vec<Step>) {
        let mut push = |next: World, what| {
            let label = Label { actor: Actor::Thread(thread), op: Some(op), what };
            out.push(Step { world: next, label });
        };
        match op {
            Op::Handover => push(self.hand_over(world, thread), "ends; another takes its lane"),
            Op::Write(slot) => {
                if let Some((next, what)) = self.write(world, thread, slot) {
                    push(next, what);
                }
            }
            Op::CreateSlab | Op::ReturnSlab => {
                if let Some((next, what)) = self.start_slab(world, thread, op) {
                    push(next, what);
                }
            }
            Op::Copy(log) => {
                if let Some((next, what)) = self.start_copy(world, thread, log.into()) {
                    push(next, what);
                }
            }
            Op::Unlink(log) => {
                if let Some((next, what)) = self.start_unlink(world, thread, log.into()) {
                    push(next, what);
                }
            }
            _ => {
                for (next, what) in self.reserve(world, thread, op) {
                    push(next, what);
                }
            }
        }
    }

    fn hand_over(&self, world: &World, thread: usize) -> World {
        let mut next = world.clone();
        if self.breaks(Break::RingRestarted) {
            next.lanes[thread].position = 0;
            next.lanes[thread].epochs.fill(0);
        }
        Self::finish(&mut next, thread);
        next
    }

    fn write(&self, world: &World, thread: usize, slot: Slot) -> Option<(World, &'static str)> {
        if world.owned & slot.bit() != 0 {
            return None;
        }
        let mut next = world.clone();
        let Some(block) = world.truth.owner_of(slot).filter(|_| !world.truth.owns_node(slot))
        else {
            Self::finish(&mut next, thread);
            return Some((next, "finds nothing to write to"));
        };
        next.owned |= slot.bit();
        next.threads[thread].owned = slot.bit();
        next.threads[thread].reserved.push(block);
        next.threads[thread].at = At::WriteFence;
        next.truth.contents[block.index()] = None;
        let word = self.layout.contents(block);
        next.memory.store(&self.layout, word, WRITTEN);
        next.memory.flush(&self.layout, thread, word);
        Some((next, "the user writes, flush"))
    }

    pub(super) fn finish_write(&self, world: &mut World, thread: usize) -> &'static str {
        world.memory.fence(thread);
        let block = world.threads[thread].reserved[0];
        world.truth.contents[block.index()] = Some(WRITTEN);
        Self::finish(world, thread);
        "fence: the user's write is durable"
    }

    /// Takes the node if the operation needs it, ring places and blocks.
    fn reserve(&self, world: &World, thread: usize, op: Op) -> Vec<(World, &'static str)> {
        let is_inside =
            op.slots() & Slot::Inner.bit() != 0 && !matches!(op, Op::Publish([_, Slot::Inner], _));
        let mut next = world.clone();
        if is_inside && !world.truth.is_node {
            Self::finish(&mut next, thread);
            return vec![(next, "finds no node")];
        }
        if is_inside || Self::frees_node(world, op) {
            if world.is_node_owned {
                return Vec::new();
            }
            next.is_node_owned = true;
            next.threads[thread].owns_node = true;
        }
        if !self.has_ring_places(world, thread, op) {
            return Vec::new();
        }
        let mut choices = vec![next];
        for from in op.allocates() {
            let blocks = Block::ALL.into_iter().filter(|block| from.contains(*block));
            let blocks: Vec<Block> = blocks.collect();
            if !blocks.is_empty() {
                choices = self.choose(&choices, thread, &blocks);
            }
        }
        choices.into_iter().map(|next| self.fill(next, thread, op)).collect()
    }

    fn frees_node(world: &World, op: Op) -> bool {
        match op {
            Op::Free(slot) | Op::Replace(slot, _) | Op::FreeBoth(slot) => {
                world.truth.owns_node(slot)
            }
            _ => false,
        }
    }

    fn has_ring_places(&self, world: &World, thread: usize, op: Op) -> bool {
        if self.policy(world) == Policy::Eager || self.breaks(Break::RingOverrun) {
            return true;
        }
        let lane = &world.lanes[thread];
        let ring = self.layout.shape().ring;
        let mut places = (0..op.records()).map(|nth| usize::from(lane.position + nth) % ring);
        places.all(|place| lane.epochs[place] <= world.durable)
    }

    fn choose(&self, worlds: &[World], thread: usize, blocks: &[Block]) -> Vec<World> {
        let mut chosen = Vec::new();
        for world in worlds {
            for &block in blocks.iter().filter(|block| self.is_available(world, **block)) {
                let mut next = world.clone();
                next.uses[block.index()] = Use::Taken;
                next.threads[thread].reserved.push(block);
                chosen.push(next);
            }
        }
        chosen
    }

    /// Writes the contents of the first block.
    fn fill(&self, mut world: World, thread: usize, op: Op) -> (World, &'static str) {
        if self.breaks(Break::CachedBit) {
            for &block in &world.threads[thread].reserved.clone() {
                if !self.is_large(block) {
                    world.memory.store(&self.layout, self.layout.bit(block), 1);
                }
            }
        }
        let value = match op.contents() {
            Contents::Bare => None,
            Contents::Data => Some(INITIAL),
            Contents::Node => Some(0),
        };
        let Some(value) = value else {
            world.threads[thread].at = self.behind_contents(&world);
            return (world, "reserves");
        };
        let word = self.layout.contents(world.threads[thread].reserved[0]);
        world.memory.store(&self.layout, word, value);
        world.memory.flush(&self.layout, thread, word);
        if self.breaks(Break::ContentsUnfenced) {
            world.memory.forget_flushes(thread);
            world.threads[thread].at = self.behind_contents(&world);
        } else {
            world.threads[thread].at = At::ContentsFence;
        }
        (world, "reserves; stores contents, flush")
    }
}

/// What contents a new block has, for the oracle.
pub(super) fn initial(contents: Contents) -> Option<u32> {
    (contents == Contents::Data).then_some(INITIAL)
}
