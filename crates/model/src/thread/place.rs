//! Places in the logs: taken before the record, with their sequence numbers, under the log's lock.
//!
//! A log without room gets a chunk first. That takes fences, and so it is done before the lane is marked: a
//! free looks at its slot, takes its place, and marks then ([`Order::LookFirst`](crate::scenario::Order)).

use super::At;
use crate::{
    book::Place,
    packed::{Booked, Effect, Entry, Extent},
    rule::Break,
    scenario::Op,
    world::{Model, World, small},
};

impl Model<'_> {
    /// What the next place is wanted for, and in which log.
    fn wanted(&self, world: &World, thread: usize) -> Option<(Booked, Extent, usize)> {
        let taken = world.threads[thread].places.len();
        let own = thread % self.layout.shape().logs;
        let (booked, extent) = match self.op(world, thread)? {
            Op::CreateSlab => [(Booked::Alloc, Extent::Slab)].get(taken).copied()?,
            Op::ReturnSlab => [(Booked::Free, Extent::Slab)].get(taken).copied()?,
            _ => self.entries_of(world, thread).nth(taken)?,
        };
        let holder = world.logs.iter().position(|log| log.holds(extent));
        let log = match booked {
            Booked::Free if !self.breaks(Break::FreeInOwnLog) => holder.unwrap_or(own),
            _ => own,
        };
        Some((booked, extent, log))
    }

    /// The entries that the changes of the operation take.
    fn entries_of(&self, world: &World, thread: usize) -> impl Iterator<Item = (Booked, Extent)> {
        world.threads[thread].changes.iter().filter_map(|change| {
            let block = change.concerned().filter(|block| self.is_large(*block))?;
            let booked = if change.effect == Effect::Alloc { Booked::Alloc } else { Booked::Free };
            Some((booked, Extent::Large(block)))
        })
    }

    pub(super) fn wants_place(&self, world: &World, thread: usize) -> bool {
        self.wanted(world, thread).is_some()
    }

    pub(super) fn may_take_place(&self, world: &World, thread: usize) -> bool {
        let Some((_, _, log)) = self.wanted(world, thread) else { return true };
        let mirror = &world.logs[log];
        let has_room = mirror.room(self.layout.shape().entries).is_some();
        !mirror.locked && (has_room || world.pool.clone().take().is_some())
    }

    pub(super) fn take_place(&self, world: &mut World, thread: usize) -> &'static str {
        let (booked, extent, log) = self.wanted(world, thread).expect("it waits for a place");
        if world.logs[log].room(self.layout.shape().entries).is_none() {
            return self.make_chunk(world, thread, log);
        }
        let code = u8::try_from(log).expect("there are few logs");
        let place = world.logs[log].take(code, booked, extent);
        world.threads[thread].places.push(place);
        if self.breaks(Break::LandBeforeRecord) {
            world.logs[log].land(&place);
        }
        if !self.wants_place(world, thread) {
            world.threads[thread].at = match self.op(world, thread) {
                Some(Op::CreateSlab | Op::ReturnSlab) => At::SlabEntry,
                _ => self.behind_places(world),
            };
        }
        "takes a place in a log"
    }

    /// Makes an empty chunk for a full log.
    fn make_chunk(&self, world: &mut World, thread: usize, log: usize) -> &'static str {
        let chunk = world.pool.take().expect("there was one");
        let base = world.logs[log].next;
        self.write_chunk(world, thread, chunk, base, &[]);
        world.logs[log].locked = true;
        world.threads[thread].chunk = Some(chunk);
        world.threads[thread].at = At::ChunkFence;
        if self.breaks(Break::ChunkUnfenced) {
            world.memory.forget_flushes(thread);
        }
        "makes a chunk, flush"
    }

    /// Zeroes a chunk, but for its header and the allocations of `extents`, and flushes it.
    pub(super) fn write_chunk(
        &self,
        world: &mut World,
        thread: usize,
        chunk: u8,
        base: u8,
        extents: &[Extent],
    ) {
        let (at, layout) = (usize::from(chunk), &self.layout);
        let epoch = world.epoch;
        let mut words = vec![(layout.base(at), u32::from(base)), (layout.link(at), 0)];
        for nth in 0..layout.shape().entries {
            let entry = extents.get(nth).map(|&extent| {
                let sequence = base + u8::try_from(nth).expect("a chunk is small");
                Entry { booked: Booked::Alloc, extent, sequence, epoch }.encode()
            });
            words.extend(layout.entry(at, nth).into_iter().zip(entry.unwrap_or([0; 2])));
        }
        for (word, value) in words {
            let is_kept = value == 0 && self.breaks(Break::ChunkKept) && word != layout.link(at);
            if world.memory.load(word) != value && !is_kept {
                world.memory.store(layout, word, value);
            }
            world.memory.flush(layout, thread, word);
        }
        world.unflushed.retain(|place| place.0 != chunk);
    }

    pub(super) fn link_chunk(&self, world: &mut World, thread: usize) -> &'static str {
        world.memory.fence(thread);
        let (_, _, log) = self.wanted(world, thread).expect("it waits for a place");
        let chunk = world.threads[thread].chunk.expect("it made one");
        let tail = world.logs[log].chunks.last().expect("a log has a chunk").index;
        let word = self.layout.link(tail.into());
        world.memory.store(&self.layout, word, u32::from(chunk) + 1);
        if !self.breaks(Break::LinkUnfenced) {
            world.memory.flush(&self.layout, thread, word);
        }
        world.threads[thread].at = At::LinkFence;
        "fence; links the chunk, flush"
    }

    pub(super) fn finish_chunk(&self, world: &mut World, thread: usize) -> &'static str {
        world.memory.fence(thread);
        let (_, _, log) = self.wanted(world, thread).expect("it waits for a place");
        let chunk = world.threads[thread].chunk.take().expect("it made one");
        let base = world.logs[log].next;
        world.logs[log].extend(chunk, base);
        world.logs[log].locked = false;
        world.threads[thread].at = At::Place;
        "fence: the log has a chunk more"
    }

    /// Stores an entry, without flushing it.
    pub(super) fn store_entry(&self, world: &mut World, place: &Place, epoch: u8) {
        let Place { booked, extent, sequence, .. } = *place;
        let words = self.layout.entry(place.chunk.into(), place.nth.into());
        let entry = Entry { booked, extent, sequence, epoch };
        for (word, value) in words.into_iter().zip(entry.encode()) {
            world.memory.store(&self.layout, word, value);
        }
    }

    /// Flushes an entry.
    pub(super) fn flush_entry(&self, world: &mut World, thread: usize, place: &Place) {
        for word in self.layout.entry(place.chunk.into(), place.nth.into()) {
            world.memory.flush(&self.layout, thread, word);
        }
    }

    /// Counts the entries that were stored.
    pub(super) fn land_places(&self, world: &mut World, thread: usize) {
        for place in std::mem::take(&mut world.threads[thread].places) {
            if !self.breaks(Break::LandBeforeRecord) {
                world.logs[usize::from(place.log)].land(&place);
            }
        }
    }

    /// The word that links a log's `nth` chunk, and what it holds.
    pub(super) fn link_to(&self, world: &World, log: usize, nth: usize) -> crate::layout::Word {
        match nth.checked_sub(1) {
            None => self.layout.root(log),
            Some(before) => self.layout.link(world.logs[log].chunks[before].index.into()),
        }
    }

    /// A link to a chunk.
    pub(super) fn link_value(chunk: u8) -> u32 {
        small(usize::from(chunk)) + 1
    }
}
