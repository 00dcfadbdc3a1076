//! The slot: eight bytes of heap memory that own at most one block.

use std::{fmt, marker::PhantomData};

use pmalloc_persist::{Medium, Word, on_media};

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
    pub(crate) fn cell(&self) -> &SlotCell {
        &self.cell
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
    pub(crate) struct SlotCell: 8 {
        /// Persistent: the packed slot word.
        word: Word,
    }
}

impl SlotCell {
    /// The slot's word.
    #[inline]
    pub(crate) fn read<M: Medium>(&self, m: &M) -> SlotWord {
        SlotWord::from_bits(m.load(&self.word))
    }
}
