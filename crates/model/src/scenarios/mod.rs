//! The scenarios: short programs, each with the question that it asks.

mod batched;
mod book;
mod breaks;
mod eager;
mod random;
mod slabs;

pub(crate) use breaks::scenarios_for;
pub(crate) use random::random;

use crate::{
    layout::{Block, Blocks, Slot},
    scenario::{Contents, Op, Scenario},
};

/// All scenarios.
pub(crate) fn all() -> Vec<Scenario> {
    [batched::scenarios(), eager::scenarios(), book::scenarios(), slabs::scenarios()].concat()
}

const S0: Slot = Slot::S0;
const S1: Slot = Slot::S1;
const S3: Slot = Slot::S3;
const INNER: Slot = Slot::Inner;
const X: Blocks = Block::X.only();
const A: Blocks = Block::A.only();
const B: Blocks = Block::B.only();
const Y: Blocks = Block::Y.only();
const AB: Blocks = A.and(Block::B);

fn alloc(slot: Slot, from: Blocks) -> Op {
    Op::Alloc(slot, from, Contents::Bare)
}

fn data(slot: Slot, from: Blocks) -> Op {
    Op::Alloc(slot, from, Contents::Data)
}

fn node(slot: Slot) -> Op {
    Op::Alloc(slot, X, Contents::Node)
}

fn free(slot: Slot) -> Op {
    Op::Free(slot)
}

fn publish(slots: [Slot; 2], from: [Blocks; 2]) -> Op {
    Op::Publish(slots, from)
}
