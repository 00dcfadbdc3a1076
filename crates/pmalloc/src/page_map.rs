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
//! large inside | 3 | second page only: pages, high 17                         |
//! ```

use std::io;

use pmalloc_persist::LazyTable;

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
    /// Another page of a large block.
    LargeInside,
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
    /// Volatile: one [`Entry`] per page.
    entries: LazyTable,
}

impl PageMap {
    /// A map of `pages` free pages.
    pub(crate) fn new(pages: u32) -> io::Result<Self> {
        Ok(Self { entries: LazyTable::new(pages as usize)? })
    }

    /// What `page` is used for; a page behind the end is free.
    ///
    /// The acquire of the load pairs with the release of the store in `set_slab`, `set_large` and `clear`:
    /// who sees a slab here also sees what its maker wrote before.
    #[inline]
    pub(crate) fn get(&self, page: Page) -> Use {
        let entry = self.entry(page.0 as usize);
        let found = entry.unpack(page);
        match found {
            Use::LargeStart(large) if entry.is_over() => {
                let second = self.entry(page.0 as usize + 1);
                Use::LargeStart(LargeUse { pages: large.pages | second.pages_high(), ..large })
            }
            _ => found,
        }
    }

    /// Enters a slab.
    ///
    /// # Panics
    ///
    /// If the slab is empty or too large, its log is beyond [`LOGS_MAX`], or it leaves the map.
    pub(crate) fn set_slab(&self, slab: SlabUse) {
        for nth in 0..slab.range.pages {
            self.store(slab.range.start.0 as usize + nth as usize, Entry::slab(slab, nth));
        }
    }

    /// Enters the large block of `range`.
    ///
    /// # Panics
    ///
    /// If the range is empty, `log` is beyond [`LOGS_MAX`], or the range leaves the map.
    pub(crate) fn set_large(&self, range: PageRange, log: u8, tag: u8) {
        let start = range.start.0 as usize;
        let inside = Entry::large_inside(0);
        for nth in 2..range.pages as usize {
            self.store(start + nth, inside);
        }
        if range.pages > 1 {
            self.store(start + 1, Entry::large_inside(range.pages));
        }
        // Last, so that a reader who finds the start finds the rest.
        self.store(start, Entry::large_start(LargeUse { pages: range.pages, log, tag }));
    }

    /// Makes the pages of `range` free.
    ///
    /// # Panics
    ///
    /// If the range leaves the map.
    pub(crate) fn clear(&self, range: PageRange) {
        for nth in 0..range.pages as usize {
            self.store(range.start.0 as usize + nth, Entry(0));
        }
    }

    #[inline]
    fn entry(&self, index: usize) -> Entry {
        Entry(self.entries.load(index))
    }

    fn store(&self, index: usize, entry: Entry) {
        self.entries.store(index, entry.0);
    }
}

/// What a page is used for, packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry(u32);

/// Position and width of a part of an [`Entry`].
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
const INSIDE_PAGES: Field = KIND.then(17);

const FREE: u32 = 0;
const SLAB: u32 = 1;
const LARGE_START: u32 = 2;
const LARGE_INSIDE: u32 = 3;

const _: () = assert!(SLAB_TAG.shift + SLAB_TAG.bits <= u32::BITS, "a slab's entry fits");
const _: () = assert!(LARGE_OVER.shift + LARGE_OVER.bits <= u32::BITS, "a large start fits");
const _: () = assert!(LARGE_PAGES.bits + INSIDE_PAGES.bits == u32::BITS, "any page count fits");
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

impl Entry {
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

    /// The entry of the second page of a large block of `pages`, or with zero that of a later one.
    fn large_inside(pages: u32) -> Self {
        Self(LARGE_INSIDE | INSIDE_PAGES.with(pages >> LARGE_PAGES.bits))
    }

    /// What `page`, whose entry this is, is used for; a page count over 15 bits still lacks its high part.
    #[inline]
    fn unpack(self, page: Page) -> Use {
        match KIND.of(self.0) {
            FREE => Use::Free,
            SLAB => self.unpack_slab(page),
            LARGE_START => Use::LargeStart(LargeUse {
                pages: LARGE_PAGES.of(self.0),
                log: LARGE_LOG.byte_of(self.0),
                tag: LARGE_TAG.byte_of(self.0),
            }),
            _ => Use::LargeInside,
        }
    }

    #[inline]
    fn unpack_slab(self, page: Page) -> Use {
        let class = SizeClass::from_index(CLASS.of(self.0) as usize);
        Use::Slab(SlabUse {
            range: PageRange::new(Page(page.0 - NTH.of(self.0)), PAGES_LESS_ONE.of(self.0) + 1),
            class: class.expect("the page map holds classes only"),
            log: SLAB_LOG.byte_of(self.0),
            tag: SLAB_TAG.byte_of(self.0),
        })
    }

    /// Whether the page count of a large start goes on in the next page's entry.
    #[inline]
    fn is_over(self) -> bool {
        LARGE_OVER.of(self.0) == 1
    }

    /// The high part of the page count that the second page of a large block holds.
    fn pages_high(self) -> u32 {
        INSIDE_PAGES.of(self.0) << LARGE_PAGES.bits
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
                    _ if page > start && u64::from(page) < range.end() => Use::LargeInside,
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
            let (start, second) = (Entry::large_start(large), Entry::large_inside(pages));
            let high = if start.is_over() { second.pages_high() } else { 0 };
            let Use::LargeStart(found) = start.unpack(Page(7)) else {
                panic!("{start:?} is not a large start");
            };
            prop_assert_eq!(LargeUse { pages: found.pages | high, ..found }, large);
            prop_assert_eq!(second.unpack(Page(8)), Use::LargeInside);
        }
    }

    #[test]
    fn a_page_count_over_fifteen_bits_is_read_from_two_entries() {
        let pages = (1 << LARGE_PAGES.bits) + 5;
        let map = PageMap::new(pages + 2).expect("memory");
        map.set_large(PageRange::new(Page(1), pages), 3, 9);
        assert_eq!(map.get(Page(1)), Use::LargeStart(LargeUse { pages, log: 3, tag: 9 }));
        assert_eq!(map.get(Page(pages)), Use::LargeInside);
        assert_eq!(map.get(Page(pages + 1)), Use::Free);
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
