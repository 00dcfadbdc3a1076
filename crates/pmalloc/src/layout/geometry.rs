//! Sizes chosen at create time, and the areas of the heap that follow from them.
//!
//! ```text
//! page 0, 1     superblock, two copies
//! page 2        state
//! page 3        log roots, one line per log
//! root table    roots x 128 bytes
//! directory     lanes x 8 bytes
//! lanes         lanes x (header line, 8 mark lines, ring)
//! book          chunks of the bookkeeping logs, handed out from the front
//! descriptors   one line per page of the data area
//! data          slabs and page-granular extents
//! ```
//!
//! Every area starts on a page; all but the first four pages are sparse, so a large capacity costs
//! address space, not memory.

use core::fmt;

use pmalloc_persist::{LINE_BYTES, Offset, PAGE_BYTES, Span, Word};

use super::{
    book::{CHUNK_MIN_BYTES, LogRoot},
    lane::{LaneHeader, MARK_LINES, RECORD_BYTES},
    root::RootEntry,
};

/// Largest heap, in bytes: the record's 40-bit block field counts 16-byte units.
pub(crate) const HEAP_MAX_BYTES: u64 = 1 << 44;

/// Fewest ring places of a lane that production uses; the explorer goes below it.
pub(crate) const RING_PLACES: u32 = 512;

/// Lanes in the directory of a production heap.
pub(crate) const LANES: u32 = 1024;

/// Named roots of a production heap.
pub(crate) const ROOTS: u32 = 1024;

/// Bytes of the largest slab of a production heap.
pub(crate) const SLAB_BYTES: u64 = 64 << 10;

/// Bytes of a bookkeeping chunk of a production heap.
pub(crate) const CHUNK_BYTES: u64 = 4096;

/// Most bookkeeping logs: their roots share one page.
#[allow(clippy::cast_possible_truncation, reason = "64")]
pub(crate) const LOGS_MAX: u32 = (PAGE_BYTES / LINE_BYTES) as u32;

/// Most bitmap stripes: a descriptor's lines but for its header.
pub(crate) const STRIPES_MAX: u32 = 15;

/// Index of a 4 KiB page in the data area.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Page(pub(crate) u32);

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P{}", self.0)
    }
}

/// A run of pages of the data area.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PageRange {
    /// The first page.
    pub(crate) start: Page,
    /// How many pages.
    pub(crate) pages: u32,
}

impl PageRange {
    /// `pages` pages from `start` on.
    pub(crate) const fn new(start: Page, pages: u32) -> Self {
        Self { start, pages }
    }

    /// Index of the page behind the last one; wider than a page index, as hostile ranges may wrap.
    pub(crate) const fn end(self) -> u64 {
        self.start.0 as u64 + self.pages as u64
    }

    /// The first `pages` pages, or all if there are fewer.
    pub(crate) fn first(self, pages: u32) -> Self {
        Self::new(self.start, self.pages.min(pages))
    }

    /// What lies behind the first `pages` pages, none if there are fewer.
    pub(crate) fn without_first(self, pages: u32) -> Self {
        let skipped = self.pages.min(pages);
        Self::new(Page(self.start.0 + skipped), self.pages - skipped)
    }
}

/// Sizes fixed when a heap is created.
///
/// Production heaps differ in capacity, logs and stripes only; tests shrink the rest, so that a full ring or
/// a full chunk is a few operations away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Bytes of the data area, a multiple of `slab_bytes`.
    pub(crate) capacity_bytes: u64,
    /// Bytes of the largest slab: a power of two, at least four pages.
    pub(crate) slab_bytes: u64,
    /// Records in a lane's ring: even, at least 4.
    pub(crate) ring_places: u32,
    /// Lanes in the directory, at least 1.
    pub(crate) lanes: u32,
    /// Bytes of a bookkeeping chunk: a multiple of a line that divides a page.
    pub(crate) chunk_bytes: u64,
    /// Bookkeeping logs, one per arena.
    pub(crate) logs: u32,
    /// Entries of the root table.
    pub(crate) roots: u32,
    /// Bitmap stripes of a slab, 1 = no interleaving.
    pub(crate) stripes: u32,
}

impl Geometry {
    /// Whether every size lies in the range that the format allows; all arithmetic below relies on it.
    pub(crate) fn is_valid(&self) -> bool {
        let slab = self.slab_bytes;
        let chunk = self.chunk_bytes;
        slab.is_power_of_two()
            && (4 * PAGE_BYTES..=1 << 20).contains(&slab)
            && (slab..=HEAP_MAX_BYTES).contains(&self.capacity_bytes)
            && self.capacity_bytes.is_multiple_of(slab)
            && (4..=4096).contains(&self.ring_places)
            && self.ring_places.is_multiple_of(2)
            && (1..=4096).contains(&self.lanes)
            && (CHUNK_MIN_BYTES..=PAGE_BYTES).contains(&chunk)
            && PAGE_BYTES.is_multiple_of(chunk)
            && (1..=LOGS_MAX).contains(&self.logs)
            && (1..=1 << 16).contains(&self.roots)
            && (1..=STRIPES_MAX).contains(&self.stripes)
            && self.heap_bytes() <= HEAP_MAX_BYTES
    }

    /// Bytes of one lane: header, marks and ring, whole pages.
    pub(crate) fn lane_bytes(&self) -> u64 {
        let ring = u64::from(self.ring_places) * RECORD_BYTES;
        (size_of::<LaneHeader>() as u64 + MARK_LINES * LINE_BYTES + ring)
            .next_multiple_of(PAGE_BYTES)
    }

