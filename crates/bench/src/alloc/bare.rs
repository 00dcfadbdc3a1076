//! Bare persists: the store, flush and fence that no durable operation can do without. Persistent words that mean
//! nothing.

#![allow(unsafe_code, reason = "the words of a heap")]

use pmalloc::{
    Heap,
    persist::{Medium, Offset, Word},
};

use super::worker::{LINE_WORDS, PersistentAlloc, Slots, Worker};

/// Lines of a thread's bare persists.
const LINES: usize = 64;

/// Words of the heap that are the harness's own: `count` from the beginning of a line on.
pub(super) fn own_words<'h, M: Medium + 'static>(
    heap: &'h Heap<M>,
    name: &str,
    count: usize,
) -> &'h [Word] {
    // An array of slots is the one block whose address the interface tells for ever; as words it is left alone by
    // the heap, which only looks at slots that it is given.
    let slots = heap.slots(name, count as u64).expect("the heap has room");
    let region = medium(heap).region();
    let first = region.span_of(&slots[0]).start;
    region.array(Offset::new(first), count as u64).expect("inside the heap")
}

/// The medium of a heap, for its own words.
#[inline]
pub(super) fn medium<M: Medium + 'static>(heap: &Heap<M>) -> &M {
    // SAFETY:
    // 1. the harness stores to its own words only, which the heap shows nobody as bytes;
    // 2. it opens no other heap on the medium.
    unsafe { heap.medium() }
}

/// Lines of a heap that a thread writes in turn, usually 64.
pub struct BareLines<'h, M: Medium + 'static> {
    heap: &'h Heap<M>,
    words: &'h [Word],
    next: usize,
}

impl<M: Medium + 'static> std::fmt::Debug for BareLines<'_, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareLines").field("next", &self.next).finish_non_exhaustive()
    }
}

impl<'h, M: Medium + 'static> BareLines<'h, M> {
    /// 64 lines of `heap` that no other thread has.
    #[must_use]
    pub fn new(heap: &'h Heap<M>, thread: usize) -> Self {
        Self::with_lines(heap, thread, LINES)
    }

    /// The first `lines` of these 64.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    #[must_use]
    pub fn with_lines(heap: &'h Heap<M>, thread: usize, lines: usize) -> Self {
        let words = own_words(heap, &format!("bare persists {thread}"), LINES * LINE_WORDS);
        Self { heap, words: &words[..lines * LINE_WORDS], next: 0 }
    }

    /// One bare persist: stores the first `WORDS` words of the next line, flushes the line and fences.
    #[inline]
    pub fn persist<const WORDS: usize>(&mut self) {
        let m = medium(self.heap);
        let line = &self.words[self.next..][..WORDS];
        self.next += LINE_WORDS;
        if self.next == self.words.len() {
            self.next = 0;
        }
        // CRASH: nobody reads these words.
        for word in line {
            m.store(word, 1);
        }
        m.flush_of(&line[0]);
        m.fence();
    }

    /// `count` bare persists; returns their number.
    #[inline]
    pub fn persists<const WORDS: usize>(&mut self, count: usize) -> u64 {
        (0..count).for_each(|_| self.persist::<WORDS>());
        count as u64
    }
}

/// An allocator that allocates nothing: each operation is a bare persist.
pub struct Bare<'h, M: Medium + 'static>(&'h Heap<M>);

impl<M: Medium + 'static> std::fmt::Debug for Bare<'_, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bare").finish_non_exhaustive()
    }
}

impl<'h, M: Medium + 'static> Bare<'h, M> {
    /// Bare persists in `heap`.
    #[must_use]
    pub fn new(heap: &'h Heap<M>) -> Self {
        Self(heap)
    }
}

impl<M: Medium + 'static> PersistentAlloc for Bare<'_, M> {
    type Worker<'a>
        = BareLines<'a, M>
    where
        Self: 'a;

    fn worker(&self, thread: usize, _: Slots) -> BareLines<'_, M> {
        BareLines::new(self.0, thread)
    }
}

impl<M: Medium + 'static> Worker for BareLines<'_, M> {
    #[inline]
    fn alloc(&mut self, _: usize, _: usize) {
        self.persist::<1>();
    }

    #[inline]
    fn alloc_filled(&mut self, _: usize, _: usize) {
        self.persist::<1>();
    }

    #[inline]
    fn free(&mut self, _: usize) {
        self.persist::<1>();
    }

    type Given = ();

    #[inline]
    fn give(&mut self, _: usize) {}

    #[inline]
    fn free_given(&mut self, (): ()) {
        self.persist::<1>();
    }
}
