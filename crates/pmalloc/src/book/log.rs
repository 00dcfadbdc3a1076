//! The mirror of one log: its chain of chunks, the extents it holds, and what each chunk is needed for.
//!
//! All of it is volatile and is changed under the log's lock, by appends ([`super::append`]), by the
//! collectors ([`super::gc`]), and by replay ([`super::replay`]), which arrives at the same state from the
//! media alone.

use std::collections::BTreeMap;

use super::{
    Extent, LogId,
    chunk::{ChunkIndex, Link},
};
use crate::layout::geometry::Page;

/// The mirror of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Volatile: where it stands.
    pub(super) index: ChunkIndex,
    /// Volatile: allocations in it that still hold their extent.
    pub(super) live: u32,
    /// Volatile: places in it that were taken by appends neither committed nor cancelled.
    pub(super) in_flight: u32,
    /// Volatile: free entries in it whose allocation stands in another chunk of the chain. Dropped before
    /// that allocation, they would leave it behind as live.
    pub(super) needed: u32,
    /// Volatile: torn places in it that replay found.
    pub(super) torn: u32,
    /// Volatile: the base of the chunk of every free entry that is needed as long as this chunk is linked.
    pub(super) frees: Vec<u64>,
}

impl Chunk {
    /// The mirror of an empty chunk.
    pub(super) fn new(index: ChunkIndex) -> Self {
        Self { index, live: 0, in_flight: 0, needed: 0, torn: 0, frees: Vec::new() }
    }

    /// Whether nothing is lost with the chunk.
    pub(super) fn is_garbage(&self) -> bool {
        self.live == 0 && self.needed == 0 && self.in_flight == 0
    }
}

/// Whether a free of an extent is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Allocated.
    Firm,
    /// An append that frees it is neither committed nor cancelled.
    Freeing,
}

/// An extent that the log holds as allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Live {
    /// Volatile: the extent.
    pub(super) extent: Extent,
    /// Volatile: sequence number of the entry that allocated it.
    pub(super) sequence: u64,
    /// Volatile: whether it may be freed.
    pub(super) hold: Hold,
}

/// Where an entry goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The chunk.
    pub(super) chunk: ChunkIndex,
    /// Which entry of the chunk.
    pub(super) nth: u64,
    /// The entry's sequence number.
    pub(super) sequence: u64,
}

/// The mirror of a log.
#[derive(Debug)]
pub(super) struct Log {
    /// Volatile: which log.
    pub(super) id: LogId,
    /// Volatile: entries that a chunk holds.
    entries: u64,
    /// Volatile: the chain, by the sequence number of each chunk's first entry, which rises along it.
    pub(super) chunks: BTreeMap<u64, Chunk>,
    /// Volatile: the sequence number of the next entry; never falls back.
    pub(super) next: u64,
    /// Volatile: the extents held.
    pub(super) live: BTreeMap<Page, Live>,
    /// Volatile: appends neither committed nor cancelled.
    pub(super) in_flight: u64,
    /// Volatile: frees committed since the collectors last looked at the log.
    pub(super) frees: u64,
    /// Volatile: whether the log is to be copied as soon as nothing is in flight.
    pub(super) copy_due: bool,
    /// Volatile: how often empty chunks were unlinked.
    pub(super) fast_gc: u64,
    /// Volatile: how often the live entries were copied.
    pub(super) slow_gc: u64,
}

impl Log {
    /// A log without chunks.
    pub(super) fn new(id: LogId, entries: u64) -> Self {
        Self {
            id,
            entries,
            chunks: BTreeMap::new(),
            next: 0,
            live: BTreeMap::new(),
            in_flight: 0,
            frees: 0,
            copy_due: false,
            fast_gc: 0,
            slow_gc: 0,
        }
    }

    /// The link behind the last chunk.
    pub(super) fn end(&self) -> Link {
        match self.chunks.last_key_value() {
            Some((_, tail)) => Link::After(tail.index),
            None => Link::Root(self.id),
        }
    }

