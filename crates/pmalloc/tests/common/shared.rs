//! Heaps on media of which a test keeps a handle: to crash them, to damage them, to look at their words.

#![allow(unsafe_code, reason = "the tests answer for what they do to the memory of their heaps")]

use pmalloc::{Error, Heap, HeapOptions, Slot, VersionedCell, persist::Medium};

/// Makes and opens such heaps.
pub(crate) trait Shared {
    /// [`HeapOptions::create_on_shared`].
    fn create_shared<M: Medium + 'static>(&self, medium: M) -> Result<Heap<M>, Error>;
    /// [`HeapOptions::open_on_shared`].
    fn open_shared<M: Medium + 'static>(&self, medium: M) -> Result<Heap<M>, Error>;
}

impl Shared for HeapOptions {
    fn create_shared<M: Medium + 'static>(&self, medium: M) -> Result<Heap<M>, Error> {
        // SAFETY:
        // 1. tests store to words that no reference shows, and look for what a damaged heap makes of that;
        // 2. they serve a medium once at a time: its claim sees to that.
        unsafe { self.create_on_shared(medium) }
    }

    fn open_shared<M: Medium + 'static>(&self, medium: M) -> Result<Heap<M>, Error> {
        // SAFETY: as for `create_shared`.
        unsafe { self.open_on_shared(medium) }
    }
}

/// The medium of a heap, whose handle the test might as well have kept, and slots and cells in blocks of bytes.
pub(crate) trait Raw<M> {
    /// [`Heap::medium`].
    fn raw(&self) -> &M;
    /// [`Heap::slot_at`].
    fn slot_in(&self, offset: u64) -> Result<&Slot, Error>;
    /// [`Heap::cell_at`].
    fn cell_in(&self, offset: u64) -> Result<&VersionedCell, Error>;
}

impl<M: Medium + 'static> Raw<M> for Heap<M> {
    fn raw(&self) -> &M {
        // SAFETY: as for `create_shared`.
        unsafe { self.medium() }
    }

    fn slot_in(&self, offset: u64) -> Result<&Slot, Error> {
        // SAFETY: tests keep slots and bytes apart, and use no slot of a block that is gone but to see it refused.
        unsafe { self.slot_at(offset) }
    }

    fn cell_in(&self, offset: u64) -> Result<&VersionedCell, Error> {
        // SAFETY: as for `slot_in`.
        unsafe { self.cell_at(offset) }
    }
}
