//! The heap of this project, through its public interface.

use std::{alloc::Layout, fmt, hint::black_box};

use pmalloc::{Heap, Slot, persist::Medium};

use super::worker::{PersistentAlloc, Slots, Worker};

/// Alignment that the benchmarks ask for.
const ALIGN: usize = 8;

/// A heap with slots for each thread.
pub struct HeapAlloc<'h, M: Medium + 'static>(&'h Heap<M>);

/// A thread of it.
pub struct HeapWorker<'h, M: Medium + 'static> {
    heap: &'h Heap<M>,
    slots: &'h [Slot],
    stride: usize,
}

impl<M: Medium + 'static> fmt::Debug for HeapAlloc<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeapAlloc").finish_non_exhaustive()
    }
}

impl<M: Medium + 'static> fmt::Debug for HeapWorker<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeapWorker").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

impl<'h, M: Medium + 'static> HeapAlloc<'h, M> {
    /// The allocator that `heap` is.
    #[must_use]
    pub fn new(heap: &'h Heap<M>) -> Self {
        Self(heap)
    }
}

impl<M: Medium + 'static> PersistentAlloc for HeapAlloc<'_, M> {
    type Worker<'a>
        = HeapWorker<'a, M>
    where
        Self: 'a;

    fn worker(&self, thread: usize, slots: Slots) -> HeapWorker<'_, M> {
        let name = format!("slots {thread}");
        let array = self.0.slots(&name, slots.words() as u64).expect("the heap has room");
        HeapWorker { heap: self.0, slots: array, stride: slots.spacing.stride() }
    }
}

impl<'h, M: Medium + 'static> Worker for HeapWorker<'h, M> {
    #[inline]
    fn alloc(&mut self, at: usize, size_bytes: usize) {
        self.heap.alloc_to(&self.slots[at * self.stride], layout(size_bytes)).expect("allocated");
    }

    #[inline]
    fn alloc_filled(&mut self, at: usize, size_bytes: usize) {
        let init = |bytes: &mut [u8]| bytes.fill(black_box(7));
        let slot = &self.slots[at * self.stride];
        self.heap.alloc_init(slot, layout(size_bytes), init).expect("allocated");
    }

    #[inline]
    fn free(&mut self, at: usize) {
        self.heap.free_from(&self.slots[at * self.stride]).expect("freed");
    }

    type Given = &'h Slot;

    #[inline]
    fn give(&mut self, at: usize) -> &'h Slot {
        &self.slots[at * self.stride]
    }

    #[inline]
    fn free_given(&mut self, slot: &'h Slot) {
        self.heap.free_from(slot).expect("freed");
    }
}

#[inline]
pub(crate) fn layout(size_bytes: usize) -> Layout {
    Layout::from_size_align(size_bytes, ALIGN).expect("a size of a benchmark")
}
