//! The operations that have names of their own, on blocks of bytes.

use pmalloc_persist::Medium;

use super::handle::Heap;
#[cfg(doc)]
use crate::Error;
use crate::{
    core::{Implicit, change},
    error::Result,
    value::{BlockLayout, Content, Slot, VersionedCell},
};

impl<M: Medium + 'static> Heap<M> {
    /// Allocates an uninitialised block into the empty `slot`.
    ///
    /// The block has at least `layout.size()` bytes, with whatever they held before, and is aligned to at
    /// least `layout.align()` (at most a page) and 16 bytes.
    ///
    /// # Errors
    ///
    /// [`Error::SlotFull`], [`Error::SlotForeign`], [`Error::OutOfMemory`], [`Error::Invalid`] for a size of
    /// zero or an alignment over a page, [`Error::NoSpace`]. Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// After return block and slot are durable; after a crash before that, both or neither are there.
    /// Cost: 1 line flush, 1 fence, and its part of a round; under [`Policy::Eager`](crate::Policy::Eager) 4 and 3.
    #[inline]
    pub fn alloc_to(&self, slot: &Slot, layout: impl Into<BlockLayout>) -> Result<()> {
        change::alloc(self.core(), &mut Implicit(self.core()), slot, layout.into())
    }

    /// Allocates a block into the empty `slot` with contents that `init` writes.
    ///
    /// `init` gets the block's first `layout.size()` bytes, with whatever they held before. It may use the
    /// heap; if it panics, the block goes back.
    ///
    /// # Errors
    ///
    /// As [`alloc_to`](Heap::alloc_to).
    ///
    /// # Crash consistency
    ///
    /// As [`alloc_to`](Heap::alloc_to), and where the block is there after a crash, its contents are whole.
    /// Cost: that of [`alloc_to`](Heap::alloc_to), the contents' lines and a fence more.
    #[inline]
    pub fn alloc_init(
        &self,
        slot: &Slot,
        layout: impl Into<BlockLayout>,
        init: impl FnOnce(&mut [u8]),
    ) -> Result<()> {
        change::alloc_init(self.core(), &mut Implicit(self.core()), slot, layout.into(), init)
    }

    /// Frees the block that `slot` owns and leaves the slot empty.
    ///
    /// A block of bytes is not looked into: what slots inside it own is lost to the program, so free that first. The slots
    /// of a typed block must be empty.
    ///
    /// # Errors
    ///
    /// [`Error::SlotEmpty`], [`Error::SlotForeign`], [`Error::ChildrenAlive`], [`Error::NotLive`] or [`Error::Corrupted`] if the slot's word is
    /// damaged,
    /// [`Error::OutOfMemory`] or [`Error::NoSpace`] if the bookkeeping log of a large block has no room.
    /// Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// After return the free is durable; after a crash before that, block and slot are both as before or both
    /// free. Cost: as that of [`alloc_to`](Heap::alloc_to).
    #[inline]
    pub fn free_from<T: Content + ?Sized>(&self, slot: &Slot<T>) -> Result<()> {
        change::free_from(self.core(), &mut Implicit(self.core()), slot)
    }

    /// Replaces the block that `slot` owns by a new one with contents that `init` writes.
    ///
    /// `init` gets the new block's first `layout.size()` bytes, with whatever they held before. The old block is not
    /// looked into, as in [`free_from`](Heap::free_from).
    ///
    /// # Errors
    ///
    /// As [`alloc_init`](Heap::alloc_init) and [`free_from`](Heap::free_from). Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// Atomic: at every moment, and after a crash at any, the slot owns the old block or the new one, whole.
    /// Cost for small blocks: the contents' lines and 2 more flushes, 2 fences, and its part of a round; under
    /// [`Policy::Eager`](crate::Policy::Eager) 6 and 4.
    pub fn replace(
        &self,
        slot: &Slot,
        layout: impl Into<BlockLayout>,
        init: impl FnOnce(&mut [u8]),
    ) -> Result<()> {
        change::replace(self.core(), &mut Implicit(self.core()), slot, layout.into(), init)
    }

    /// Moves the block that `from` owns to the empty slot `to`.
    ///
    /// # Errors
    ///
    /// [`Error::SlotEmpty`], [`Error::SlotFull`], [`Error::SlotForeign`]. Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// Atomic: after a crash one of the slots owns the block. Cost: 2 line flushes,
    /// 1 fence, and its part of a round; under [`Policy::Eager`](crate::Policy::Eager) at most 5 and 3.
    pub fn move_to<T: Content + ?Sized>(&self, from: &Slot<T>, to: &Slot<T>) -> Result<()> {
        change::move_to(self.core(), &mut Implicit(self.core()), from, to)
    }

    /// Exchanges the blocks that two slots own, if any.
    ///
    /// # Errors
    ///
    /// [`Error::SlotForeign`]. Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// Atomic. Cost: as that of [`move_to`](Heap::move_to).
    pub fn swap<T: Content + ?Sized>(&self, a: &Slot<T>, b: &Slot<T>) -> Result<()> {
        change::swap(self.core(), &mut Implicit(self.core()), a, b)
    }

    /// Sets a versioned cell to `value`, at most [`VersionedCell::VALUE_MAX`].
    ///
    /// # Errors
    ///
    /// [`Error::SlotForeign`] if the cell lies in no live block of this heap, [`Error::Invalid`] for a larger value.
    /// Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// After return the value is durable; after a crash before that, the cell holds the old value or the new one. Cost: 1
    /// line flush, 1 fence, and its part of a round; under [`Policy::Eager`](crate::Policy::Eager) 3 and 3.
    pub fn set(&self, cell: &VersionedCell, value: u64) -> Result<()> {
        change::set(self.core(), &mut Implicit(self.core()), cell, value)
    }
}
