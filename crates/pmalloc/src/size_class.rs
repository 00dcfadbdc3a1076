//! Size classes: which block size serves a request, and how many blocks a slab of it holds.
//!
//! Everything here is a pure function of constants and is called on the hot path: a class is found by one
//! table look-up, the index of a block by one multiplication. The spacing and the slab sizes were chosen by
//! replaying traces of real programs; `docs/size-classes.md` holds the figures.
//!
//! Media names a class by its block size, never by its number, so that the table may change.

use pmalloc_persist::PAGE_BYTES;

/// Every block size is a multiple of this.
const GRANULE_BYTES: u64 = 16;

/// Up to here the classes are one granule apart.
const EXACT_MAX_BYTES: u64 = 256;

/// Beyond [`EXACT_MAX_BYTES`], classes between a power of two and the next.
const PER_DOUBLING: u64 = 8;

/// Largest block size: beyond, whole pages waste less than slabs do.
pub(crate) const BLOCK_MAX_BYTES: u64 = 14 << 10;

/// Largest alignment that a request may have.
pub(crate) const ALIGN_MAX_BYTES: u64 = PAGE_BYTES;

/// Fewest pages of a slab: a header line and three bitmap lines, so that the bits of blocks freed one out of two still lie
/// in more than one line.
pub(crate) const SLAB_PAGES_MIN: u32 = 4;

/// Most pages of a slab, whatever the geometry allows: the page map counts them in four bits.
pub(crate) const SLAB_PAGES_MAX: u32 = 16;

/// Slabs of one class in one arena after which the next slab is a page larger.
const SLABS_PER_STEP: u32 = 2;

/// Waste at the end of a slab is compared in thousandths of a byte per page.
const WASTE_UNIT: u64 = 1000;

/// Waste at the end of a slab, two in a hundred, above which a slab of another size is looked for.
const TAIL_MAX_WASTE: u64 = PAGE_BYTES * WASTE_UNIT * 2 / 100;

/// Bytes of blocks that a thread keeps of one class.
const CACHE_BYTES: u64 = 16 << 10;

/// Blocks that a thread keeps of one class at most.
const CACHE_MAX_BLOCKS: u64 = 256;

/// Binary places of the reciprocals; [`SizeClass::block_at`] says why they are enough.
const RECIPROCAL_SHIFT: u32 = 40;

/// Offsets in a slab that [`SizeClass::index_of`] accepts.
const OFFSET_LIMIT: u64 = 1 << 20;

/// A size class, named by its number in ascending order of block size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SizeClass(u8);

impl SizeClass {
    /// How many classes there are.
    pub(crate) const COUNT: usize = count_classes();

    /// The smallest class that serves `size` bytes aligned to `align`, or `None` if only whole pages do.
    #[inline]
    pub(crate) fn of(size: u64, align: u64) -> Option<Self> {
        debug_assert!(size >= 1 && align.is_power_of_two() && align <= ALIGN_MAX_BYTES);
        let granules = usize::try_from(size.div_ceil(GRANULE_BYTES)).ok()?;
        let class = Self(*CLASS_OF_GRANULES.get(granules)?);
        if align <= GRANULE_BYTES { Some(class) } else { class.aligned(align) }
    }

    /// The class with number `index`.
    #[inline]
    pub(crate) fn from_index(index: usize) -> Option<Self> {
        if index < Self::COUNT { u8::try_from(index).ok().map(Self) } else { None }
    }

    /// The class with blocks of exactly `bytes`; this is how a class is read from media.
    pub(crate) fn from_block_bytes(bytes: u64) -> Option<Self> {
        let class = Self(*CLASS_OF_GRANULES.get(usize::try_from(bytes / GRANULE_BYTES).ok()?)?);
        (class.block_bytes() == bytes).then_some(class)
    }

