//! Quick lists: extents that were given back lately, by size, for the next requests of just that size.
//!
//! What is in them keeps its place: it is neither coalesced nor split. Of each size the newest is used first. Volatile.

use crate::layout::geometry::{Page, PageRange};

/// Most extents in the lists. The table of them grows as they come: 32 KiB at most.
const EXTENTS_MAX: usize = 4096;

/// No place of the table.
const NONE: u16 = u16::MAX;

/// The lists.
#[derive(Debug)]
pub(super) struct QuickLists {
    /// Volatile: by pages, the place of the extent that was put last; [`NONE`] if there is none.
    newest: [u16; QuickLists::PAGES_MAX as usize + 1],
    /// Volatile: the place that was left last; [`NONE`] if all are taken.
    vacant: u16,
    /// Volatile: as many as were ever needed at once.
    places: Vec<Item>,
}

/// An extent, or a vacancy.
#[derive(Debug, Clone, Copy)]
struct Item {
    start: Page,
    /// The place of the extent of the same size that was put before, or of another vacancy.
    next: u16,
}

impl QuickLists {
    /// Most pages of an extent: 1 MiB. The work for a larger one is little beside what the program does with it.
    pub(super) const PAGES_MAX: u32 = 256;

    /// Lists without extents.
    pub(super) fn new() -> Self {
        let newest = [NONE; Self::PAGES_MAX as usize + 1];
        Self { newest, vacant: NONE, places: Vec::new() }
    }

    /// Takes the extent of `pages` that was put last.
    #[inline]
    pub(super) fn take(&mut self, pages: u32) -> Option<PageRange> {
        let newest = &mut self.newest[pages as usize];
        let place = *newest;
        let Item { start, next } = *self.places.get(usize::from(place))?;
        *newest = next;
        self.places[usize::from(place)].next = self.vacant;
        self.vacant = place;
        Some(PageRange::new(start, pages))
    }

    /// Whether there is a place for an extent more.
    #[inline]
    pub(super) fn has_place(&self) -> bool {
        self.vacant != NONE || self.places.len() < EXTENTS_MAX
    }

    /// Adds `range`, for which there [is a place](Self::has_place).
    #[inline]
    pub(super) fn put(&mut self, range: PageRange) {
        if self.vacant == NONE {
            self.add_place();
        }
        let place = self.vacant;
        let newest = &mut self.newest[range.pages as usize];
        let taken = &mut self.places[usize::from(place)];
        self.vacant = taken.next;
        *taken = Item { start: range.start, next: *newest };
        *newest = place;
    }

    #[cold]
    fn add_place(&mut self) {
        self.vacant = u16::try_from(self.places.len()).expect("fewer than the most");
        self.places.push(Item { start: Page(0), next: NONE });
    }

    /// Forgets all extents.
    pub(super) fn clear(&mut self) {
        self.newest.fill(NONE);
        self.vacant = NONE;
        self.places.clear();
    }

    /// All extents, smaller ones first, of each size the newest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = PageRange> {
        (0..).zip(&self.newest).flat_map(|(pages, &newest)| {
            let at = |place: u16| self.places.get(usize::from(place));
            let same_size = std::iter::successors(at(newest), move |place| at(place.next));
            same_size.map(move |place| PageRange::new(place.start, pages))
        })
    }

    /// Volatile memory of the table, in bytes.
    pub(super) fn dram_bytes(&self) -> u64 {
        (self.places.capacity() * size_of::<Item>()) as u64
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    /// Takes and puts of up to `pages_max` pages beside a naive model, until all places were taken three times.
    fn drive(seed: u64, pages_max: u32) {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut lists = QuickLists::new();
        // Oldest first.
        let mut model: Vec<PageRange> = Vec::new();
        let (mut next, mut times_full) = (0, 0);
        while times_full < 3 {
            let pages = random.u32(1..=pages_max);
            if random.f64() < 0.4 {
                let newest = model.iter().rposition(|range| range.pages == pages);
                assert_eq!(lists.take(pages), newest.map(|nth| model.remove(nth)));
                continue;
            }
            assert_eq!(lists.has_place(), model.len() < EXTENTS_MAX);
            if !lists.has_place() {
                let mut all: Vec<PageRange> = model.drain(..).rev().collect();
                all.sort_by_key(|range| range.pages);
                assert_eq!(lists.iter().collect::<Vec<_>>(), all);
                lists.clear();
                assert_eq!(lists.iter().count(), 0);
                times_full += 1;
            }
            let range = PageRange::new(Page(next), pages);
            next += pages;
            lists.put(range);
            model.push(range);
        }
    }

    #[test]
    fn quick_lists_do_as_the_naive_model() {
        for seed in 0..4 {
            drive(seed, 8);
            drive(seed, QuickLists::PAGES_MAX);
        }
    }
}
