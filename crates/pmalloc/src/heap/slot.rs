//! The slot: eight bytes of heap memory that own at most one block.

use pmalloc_persist::{Medium, Word, on_media};

use super::{guard::Guard, raw};
use crate::layout::slot::SlotWord;

on_media! {
    /// A persistent cell that owns at most one block.
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
    pub struct Slot: 8 {
        /// Persistent: the packed slot word.
        pub(super) word: Word,
    }
}

impl Slot {
    /// The block that the slot owns, all its usable bytes, or `None` if the slot is empty.
    ///
    /// The usable size is at least the size asked for. A slot whose word is damaged, so that it names no live
    /// block or that of a root array, reads as empty.
    ///
    /// # Panics
    ///
    /// If the slot does not lie in the guard's heap.
    #[must_use]
    pub fn get<'g, M: Medium>(&self, guard: &'g Guard<'_, M>) -> Option<&'g [u8]> {
        let core = guard.core();
        let place = self.read(core.medium()).place()?;
        if core.root_blocks.contains(place) {
            return None;
        }
        let span = core.block_span(place)?;
        core.medium().settle(span);
        raw::bytes(core, guard, span)
    }

    /// Whether the slot owns no block.
    ///
    /// # Panics
    ///
    /// If the slot does not lie in the guard's heap.
    #[must_use]
    pub fn is_empty<M: Medium>(&self, guard: &Guard<'_, M>) -> bool {
        self.read(guard.core().medium()).place().is_none()
    }

    /// Byte offset of the block that the slot owns, or `None` if it is empty.
    ///
    /// # Panics
    ///
    /// If the slot does not lie in the guard's heap.
    #[must_use]
    pub fn offset<M: Medium>(&self, guard: &Guard<'_, M>) -> Option<u64> {
        self.read(guard.core().medium()).place()
    }

    /// The slot's word.
    #[inline]
    pub(super) fn read<M: Medium>(&self, m: &M) -> SlotWord {
        SlotWord::from_bits(m.load(&self.word))
    }

    /// Stores the slot's word and flushes it, without fencing.
    #[inline]
    #[track_caller]
    pub(super) fn write<M: Medium>(&self, m: &M, value: SlotWord) {
        self.store(m, value);
        m.flush_of(&self.word);
    }

    /// Stores the slot's word, without flushing.
    #[inline]
    #[track_caller]
    pub(super) fn store<M: Medium>(&self, m: &M, value: SlotWord) {
        // CRASH: the record that names the slot and this version is durable: recovery stores the same word.
        m.store(&self.word, value.bits());
    }
}
