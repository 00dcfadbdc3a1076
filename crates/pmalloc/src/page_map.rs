//! The page map: what each page of the data area is used for, found by one load.
//!
//! A flat table with one 32-bit entry per page; the operating system gives memory only to the parts that
//! were written. The arenas and the large path write it when they take or give back pages; every look-up
//! that starts from a block's offset (free, slot checks, iteration) reads it.
//!
//! Volatile: it is rebuilt from the bookkeeping log at open.
//!
//! ```text
//!              bit 0  2         6         10          17        23         31
//! slab         | 1 | nth page | pages-1 |   class   |   log   |    tag    | 0 |
//! large start  | 2 | log (6)    | tag (8)      | pages, low 15           | over |
//! large inside | 3 | 0 | pages back to the start, at most 2^29 - 1             |
//! large second | 3 | 1 | 0                     | pages, high 17                |
//! ```
//!
//! The inside of a large block leads back to its start, and only the start says that the block is there: so
//! freeing one is one store, however large it is, and what it leaves inside leads nowhere.

use std::io;

use pmalloc_persist::{LazyTable, sync::Ordering};

use crate::{
    layout::geometry::{LOGS_MAX, Page, PageRange},
    size_class::{SLAB_PAGES_MAX, SizeClass},
};

/// What a page is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Nothing: it is free, or not known to the allocator yet.
    Free,
    /// Part of a slab.
    Slab(SlabUse),
    /// The first page of a large block.
    LargeStart(LargeUse),
    /// Another page of the large block that starts here.
    LargeInside(Page),
}

/// A slab, as seen from one of its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlabUse {
    /// All of its pages.
    pub(crate) range: PageRange,
    /// Its size class.
    pub(crate) class: SizeClass,
    /// The bookkeeping log that holds it; its arena has the same number.
    pub(crate) log: u8,
    /// The user's tag of its blocks.
    pub(crate) tag: u8,
}

/// A large block, as seen from its first page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LargeUse {
    /// Its pages.
    pub(crate) pages: u32,
    /// The bookkeeping log that holds it.
    pub(crate) log: u8,
    /// The user's tag.
    pub(crate) tag: u8,
}

/// The table.
#[derive(Debug)]
pub(crate) struct PageMap {
    /// Volatile: one [`PageWord`] per page.
    entries: LazyTable,
}

impl PageMap {
    /// Bytes of an entry.
    pub(crate) const ENTRY_BYTES: u64 = size_of::<PageWord>() as u64;

    /// A map of `pages` free pages.
    pub(crate) fn new(pages: u32) -> io::Result<Self> {
        Ok(Self { entries: LazyTable::new(pages as usize)? })
    }

    /// What `page` is used for; a page behind the end is free.
    ///
    /// The acquire of the load pairs with the release of the store in `set_slab`, `set_large` and `clear`:
    /// who sees a slab here also sees what its maker wrote before.
    #[inline(always)]
    pub(crate) fn get(&self, page: Page) -> Use {
        let entry = self.entry(page.0);
        match KIND.of(entry.0) {
            FREE => Use::Free,
            SLAB => Use::Slab(entry.unpack_slab(page)),
            LARGE_START => self.large(page, entry).map_or(Use::Free, Use::LargeStart),
            _ => self.large_around(page).map_or(Use::Free, Use::LargeInside),
        }
    }

    /// The slab that has `page`, if one has: most questions are about blocks of slabs.
    #[inline(always)]
    pub(crate) fn slab(&self, page: Page) -> Option<SlabUse> {
        let entry = self.entry(page.0);
        (KIND.of(entry.0) == SLAB).then(|| entry.unpack_slab(page))
    }

