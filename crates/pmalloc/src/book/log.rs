//! The mirror of one log: its chain of chunks, the extents it holds, and what each chunk is needed for.
//!
//! All of it is volatile and is changed under the log's lock, by appends ([`super::append`]), by the
//! collectors ([`super::gc`]), and by replay ([`super::replay`]), which arrives at the same state from the
//! media alone.

use rustc_hash::FxHashMap;

use super::{
    Extent, LogId,
    chain::{Chain, Chunk},
    chunk::{ChunkIndex, Link},
};
use crate::layout::geometry::Page;

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
pub(super) struct Position {
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
    /// Volatile: the chain.
    pub(super) chunks: Chain,
    /// Volatile: the sequence number of the next entry; never falls back.
    pub(super) next: u64,
    /// Volatile: the extents held, by their first page. A hash without a seed: equal histories give equal
    /// orders, and so equal media.
    pub(super) live: FxHashMap<Page, Live>,
    /// Volatile: extents held, and those whose allocation is neither committed nor cancelled.
    pub(super) held: u64,
    /// Volatile: chunks that so many entries fill.
    pub(super) copy_chunks: u32,
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
            chunks: Chain::default(),
            next: 0,
            live: FxHashMap::default(),
            held: 0,
            copy_chunks: 0,
            in_flight: 0,
            frees: 0,
            copy_due: false,
            fast_gc: 0,
            slow_gc: 0,
        }
    }

    /// The link behind the last chunk.
    pub(super) fn end(&self) -> Link {
        match self.chunks.tail() {
            Some(tail) => Link::After(tail.index),
            None => Link::Root(self.id),
        }
    }

    /// Whether the last chunk has a place left.
    pub(super) fn has_room(&self) -> bool {
        self.chunks.tail().is_some_and(|tail| self.next - tail.base < self.entries)
    }

    /// Whether one extent more would take a copy of the log to another chunk.
    #[inline]
    pub(super) fn is_copy_full(&self) -> bool {
        self.held == u64::from(self.copy_chunks) * self.entries
    }

    /// Whether a copy of the log would need a chunk less than is counted.
    #[inline]
    pub(super) fn has_copy_chunk_too_many(&self) -> bool {
        self.held + self.entries == u64::from(self.copy_chunks) * self.entries
    }

    /// Appends a chunk that `end` now links; the next entry is its first.
    pub(super) fn extend(&mut self, index: ChunkIndex) {
        debug_assert!(!self.has_room(), "places would be skipped");
        self.chunks.push(Chunk::new(index, self.next));
    }

    /// Appends a chunk that replay found linked; the next entry is its first, unless it has some.
    pub(super) fn begin(&mut self, base: u64, index: ChunkIndex) {
        self.next = base;
        self.chunks.push(Chunk::new(index, base));
    }

    /// Takes the next place and its sequence number.
    pub(super) fn take(&mut self) -> Position {
        assert!(self.has_room(), "room was made under this lock");
        let tail = self.chunks.tail_mut().expect("a log with room has a tail");
        let place = Position { chunk: tail.index, nth: self.next - tail.base, sequence: self.next };
        tail.in_flight += 1;
        self.in_flight += 1;
        self.next += 1;
        place
    }

    /// Gives up being in flight for the entry `sequence`, and finds its chunk.
    #[inline]
    pub(super) fn land(&mut self, sequence: u64) -> &mut Chunk {
        self.in_flight -= 1;
        let chunk = self.chunks.holding_mut(sequence);
        chunk.in_flight -= 1;
        chunk
    }

    /// Where the entry `sequence`, which counts, stands.
    pub(super) fn place_of(&self, sequence: u64) -> (ChunkIndex, u64) {
        let chunk = self.chunks.holding(sequence);
        (chunk.index, sequence - chunk.base)
    }

    /// Whether the log holds an extent from `start` on that nobody is freeing.
    pub(super) fn holds_firmly(&self, start: Page) -> bool {
        self.live.get(&start).is_some_and(|live| live.hold == Hold::Firm)
    }

    /// Enters the allocation `sequence`, which its chunk counts, and says whether its start was not held before.
    #[must_use]
    pub(super) fn enter(&mut self, sequence: u64, extent: Extent) -> bool {
        let live = Live { extent, sequence, hold: Hold::Firm };
        self.live.insert(extent.range.start, live).is_none()
    }

    /// Counts the free in the chunk that begins with `free_base` of the extent from `start` on, which the log holds.
    pub(super) fn count_free(&mut self, free_base: u64, start: Page) {
        let live = self.live.remove(&start).expect("an extent is held until its free counts");
        let alloc_chunk = self.chunks.holding_mut(live.sequence);
        alloc_chunk.live -= 1;
        // In one chunk the two entries go together.
        if alloc_chunk.base != free_base {
            alloc_chunk.frees.push(free_base);
            self.chunks.holding_mut(free_base).needed += 1;
        }
        self.frees += 1;
    }

    /// Takes the `nth` chunk out of the chain; the free entries it needed are needed no longer.
    pub(super) fn unlink(&mut self, nth: usize) -> ChunkIndex {
        let chunk = self.chunks.remove(nth);
        assert!(chunk.is_garbage(), "an unlinked chunk would be missed");
        for free_base in chunk.frees {
            // A chunk is not unlinked while it is needed.
            self.chunks.holding_mut(free_base).needed -= 1;
        }
        chunk.index
    }
}
