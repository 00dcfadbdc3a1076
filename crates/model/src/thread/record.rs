//! Mark, stamp, record: an operation is decided by the fence of its record.

use super::At;
use crate::{
    packed::Record,
    rule::Break,
    scenario::{Op, Policy},
    world::{Model, World},
};

impl Model<'_> {
    pub(super) fn mark(&self, world: &mut World, thread: usize) -> &'static str {
        if !self.breaks(Break::NoMark) {
            world.lanes[thread].is_buffered = true;
        }
        world.threads[thread].at = self.behind_mark();
        "stores its mark"
    }

    pub(super) fn stamp(&self, world: &mut World, thread: usize) -> &'static str {
        world.threads[thread].stamp = world.epoch;
        world.threads[thread].at = self.behind_stamp();
        "loads the epoch: its stamp"
    }

    /// Stores and flushes the records. They stand behind the mark in the store buffer.
    pub(super) fn record(&self, world: &mut World, thread: usize, op: Op) -> &'static str {
        world.lanes[thread].drain();
        let is_batched = self.policy(world) == Policy::Batched;
        if self.breaks(Break::SlotBeforeRecord) {
            self.store_slots(world, thread, op);
        }
        let number = if is_batched {
            world.threads[thread].stamp
        } else {
            world.lanes[thread].number += 1;
            world.lanes[thread].number
        };
        let changes = world.threads[thread].changes.clone();
        let of = u8::try_from(changes.len()).expect("a group is small");
        for (nth, change) in (0..).zip(changes) {
            let lane = &mut world.lanes[thread];
            lane.tag = lane.tag.checked_add(1).unwrap_or(1);
            let place = usize::from(lane.position);
            lane.position = (lane.position + 1) % lane.epochs.len().to_le_bytes()[0];
            lane.epochs[place] = number;
            let record = Record { change, nth, of, number, tag: lane.tag };
            let words = self.layout.record(thread, place);
            for (word, value) in words.into_iter().zip(record.encode()) {
                world.memory.store(&self.layout, word, value);
                world.memory.flush(&self.layout, thread, word);
            }
        }
        world.threads[thread].is_decided = !self.breaks(Break::SlotBeforeRecord);
        world.threads[thread].at =
            if self.breaks(Break::NoRecordFence) { At::Apply } else { At::RecordFence };
        "stores its records, flush"
    }

    pub(super) fn fence_record(&self, world: &mut World, thread: usize) -> &'static str {
        world.memory.fence(thread);
        world.threads[thread].at = At::Apply;
        if self.breaks(Break::UnmarkEarly) {
            Self::unmark(world, thread);
        }
        "fence: the operation is decided"
    }
}