    /// The large block whose start at `page` had `entry`, or `None` if it went away meanwhile.
    #[inline]
    fn large(&self, page: Page, entry: PageWord) -> Option<LargeUse> {
        let low = entry.unpack_large();
        if !entry.is_over() {
            return Some(low);
        }
        // A count that goes on in the second page is at least two, so there is one.
        let second = self.entry(page.0 + 1);
        // The block may be freed between the two loads, and its pages be others'. A block's second page is written before
        // its start, and the start is the first to go: so where the start still stands, the second page is of its block.
        // To deceive, the block would have to be replaced twice between three loads, at last by one with an equal start.
        let is_whole = second.is_second() && self.entry(page.0) == entry;
        is_whole.then(|| LargeUse { pages: low.pages | second.pages_high(), ..low })
    }

    /// The first page of the large block that `page`, an inside, is a part of, if the block is still there.
    fn large_around(&self, page: Page) -> Option<Page> {
        let mut start = page.0;
        let mut entry = self.entry(start);
        while KIND.of(entry.0) == LARGE_INSIDE {
            start = start.checked_sub(entry.pages_back())?;
            entry = self.entry(start);
        }
        let is_inside = |large: LargeUse| page.0 - start < large.pages;
        let is_there = KIND.of(entry.0) == LARGE_START
            && self.large(Page(start), entry).is_some_and(is_inside);
        is_there.then_some(Page(start))
    }

    /// Enters a slab.
    ///
    /// # Panics
    ///
    /// If the slab is empty or too large, its log is beyond [`LOGS_MAX`], or it leaves the map.
    pub(crate) fn set_slab(&self, slab: SlabUse) {
        for nth in 0..slab.range.pages {
            self.store(slab.range.start.0 as usize + nth as usize, PageWord::slab(slab, nth));
        }
    }

    /// Enters the large block of `range`.
    ///
    /// # Panics
    ///
    /// If the range is empty, `log` is beyond [`LOGS_MAX`], or the range leaves the map.
    pub(crate) fn set_large(&self, range: PageRange, log: u8, tag: u8) {
        let start = range.start.0 as usize;
        let inside = self.entries.range(start..start + range.pages as usize);
        let mut entry = PageWord::large_inside(2);
        for word in inside.iter().skip(2) {
            // Relaxed: the release of the start, below, comes after.
            word.store(entry.0, Ordering::Relaxed);
            entry = entry.one_further_in();
        }
        if range.pages > 1 {
            self.store(start + 1, PageWord::large_second(range.pages));
        }
        // Last, so that a reader who finds the start finds the rest.
        self.store(start, PageWord::large_start(LargeUse { pages: range.pages, log, tag }));
    }

    /// Makes the pages of the slab or large block of `range` free.
    ///
    /// # Panics
    ///
    /// If the range leaves the map.
    pub(crate) fn clear(&self, range: PageRange) {
        let start = range.start.0 as usize;
        let is_slab = KIND.of(self.entries.load(start)) == SLAB;
        let named = if is_slab { range.pages as usize } else { 1 };
        (start..start + named).for_each(|index| self.store(index, PageWord(0)));
    }

    #[inline(always)]
    fn entry(&self, page: u32) -> PageWord {
        PageWord(self.entries.load(page as usize))
    }

    fn store(&self, index: usize, entry: PageWord) {
        self.entries.store(index, entry.0);
    }
}

/// What a page is used for, packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PageWord(u32);

/// Position and width of a part of a [`PageWord`].
#[derive(Clone, Copy)]
struct Field {
    shift: u32,
    bits: u32,
}

const KIND: Field = Field { shift: 0, bits: 2 };
const NTH: Field = KIND.then(4);
const PAGES_LESS_ONE: Field = NTH.then(4);
const CLASS: Field = PAGES_LESS_ONE.then(7);
const SLAB_LOG: Field = CLASS.then(6);
const SLAB_TAG: Field = SLAB_LOG.then(8);
const LARGE_LOG: Field = KIND.then(6);
const LARGE_TAG: Field = LARGE_LOG.then(8);
const LARGE_PAGES: Field = LARGE_TAG.then(15);
const LARGE_OVER: Field = LARGE_PAGES.then(1);
const IS_SECOND: Field = KIND.then(1);
const PAGES_BACK: Field = IS_SECOND.then(29);
const PAGES_HIGH: Field = Field { shift: 15, bits: 17 };

