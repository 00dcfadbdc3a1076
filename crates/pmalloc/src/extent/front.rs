//! Fronts: the free space that an arena has for itself, which it uses without the lock that all share.
//!
//! Programs free and allocate the same sizes again and again: what an arena gives back goes into its quick lists first, for
//! requests of just that size. A large block of another size is cut out of the best fit among the runs of the front, of which
//! the quick lists become a part when none fits.
//!
//! What is in a front is free to everybody: before a request makes the heap grow or fails, all fronts are emptied into the
//! free runs that all share. Each holds a bounded number of pages, and none for longer than a window of `decay`. Volatile.

use super::{bins::Bins, quick_lists::QuickLists};
use crate::{layout::geometry::PageRange, size_class::SLAB_PAGES_MAX};

/// Most pages in a front: 128 MiB. What finds no place goes through the lock that all share, where an operation of two
/// threads at once takes nearly twice the time.
const PAGES_MAX: u32 = 32 << 10;

/// What an arena has at hand.
#[derive(Debug)]
pub(super) struct Front {
    /// Volatile: what was given back lately.
    quick: QuickLists,
    /// Volatile: the rest.
    runs: Bins,
    /// Volatile: pages of both.
    pages: u32,
}

impl Front {
    /// A front with nothing at hand.
    pub(super) fn new() -> Self {
        Self { quick: QuickLists::new(), runs: Bins::new(), pages: 0 }
    }

    /// Whether extents of `pages` pages go through fronts.
    #[inline]
    pub(super) fn takes(pages: u32) -> bool {
        pages <= QuickLists::PAGES_MAX
    }

    /// Whether a request for `pages` pages may split what a front has.
    ///
    /// One that may be for a slab may not: it is rare, and slabs lie where the heap as a whole has the least room.
    #[inline]
    pub(super) fn splits_for(pages: u32) -> bool {
        pages > SLAB_PAGES_MAX && Self::takes(pages)
    }

    /// Takes `pages` pages.
    #[inline]
    pub(super) fn take(&mut self, pages: u32) -> Option<PageRange> {
        let range = match self.quick.take(pages) {
            Some(range) => range,
            None => self.take_from_runs(pages)?,
        };
        self.pages -= pages;
        Some(range)
    }

    fn take_from_runs(&mut self, pages: u32) -> Option<PageRange> {
        if !Self::splits_for(pages) || self.pages < pages {
            return None;
        }
        self.runs.take(pages).or_else(|| {
            self.coalesce();
            self.runs.take(pages)
        })
    }

    /// Puts `range` at hand; if there is no room, what was at hand has to leave first, and is returned.
    #[inline]
    pub(super) fn put(&mut self, range: PageRange) -> Option<Vec<PageRange>> {
        debug_assert!(!self.overlaps(range), "{range:?} is not allocated");
        let displaced = (!self.has_room(range)).then(|| self.empty());
        if !self.quick.has_place() {
            self.coalesce();
        }
        self.quick.put(range);
        self.pages += range.pages;
        displaced
    }

    /// Adds `range` to the runs, if there is room, and says whether there is.
    #[must_use]
    pub(super) fn add(&mut self, range: PageRange) -> bool {
        debug_assert!(!self.overlaps(range), "{range:?} is not allocated");
        let has_room = self.has_room(range);
        if has_room {
            self.runs.insert(range);
            self.pages += range.pages;
        }
        has_room
    }

    /// Takes everything that is at hand, coalesced.
    #[cold]
    pub(super) fn empty(&mut self) -> Vec<PageRange> {
        self.coalesce();
        let runs = self.runs.iter().collect();
        self.runs.clear();
        self.pages = 0;
        runs
    }

    /// Everything that is at hand.
    pub(super) fn iter(&self) -> impl Iterator<Item = PageRange> {
        self.runs.iter().chain(self.quick.iter())
    }

