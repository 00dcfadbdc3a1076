//! What is safe only by what the caller guarantees: heaps on media of which others keep handles, the words of a heap, and
//! slots and cells that stand where the program says.
//!
//! Volatile. Tools that look into a heap call this: explorers, benchmarks, the C library.
#![allow(unsafe_code)]

use pmalloc_persist::{Medium, Offset};

use super::{handle::Heap, options::HeapOptions};
use crate::{
    core::Core,
    error::{Error, Result},
    value::{Slot, VersionedCell, raw, slot::SlotCell, versioned_cell::CellImage},
};

impl HeapOptions {
    /// As [`create_on`](Self::create_on), on a medium of which others have handles: an `Arc`, a simulator.
    ///
    /// # Errors
    ///
    /// As [`create_on`](Self::create_on).
    ///
    /// # Safety
    ///
    /// Until the heap is closed and all that it lent is gone:
    ///
    /// 1. Through other handles the medium's memory is only read. Whoever stores to it, or punches it, as a test that
    ///    damages a heap does, sees to it that no reference of the heap's shows what changes, and answers for what the heap
    ///    makes of it.
    /// 2. No other heap is served from the memory. Where the medium can tell, the other one is refused.
    pub unsafe fn create_on_shared<M: Medium + 'static>(&self, medium: M) -> Result<Heap<M>> {
        self.create_on_medium(medium)
    }

    /// As [`open_on`](Self::open_on), on a medium of which others have handles: an `Arc`, a simulator.
    ///
    /// # Errors
    ///
    /// As [`open_on`](Self::open_on).
    ///
    /// # Safety
    ///
    /// As for [`create_on_shared`](Self::create_on_shared).
    pub unsafe fn open_on_shared<M: Medium + 'static>(&self, medium: M) -> Result<Heap<M>> {
        self.open_on_medium(medium)
    }
}

impl<M: Medium + 'static> Heap<M> {
    /// The medium that the heap lies on, with all its words. What there is to know about it is in [`media`](Heap::media).
    ///
    /// # Safety
    ///
    /// As for [`create_on_shared`](HeapOptions::create_on_shared): the medium is a handle that others have.
    #[must_use]
    pub unsafe fn medium(&self) -> &M {
        self.core().medium()
    }

    /// The slot at byte `offset`, which stands in a block or root of bytes.
    ///
    /// In values of a program's types slots are found by their names and without a promise: see
    /// [`Persistent`](crate::Persistent).
    ///
    /// # Errors
    ///
    /// [`Error::SlotForeign`] if `offset` is no multiple of 8 or lies in no live block, [`Error::Forked`].
    ///
    /// # Safety
    ///
    /// 1. The eight bytes were zero when the block or root was made, and were written by nothing but operations on slots
    ///    since. They lie in no value of a [`Persistent`](crate::Persistent) type.
    /// 2. No `&[u8]` of the block is used any more when the slot is changed: [`Slot::get`] lends all bytes of a block,
    ///    those of its slots, too.
    /// 3. The block is not freed, and the root not removed, while the reference is used; or a [`Guard`](super::Guard) lives
    ///    that was made before.
    pub unsafe fn slot_at(&self, offset: u64) -> Result<&Slot> {
        let cell: &SlotCell = word_at(self.core(), offset)?;
        Ok(raw::slot(cell))
    }

    /// The versioned cell at byte `offset`, which stands in a block or root of bytes.
    ///
    /// In roots of bytes [`root_cell`](Heap::root_cell) finds cells without a promise.
    ///
    /// # Errors
    ///
    /// As [`slot_at`](Heap::slot_at).
    ///
    /// # Safety
    ///
    /// As for [`slot_at`](Heap::slot_at), but that the bytes may hold a value that they were written with.
    pub unsafe fn cell_at(&self, offset: u64) -> Result<&VersionedCell> {
        let cell: &CellImage = word_at(self.core(), offset)?;
        Ok(raw::cell(cell))
    }
}

/// The word at byte `offset` of a live block.
fn word_at<M: Medium, T: pmalloc_persist::OnMedia>(core: &Core<M>, offset: u64) -> Result<&T> {
    core.check_process()?;
    core.check_live(offset)?;
    core.medium().at(Offset::new(offset)).map_err(|_| Error::SlotForeign)
}
