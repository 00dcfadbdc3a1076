//! The space that arenas share: the medium, the pages and who uses them.

use pmalloc_persist::{
    Medium, PAGE_BYTES, Span,
    sync::{Mutex, lock},
};
use std::collections::HashSet;

use super::{Block, LargeBlock, SmallBlock};
use crate::{
    book::{Book, Extent, LogId},
    error::{Error, Result},
    extent::Extents,
    layout::{
        book::ExtentKind,
        geometry::{DataMap, Geometry, Page, PageRange},
    },
    page_map::{PageMap, SlabUse, Use},
    size_class::SLAB_PAGES_MAX,
    slab::{Descriptor, Interleave, Kind, LiveBit},
};

/// Medium, geometry, page map, extents and book of one heap.
#[derive(Debug)]
pub(crate) struct Space<M> {
    /// Where everything persistent is.
    pub(crate) medium: M,
    /// The sizes it was created with.
    pub(crate) geometry: Geometry,
    /// Volatile: page -> use.
    pub(crate) page_map: PageMap,
    /// Volatile: the free pages.
    pub(crate) extents: Extents,
    /// The bookkeeping logs and their mirrors.
    pub(crate) book: Book,
    /// Where pages and descriptors are, computed once.
    data_map: DataMap,
    /// Likewise how the blocks of slabs map to bits.
    interleaves: [Interleave; SLAB_PAGES_MAX as usize + 1],
    /// Volatile: descriptor pages that have memory.
    backed_descriptors: Mutex<HashSet<u64>>,
}

impl<M: Medium> Space<M> {
    /// The space of a heap whose parts have been read.
    pub(crate) fn new(
        medium: M,
        geometry: Geometry,
        page_map: PageMap,
        extents: Extents,
        book: Book,
    ) -> Self {
        let backed_descriptors = Mutex::new(HashSet::new());
        let data_map = geometry.data_map();
        let interleaves = Interleave::all(geometry.stripes);
        Self {
            medium,
            geometry,
            page_map,
            extents,
            book,
            data_map,
            interleaves,
            backed_descriptors,
        }
    }

    /// Byte offset of `page`.
    #[inline]
    pub(crate) fn page_offset(&self, page: Page) -> u64 {
        self.data_map.page_offset(page)
    }

    /// The live block that starts at byte `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::NotLive`] if none does.
    pub(crate) fn live_block(&self, offset: u64) -> Result<Block> {
        match self.find_live(offset) {
            Some(block) => Ok(block),
            // Not `ok_or`, which makes the error in any case, and drops it.
            None => Err(Error::NotLive { offset }),
        }
    }

    /// The live block that starts at byte `offset`, if one does.
    pub(crate) fn find_live(&self, offset: u64) -> Option<Block> {
        match self.find_live_small(offset) {
            Some((block, _)) => Some(Block::Small(block)),
            None => self.find_large(offset).map(Block::Large),
        }
    }

    /// The live block of a slab that starts at byte `offset`, and its bit, if one does.
    ///
    /// Inlined into a free, which goes on with what is computed here.
    #[inline(always)]
    pub(crate) fn find_live_small(&self, offset: u64) -> Option<(SmallBlock, LiveBit)> {
        let found = self.page_map.slab(self.data_map.page_at(offset)?)?;
        let slab = self.descriptor(found);
        let block = SmallBlock::new(slab, slab.block_at(offset)?, LogId(u32::from(found.log)));
        let bit = block.live_bit();
        bit.is_set(&self.medium).then_some((block, bit))
    }

    /// The large block that starts at byte `offset`, if one does.
    pub(crate) fn find_large(&self, offset: u64) -> Option<LargeBlock> {
        let page = self.data_map.page_at(offset)?;
        match self.page_map.get(page) {
            Use::LargeStart(large) if offset.is_multiple_of(PAGE_BYTES) => {
                let range = PageRange::new(page, large.pages);
                let extent = Extent { range, kind: ExtentKind::Large, tag: large.tag };
                Some(LargeBlock { extent, log: LogId(u32::from(large.log)), offset })
            }
            _ => None,
        }
    }

