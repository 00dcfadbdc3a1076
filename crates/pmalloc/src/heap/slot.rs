//! What slots own, seen under a guard.

use pmalloc_persist::{Medium, Span};

use super::guard::Guard;
use crate::value::{PPtr, Persistent, Slot, raw};

impl<T: ?Sized> Slot<T> {
    /// Whether the slot owns no block.
    ///
    /// # Panics
    ///
    /// If the slot does not lie in the guard's heap.
    #[must_use]
    pub fn is_empty<M: Medium>(&self, guard: &Guard<'_, M>) -> bool {
        self.offset(guard).is_none()
    }

    /// Byte offset of the block that the slot owns, or `None` if it is empty.
    ///
    /// # Panics
    ///
    /// If the slot does not lie in the guard's heap.
    #[must_use]
    pub fn offset<M: Medium>(&self, guard: &Guard<'_, M>) -> Option<u64> {
        self.cell().read(guard.core().medium_around(self)?).place()
    }

    /// The bytes of the block that the slot owns, if it may be read through a slot.
    #[inline]
    fn owned<M: Medium>(&self, guard: &Guard<'_, M>) -> Option<Span> {
        // A word of another heap would be read as a place of this one.
        guard.core().medium_around(self)?;
        Some(guard.core().owned_block(self.cell()).ok()??.span())
    }

    /// A pointer to the block that the slot owns, null if it is empty.
    ///
    /// # Panics
    ///
    /// If the slot does not lie in the guard's heap.
    #[must_use]
    pub fn pptr<M: Medium>(&self, guard: &Guard<'_, M>) -> PPtr<T> {
        PPtr::from_offset(self.offset(guard).unwrap_or(0))
    }
}

impl Slot {
    /// The block that the slot owns, all its usable bytes, or `None` if the slot is empty.
    ///
    /// The usable size is at least the size asked for. A slot whose word is damaged, so that it names no live
    /// block or that of a root, reads as empty.
    ///
    /// # Panics
    ///
    /// If the slot does not lie in the guard's heap.
    #[must_use]
    pub fn get<'g, M: Medium>(&self, guard: &'g Guard<'_, M>) -> Option<&'g [u8]> {
        let core = guard.core();
        let span = self.owned(guard)?;
        core.medium().settle(span);
        raw::bytes(core.medium(), guard, span)
    }
}

impl<T: Persistent> Slot<T> {
    /// The value that the slot owns, or `None` if the slot is empty.
    ///
    /// A slot whose word is damaged, so that it names no live block, one that is too small for a `T`, or that of a root,
    /// reads as empty.
    ///
    /// # Panics
    ///
    /// If the slot does not lie in the guard's heap.
    #[must_use]
    pub fn get<'g, M: Medium>(&self, guard: &'g Guard<'_, M>) -> Option<&'g T> {
        let core = guard.core();
        let span = self.owned(guard)?;
        raw::value(core.medium(), guard, span)
    }
}
