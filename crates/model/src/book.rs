//! The bookkeeping logs in memory: mirrors of the chains on media, and the pool of free chunks.
//!
//! They follow `pmalloc`'s: a place and its sequence number are taken together under the log's lock, before
//! the record; an append *lands* when its entry was stored; the counters of a chunk say whether anything
//! needs it. The collectors trust the mirror, so what they copy or drop is what has landed.

use crate::packed::{Booked, Extent};

/// Chunks that a model may have: a set of them is a byte.
pub(crate) const MAX_CHUNKS: usize = 8;

/// Where an entry goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) log: u8,
    pub(crate) chunk: u8,
    pub(crate) nth: u8,
    pub(crate) sequence: u8,
    pub(crate) booked: Booked,
    pub(crate) extent: Extent,
}

/// The mirror of a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Chunk {
    pub(crate) index: u8,
    /// Sequence number of its first entry.
    pub(crate) base: u8,
    /// Allocations in it that still hold their extent.
    live: u8,
    /// Places taken by appends that have not landed.
    in_flight: u8,
    /// Free entries in it whose allocation stands in another chunk.
    needed: u8,
    /// Bases of the chunks of the frees that are needed while this chunk is linked.
    frees: Vec<u8>,
}

impl Chunk {
    fn new(index: u8, base: u8) -> Self {
        Self { index, base, live: 0, in_flight: 0, needed: 0, frees: Vec::new() }
    }
}

/// Which chunks a collector takes for garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Garbage {
    /// Those without a live allocation, a needed free, or an append in flight.
    Unneeded,
    /// Those without a live allocation or an append in flight: wrong.
    WithoutLive,
}

/// The mirror of a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Mirror {
    /// Oldest first.
    pub(crate) chunks: Vec<Chunk>,
    /// The sequence number of the next entry.
    pub(crate) next: u8,
    /// Extents held, and the entries that allocated them.
    pub(crate) live: Vec<(Extent, u8)>,
    /// Appends that have not landed.
    pub(crate) in_flight: u8,
    /// Whether somebody has its lock for more than one step.
    pub(crate) locked: bool,
}

impl Mirror {
    /// A log without chunks, to be filled by replay.
    pub(crate) fn empty() -> Self {
        Self { chunks: Vec::new(), next: 1, live: Vec::new(), in_flight: 0, locked: false }
    }

    /// Appends a chunk that is linked now; the next entry is its first.
    pub(crate) fn extend(&mut self, index: u8, base: u8) {
        self.chunks.push(Chunk::new(index, base));
        self.next = base;
    }

    /// The last chunk, if it has a place left.
    pub(crate) fn room(&self, entries: usize) -> Option<&Chunk> {
        self.chunks.last().filter(|chunk| usize::from(self.next - chunk.base) < entries)
    }

    pub(crate) fn holds(&self, extent: Extent) -> bool {
        self.live.iter().any(|(held, _)| *held == extent)
    }

    /// Takes the next place.
    pub(crate) fn take(&mut self, log: u8, booked: Booked, extent: Extent) -> Place {
        let sequence = self.next;
        let chunk = self.chunks.last_mut().expect("room was made under this lock");
        let place =
            Place { log, chunk: chunk.index, nth: sequence - chunk.base, sequence, booked, extent };
        chunk.in_flight += 1;
        self.in_flight += 1;
        self.next += 1;
        place
    }

    /// Counts an entry that was stored.
    ///
    /// Its chunk may be gone if a broken collector did not wait for it; what it said is then lost.
    pub(crate) fn land(&mut self, place: &Place) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(chunk) = self.holding(place.sequence) else { return };
        chunk.in_flight -= 1;
        self.count(place.booked, place.extent, place.sequence);
    }

    /// Counts an entry that replay found, or that landed.
    pub(crate) fn count(&mut self, booked: Booked, extent: Extent, sequence: u8) {
        match booked {
            Booked::Alloc => {
                self.live.push((extent, sequence));
                self.live.sort_unstable();
                if let Some(chunk) = self.holding(sequence) {
                    chunk.live += 1;
                }
            }
            Booked::Free => self.count_free(extent, sequence),
        }
    }

    fn count_free(&mut self, extent: Extent, sequence: u8) {
        let Some(place) = self.live.iter().position(|(held, _)| *held == extent) else { return };
        let (_, allocated) = self.live.remove(place);
        let Some(free_base) = self.holding(sequence).map(|chunk| chunk.base) else { return };
        let Some(chunk) = self.holding(allocated) else { return };
        chunk.live -= 1;
        if chunk.base != free_base {
            chunk.frees.push(free_base);
            self.holding(free_base).expect("it holds the free").needed += 1;
        }
    }

    fn holding(&mut self, sequence: u8) -> Option<&mut Chunk> {
        self.chunks.iter_mut().rev().find(|chunk| chunk.base <= sequence)
    }

    /// The first chunk that can be unlinked; the last one stays, for its numbers.
    pub(crate) fn garbage(&self, garbage: Garbage) -> Option<usize> {
        let linked = self.chunks.len().saturating_sub(1);
        self.chunks[..linked].iter().position(|chunk| {
            let is_needed = chunk.needed > 0 && garbage == Garbage::Unneeded;
            chunk.live == 0 && chunk.in_flight == 0 && !is_needed
        })
    }

    /// Takes a chunk out of the chain.
    pub(crate) fn unlink(&mut self, nth: usize) -> u8 {
        let chunk = self.chunks.remove(nth);
        for base in &chunk.frees {
            if let Some(free) = self.chunks.iter_mut().find(|other| other.base == *base) {
                free.needed -= 1;
            }
        }
        chunk.index
    }

    /// Follows the root to a copy of the live entries in one chunk, and returns the old chunks.
    pub(crate) fn adopt(&mut self, copy: u8, copied: &[Extent]) -> Vec<u8> {
        let old = std::mem::take(&mut self.chunks);
        let base = self.next;
        self.extend(copy, base);
        self.live.clear();
        for &extent in copied {
            let sequence = self.next;
            self.next += 1;
            self.count(Booked::Alloc, extent, sequence);
        }
        old.iter().map(|chunk| chunk.index).collect()
    }
}

/// Chunks that no log links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Pool(u8);

impl Pool {
    /// A pool of the chunks from `first` up to `end`.
    pub(crate) fn new(first: usize, end: usize) -> Self {
        Self((first..end).fold(0, |set, chunk| set | 1 << chunk))
    }

    /// Takes the lowest free chunk.
    pub(crate) fn take(&mut self) -> Option<u8> {
        let lowest = u8::try_from(self.0.trailing_zeros()).expect("it is at most 8");
        if self.0 == 0 {
            return None;
        }
        self.0 &= self.0 - 1;
        Some(lowest)
    }

    pub(crate) fn take_exact(&mut self, chunk: u8) -> bool {
        let was_free = self.0 & 1 << chunk != 0;
        self.0 &= !(1 << chunk);
        was_free
    }

    pub(crate) fn give(&mut self, chunk: u8) {
        self.0 |= 1 << chunk;
    }
}