    /// Every class, in ascending order of block size.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).filter_map(Self::from_index)
    }

    /// The class's number, for tables with one entry per class.
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// Bytes of a block.
    #[inline]
    pub(crate) const fn block_bytes(self) -> u64 {
        BLOCK_BYTES[self.index()] as u64
    }

    /// Blocks in a slab of `slab_pages` pages; its bitmap lines have room for them all.
    #[inline(always)]
    pub(crate) fn count(self, slab_pages: u32) -> u32 {
        debug_assert!((SLAB_PAGES_MIN..=SLAB_PAGES_MAX).contains(&slab_pages));
        self.block_at(u64::from(slab_pages) * PAGE_BYTES)
    }

    /// Index of the block that holds byte `offset_in_slab`.
    #[inline]
    pub(crate) fn index_of(self, offset_in_slab: u64) -> u32 {
        self.block_at(offset_in_slab)
    }

    /// Index of the block that starts at byte `offset_in_slab`, or `None` if none does.
    #[inline]
    pub(crate) fn exact_index_of(self, offset_in_slab: u64) -> Option<u32> {
        let index = self.index_of(offset_in_slab);
        (self.offset_of(index) == offset_in_slab).then_some(index)
    }

    /// Byte in the slab at which block `index` starts.
    #[inline]
    pub(crate) const fn offset_of(self, index: u32) -> u64 {
        index as u64 * self.block_bytes()
    }

    /// Pages of an arena's slab of this class when it has `slabs_before` of them already: the first ones
    /// are small, so that a class used little costs little, the later ones save slab creations.
    ///
    /// `pages_max` is what the geometry allows, at least four.
    pub(crate) fn slab_pages(self, slabs_before: u32, pages_max: u32) -> u32 {
        let pages_max = pages_max.min(SLAB_PAGES_MAX);
        let wanted = SLAB_PAGES_MIN.saturating_add(slabs_before / SLABS_PER_STEP).min(pages_max);
        let fewest = wanted.max(self.block_pages());
        debug_assert!(fewest <= pages_max, "a block of {self:?} does not fit a slab");
        let smaller = (fewest - fewest / 4).max(self.block_pages()).max(SLAB_PAGES_MIN)..fewest;
        let candidates = (fewest..=pages_max).chain(smaller.rev());
        let waste = |&pages: &u32| self.tail_bytes(pages) * WASTE_UNIT / u64::from(pages);
        let tight = candidates.clone().find(|pages| waste(pages) <= TAIL_MAX_WASTE);
        tight.or_else(|| candidates.min_by_key(waste)).unwrap_or(fewest)
    }

    /// Blocks of this class that a thread keeps for itself at most.
    pub(crate) fn cache_max(self) -> u32 {
        let blocks = (CACHE_BYTES / self.block_bytes()).clamp(1, CACHE_MAX_BLOCKS);
        u32::try_from(blocks).expect("clamped to a small constant")
    }

    /// Pages that one block touches.
    fn block_pages(self) -> u32 {
        u32::try_from(self.block_bytes().div_ceil(PAGE_BYTES)).expect("a block has few pages")
    }

    /// Bytes at the end of a slab that belong to no block.
    fn tail_bytes(self, slab_pages: u32) -> u64 {
        u64::from(slab_pages) * PAGE_BYTES - self.offset_of(self.count(slab_pages))
    }

    /// The smallest class from this one on whose blocks are all aligned to `align`.
    #[cold]
    fn aligned(self, align: u64) -> Option<Self> {
        (self.index()..Self::COUNT)
            .filter_map(Self::from_index)
            .find(|class| class.block_bytes().is_multiple_of(align))
    }

    /// `offset / block_bytes` by a reciprocal.
    ///
    /// Exact: with `r = ceil(2^40 / b)` the product exceeds `offset * 2^40 / b` by less than `offset`, that
    /// is the quotient by less than `2^20 / 2^40`, and a quotient that is not whole lies at least
    /// `1 / b > 2^-14` below the next whole number.
    #[inline]
    fn block_at(self, offset: u64) -> u32 {
        debug_assert!(offset < OFFSET_LIMIT);
        ((offset * RECIPROCALS[self.index()]) >> RECIPROCAL_SHIFT) as u32
    }
}