    /// Volatile memory of its tables, in bytes.
    pub(super) fn dram_bytes(&self) -> u64 {
        self.quick.dram_bytes() + self.runs.dram_bytes()
    }

    /// Makes the quick lists part of the runs.
    fn coalesce(&mut self) {
        self.quick.iter().for_each(|range| self.runs.insert(range));
        self.quick.clear();
    }

    #[inline]
    fn has_room(&self, range: PageRange) -> bool {
        self.pages + range.pages <= PAGES_MAX
    }

    fn overlaps(&self, range: PageRange) -> bool {
        self.iter().any(|other| {
            u64::from(other.start.0) < range.end() && u64::from(range.start.0) < other.end()
        })
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::layout::geometry::Page;

    /// The naive model: the pages at hand. What is out may come back.
    #[derive(Default)]
    struct Model {
        at_hand: BTreeSet<u32>,
        out: Vec<PageRange>,
    }

    fn pages_of(range: PageRange) -> std::ops::Range<u32> {
        range.start.0..range.start.0 + range.pages
    }

    impl Model {
        /// The longest run of pages at hand.
        fn longest(&self) -> u32 {
            let (mut longest, mut run, mut end) = (0, 0, 0);
            for &page in &self.at_hand {
                run = if page == end { run + 1 } else { 1 };
                (longest, end) = (u32::max(longest, run), page + 1);
            }
            longest
        }

        fn take(&mut self, front: &mut Front, pages: u32) {
            let longest = self.longest();
            match front.take(pages) {
                Some(range) => {
                    assert_eq!(range.pages, pages);
                    assert!(pages_of(range).all(|page| self.at_hand.remove(&page)), "{range:?}");
                    self.out.push(range);
                }
                None => assert!(!Front::splits_for(pages) || longest < pages, "{longest} pages"),
            }
        }

        fn put(&mut self, front: &mut Front, range: PageRange) -> bool {
            let has_room = self.at_hand.len() + range.pages as usize <= PAGES_MAX as usize;
            let displaced = front.put(range);
            assert_eq!(displaced.is_none(), has_room);
            for gone in displaced.iter().flatten() {
                assert!(pages_of(*gone).all(|page| self.at_hand.remove(&page)), "{gone:?}");
            }
            assert!(has_room || self.at_hand.is_empty(), "all of it has to leave");
            self.at_hand.extend(pages_of(range));
            !has_room
        }
    }

    /// Takes and puts of up to `pages_max` pages, until what is at hand had to leave three times.
    fn drive(seed: u64, pages_max: u32) {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut front, mut model) = (Front::new(), Model::default());
        let (mut next, mut displacements) = (0, 0);
        while displacements < 3 {
            match random.u32(..10) {
                0..=2 => model.take(&mut front, random.u32(1..=pages_max)),
                3..=4 if !model.out.is_empty() => {
                    let range = model.out.swap_remove(random.usize(..model.out.len()));
                    displacements += u32::from(model.put(&mut front, range));
                }
                kind => {
                    let range = PageRange::new(Page(next), random.u32(1..=pages_max));
                    next += range.pages;
                    if kind > 5 {
                        displacements += u32::from(model.put(&mut front, range));
                    } else if front.add(range) {
                        model.at_hand.extend(pages_of(range));
                    }
                }
            }
            assert_eq!(front.pages as usize, model.at_hand.len());
        }
        let rest: BTreeSet<u32> = front.empty().into_iter().flat_map(pages_of).collect();
        assert_eq!(rest, model.at_hand);
        assert_eq!((front.iter().count(), front.empty().len(), front.pages), (0, 0, 0));
    }

    #[test]
    fn a_front_hands_out_what_is_in_it_and_loses_nothing() {
        for seed in 0..4 {
            // Also more extents than the quick lists have places for.
            drive(seed, 8);
            drive(seed, QuickLists::PAGES_MAX);
        }
    }
}