const FREE: u32 = 0;
const SLAB: u32 = 1;
const LARGE_START: u32 = 2;
const LARGE_INSIDE: u32 = 3;

const _: () = assert!(SLAB_TAG.shift + SLAB_TAG.bits <= u32::BITS, "a slab's entry fits");
const _: () = assert!(LARGE_OVER.shift + LARGE_OVER.bits <= u32::BITS, "a large start fits");
const _: () = assert!(LARGE_PAGES.bits + PAGES_HIGH.bits == u32::BITS, "any page count fits");
const _: () =
    assert!(SLAB_PAGES_MAX <= 1 << NTH.bits && SLAB_PAGES_MAX <= 1 << PAGES_LESS_ONE.bits);
const _: () = assert!(SizeClass::COUNT <= 1 << CLASS.bits, "a class fits");
const _: () = assert!(LOGS_MAX <= 1 << SLAB_LOG.bits && LOGS_MAX <= 1 << LARGE_LOG.bits);

impl Field {
    /// The field of `bits` bits behind this one.
    const fn then(self, bits: u32) -> Self {
        Self { shift: self.shift + self.bits, bits }
    }

    const fn mask(self) -> u32 {
        u32::MAX >> (u32::BITS - self.bits)
    }

    /// The field's value in `word`.
    #[inline]
    const fn of(self, word: u32) -> u32 {
        (word >> self.shift) & self.mask()
    }

    /// The value in `word` of a field of at most eight bits.
    #[inline]
    const fn byte_of(self, word: u32) -> u8 {
        self.of(word).to_le_bytes()[0]
    }

    /// A word with `value` in this field and zeros elsewhere.
    #[inline]
    fn with(self, value: u32) -> u32 {
        assert!(value <= self.mask(), "{value} does not fit {} bits of a page's entry", self.bits);
        value << self.shift
    }
}

impl PageWord {
    fn slab(slab: SlabUse, nth: u32) -> Self {
        let class = u32::try_from(slab.class.index()).expect("a class has few bits");
        Self(
            SLAB | NTH.with(nth)
                | PAGES_LESS_ONE.with(slab.range.pages - 1)
                | CLASS.with(class)
                | SLAB_LOG.with(u32::from(slab.log))
                | SLAB_TAG.with(u32::from(slab.tag)),
        )
    }

    fn large_start(large: LargeUse) -> Self {
        assert!(large.pages > 0, "a large block of no page");
        let high = large.pages >> LARGE_PAGES.bits;
        Self(
            LARGE_START
                | LARGE_LOG.with(u32::from(large.log))
                | LARGE_TAG.with(u32::from(large.tag))
                | LARGE_PAGES.with(large.pages & LARGE_PAGES.mask())
                | LARGE_OVER.with(u32::from(high > 0)),
        )
    }

    /// The entry of the second page of a large block of `pages`.
    fn large_second(pages: u32) -> Self {
        Self(LARGE_INSIDE | IS_SECOND.with(1) | PAGES_HIGH.with(pages >> LARGE_PAGES.bits))
    }

    /// The entry of a later page of a large block, `back` pages behind its start or, far inside a huge block, behind
    /// another inside.
    #[inline]
    fn large_inside(back: u32) -> Self {
        Self(LARGE_INSIDE | PAGES_BACK.with(back))
    }

    /// The entry of the page behind one with this entry, a later page of a large block.
    #[inline]
    fn one_further_in(self) -> Self {
        if PAGES_BACK.of(self.0) == PAGES_BACK.mask() {
            self
        } else {
            Self(self.0 + (1 << PAGES_BACK.shift))
        }
    }

    /// Whether this is the entry of the second page of a large block.
    #[inline]
    fn is_second(self) -> bool {
        KIND.of(self.0) == LARGE_INSIDE && IS_SECOND.of(self.0) == 1
    }

    /// How far an inside leads back: to the start, or in a huge block to another inside.
    #[inline]
    fn pages_back(self) -> u32 {
        if self.is_second() { 1 } else { PAGES_BACK.of(self.0) }
    }

