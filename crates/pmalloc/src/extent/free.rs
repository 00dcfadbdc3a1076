//! The free runs: found by size for allocation, by their ends for coalescing.
//!
//! No two runs touch: what touches is one run.

use std::collections::BTreeSet;

use crate::layout::geometry::{Page, PageRange};

/// The free runs below the grown length.
#[derive(Debug)]
pub(super) struct FreeRuns {
    /// Volatile: every run by size, then place: the first one at or behind a size is the best fit.
    by_size: BTreeSet<SizeThenPlace>,
    /// Volatile: for the first and the last page of every run its length, zero for all other pages. So both
    /// neighbours of a run are found by one look-up each, without a tree.
    length_at_end: Vec<u32>,
    /// Volatile: pages of all runs.
    pages: u32,
}

impl FreeRuns {
    /// No run, in a heap with `grown` pages.
    pub(super) fn new(grown: u32) -> Self {
        // As zeros from the start the table needs memory only where a run ends.
        Self { by_size: BTreeSet::new(), length_at_end: vec![0; grown as usize], pages: 0 }
    }

    /// Makes room for runs below page `grown`.
    pub(super) fn grow(&mut self, grown: u32) {
        self.length_at_end.resize(grown as usize, 0);
    }

    /// Bytes of volatile memory, without what the tree of sizes needs beside its runs.
    pub(super) fn dram_bytes(&self) -> u64 {
        let runs = self.by_size.len() * size_of::<SizeThenPlace>();
        (size_of_val(&*self.length_at_end) + runs) as u64
    }

    /// Pages of all runs.
    pub(super) fn pages(&self) -> u32 {
        self.pages
    }

    /// Every run, smaller ones first.
    pub(super) fn iter(&self) -> impl Iterator<Item = PageRange> {
        self.by_size.iter().map(|run| run.range())
    }

    /// The smallest run of at least `pages` pages, the lowest among equals.
    pub(super) fn best_fit(&self, pages: u32) -> Option<PageRange> {
        self.fitting(pages).next()
    }

    /// The runs of at least `pages` pages, smaller ones first, lower ones first among equals.
    pub(super) fn fitting(&self, pages: u32) -> impl Iterator<Item = PageRange> {
        let least = SizeThenPlace::of(PageRange::new(Page(0), pages));
        self.by_size.range(least..).map(|run| run.range())
    }

    /// The run whose last page is in front of `end`, which is not free itself.
    pub(super) fn ending_at(&self, end: Page) -> Option<PageRange> {
        let last = end.0.checked_sub(1)?;
        let pages = self.length_at(last);
        (pages > 0).then(|| PageRange::new(Page(end.0 - pages), pages))
    }

    /// Takes the first `pages` pages of `run`.
    pub(super) fn take_front(&mut self, run: PageRange, pages: u32) {
        self.remove(run);
        let rest = run.pages - pages;
        if rest > 0 {
            self.add(PageRange::new(Page(run.start.0 + pages), rest));
        }
    }

    /// Frees `range`, of which no page is free, and joins it with the runs on both sides.
    pub(super) fn insert(&mut self, range: PageRange) {
        let mut joined = range;
        if let Some(before) = self.ending_at(range.start) {
            self.remove(before);
            joined = PageRange::new(before.start, before.pages + joined.pages);
        }
        if let Some(behind) = self.starting_at(range.end()) {
            self.remove(behind);
            joined.pages += behind.pages;
        }
        self.add(joined);
    }

    /// As [`insert`](Self::insert), for a range that may be empty.
    pub(super) fn insert_if_any(&mut self, range: PageRange) {
        if range.pages > 0 {
            self.insert(range);
        }
    }

    /// The run that starts at page `start`, the one in front of which is not free.
    fn starting_at(&self, start: u64) -> Option<PageRange> {
        let start = u32::try_from(start).ok()?;
        let pages = self.length_at(start);
        (pages > 0).then(|| PageRange::new(Page(start), pages))
    }

    fn length_at(&self, page: u32) -> u32 {
        self.length_at_end.get(page as usize).copied().unwrap_or(0)
    }

    fn add(&mut self, run: PageRange) {
        self.set_ends(run, run.pages);
        self.by_size.insert(SizeThenPlace::of(run));
        self.pages += run.pages;
    }

    fn remove(&mut self, run: PageRange) {
        self.set_ends(run, 0);
        let found = self.by_size.remove(&SizeThenPlace::of(run));
        assert!(found, "{run:?} is not a free run");
        self.pages -= run.pages;
    }

    fn set_ends(&mut self, run: PageRange, length: u32) {
        let first = run.start.0 as usize;
        self.length_at_end[first] = length;
        self.length_at_end[first + run.pages as usize - 1] = length;
    }
}

/// A run as one integer, pages above start: one comparison orders by size, then place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SizeThenPlace(u64);

impl SizeThenPlace {
    #[inline]
    fn of(run: PageRange) -> Self {
        Self((u64::from(run.pages) << 32) | u64::from(run.start.0))
    }

    #[inline]
    fn range(self) -> PageRange {
        let [a, b, c, d, pages @ ..] = self.0.to_le_bytes();
        PageRange::new(Page(u32::from_le_bytes([a, b, c, d])), u32::from_le_bytes(pages))
    }
}
