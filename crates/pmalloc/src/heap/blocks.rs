//! Live blocks: the one at a place, and all, one after the other, without a lock and without a list. Volatile.

use std::fmt;

use pmalloc_persist::{Mapped, Medium, Span};

use super::{Heap, Slot, core::Core, own_root, slot::SlotCell};
use crate::{
    error::Result,
    layout::geometry::{Page, PageRange},
    op,
    page_map::{SlabUse, Use},
    slab::Descriptor,
};

/// A live block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// Byte offset from the base of the heap.
    pub offset: u64,
    /// Bytes that the program may use.
    pub usable_bytes: u64,
    /// The tag it was allocated with.
    pub tag: u8,
}

impl Block {
    /// Its bytes.
    pub(crate) fn span(&self) -> Span {
        Span::new(self.offset, self.usable_bytes)
    }
}

impl<M: Medium + 'static> Heap<M> {
    /// The live block that starts at byte `offset`, which another thread may free meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::NotLive`](crate::Error::NotLive) if none does, [`Error::Forked`](crate::Error::Forked).
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
    /// [`Error::SlotForeign`](crate::Error::SlotForeign); [`Error::NotLive`](crate::Error::NotLive) or
    /// [`Error::Corrupted`](crate::Error::Corrupted) if the slot's word is damaged;
    /// [`Error::Forked`](crate::Error::Forked).
    pub fn block_of<T: ?Sized>(&self, slot: &Slot<T>) -> Result<Option<Block>> {
        let core = self.core();
        core.check_process()?;
        core.place_of(slot)?;
        core.owned_block(slot.cell())
    }
}

impl<M: Medium> Core<M> {
    /// The block that the slot owns, which lies in this heap.
    #[inline]
    pub(super) fn owned_block(&self, slot: &SlotCell) -> Result<Option<Block>> {
        let owned = || slot.read(self.medium()).place();
        let Some(mut block) = owned() else { return Ok(None) };
        loop {
            if self.root_blocks.contains(block) {
                return Err(op::owns_root(self.offset_of(slot)?));
            }
            match self.block_at(block) {
                Ok(found) => return Ok(Some(found)),
                // It was freed since the slot was read: the slot owns another block by now, or is being emptied.
                Err(error) => match owned() {
                    None => return Ok(None),
                    Some(now) if now == block => return Err(error),
                    Some(now) => block = now,
                },
            }
        }
    }

    /// The live block that starts at byte `place`.
    #[inline]
    pub(super) fn block_at(&self, place: u64) -> Result<Block> {
        let found = self.space.live_block(place)?;
        Ok(Block { offset: place, usable_bytes: found.usable_bytes(), tag: found.tag() })
    }
}

/// The live blocks of a heap in address order, made by [`Heap::iter`](super::Heap::iter).
pub struct Blocks<'h, M: Medium = Mapped> {
    core: &'h Core<M>,
    /// The next page to look at.
    page: u32,
    /// Pages that the heap had grown to.
    end: u32,
    slab: Option<InSlab>,
    /// Offsets of blocks that are left out.
    hidden: Vec<u64>,
}

/// Where the iteration is in a slab.
struct InSlab {
    entry: SlabUse,
    descriptor: Descriptor,
    next: u32,
}

impl<'h, M: Medium> Blocks<'h, M> {
    /// The program's blocks.
    pub(super) fn new(core: &'h Core<M>) -> Self {
        Self { hidden: own_root::blocks(core), ..Self::all(core) }
    }

    /// All blocks, also the heap's own.
    pub(super) fn all(core: &'h Core<M>) -> Self {
        Self { core, page: 0, end: grown_pages(core), slab: None, hidden: Vec::new() }
    }

    /// The next live block of the slab that the iteration is in.
    fn next_in_slab(&mut self) -> Option<Block> {
        let slab = self.slab.as_mut()?;
        while slab.next < slab.descriptor.blocks() {
            let block = slab.next;
            slab.next += 1;
            let is_live = slab.descriptor.live_bit(block).is_set(self.core.medium());
            // A slab may go while it is looked at, and its bits mean something else then.
            let is_slab = || self.core.space.page_map.get(slab.entry.range.start);
            if is_live && is_slab() == Use::Slab(slab.entry) {
                return Some(Block {
                    offset: slab.descriptor.block_offset(block),
                    usable_bytes: slab.entry.class.block_bytes(),
                    tag: slab.entry.tag,
                });
            }
        }
        self.slab = None;
        None
    }
}

impl<M: Medium> Iterator for Blocks<'_, M> {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        if self.core.medium().forked() {
            return None;
        }
        loop {
            let block = self.next_of_all()?;
            if !self.hidden.contains(&block.offset) {
                return Some(block);
            }
        }
    }
}

impl<M: Medium> Blocks<'_, M> {
    fn next_of_all(&mut self) -> Option<Block> {
        loop {
            if let Some(block) = self.next_in_slab() {
                return Some(block);
            }
            if self.page >= self.end {
                return None;
            }
            let page = Page(self.page);
            match self.core.space.page_map.get(page) {
                Use::Slab(entry) => {
                    let descriptor = self.core.space.descriptor(entry);
                    self.slab = Some(InSlab { entry, descriptor, next: 0 });
                    self.page = u32::try_from(entry.range.end()).unwrap_or(self.end);
                }
                Use::LargeStart(large) => {
                    self.page += large.pages;
                    let span = self.core.space.geometry.span_of(PageRange::new(page, large.pages));
                    let (offset, usable_bytes) = (span.start, span.len);
                    return Some(Block { offset, usable_bytes, tag: large.tag });
                }
                Use::Free | Use::LargeInside => self.page += 1,
            }
        }
    }
}

impl<M: Medium> fmt::Debug for Blocks<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks").field("page", &self.page).field("end", &self.end).finish()
    }
}

/// Pages below the length that the heap has grown to.
pub(super) fn grown_pages<M: Medium>(core: &Core<M>) -> u32 {
    core.space.extents.grown_pages()
}