    /// Bytes that the book may occupy: room for two entries per data page, rounded to pages.
    pub(crate) fn book_bytes(&self) -> u64 {
        (self.capacity_bytes / 64).max(64 * self.chunk_bytes).next_multiple_of(PAGE_BYTES)
    }

    /// Pages of the data area.
    pub(crate) fn data_pages(&self) -> u64 {
        self.capacity_bytes / PAGE_BYTES
    }

    /// The second superblock copy; the first stands at offset zero.
    pub(crate) const fn second_superblock() -> u64 {
        PAGE_BYTES
    }

    /// The state page.
    pub(crate) const fn state() -> u64 {
        2 * PAGE_BYTES
    }

    /// The log roots.
    pub(crate) const fn log_roots() -> Offset<LogRoot> {
        Offset::new(3 * PAGE_BYTES)
    }

    /// The root table.
    pub(crate) const fn root_table() -> Offset<RootEntry> {
        Offset::new(4 * PAGE_BYTES)
    }

    /// The bytes of the root table.
    pub(crate) fn root_span(&self) -> Span {
        let len = u64::from(self.roots) * size_of::<RootEntry>() as u64;
        Span::new(Self::root_table().bytes(), len.next_multiple_of(PAGE_BYTES))
    }

    /// The lane directory.
    pub(crate) fn directory(&self) -> Offset<Word> {
        Offset::new(self.root_span().end())
    }

    /// The bytes of the lane directory.
    pub(crate) fn directory_span(&self) -> Span {
        let len = u64::from(self.lanes) * size_of::<Word>() as u64;
        Span::new(self.directory().bytes(), len.next_multiple_of(PAGE_BYTES))
    }

    /// The bytes of lane `index`.
    pub(crate) fn lane_span(&self, index: u32) -> Span {
        let start = self.directory_span().end() + u64::from(index) * self.lane_bytes();
        Span::new(start, self.lane_bytes())
    }

    /// The bytes of the book.
    pub(crate) fn book_span(&self) -> Span {
        Span::new(self.lane_span(self.lanes).start, self.book_bytes())
    }

    /// The bytes of the descriptors.
    pub(crate) fn descriptor_span(&self) -> Span {
        let len = (self.capacity_bytes / 64).next_multiple_of(PAGE_BYTES);
        Span::new(self.book_span().end(), len)
    }

    /// The bytes of the data area.
    pub(crate) fn data_span(&self) -> Span {
        let start = self.descriptor_span().end().next_multiple_of(self.slab_bytes);
        Span::new(start, self.capacity_bytes)
    }

    /// Where pages and their descriptors are.
    pub(crate) fn data_map(&self) -> DataMap {
        DataMap {
            data: self.data_span().start,
            descriptors: self.descriptor_span().start,
            capacity_bytes: self.capacity_bytes,
        }
    }

    /// Offset of `page`.
    pub(crate) fn page_offset(&self, page: Page) -> u64 {
        self.data_map().page_offset(page)
    }

    /// The bytes of `range`.
    pub(crate) fn span_of(&self, range: PageRange) -> Span {
        Span::new(self.page_offset(range.start), u64::from(range.pages) * PAGE_BYTES)
    }

    /// The page that holds byte `offset`, or `None` if it lies outside the data area.
    pub(crate) fn page_at(&self, offset: u64) -> Option<Page> {
        self.data_map().page_at(offset)
    }

    /// The descriptor lines of `range`: one line per page, header first.
    pub(crate) fn descriptor_of(&self, range: PageRange) -> Span {
        let start = self.data_map().descriptor_offset(range.start);
        Span::new(start, u64::from(range.pages) * LINE_BYTES)
    }

    /// Bytes of the whole heap, metadata included.
    pub(crate) fn heap_bytes(&self) -> u64 {
        self.data_span().end()
    }
}

/// Where pages and their descriptors are: the part of a [`Geometry`] that every operation needs, computed once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DataMap {
    data: u64,
    descriptors: u64,
    capacity_bytes: u64,
}

impl DataMap {
    /// Offset of `page`.
    #[inline]
    pub(crate) fn page_offset(&self, page: Page) -> u64 {
        self.data + u64::from(page.0) * PAGE_BYTES
    }

    /// Offset of the descriptor line of `page`.
    #[inline]
    pub(crate) fn descriptor_offset(&self, page: Page) -> u64 {
        self.descriptors + u64::from(page.0) * LINE_BYTES
    }

    /// The page that holds byte `offset`, or `None` if it lies outside the data area.
    #[inline]
    pub(crate) fn page_at(&self, offset: u64) -> Option<Page> {
        let distance = offset.wrapping_sub(self.data);
        if distance >= self.capacity_bytes {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, reason = "a heap has at most 2^32 pages")]
        Some(Page((distance / PAGE_BYTES) as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_follow_each_other_without_overlap() {
        let geometry = crate::tests::small_geometry();
        assert!(geometry.is_valid());
        let spans = [
            Span::new(0, 4 * PAGE_BYTES),
            geometry.root_span(),
            geometry.directory_span(),
            geometry.lane_span(0),
            geometry.lane_span(geometry.lanes - 1),
            geometry.book_span(),
            geometry.descriptor_span(),
            geometry.data_span(),
        ];
        for pair in spans.windows(2) {
            assert!(pair[0].end() <= pair[1].start, "{pair:?}");
            assert!(pair[1].start.is_multiple_of(PAGE_BYTES));
        }
    }
}
