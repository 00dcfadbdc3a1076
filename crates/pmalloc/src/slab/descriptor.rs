//! The persistent side of a slab: its header line and its live bits.

use pmalloc_persist::{LINE_BYTES, Medium, Offset, PAGE_BYTES, Span, Word};

use super::{
    interleave::{BitIndex, Interleave, LINE_BITS},
    kind::Kind,
};
use crate::{
    error::{Error, Result},
    layout::{
        geometry::{DataMap, Geometry, Page, PageRange},
        sealed::checksum,
        slab::{SLAB_MAGIC, SlabHeader},
    },
    size_class::{BLOCK_MAX_BYTES, SLAB_PAGES_MAX, SLAB_PAGES_MIN, SizeClass},
};

/// Words of the largest bitmap: all lines of a descriptor but its header.
pub(super) const BITMAP_WORDS_MAX: usize =
    (SLAB_PAGES_MAX as usize - 1) * (LINE_BITS / u64::BITS) as usize;

/// Where a slab and its descriptor are, and how its blocks map to bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptor {
    /// First byte of the slab.
    base: u64,
    /// First byte of the descriptor.
    lines: u64,
    start: Page,
    pages: u8,
    kind: Kind,
    interleave: Interleave,
}

// Caches keep one with each of their blocks.
const _: () = assert!(size_of::<Descriptor>() == 24);

/// The word and the bit in it that say whether a block is live.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LiveBit {
    word: Offset<Word>,
    mask: u64,
}

impl Descriptor {
    /// The descriptor of the slab in `range`; nothing is read.
    pub(crate) fn new((map, stripes): (&DataMap, u32), range: PageRange, kind: Kind) -> Self {
        Self::with(map, Interleave::new(stripes, range.pages), range, kind)
    }

