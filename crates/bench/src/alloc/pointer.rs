//! A volatile allocator whose pointers are made durable: what a program pays that wants its pointers to survive, but
//! not the memory behind them. It is a floor, not a rival in safety: after a crash its slots name nothing.

use std::fmt;

use pmalloc::{
    Heap,
    persist::{Medium, Word},
};
use pmalloc_bench_peers::{Block, Blocks, Library};

use super::{
    bare::{medium, own_words},
    worker::{PersistentAlloc, Slots, Worker},
};

/// What is written into the blocks of the rows with contents.
const CONTENTS: u8 = 7;

/// A volatile allocator, and the heap that its pointers are stored in.
pub struct PointerAlloc<'h, M: Medium + 'static> {
    heap: &'h Heap<M>,
    library: Library,
}

/// A thread of it.
///
/// The blocks are owned by a volatile table, and the persistent word is compared with it: one more access to a line that
/// is at hand, beside a persist.
pub struct PointerWorker<'a, M: Medium + 'static> {
    medium: &'a M,
    words: &'a [Word],
    stride: usize,
    blocks: Blocks<'a>,
}

impl<M: Medium + 'static> fmt::Debug for PointerAlloc<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PointerAlloc").field("library", &self.library).finish_non_exhaustive()
    }
}

impl<M: Medium + 'static> fmt::Debug for PointerWorker<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PointerWorker").field("words", &self.words.len()).finish_non_exhaustive()
    }
}

impl<'h, M: Medium + 'static> PointerAlloc<'h, M> {
    /// Blocks of `library`, with their pointers in `heap`.
    #[must_use]
    pub fn new(heap: &'h Heap<M>, library: Library) -> Self {
        Self { heap, library }
    }
}

impl<M: Medium + 'static> PersistentAlloc for PointerAlloc<'_, M> {
    type Worker<'a>
        = PointerWorker<'a, M>
    where
        Self: 'a;

    fn worker(&self, thread: usize, slots: Slots) -> PointerWorker<'_, M> {
        PointerWorker {
            medium: medium(self.heap),
            words: own_words(self.heap, &format!("pointers {thread}"), slots.words()),
            stride: slots.spacing.stride(),
            blocks: Blocks::new(&self.library, slots.count),
        }
    }
}

impl<M: Medium + 'static> PointerWorker<'_, M> {
    /// The value of slot `at`.
    #[inline]
    fn load(&self, at: usize) -> u64 {
        self.medium.load(&self.words[at * self.stride])
    }

    /// Makes `value` the durable value of slot `at`.
    #[inline]
    fn publish(&self, at: usize, value: u64) {
        self.store(&self.words[at * self.stride], value);
    }

    #[inline]
    fn store(&self, word: &Word, value: u64) {
        // CRASH: the word is the old or the new one; neither names anything once this process is gone.
        self.medium.store(word, value);
        self.medium.flush_of(word);
        self.medium.fence();
    }
}

/// A block that left its worker, and the slot that names it.
#[derive(Debug)]
pub struct GivenPointer<'a> {
    word: &'a Word,
    block: Block<'a>,
}

impl<'a, M: Medium + 'static> Worker for PointerWorker<'a, M> {
    #[inline]
    fn alloc(&mut self, at: usize, size_bytes: usize) {
        assert_eq!(self.load(at), 0, "slot {at} is full");
        let address = self.blocks.allocate(at, size_bytes);
        self.publish(at, address);
    }

    #[inline]
    fn alloc_filled(&mut self, at: usize, size_bytes: usize) {
        assert_eq!(self.load(at), 0, "slot {at} is full");
        let address = self.blocks.allocate_filled(at, size_bytes, CONTENTS);
        self.publish(at, address);
    }

    #[inline]
    fn free(&mut self, at: usize) {
        let published = self.load(at);
        // Unlinked before it is freed, so that no reader finds a block that is gone.
        self.publish(at, 0);
        let freed = self.blocks.free(at);
        assert_eq!(published, freed, "the slot named the block");
    }
    type Given = GivenPointer<'a>;

    #[inline]
    fn give(&mut self, at: usize) -> GivenPointer<'a> {
        GivenPointer { word: &self.words[at * self.stride], block: self.blocks.give(at) }
    }

    #[inline]
    fn free_given(&mut self, given: GivenPointer<'a>) {
        let published = self.medium.load(given.word);
        // Unlinked before it is freed, as above.
        self.store(given.word, 0);
        assert_eq!(published, given.block.address(), "the slot named the block");
        drop(given.block);
    }
}
