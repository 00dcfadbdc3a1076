//! What there is to know of an open heap: its blocks, its figures, its map, whether it is whole.

use pmalloc_persist::Medium;

use super::handle::Heap;
#[cfg(doc)]
use crate::Error;
use crate::{
    core::Block,
    error::Result,
    inspect::{Blocks, CheckReport, HeapMap, Stats, check, map, stats},
    value::Slot,
};

impl<M: Medium + 'static> Heap<M> {
    /// The live block that starts at byte `offset`, which another thread may free meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::NotLive`] if none does, [`Error::Forked`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let heap = pmalloc::Heap::create(dir.path().join("heap"))?;
    /// let slots = heap.slots("slots", 1)?;
    /// heap.alloc_to(&slots[0], std::alloc::Layout::new::<[u8; 100]>())?;
    /// let block = heap.block_of(&slots[0])?.expect("the slot is full");
    /// assert!(block.usable_bytes >= 100);
    /// assert_eq!(heap.block_at(block.offset)?, block);
    /// heap.free_from(&slots[0])?;
    /// assert!(heap.block_at(block.offset).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn block_at(&self, offset: u64) -> Result<Block> {
        self.core().check_process()?;
        self.core().block_at(offset)
    }

    /// The block that `slot` owns, or `None` if it is empty; another thread may change that meanwhile.
    ///
    /// It says where the block is and asks for no guard, as it lends nothing: [`Slot::get`] lends the bytes.
    ///
    /// # Errors
    ///
    /// [`Error::SlotForeign`]; [`Error::NotLive`] or
    /// [`Error::Corrupted`] if the slot's word is damaged;
    /// [`Error::Forked`].
    pub fn block_of<T: ?Sized>(&self, slot: &Slot<T>) -> Result<Option<Block>> {
        let core = self.core();
        core.check_process()?;
        core.place_of(slot)?;
        core.owned_block(slot.cell())
    }

    /// What the heap holds and costs.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file can't be asked for its size, [`Error::Forked`].
    pub fn stats(&self) -> Result<Stats> {
        self.core().check_process()?;
        stats::stats(self.core())
    }

    /// The live blocks in address order, found as the iterator goes: it holds no lock and keeps no list.
    ///
    /// Blocks that other threads allocate or free meanwhile may be among them or not. In a forked child there are none.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let heap = pmalloc::Heap::create(dir.path().join("heap"))?;
    /// let slots = heap.slots("slots", 2)?;
    /// heap.alloc_to(&slots[0], std::alloc::Layout::new::<[u8; 100]>())?;
    /// let large = heap.iter().filter(|block| block.usable_bytes >= 100).count();
    /// assert_eq!((heap.iter().count(), large), (2, 1));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn iter(&self) -> Blocks<'_, M> {
        Blocks::new(self.core())
    }

    /// Every live block at once, in address order. Blocks that other threads allocate or free meanwhile may be listed or not.
    #[must_use]
    pub fn blocks(&self) -> Vec<Block> {
        self.iter().collect()
    }

    /// What each part of the heap is. Blocks that other threads allocate or free meanwhile are counted or not. In a forked
    /// child there is no part.
    #[must_use]
    pub fn map(&self) -> HeapMap {
        if self.is_forked() {
            return HeapMap { parts: Vec::new() };
        }
        map::map(self.core())
    }

    /// Checks that what the heap's metadata says is consistent. Run it while no operation runs.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Forked`]; what is wrong with the heap is in the report.
    pub fn check(&self) -> Result<CheckReport> {
        self.core().check_process()?;
        check::check(self.core())
    }
}
