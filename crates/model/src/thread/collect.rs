//! The collectors of a log: copying its live entries, and unlinking chunks that nothing needs.
//!
//! Both work under the log's lock and trust the mirror: what has landed. They wait for no epoch.

use super::At;
use crate::{
    book::Garbage,
    packed::Extent,
    rule::Break,
    scenario::Op,
    world::{Model, World},
};

impl Model<'_> {
    /// Copies a log in which nothing is in flight.
    pub(super) fn start_copy(
        &self,
        world: &World,
        thread: usize,
        log: usize,
    ) -> Option<(World, &'static str)> {
        let mirror = &world.logs[log];
        let is_quiet = mirror.in_flight == 0 || self.breaks(Break::CopyInFlight);
        if mirror.locked || !is_quiet {
            return None;
        }
        let mut next = world.clone();
        let Some(chunk) = next.pool.take() else {
            Self::finish(&mut next, thread);
            return Some((next, "finds no chunk for a copy"));
        };
        let copied = self.to_copy(world, log);
        self.write_chunk(&mut next, thread, chunk, mirror.next, &copied);
        next.logs[log].locked = true;
        next.threads[thread].chunk = Some(chunk);
        next.threads[thread].at = At::CopyFence;
        Some((next, "stores a copy of the log's live entries, flush"))
    }

    /// The extents that a copy of the log names.
    fn to_copy(&self, world: &World, log: usize) -> Vec<Extent> {
        if self.breaks(Break::CopyAsOfDurable) {
            return self.held_on_media(world, log);
        }
        world.logs[log].live.iter().map(|(extent, _)| *extent).collect()
    }

    /// What the log held when D was last moved, for all that its unflushed entries say.
    fn held_on_media(&self, world: &World, log: usize) -> Vec<Extent> {
        let mut image = world.memory.cache().clone();
        for &(chunk, entry, _) in &world.unflushed {
            for word in self.layout.entry(chunk.into(), entry.into()) {
                image.set(word, 0);
            }
        }
        let books = self.replay(&image).unwrap_or_default();
        books.get(log).map(|log| log.live.iter().map(|live| live.0).collect()).unwrap_or_default()
    }

    /// Switches the root to the copy.
    pub(super) fn switch(&self, world: &mut World, thread: usize, op: Op) -> &'static str {
        if !self.breaks(Break::CopyUnfenced) {
            world.memory.fence(thread);
        }
        let log = log_of(op);
        let chunk = world.threads[thread].chunk.expect("it made a copy");
        let word = self.layout.root(log);
        world.memory.store(&self.layout, word, Self::link_value(chunk));
        world.memory.flush(&self.layout, thread, word);
        world.threads[thread].at = At::SwitchFence;
        if self.breaks(Break::SwitchUnfenced) {
            self.adopt(world, thread, log);
        }
        "fence: the copy is durable; switches the root, flush"
    }

    pub(super) fn finish_copy(&self, world: &mut World, thread: usize, op: Op) -> &'static str {
        world.memory.fence(thread);
        if !self.breaks(Break::SwitchUnfenced) {
            self.adopt(world, thread, log_of(op));
        }
        Self::finish(world, thread);
        "fence: the old chunks are free"
    }

    fn adopt(&self, world: &mut World, thread: usize, log: usize) {
        let copied = self.to_copy(world, log);
        let chunk = world.threads[thread].chunk.take().expect("it made a copy");
        let old = world.logs[log].adopt(chunk, &copied);
        old.into_iter().for_each(|chunk| world.pool.give(chunk));
        world.logs[log].locked = false;
    }

    /// Unlinks the first chunk that nothing needs.
    pub(super) fn start_unlink(
        &self,
        world: &World,
        thread: usize,
        log: usize,
    ) -> Option<(World, &'static str)> {
        let mirror = &world.logs[log];
        if mirror.locked {
            return None;
        }
        let garbage = if self.breaks(Break::FreeDroppedFirst) {
            Garbage::WithoutLive
        } else {
            Garbage::Unneeded
        };
        let mut next = world.clone();
        let Some(nth) = mirror.garbage(garbage) else {
            Self::finish(&mut next, thread);
            return Some((next, "finds no chunk to unlink"));
        };
        let behind = mirror.chunks[nth + 1].index;
        let word = self.link_to(world, log, nth);
        next.memory.store(&self.layout, word, Self::link_value(behind));
        next.memory.flush(&self.layout, thread, word);
        let chunk = next.logs[log].unlink(nth);
        next.logs[log].locked = true;
        next.threads[thread].at = At::UnlinkFence;
        if self.breaks(Break::UnlinkUnfenced) {
            next.pool.give(chunk);
        } else {
            next.threads[thread].chunk = Some(chunk);
        }
        Some((next, "links past a chunk, flush"))
    }

    pub(super) fn finish_unlink(&self, world: &mut World, thread: usize, op: Op) -> &'static str {
        world.memory.fence(thread);
        if let Some(chunk) = world.threads[thread].chunk.take() {
            world.pool.give(chunk);
        }
        world.logs[log_of(op)].locked = false;
        Self::finish(world, thread);
        "fence: the chunk is free"
    }
}

fn log_of(op: Op) -> usize {
    match op {
        Op::Copy(log) | Op::Unlink(log) => log.into(),
        _ => unreachable!("it collects nothing"),
    }
}
