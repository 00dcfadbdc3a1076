//! All live blocks, one after the other, without a lock and without a list. Volatile.

use std::fmt;

use pmalloc_persist::{Mapped, Medium};

use crate::{
    core::{Block, Core},
    layout::geometry::{Page, PageRange},
    page_map::{SlabUse, Use},
    root::own,
    slab::Descriptor,
};

/// The live blocks of a heap in address order, made by [`Heap::iter`](crate::Heap::iter).
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
    pub(crate) fn new(core: &'h Core<M>) -> Self {
        Self { hidden: own::blocks(core), ..Self::all(core) }
    }

    /// All blocks, also the heap's own.
    pub(crate) fn all(core: &'h Core<M>) -> Self {
        Self {
            core,
            page: 0,
            end: core.space.extents.grown_pages(),
            slab: None,
            hidden: Vec::new(),
        }
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
                Use::Free | Use::LargeInside(_) => self.page += 1,
            }
        }
    }
}

impl<M: Medium> fmt::Debug for Blocks<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks").field("page", &self.page).field("end", &self.end).finish()
    }
}