    /// Whether the last chunk has a place left.
    pub(super) fn has_room(&self) -> bool {
        self.chunks.last_key_value().is_some_and(|(base, _)| self.next - base < self.entries)
    }

    /// Appends a chunk that `end` now links; the next entry is its first.
    pub(super) fn extend(&mut self, index: ChunkIndex) {
        debug_assert!(!self.has_room(), "places would be skipped");
        let before = self.chunks.insert(self.next, Chunk::new(index));
        assert!(before.is_none(), "two chunks begin with one sequence number");
    }

    /// Appends a chunk that replay found linked; the next entry is its first, unless it has some.
    pub(super) fn begin(&mut self, base: u64, index: ChunkIndex) {
        self.next = base;
        self.chunks.insert(base, Chunk::new(index));
    }

    /// Takes the next place and its sequence number.
    pub(super) fn take(&mut self) -> Place {
        assert!(self.has_room(), "room was made under this lock");
        let (&base, tail) = self.chunks.iter_mut().next_back().expect("a log with room has a tail");
        let place = Place { chunk: tail.index, nth: self.next - base, sequence: self.next };
        tail.in_flight += 1;
        self.in_flight += 1;
        self.next += 1;
        place
    }

    /// Gives up being in flight for the entry `sequence`.
    pub(super) fn land(&mut self, sequence: u64) {
        self.chunk_of(sequence).1.in_flight -= 1;
        self.in_flight -= 1;
    }

    /// The chunk that holds the entry `sequence`, and the sequence number of its first.
    pub(super) fn chunk_of(&mut self, sequence: u64) -> (u64, &mut Chunk) {
        let (&base, chunk) = self
            .chunks
            .range_mut(..=sequence)
            .next_back()
            .expect("a chunk with an entry that counts is linked");
        debug_assert!(sequence - base < self.entries);
        (base, chunk)
    }

    /// Where the entry `sequence`, which counts, stands.
    pub(super) fn place_of(&self, sequence: u64) -> (ChunkIndex, u64) {
        let chunk = self.chunks.range(..=sequence).next_back();
        let (base, chunk) = chunk.expect("a chunk with an entry that counts is linked");
        (chunk.index, sequence - base)
    }

    /// Whether the log holds an extent from `start` on that nobody is freeing.
    pub(super) fn holds_firmly(&self, start: Page) -> bool {
        self.live.get(&start).is_some_and(|live| live.hold == Hold::Firm)
    }

    /// Counts the allocation `sequence`, and says whether its start was not held before.
    #[must_use]
    pub(super) fn count_alloc(&mut self, sequence: u64, extent: Extent) -> bool {
        let live = Live { extent, sequence, hold: Hold::Firm };
        let before = self.live.insert(extent.range.start, live);
        self.chunk_of(sequence).1.live += 1;
        before.is_none()
    }

    /// Counts the free `sequence` of the extent from `start` on, which the log holds.
    pub(super) fn count_free(&mut self, sequence: u64, start: Page) {
        let live = self.live.remove(&start).expect("an extent is held until its free counts");
        let free_base = self.chunk_of(sequence).0;
        let (alloc_base, alloc_chunk) = self.chunk_of(live.sequence);
        alloc_chunk.live -= 1;
        // In one chunk the two entries go together.
        if alloc_base != free_base {
            alloc_chunk.frees.push(free_base);
            self.chunk_of(sequence).1.needed += 1;
        }
        self.frees += 1;
    }

    /// Takes the chunk that begins with `base` out of the chain; the free entries it needed are needed no
    /// longer.
    pub(super) fn unlink(&mut self, base: u64) -> ChunkIndex {
        let chunk = self.chunks.remove(&base).expect("the chunk is in the chain");
        assert!(chunk.is_garbage(), "an unlinked chunk would be missed");
        for free_base in chunk.frees {
            let holder = self.chunks.get_mut(&free_base);
            holder.expect("a chunk is not unlinked while it is needed").needed -= 1;
        }
        chunk.index
    }
}