    /// Whether a live block starts at `offset`.
    ///
    /// `near` keeps the slab of the last one, so that blocks which were allocated one after the other are told without a
    /// look at the page map. No slab may come or go between two calls.
    pub(crate) fn is_live_near(&self, offset: u64, near: &mut Option<Descriptor>) -> bool {
        if let Some(slab) = near.filter(|slab| slab.spans(offset)) {
            let block = slab.block_at(offset);
            return block.is_some_and(|block| slab.live_bit(block).is_set(&self.medium));
        }
        let Some(found) = self.find_live(offset) else { return false };
        if let Block::Small(block) = found {
            *near = Some(*block.slab());
        }
        true
    }

    /// The live block in which byte `offset` lies.
    #[inline]
    pub(crate) fn live_around(&self, offset: u64) -> Option<Span> {
        let page = self.data_map.page_at(offset)?;
        match self.page_map.get(page) {
            Use::Slab(found) => {
                let slab = self.descriptor(found);
                let block = slab.block_around(offset)?;
                let span = || Span::new(slab.block_offset(block), slab.class().block_bytes());
                slab.live_bit(block).is_set(&self.medium).then(span)
            }
            Use::LargeStart(large) => Some(self.span_of(page, large.pages)),
            Use::LargeInside(start) => {
                let Use::LargeStart(large) = self.page_map.get(start) else { return None };
                Some(self.span_of(start, large.pages))
            }
            Use::Free => None,
        }
    }

    fn span_of(&self, start: Page, pages: u32) -> Span {
        Span::new(self.page_offset(start), u64::from(pages) * PAGE_BYTES)
    }

    /// The descriptor of a slab that the page map knows.
    #[inline(always)]
    pub(crate) fn descriptor(&self, slab: SlabUse) -> Descriptor {
        let interleave = self.interleaves[slab.range.pages as usize];
        let kind = Kind { class: slab.class, tag: slab.tag };
        Descriptor::with(&self.data_map, interleave, slab.range, kind)
    }

    /// Makes a slab of `kind`, the arena's `count`-th of that kind, and logs it.
    ///
    /// # Crash consistency
    ///
    /// Memory, then header and bitmap, then the log entry, each durable before the next: a slab that the log
    /// names is always whole. A crash before the entry leaves free pages.
    pub(crate) fn create_slab(&self, log: LogId, kind: Kind, count: u32) -> Result<Descriptor> {
        let pages_max =
            u32::try_from(self.geometry.slab_bytes / PAGE_BYTES).expect("a slab is small");
        let Kind { class, tag } = kind;
        let range = self.extents.allocate(&self.medium, log, class.slab_pages(count, pages_max))?;
        let entry = SlabUse { range, class, log: log.code(), tag };
        let slab = self.descriptor(entry);
        let made = self
            .back_descriptor(range)
            .and_then(|()| slab.create(&self.medium))
            .and_then(|()| self.log_extent(log, range, ExtentKind::Slab));
        if let Err(error) = made {
            self.extents.release(&self.medium, log, range);
            return Err(error);
        }
        self.page_map.set_slab(entry);
        Ok(slab)
    }

    /// Frees the extent of the slab at `start`: durably in the log, then in the page map and the extents.
    pub(crate) fn free_extent(&self, log: LogId, start: Page) -> Result<()> {
        let (append, extent) = self.book.reserve_free(&self.medium, log, start)?;
        self.book.write(&self.medium, &append);
        // CRASH: without the entry the slab is still there, empty; with it, its pages are free.
        self.medium.fence();
        self.book.commit(append);
        self.page_map.clear(extent.range);
        self.extents.release(&self.medium, log, extent.range);
        Ok(())
    }

    fn log_extent(&self, log: LogId, range: PageRange, kind: ExtentKind) -> Result<()> {
        let append = self.book.reserve_alloc(&self.medium, log, Extent { range, kind, tag: 0 })?;
        self.book.write(&self.medium, &append);
        // CRASH: without the entry the pages are free; with it, there is an empty slab.
        self.medium.fence();
        self.book.commit(append);
        Ok(())
    }

    fn back_descriptor(&self, range: PageRange) -> Result<()> {
        let span = self.geometry.descriptor_of(range).to_pages();
        let mut backed = lock(&self.backed_descriptors);
        for page in span.start / PAGE_BYTES..span.end() / PAGE_BYTES {
            if !backed.contains(&page) {
                let page_span = Span::new(page * PAGE_BYTES, PAGE_BYTES);
                self.medium.back(page_span).map_err(Error::backing("backing slab descriptors"))?;
                backed.insert(page);
            }
        }
        Ok(())
    }
}
