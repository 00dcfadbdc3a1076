//! The slot: eight bytes of heap memory that own at most one block.

use std::{fmt, marker::PhantomData};

use pmalloc_persist::{Medium, Span, Word, on_media};

use super::{Persistent, guard::Guard, raw};
use crate::layout::slot::SlotWord;

/// A persistent cell that owns at most one block.
///
/// In a forked child, which has none of the heap's memory, every slot reads as empty.
///
/// A slot lives in heap memory, is changed by heap operations only, and is never copied or moved while
/// it is full: two copies would own one block. All zero bytes are an empty slot.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use std::alloc::Layout;
///
/// let heap = pmalloc::Heap::create(dir.path().join("heap"))?;
/// let slots = heap.slots("greetings", 1)?;
/// heap.alloc_init(&slots[0], Layout::new::<[u8; 5]>(), |bytes| bytes.copy_from_slice(b"hello"))?;
/// let guard = heap.pin();
/// assert_eq!(&slots[0].get(&guard).expect("full")[..5], b"hello");
/// # Ok(())
/// # }
/// ```
#[repr(transparent)]
pub struct Slot<T: ?Sized = [u8]> {
    cell: SlotCell,
    owns: PhantomData<fn() -> Box<T>>,
}

impl<T: ?Sized> Slot<T> {
    /// An empty slot, to be moved into the heap.
    #[must_use]
    pub const fn new() -> Self {
        Self { cell: SlotCell { word: Word::new(0) }, owns: PhantomData }
    }

    /// The slot without the type of what it owns.
    #[inline]
    pub(super) fn cell(&self) -> &SlotCell {
        &self.cell
    }

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
        self.cell.read(guard.core().medium_around(self)?).place()
    }

    /// The bytes of the block that the slot owns, if it may be read through a slot.
    #[inline]
    fn owned<M: Medium>(&self, guard: &Guard<'_, M>) -> Option<Span> {
        // A word of another heap would be read as a place of this one.
        guard.core().medium_around(self)?;
        Some(guard.core().owned_block(&self.cell).ok()??.span())
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
        raw::bytes(core, guard, span)
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
        raw::value(core, guard, span)
    }
}

impl<T: ?Sized> Default for Slot<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: ?Sized> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What it owns is not read here: only a medium may look at it.
        f.write_str("Slot")
    }
}

on_media! {
    /// A slot, whatever it owns.
    pub(super) struct SlotCell: 8 {
        /// Persistent: the packed slot word.
        word: Word,
    }
}

impl SlotCell {
    /// The slot's word.
    #[inline]
    pub(super) fn read<M: Medium>(&self, m: &M) -> SlotWord {
        SlotWord::from_bits(m.load(&self.word))
    }
}