    /// As [`new`](Self::new), for a caller that knows how the blocks of a slab of this size map to bits.
    #[inline(always)]
    pub(crate) fn with(
        map: &DataMap,
        interleave: Interleave,
        range: PageRange,
        kind: Kind,
    ) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "a slab has at most 16 pages")]
        Self {
            base: map.page_offset(range.start),
            lines: map.descriptor_offset(range.start),
            start: range.start,
            pages: range.pages as u8,
            kind,
            interleave,
        }
    }

    /// Writes header and empty bitmap and makes them durable.
    ///
    /// # Crash consistency
    ///
    /// The bookkeeping log does not name the slab yet: whatever part of this is durable, no slab is there.
    pub(crate) fn create<M: Medium>(&self, m: &M) -> Result<()> {
        let words = m.region().array::<Word>(Offset::new(self.lines), u64::from(self.pages) * 8)?;
        for word in words {
            if m.load(word) != 0 {
                m.store(word, 0);
            }
        }
        let header = self.header(m)?;
        m.store(&header.magic, SLAB_MAGIC);
        m.store(&header.extent, self.extent_word());
        m.store(&header.class, self.class_word());
        m.store(&header.checksum, header_checksum(m, header, self.lines));
        // CRASH: see above; the caller appends the slab to the log only after this fence.
        m.persist(self.span());
        Ok(())
    }

    /// Reads the header of the slab that the log says is in `range`.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupted`] if no slab can have this range, or the header is not that of a slab in it: the header
    /// is durable before the log names the slab. [`Error::Version`] if a program that knows more wrote it.
    pub(crate) fn open<M: Medium>(m: &M, geometry: &Geometry, range: PageRange) -> Result<Self> {
        let lines = geometry.descriptor_of(range).start;
        let damaged = |what| Error::corrupted(lines, what);
        if !(SLAB_PAGES_MIN..=SLAB_PAGES_MAX).contains(&range.pages) {
            return Err(damaged("a slab has a number of pages that none can have"));
        }
        let header: &SlabHeader = m.at(Offset::new(lines))?;
        let sealed = m.load(&header.magic) == SLAB_MAGIC
            && m.load(&header.checksum) == header_checksum(m, header, lines);
        if !sealed {
            return Err(damaged("a slab header is damaged"));
        }
        let class_word = m.load(&header.class);
        // What is sealed and not known was written by a program that knows more.
        if let Some(morph) = header.morph.iter().map(|word| m.load(word)).find(|word| *word != 0) {
            return Err(Error::unknown("slabs with morphing state", morph, 0));
        }
        let block_bytes = class_word & 0xffff_ffff;
        let class = SizeClass::from_block_bytes(block_bytes)
            .ok_or_else(|| Error::unknown("slabs with blocks of", block_bytes, BLOCK_MAX_BYTES))?;
        let tag = u8::try_from(class_word >> 32)
            .map_err(|_| Error::unknown("slabs with tag", class_word >> 32, u8::MAX.into()))?;
        let slab = Self::new((&geometry.data_map(), geometry.stripes), range, Kind { class, tag });
        if m.load(&header.extent) != slab.extent_word() {
            return Err(damaged("a slab header belongs to another extent"));
        }
        if slab.blocks() == 0 {
            return Err(damaged("a slab is smaller than its blocks"));
        }
        Ok(slab)
    }

    /// The slab whose header stands in the descriptor of `page`; its pages may lie behind the end of the heap.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open), if none is whole there.
    pub(crate) fn find<M: Medium>(m: &M, geometry: &Geometry, page: Page) -> Result<Self> {
        let start = geometry.descriptor_of(PageRange::new(page, 1)).start;
        let header: &SlabHeader = m.at(Offset::new(start))?;
        let pages = u32::try_from(m.load(&header.extent) >> 32).expect("half a word");
        Self::open(m, geometry, PageRange::new(page, pages))
    }

    /// The pages of the slab.
    #[inline]
    pub(crate) fn range(&self) -> PageRange {
        PageRange::new(self.start, u32::from(self.pages))
    }

    /// Class and tag of its blocks.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The size class of its blocks.
    pub(crate) fn class(&self) -> SizeClass {
        self.kind.class
    }

    /// How its blocks map to bits.
    pub(crate) fn interleave(&self) -> Interleave {
        self.interleave
    }

    /// Blocks of the slab.
    #[inline(always)]
    pub(crate) fn blocks(&self) -> u32 {
        self.class().count(u32::from(self.pages))
    }

    /// Whether byte `offset` lies in one of its pages.
    #[inline]
    pub(crate) fn spans(&self, offset: u64) -> bool {
        offset.wrapping_sub(self.base) < u64::from(self.pages) * PAGE_BYTES
    }

    /// Byte offset of `block`.
    #[inline(always)]
    pub(crate) fn block_offset(&self, block: u32) -> u64 {
        self.base + self.class().offset_of(block)
    }

    /// The block that starts at byte `offset`, or `None` if none does.
    #[inline(always)]
    pub(crate) fn block_at(&self, offset: u64) -> Option<u32> {
        let block = self.class().exact_index_of(offset.checked_sub(self.base)?)?;
        (block < self.blocks()).then_some(block)
    }

    /// The block that contains byte `offset` of the slab, or `None` behind the last one.
    #[inline]
    pub(crate) fn block_around(&self, offset: u64) -> Option<u32> {
        let block = self.class().index_of(offset.checked_sub(self.base)?);
        (block < self.blocks()).then_some(block)
    }

    /// The live bit of `block`.
    #[inline(always)]
    pub(crate) fn live_bit(&self, block: u32) -> LiveBit {
        self.bit(self.interleave.bit_of(block))
    }

    /// The words of the bitmap, in media order.
    pub(crate) fn bitmap<'m, M: Medium>(&self, m: &'m M) -> Result<&'m [Word]> {
        let words = u64::from(self.interleave.lines(self.blocks())) * u64::from(LINE_BITS / 64);
        Ok(m.region().array(Offset::new(self.bitmap_offset()), words)?)
    }

    /// Byte offset of the bitmap.
    pub(super) fn bitmap_offset(&self) -> u64 {
        self.lines + LINE_BYTES
    }

    /// The check over the bitmap as it is.
    pub(super) fn bits_check_now<M: Medium>(&self, m: &M) -> Result<u64> {
        let mut words = [0; BITMAP_WORDS_MAX];
        let bits = self.bitmap(m)?;
        for (word, bits) in words.iter_mut().zip(bits) {
            *word = m.load(bits);
        }
        Ok(self.bits_check_of(&words[..bits.len()]))
    }

    /// The check over a bitmap with these words. Bit 32 is set, so that a word never written is no check.
    pub(super) fn bits_check_of(&self, words: &[u64]) -> u64 {
        1 << 32 | checksum(words, self.bitmap_offset())
    }

    /// The check that the last close wrote.
    pub(super) fn bits_check<'m, M: Medium>(&self, m: &'m M) -> Result<&'m Word> {
        Ok(&self.header(m)?.bits_check)
    }

    /// How many blocks are live.
    pub(crate) fn live_blocks<M: Medium>(&self, m: &M) -> u64 {
        let bits = self.bitmap(m).expect("a descriptor lies inside its heap");
        bits.iter().map(|word| u64::from(m.load(word).count_ones())).sum()
    }

    #[inline(always)]
    fn bit(&self, bit: BitIndex) -> LiveBit {
        let word = Offset::new(self.bitmap_offset() + u64::from(bit.0 / 64) * 8);
        LiveBit { word, mask: 1 << (bit.0 % 64) }
    }

    fn span(&self) -> Span {
        Span::new(self.lines, u64::from(self.pages) * LINE_BYTES)
    }

    fn header<'m, M: Medium>(&self, m: &'m M) -> Result<&'m SlabHeader> {
        Ok(m.at(Offset::new(self.lines))?)
    }

    fn extent_word(&self) -> u64 {
        u64::from(self.start.0) | u64::from(self.pages) << 32
    }

    fn class_word(&self) -> u64 {
        self.class().block_bytes() | u64::from(self.kind.tag) << 32
    }
}