    /// A large start, whose page count may lack its high part.
    #[inline]
    fn unpack_large(self) -> LargeUse {
        LargeUse {
            pages: LARGE_PAGES.of(self.0),
            log: LARGE_LOG.byte_of(self.0),
            tag: LARGE_TAG.byte_of(self.0),
        }
    }

    #[inline(always)]
    fn unpack_slab(self, page: Page) -> SlabUse {
        let class = SizeClass::from_index(CLASS.of(self.0) as usize);
        SlabUse {
            range: PageRange::new(Page(page.0 - NTH.of(self.0)), PAGES_LESS_ONE.of(self.0) + 1),
            class: class.expect("the page map holds classes only"),
            log: SLAB_LOG.byte_of(self.0),
            tag: SLAB_TAG.byte_of(self.0),
        }
    }

    /// Whether the page count of a large start goes on in the next page's entry.
    #[inline]
    fn is_over(self) -> bool {
        LARGE_OVER.of(self.0) == 1
    }

    /// The high part of the page count that the second page of a large block holds.
    fn pages_high(self) -> u32 {
        PAGES_HIGH.of(self.0) << LARGE_PAGES.bits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class(index: usize) -> SizeClass {
        SizeClass::from_index(index).expect("the index is in range")
    }

    proptest! {
        #[test]
        fn every_page_of_a_slab_names_the_slab(
            start in 0..1000_u32, pages in 1..=SLAB_PAGES_MAX, index in 0..SizeClass::COUNT,
            log in 0..64_u8, tag: u8,
        ) {
            let map = PageMap::new(1024).expect("memory");
            let range = PageRange::new(Page(start), pages);
            let slab = SlabUse { range, class: class(index), log, tag };
            map.set_slab(slab);
            for page in 0..1024 {
                let inside = (start..start + pages).contains(&page);
                let expected = if inside { Use::Slab(slab) } else { Use::Free };
                prop_assert_eq!(map.get(Page(page)), expected);
            }
            map.clear(range);
            prop_assert!((0..1024).all(|page| map.get(Page(page)) == Use::Free));
        }

        #[test]
        fn a_large_block_is_known_from_its_first_page(
            start in 0..100_u32, pages in 1..100_u32, log in 0..64_u8, tag: u8,
        ) {
            let map = PageMap::new(256).expect("memory");
            let range = PageRange::new(Page(start), pages);
            map.set_large(range, log, tag);
            for page in 0..256 {
                let expected = match page {
                    _ if page == start => Use::LargeStart(LargeUse { pages, log, tag }),
                    _ if page > start && u64::from(page) < range.end() => Use::LargeInside(Page(start)),
                    _ => Use::Free,
                };
                prop_assert_eq!(map.get(Page(page)), expected);
            }
            map.clear(range);
            prop_assert!((0..256).all(|page| map.get(Page(page)) == Use::Free));
        }

        #[test]
        fn every_page_count_survives_packing(pages in 1..=u32::MAX, log in 0..64_u8, tag: u8) {
            let large = LargeUse { pages, log, tag };
            let (start, second) = (PageWord::large_start(large), PageWord::large_second(pages));
            let high = if start.is_over() { second.pages_high() } else { 0 };
            let found = start.unpack_large();
            prop_assert_eq!(LargeUse { pages: found.pages | high, ..found }, large);
            prop_assert_eq!((KIND.of(second.0), second.pages_back()), (LARGE_INSIDE, 1));
            let back = (pages % PAGES_BACK.mask()).max(2);
            let further = PageWord::large_inside(back).one_further_in();
            prop_assert_eq!(further, PageWord::large_inside(back + 1));
        }

        #[test]
        fn blocks_come_and_go_in_any_order(
            places in proptest::collection::vec((0..16_u32, 1..40_u32, any::<bool>()), 1..60),
        ) {
            // Whatever freed blocks left inside must not be taken for a part of what came later.
            let map = PageMap::new(64).expect("memory");
            let mut owners: Vec<Option<u32>> = vec![None; 64];
            for (start, pages, is_slab) in places {
                let pages = if is_slab { pages.min(SLAB_PAGES_MAX) } else { pages };
                let range = PageRange::new(Page(start), pages);
                for taken in range.start.0..range.start.0 + pages {
                    let Some(owner) = owners[taken as usize] else { continue };
                    let len = owners.iter().filter(|page| **page == Some(owner)).count();
                    let len = u32::try_from(len).expect("few pages");
                    map.clear(PageRange::new(Page(owner), len));
                    owners.iter_mut().filter(|page| **page == Some(owner)).for_each(|page| *page = None);
                }
                if is_slab {
                    map.set_slab(SlabUse { range, class: class(0), log: 0, tag: 0 });
                } else {
                    map.set_large(range, 0, 0);
                }
                owners[start as usize..(start + pages) as usize].fill(Some(start));
                for (page, owner) in (0..).zip(&owners) {
                    let found = map.get(Page(page));
                    prop_assert_eq!(found == Use::Free, owner.is_none(), "page {}: {:?}", page, found);
                }
            }
        }
    }

    #[test]
    fn a_page_count_over_fifteen_bits_is_read_from_two_entries() {
        let pages = (1 << LARGE_PAGES.bits) + 5;
        let map = PageMap::new(pages + 2).expect("memory");
        map.set_large(PageRange::new(Page(1), pages), 3, 9);
        assert_eq!(map.get(Page(1)), Use::LargeStart(LargeUse { pages, log: 3, tag: 9 }));
        assert_eq!(map.get(Page(pages)), Use::LargeInside(Page(1)));
        assert_eq!(map.get(Page(pages + 1)), Use::Free);
    }

    /// Who looks at a huge block took its page count from two entries, of which the second could be another block's by
    /// then: an iteration could go on behind the end of the map.
    #[test]
    fn a_huge_block_that_goes_while_it_is_looked_at_is_gone() {
        let pages = (1 << LARGE_PAGES.bits) + 5;
        let map = PageMap::new(pages + 2).expect("memory");
        let huge = PageRange::new(Page(1), pages);
        map.set_large(huge, 3, 9);
        let seen = map.entry(1);
        assert_eq!(map.large(Page(1), seen), Some(LargeUse { pages, log: 3, tag: 9 }));
        map.clear(huge);
        assert_eq!(map.large(Page(1), seen), None, "nothing came after it");
        map.set_large(PageRange::new(Page(2), 2), 63, 255);
        assert_eq!(map.large(Page(1), seen), None, "a block starts at its second page");
        map.clear(PageRange::new(Page(2), 2));
        map.set_large(PageRange::new(Page(1), 3 * pages / 4), 3, 9);
        assert_eq!(map.large(Page(1), seen), None, "another starts where it did");
    }

    #[test]
    fn neighbours_do_not_mix() {
        let map = PageMap::new(16).expect("memory");
        let slab = SlabUse { range: PageRange::new(Page(4), 2), class: class(0), log: 0, tag: 0 };
        map.set_large(PageRange::new(Page(0), 4), 0, 0);
        map.set_slab(slab);
        map.set_large(PageRange::new(Page(6), 1), 63, 255);
        map.clear(PageRange::new(Page(0), 4));
        assert_eq!(map.get(Page(3)), Use::Free);
        assert_eq!(map.get(Page(4)), Use::Slab(slab));
        assert_eq!(map.get(Page(6)), Use::LargeStart(LargeUse { pages: 1, log: 63, tag: 255 }));
    }

    #[test]
    fn behind_the_end_everything_is_free() {
        let map = PageMap::new(4).expect("memory");
        assert_eq!(map.get(Page(4)), Use::Free);
        assert_eq!(map.get(Page(u32::MAX)), Use::Free);
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_log_number_out_of_range_is_refused() {
        PageMap::new(4).expect("memory").set_large(PageRange::new(Page(0), 1), 64, 0);
    }
}
