//! The chain of one log's chunks in memory, found by sequence number.
//!
//! Sequence numbers rise along the chain, and almost every look-up is for its end: so a queue, not a tree.

use std::collections::VecDeque;

use super::chunk::ChunkIndex;

/// The mirror of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Volatile: where it stands.
    pub(super) index: ChunkIndex,
    /// Volatile: sequence number of its first entry.
    pub(super) base: u64,
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
    pub(super) fn new(index: ChunkIndex, base: u64) -> Self {
        Self { index, base, live: 0, in_flight: 0, needed: 0, torn: 0, frees: Vec::new() }
    }

    /// Whether nothing is lost with the chunk.
    pub(super) fn is_garbage(&self) -> bool {
        self.live == 0 && self.needed == 0 && self.in_flight == 0
    }
}

/// The chunks of a log, oldest first.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Volatile: ascending by base.
    chunks: VecDeque<Chunk>,
}

impl Chain {
    /// Number of chunks.
    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// All chunks.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter()
    }

    /// All chunks, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Chunk> {
        self.chunks.iter_mut()
    }

    /// The `nth` chunk.
    pub(super) fn get(&self, nth: usize) -> Option<&Chunk> {
        self.chunks.get(nth)
    }

    /// The last chunk.
    #[inline]
    pub(super) fn tail(&self) -> Option<&Chunk> {
        self.chunks.back()
    }

    /// The last chunk, to be changed.
    #[inline]
    pub(super) fn tail_mut(&mut self) -> Option<&mut Chunk> {
        self.chunks.back_mut()
    }

    /// Appends a chunk.
    ///
    /// # Panics
    ///
    /// If its numbers do not rise above those of the last one.
    pub(super) fn push(&mut self, chunk: Chunk) {
        let rises = self.tail().is_none_or(|tail| tail.base < chunk.base);
        assert!(rises, "a chunk's sequence numbers do not rise");
        self.chunks.push_back(chunk);
    }

    /// Takes the `nth` chunk out.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub(super) fn remove(&mut self, nth: usize) -> Chunk {
        self.chunks.remove(nth).expect("the chunk is in the chain")
    }

    /// The chunk that holds the entry `sequence`.
    ///
    /// # Panics
    ///
    /// If the entry's chunk is not in the chain any more: an entry that counts keeps it there.
    #[inline]
    pub(super) fn holding(&self, sequence: u64) -> &Chunk {
        &self.chunks[self.position(sequence)]
    }

    /// As [`Self::holding`], to be changed.
    #[inline]
    pub(super) fn holding_mut(&mut self, sequence: u64) -> &mut Chunk {
        let nth = self.position(sequence);
        &mut self.chunks[nth]
    }

    #[inline]
    fn position(&self, sequence: u64) -> usize {
        let behind = match self.tail() {
            Some(tail) if tail.base <= sequence => self.chunks.len(),
            _ => self.chunks.partition_point(|chunk| chunk.base <= sequence),
        };
        behind.checked_sub(1).expect("a chunk with an entry that counts is linked")
    }
}