impl LiveBit {
    /// Whether the block is live.
    #[inline(always)]
    pub(crate) fn is_set<M: Medium>(self, m: &M) -> bool {
        m.load(self.word(m)) & self.mask != 0
    }

    /// Makes the block live and flushes the bit, without fencing. Returns whether it was live before.
    #[track_caller]
    #[inline]
    pub(crate) fn set<M: Medium>(self, m: &M) -> bool {
        let word = self.word(m);
        let was_live = self.store_in(m, word, true);
        m.flush_of(word);
        was_live
    }

    /// Makes the block free and flushes the bit, without fencing. Returns whether it was live before.
    #[track_caller]
    #[inline]
    pub(crate) fn clear<M: Medium>(self, m: &M) -> bool {
        let word = self.word(m);
        let was_live = self.store_in(m, word, false);
        m.flush_of(word);
        was_live
    }

    /// Makes the block live or free, without flushing. Returns whether it was live before.
    #[track_caller]
    #[inline(always)]
    pub(crate) fn store<M: Medium>(self, m: &M, live: bool) -> bool {
        self.store_in(m, self.word(m), live)
    }

    #[track_caller]
    #[inline(always)]
    fn store_in<M: Medium>(self, m: &M, word: &Word, live: bool) -> bool {
        // CRASH: the record that names the block is durable: recovery stores the bit if it is not there yet.
        let before = if live { m.fetch_or(word, self.mask) } else { m.fetch_and(word, !self.mask) };
        before & self.mask != 0
    }

    /// Where the bit's word is, in bytes.
    #[inline(always)]
    pub(crate) fn place(self) -> u64 {
        self.word.bytes()
    }

    #[inline(always)]
    fn word<M: Medium>(self, m: &M) -> &Word {
        m.at(self.word).expect("a descriptor lies inside its heap")
    }
}

fn header_checksum<M: Medium>(m: &M, header: &SlabHeader, place: u64) -> u64 {
    let words = [
        m.load(&header.magic),
        m.load(&header.extent),
        m.load(&header.class),
        m.load(&header.morph[0]),
        m.load(&header.morph[1]),
        m.load(&header.morph[2]),
    ];
    checksum(&words, place)
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_those_of_the_slab_and_nothing_beside_them_is() {
        let map = crate::tests::small_geometry().data_map();
        for class in SizeClass::all() {
            for pages in SLAB_PAGES_MIN..=SLAB_PAGES_MAX {
                let range = PageRange::new(Page(3), pages);
                let slab = Descriptor::new((&map, 3), range, Kind { class, tag: 0 });
                let (bytes, blocks) = (class.block_bytes(), slab.blocks());
                let start = map.page_offset(range.start);
                assert_eq!(slab.block_at(start - bytes), None, "before the slab");
                assert_eq!(slab.block_around(start - 1), None, "before the slab");
                for block in [0, blocks / 2, blocks - 1] {
                    let offset = start + u64::from(block) * bytes;
                    assert_eq!(slab.block_offset(block), offset);
                    assert_eq!(slab.block_at(offset), Some(block), "{class:?} {pages}");
                    assert_eq!(slab.block_at(offset + 8), None, "inside");
                    for at in [offset, offset + 8, offset + bytes - 1] {
                        assert_eq!(slab.block_around(at), Some(block), "{class:?} {pages}");
                    }
                }
                let behind = start + u64::from(blocks) * bytes;
                assert_eq!(slab.block_at(behind), None, "{class:?} {pages}: behind the last one");
                assert_eq!(slab.block_around(behind), None, "{class:?} {pages}");
            }
        }
    }
}
