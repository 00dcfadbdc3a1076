//! Blocks that nothing owns: listed, given to a slot, or freed.

use pmalloc_persist::Medium;

use super::handle::Heap;
#[cfg(doc)]
use crate::Error;
use crate::{
    core::{Block, Implicit},
    error::Result,
    inspect::orphans,
    value::{Content, Slot},
};

impl<M: Medium + 'static> Heap<M> {
    /// The live blocks that nothing owns, in the order of their offsets.
    ///
    /// A block counts as owned where that can't be excluded: if a word names it of which nothing is known. See
    /// [`declare_slots`](Heap::declare_slots). No slot changes meanwhile: other operations wait.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupted`] if the root table is damaged; [`Error::Io`], [`Error::Forked`].
    pub fn orphans(&self) -> Result<Vec<Block>> {
        orphans::list(self.core())
    }

    /// Gives the block at byte `offset`, which nothing owns, to the empty `slot`.
    ///
    /// The block holds what it held. If the slot is for values of a type, the block has to be large enough for one, and
    /// what the slots in it own must be owned by nothing else; that the bytes mean such a value is the program's to know.
    ///
    /// As long as a survey of the whole heap takes, no slot changes: other operations wait.
    ///
    /// # Errors
    ///
    /// [`Error::NotLive`] if no live block starts there; [`Error::Owned`] if a slot owns it, or a word of which nothing is
    /// known may; [`Error::Pinned`] while a guard lives, as one may show what was owned before; [`Error::SlotFull`],
    /// [`Error::SlotForeign`]; [`Error::Corrupted`] if the block is none for the slot's type, or the root table is damaged;
    /// [`Error::Io`]. Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// After return it is durable that the slot owns the block; after a crash before that, the slot or nothing does.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use pmalloc::Heap;
    ///
    /// let heap = Heap::create(dir.path().join("heap"))?;
    /// let slots = heap.slots("slots", 1)?;
    /// for orphan in heap.orphans()? {
    ///     heap.adopt(orphan.offset, &slots[0])?;
    ///     // What it is can be read now, and it can be moved to where it belongs, or freed:
    ///     heap.free_from(&slots[0])?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn adopt<T: Content + ?Sized>(&self, offset: u64, slot: &Slot<T>) -> Result<()> {
        orphans::adopt(self.core(), &mut Implicit(self.core()), offset, slot)
    }

    /// Frees the block at byte `offset`, which nothing owns. What slots in it own is owned by nothing then.
    ///
    /// # Errors
    ///
    /// As [`adopt`](Heap::adopt), but for those of its slot; and as [`slots`](Heap::slots).
    ///
    /// # Crash consistency
    ///
    /// After return the free is durable; after a crash before that, the block is live or free.
    pub fn free_orphan(&self, offset: u64) -> Result<()> {
        orphans::free(self.core(), &mut Implicit(self.core()), offset)
    }

    /// Frees the blocks with this tag that nothing owns, and those that nothing owns then; returns how many.
    ///
    /// # Errors
    ///
    /// As [`free_orphan`](Heap::free_orphan), but for those of a block. Those that were freed before the error stay so.
    ///
    /// # Crash consistency
    ///
    /// Each is freed by itself: after a crash before the return, some are.
    pub fn free_orphans_with_tag(&self, tag: u8) -> Result<u64> {
        orphans::free_with_tag(self.core(), &mut Implicit(self.core()), tag)
    }
}