impl core::fmt::Debug for SizeClass {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "C{}", self.block_bytes())
    }
}

/// Block size of each class.
const BLOCK_BYTES: [u16; SizeClass::COUNT] = block_bytes();

/// Sizes in granules that have a class, zero included.
#[expect(clippy::cast_possible_truncation, reason = "the largest block size is below 2^16")]
const SIZES: usize = (BLOCK_MAX_BYTES / GRANULE_BYTES + 1) as usize;

/// Class of a request, by its size in granules rounded up.
const CLASS_OF_GRANULES: [u8; SIZES] = class_of_granules();

/// Reciprocal of each block size, rounded up.
const RECIPROCALS: [u64; SizeClass::COUNT] = reciprocals();

/// The block size behind `bytes`.
const fn next_block_bytes(bytes: u64) -> u64 {
    if bytes < EXACT_MAX_BYTES {
        return bytes + GRANULE_BYTES;
    }
    let doubling = 1 << bytes.ilog2();
    bytes + doubling / PER_DOUBLING
}

const fn count_classes() -> usize {
    let mut count = 1;
    let mut bytes = GRANULE_BYTES;
    while bytes < BLOCK_MAX_BYTES {
        bytes = next_block_bytes(bytes);
        count += 1;
    }
    count
}

#[expect(clippy::cast_possible_truncation, reason = "the largest block size is below 2^16")]
const fn block_bytes() -> [u16; SizeClass::COUNT] {
    let mut table = [0; SizeClass::COUNT];
    let mut bytes = GRANULE_BYTES;
    let mut class = 0;
    while class < table.len() {
        table[class] = bytes as u16;
        bytes = next_block_bytes(bytes);
        class += 1;
    }
    table
}

const fn class_of_granules() -> [u8; SIZES] {
    let mut table = [0; SIZES];
    let mut class = 0;
    let mut granules = 0;
    while granules < table.len() {
        if BLOCK_BYTES[class as usize] as u64 / GRANULE_BYTES < granules as u64 {
            class += 1;
        }
        table[granules] = class;
        granules += 1;
    }
    table
}

const fn reciprocals() -> [u64; SizeClass::COUNT] {
    let mut table = [0; SizeClass::COUNT];
    let mut class = 0;
    while class < table.len() {
        table[class] = (1_u64 << RECIPROCAL_SHIFT).div_ceil(BLOCK_BYTES[class] as u64);
        class += 1;
    }
    table
}

