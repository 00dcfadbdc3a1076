//! Owning and looking at the slots, and what follows for records and stores.

use super::{At, start::initial};
use crate::{
    layout::{Block, Slot},
    packed::{Change, Effect, SlotValue},
    rule::Break,
    scenario::{Barrier, Op},
    world::{Model, Truth, World},
};

/// What an operation will do.
#[derive(Debug, Default)]
struct Plan {
    changes: Vec<Change>,
    stores: Vec<(Slot, SlotValue)>,
    /// Whether the slots are in a state in which it can.
    is_possible: bool,
}

impl Plan {
    /// Adds a change that its slot keeps.
    fn push(&mut self, effect: Effect, block: Option<Block>, slot: Slot, old: SlotValue) {
        let change = Change { effect, block, slot, version: old.version.after(1) };
        self.changes.push(change);
        self.stores.push((slot, change.value()));
    }
}

impl Model<'_> {
    pub(super) fn look(&self, world: &mut World, thread: usize, op: Op) -> &'static str {
        if !self.breaks(Break::NoSlotLock) {
            world.owned |= op.slots();
            world.threads[thread].owned = op.slots();
            if self.scenario.barrier == Barrier::SlotLock && !self.breaks(Break::NoBarrier) {
                world.lanes[thread].drain();
            }
        }
        let plan = self.plan(world, thread, op);
        if !plan.is_possible || !self.is_allowed(world, thread, op, &plan) {
            self.refuse(world, thread);
            return "finds its slots in the wrong state: a typed error";
        }
        let at = &mut world.threads[thread];
        at.changes = plan.changes;
        at.stores = plan.stores;
        at.at = At::Place;
        if !self.wants_place(world, thread) {
            world.threads[thread].at = self.behind_places(world);
        }
        "owns and loads its slots"
    }

    fn plan(&self, world: &World, thread: usize, op: Op) -> Plan {
        let load = |slot| SlotValue::decode(world.memory.load(self.layout.slot(slot)));
        let reserved = &world.threads[thread].reserved;
        let mut plan = Plan::default();
        match op {
            Op::Alloc(slot, ..) => {
                let old = load(slot);
                plan.push(Effect::Alloc, reserved.first().copied(), slot, old);
                plan.is_possible = old.block.is_none();
            }
            Op::Free(slot) => {
                let old = load(slot);
                plan.push(Effect::Free, old.block, slot, old);
                plan.is_possible = old.block.is_some();
            }
            Op::Move(from, to) => {
                let (old, empty) = (load(from), load(to));
                plan.push(Effect::Set, old.block, to, empty);
                plan.push(Effect::Set, None, from, old);
                plan.is_possible = old.block.is_some() && empty.block.is_none();
            }
            Op::Swap(a, b) => {
                let (old_a, old_b) = (load(a), load(b));
                plan.push(Effect::Set, old_b.block, a, old_a);
                plan.push(Effect::Set, old_a.block, b, old_b);
                plan.is_possible = old_a.block.is_some() && old_b.block.is_some();
            }
            Op::Replace(slot, _) => self.plan_replace(&mut plan, slot, load(slot), reserved[0]),
            Op::Publish(slots, _) => {
                plan.is_possible = true;
                for (slot, &block) in slots.into_iter().zip(reserved) {
                    // Its contents make an inner slot empty, whatever was there before.
                    plan.push(Effect::Alloc, Some(block), slot, load(slot));
                    plan.is_possible &= load(slot).block.is_none();
                }
            }
            Op::FreeBoth(outer) => {
                plan.is_possible = true;
                for slot in [Slot::Inner, outer] {
                    plan.push(Effect::Free, load(slot).block, slot, load(slot));
                    plan.is_possible &= load(slot).block.is_some();
                }
            }
            _ => unreachable!("it changes no slot"),
        }
        plan
    }

    /// Two changes of one slot: each has its own version.
    fn plan_replace(&self, plan: &mut Plan, slot: Slot, old: SlotValue, new: Block) {
        let second = if self.breaks(Break::SameVersion) { 1 } else { 2 };
        let free =
            Change { effect: Effect::Free, block: old.block, slot, version: old.version.after(1) };
        let alloc = Change {
            effect: Effect::Alloc,
            block: Some(new),
            slot,
            version: old.version.after(second),
        };
        plan.changes.extend([free, alloc]);
        plan.stores.push((slot, alloc.value()));
        plan.is_possible = old.block.is_some();
    }

    /// A node is freed by its owner, with an empty inner slot or together with what that owns (rule 12).
    fn is_allowed(&self, world: &World, thread: usize, op: Op, plan: &Plan) -> bool {
        let frees_node = world.truth.is_node
            && plan
                .changes
                .iter()
                .any(|change| change.effect == Effect::Free && change.block == Some(Block::X));
        let is_emptied =
            world.truth.owner_of(Slot::Inner).is_none() || matches!(op, Op::FreeBoth(_));
        !frees_node || world.threads[thread].owns_node && is_emptied
    }
}

/// The truth behind an operation.
pub(crate) fn truth_after(truth: &Truth, changes: &[Change], op: Op) -> Truth {
    let mut after = *truth;
    for change in changes {
        after.slots[change.slot.index()] = change.value().block;
        let Some(block) = change.concerned() else { continue };
        after.contents[block.index()] = None;
        if block == Block::X {
            after.is_node = false;
            after.slots[Slot::Inner.index()] = None;
        }
        if change.effect == Effect::Alloc && Some(block) == first_allocated(changes) {
            after.contents[block.index()] = initial(op.contents());
            after.is_node |= op.contents() == crate::scenario::Contents::Node;
        }
    }
    after
}

fn first_allocated(changes: &[Change]) -> Option<Block> {
    changes.iter().find(|change| change.effect == Effect::Alloc)?.block
}
