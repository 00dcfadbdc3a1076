//! Fronts: extents that an arena freed lately, at hand for its next requests of just their size.
//!
//! Programs free and allocate the same sizes again and again. What is at hand here keeps its place and its memory: it is
//! neither coalesced nor looked for by size, and an arena that finds it does not wait for the lock that all share.
//!
//! What is at hand is free to everybody: before a request makes the heap grow or fails, all fronts are emptied into the
//! free runs. Each holds a bounded number of pages, and none for longer than a window of `decay`. Volatile.

use crate::layout::geometry::{Page, PageRange};

/// Most extents in a front. The table of them grows as they come: 32 KiB at most.
const EXTENTS_MAX: usize = 4096;

/// Most pages of an extent in a front: 1 MiB. The work for a larger one is little beside what the program does with it.
const EXTENT_PAGES_MAX: u32 = 256;

/// Most pages in a front: 128 MiB. What finds no place goes through the lock that all share, where an operation of two
/// threads at once takes nearly twice the time.
const PAGES_MAX: u32 = 32 << 10;

/// No place of a front.
const NONE: u16 = u16::MAX;

/// What an arena has at hand.
#[derive(Debug)]
pub(super) struct Front {
    /// Volatile: by pages, the place of the extent that was put last; [`NONE`] if there is none.
    newest: [u16; EXTENT_PAGES_MAX as usize + 1],
    /// Volatile: the place that was left last; [`NONE`] if all are taken.
    vacant: u16,
    /// Volatile: as many as were ever needed at once.
    places: Vec<Item>,
    /// Volatile: pages of all extents.
    pages: u32,
}

/// An extent, or a vacancy.
#[derive(Debug, Clone, Copy)]
struct Item {
    start: Page,
    /// The place of the extent of the same size that was put before, or of another vacancy.
    next: u16,
}

impl Front {
    /// A front with nothing at hand.
    pub(super) fn new() -> Self {
        let newest = [NONE; EXTENT_PAGES_MAX as usize + 1];
        Self { newest, vacant: NONE, places: Vec::new(), pages: 0 }
    }

    /// Whether an extent of `pages` may be in a front.
    #[inline]
    pub(super) fn takes(pages: u32) -> bool {
        pages <= EXTENT_PAGES_MAX
    }

    /// Takes the extent of `pages` that was put last.
    #[inline]
    pub(super) fn take(&mut self, pages: u32) -> Option<PageRange> {
        let newest = &mut self.newest[pages as usize];
        let place = *newest;
        let Item { start, next } = *self.places.get(usize::from(place))?;
        *newest = next;
        self.pages -= pages;
        self.vacate(place);
        Some(PageRange::new(start, pages))
    }

    /// Puts `range` at hand; if there is no room, what was at hand has to leave first, and is returned.
    #[inline]
    pub(super) fn put(&mut self, range: PageRange) -> Option<Vec<PageRange>> {
        debug_assert!(!self.overlaps(range), "{range:?} is not allocated");
        let has_place = self.vacant != NONE || self.places.len() < EXTENTS_MAX;
        let has_room = has_place && self.pages + range.pages <= PAGES_MAX;
        let displaced = (!has_room).then(|| self.empty());
        if self.vacant == NONE {
            self.add_place();
        }
        let place = self.vacant;
        let newest = &mut self.newest[range.pages as usize];
        let taken = &mut self.places[usize::from(place)];
        self.vacant = taken.next;
        *taken = Item { start: range.start, next: *newest };
        *newest = place;
        self.pages += range.pages;
        displaced
    }

    /// Takes everything that is at hand, of each size the oldest first.
    #[cold]
    pub(super) fn empty(&mut self) -> Vec<PageRange> {
        let mut extents: Vec<PageRange> = self.iter().collect();
        extents.reverse();
        self.newest.fill(NONE);
        (self.vacant, self.pages) = (NONE, 0);
        self.places.clear();
        extents
    }

    #[cold]
    fn add_place(&mut self) {
        self.vacant = u16::try_from(self.places.len()).expect("fewer than the most");
        self.places.push(Item { start: Page(0), next: NONE });
    }

    /// Everything that is at hand.
    pub(super) fn iter(&self) -> impl Iterator<Item = PageRange> {
        (0..).zip(&self.newest).flat_map(|(pages, &newest)| {
            let at = |place: u16| self.places.get(usize::from(place));
            let same_size = std::iter::successors(at(newest), move |place| at(place.next));
            same_size.map(move |place| PageRange::new(place.start, pages))
        })
    }

    /// Volatile memory of its table, in bytes.
    pub(super) fn dram_bytes(&self) -> u64 {
        (self.places.capacity() * size_of::<Item>()) as u64
    }

    #[inline]
    fn vacate(&mut self, place: u16) {
        self.places[usize::from(place)].next = self.vacant;
        self.vacant = place;
    }

    fn overlaps(&self, range: PageRange) -> bool {
        self.iter().any(|other| {
            u64::from(other.start.0) < range.end() && u64::from(range.start.0) < other.end()
        })
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    /// The naive model: what is at hand, oldest first.
    #[derive(Default)]
    struct Model {
        extents: Vec<PageRange>,
    }

    impl Model {
        fn take(&mut self, pages: u32) -> Option<PageRange> {
            let newest = self.extents.iter().rposition(|range| range.pages == pages)?;
            Some(self.extents.remove(newest))
        }

        fn put(&mut self, range: PageRange) -> Option<Vec<PageRange>> {
            let pages: u32 = self.extents.iter().map(|range| range.pages).sum();
            let has_room = self.extents.len() < EXTENTS_MAX && pages + range.pages <= PAGES_MAX;
            let displaced = (!has_room).then(|| std::mem::take(&mut self.extents));
            self.extents.push(range);
            displaced
        }
    }

    /// By size, so that only extents of the same size have an order.
    fn by_size(mut extents: Vec<PageRange>) -> Vec<PageRange> {
        extents.sort_by_key(|range| range.pages);
        extents
    }

    /// Takes and puts of `sizes`, until every reason to displace what is at hand was met.
    fn drive(seed: u64, pages_max: u32, takes: f64) {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut front, mut model) = (Front::new(), Model::default());
        let (mut next, mut displacements) = (0, 0);
        while displacements < 3 {
            let pages = random.u32(1..=pages_max);
            if random.f64() < takes {
                assert_eq!(front.take(pages), model.take(pages));
                continue;
            }
            let range = PageRange::new(Page(next), pages);
            next += pages;
            match (front.put(range), model.put(range)) {
                (None, None) => {}
                (Some(found), Some(expected)) => {
                    assert_eq!(by_size(found), by_size(expected));
                    displacements += 1;
                }
                (found, _) => panic!("the front displaced {found:?}"),
            }
            let found: u32 = front.iter().map(|range| range.pages).sum();
            assert_eq!(found, front.pages);
        }
        let rest = front.empty();
        assert_eq!(by_size(rest), by_size(model.extents));
        assert_eq!((front.iter().count(), front.empty().len(), front.pages), (0, 0, 0));
    }

    #[test]
    fn a_front_does_as_the_naive_model() {
        for seed in 0..8 {
            // Too many extents, and too many pages.
            drive(seed, 8, 0.4);
            drive(seed, EXTENT_PAGES_MAX, 0.2);
        }
    }
}