const _: () = assert!(SizeClass::COUNT <= 128, "the page map has seven bits for a class");
const _: () = assert!(
    BLOCK_BYTES[SizeClass::COUNT - 1] as u64 == BLOCK_MAX_BYTES,
    "the last class is the largest block size"
);
const _: () = assert!(
    SLAB_PAGES_MAX as u64 * PAGE_BYTES < OFFSET_LIMIT,
    "an offset in a slab is in the range of the reciprocals"
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layout::{geometry::Geometry, slab::BitmapLine};

    /// The class by definition: the first that fits, found by a search through all.
    fn naive(size: u64, align: u64) -> Option<SizeClass> {
        SizeClass::all()
            .find(|class| class.block_bytes() >= size && class.block_bytes().is_multiple_of(align))
    }

    #[test]
    fn every_request_gets_the_smallest_class_that_fits() {
        for align in (0..=12).map(|shift| 1 << shift) {
            for size in 1..=BLOCK_MAX_BYTES + 1 {
                assert_eq!(SizeClass::of(size, align), naive(size, align), "{size} / {align}");
            }
            assert_eq!(SizeClass::of(u64::MAX, align), None);
        }
    }

    #[test]
    fn rounding_wastes_at_most_an_eighth_beyond_the_exact_sizes() {
        for size in EXACT_MAX_BYTES..=BLOCK_MAX_BYTES {
            let class = SizeClass::of(size, 1).expect("the size is a block's");
            assert!(class.block_bytes() - size <= size / PER_DOUBLING, "{size} in {class:?}");
        }
    }

    #[test]
    fn block_sizes_ascend_and_name_their_class() {
        let sizes: Vec<u64> = SizeClass::all().map(SizeClass::block_bytes).collect();
        assert_eq!(sizes.len(), SizeClass::COUNT);
        assert!(sizes.windows(2).all(|pair| pair[0] < pair[1]));
        for bytes in 0..=2 * BLOCK_MAX_BYTES {
            let class = SizeClass::from_block_bytes(bytes);
            assert_eq!(class.map(SizeClass::block_bytes), sizes.contains(&bytes).then_some(bytes));
        }
        assert_eq!(SizeClass::from_block_bytes(u64::MAX), None);
        assert_eq!(SizeClass::from_index(SizeClass::COUNT), None);
    }

    #[test]
    fn the_index_of_every_byte_of_every_slab_is_the_quotient() {
        for class in SizeClass::all() {
            for offset in 0..u64::from(SLAB_PAGES_MAX) * PAGE_BYTES {
                let index = offset / class.block_bytes();
                let exact = offset % class.block_bytes() == 0;
                assert_eq!(u64::from(class.index_of(offset)), index, "{class:?} {offset}");
                assert_eq!(class.exact_index_of(offset).is_some(), exact, "{class:?} {offset}");
            }
            assert_eq!(
                u64::from(class.index_of(OFFSET_LIMIT - 1)),
                (OFFSET_LIMIT - 1) / class.block_bytes()
            );
        }
    }

    #[test]
    fn the_blocks_of_every_slab_fit_it_and_its_bitmap() {
        for class in SizeClass::all() {
            for pages in SLAB_PAGES_MIN..=SLAB_PAGES_MAX {
                let count = class.count(pages);
                let bits = u64::from(pages - 1) * 8 * size_of::<BitmapLine>() as u64;
                assert!(class.offset_of(count) <= u64::from(pages) * PAGE_BYTES);
                assert!(u64::from(count) <= bits, "{class:?} in {pages} pages");
            }
        }
    }

    proptest! {
        #[test]
        fn a_slab_has_a_legal_size_and_holds_a_block(
            index in 0..SizeClass::COUNT, before in 0..=u32::MAX, shift in 14_u32..=20,
        ) {
            let class = SizeClass::from_index(index).expect("the index is in range");
            let geometry = Geometry { slab_bytes: 1 << shift, ..crate::tests::small_geometry() };
            let pages_max = u32::try_from(geometry.slab_bytes / PAGE_BYTES).expect("few pages");
            let pages = class.slab_pages(before, pages_max);
            prop_assert!((SLAB_PAGES_MIN..=SLAB_PAGES_MAX.min(pages_max)).contains(&pages));
            prop_assert!(class.count(pages) >= 1);
        }
    }

    #[test]
    fn slabs_grow_and_full_size_slabs_waste_little() {
        for class in SizeClass::all() {
            let first = class.slab_pages(0, SLAB_PAGES_MAX);
            let later = class.slab_pages(1000, SLAB_PAGES_MAX);
            let waste = class.tail_bytes(later) * 100 / (u64::from(later) * PAGE_BYTES);
            assert!(first <= later, "{class:?}");
            assert!(waste <= 5, "{class:?}: {waste} % of {later} pages");
        }
        let smallest = SizeClass::of(1, 1).expect("one byte is a block's size");
        assert_eq!(smallest.slab_pages(0, SLAB_PAGES_MAX), SLAB_PAGES_MIN);
        assert_eq!(smallest.slab_pages(u32::MAX, SLAB_PAGES_MAX), SLAB_PAGES_MAX);
    }

    #[test]
    fn a_thread_keeps_at_least_a_block_and_never_more_bytes_than_the_largest() {
        for class in SizeClass::all() {
            let kept_bytes = u64::from(class.cache_max()) * class.block_bytes();
            assert!(kept_bytes <= CACHE_BYTES.max(class.block_bytes()), "{class:?}");
            assert!(class.cache_max() >= 1, "{class:?}");
        }
    }
}
