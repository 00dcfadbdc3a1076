//! Which free pages have memory, and in which order they lose it.
//!
//! Each page below the grown length has a mark: allocated, or free without memory, or free with memory
//! since the release of that number, or free since before the heap was opened. The releases queue up in order; decay takes
//! the oldest and punches those of its pages that still carry its number, so a page that was used again in between is as
//! young as its last release.
//!
//! What was free when the heap was opened is the oldest release of all. Nothing says whether those pages have memory, and
//! both must be reckoned with: they get some before they are used, and count as if they had some until they are punched.
//! To punch what has none is harmless.

use std::{collections::VecDeque, io, ops::Range};

use crate::layout::geometry::{Page, PageRange};

/// Marks of pages: these, or the number of a release from [`FIRST_RELEASE`] on.
/// Free since before the heap was opened: it may have memory, but nothing says that it does. The number of the release that
/// stands for all of them. Zero, so that the marks of pages that nobody ever uses need no memory themselves.
const UNKNOWN: u32 = 0;
const ALLOCATED: u32 = 1;
/// Free, and without memory.
const BARE: u32 = 2;
const FIRST_RELEASE: u32 = 3;

/// Releases in the queue that are always worth less than looking for those that are void.
const QUEUE_SLACK: usize = 1024;

/// What a call that punches costs at least, in pages punched.
const PUNCH_CALL_PAGES: u32 = 8;

/// Pages that a call punches if the oldest release has so many: beyond the bound, if need be.
const PUNCH_PAGES_MIN: u32 = 64;

/// Marks that are looked at for the price of a page punched.
const MARKS_PER_PAGE: u32 = 64;

/// The marks, and the queue of releases.
#[derive(Debug)]
pub(super) struct PageMemory {
    /// Volatile: a mark per page.
    marks: Vec<u32>,
    /// Volatile: releases, oldest first; void ones are dropped when the queue is `sweep_at` long.
    queue: VecDeque<Release>,
    sweep_at: usize,
    /// Volatile: number of the next release.
    next: u32,
    /// Volatile: pages whose mark is a release.
    backed_free: u32,
    /// Volatile: pages whose mark is unknown.
    unknown: u32,
    /// Volatile: whether the medium refused to punch since the last trim; decay rests then.
    refused: bool,
}

/// Pages that were released together, each of which may have been used again.
#[derive(Debug, Clone, Copy)]
struct Release {
    range: PageRange,
    number: u32,
}

impl PageMemory {
    /// The marks of a heap with `grown` pages: all are free, and unknown.
    pub(super) fn new(grown: u32) -> Self {
        let before_open = Release { range: PageRange::new(Page(0), grown), number: UNKNOWN };
        Self {
            marks: vec![UNKNOWN; grown as usize],
            queue: VecDeque::from([before_open]),
            sweep_at: QUEUE_SLACK,
            next: FIRST_RELEASE,
            backed_free: 0,
            unknown: grown,
            refused: false,
        }
    }

    /// Enters `added`, pages behind the last one that are free and have memory.
    pub(super) fn extend(&mut self, added: PageRange) {
        assert_eq!(added.start.0 as usize, self.marks.len(), "{added:?} leaves a gap");
        // Not unknown: `set_backed` gives them their number.
        self.marks.resize(self.marks.len() + added.pages as usize, BARE);
        self.set_backed(added);
    }

    /// Bytes of volatile memory.
    pub(super) fn dram_bytes(&self) -> u64 {
        (size_of_val(&*self.marks) + self.queue.capacity() * size_of::<Release>()) as u64
    }

    /// Free pages that have memory for sure.
    pub(super) fn backed_free(&self) -> u32 {
        self.backed_free
    }

    /// Free pages that have memory for sure, or may have some.
    pub(super) fn maybe_backed(&self) -> u32 {
        self.backed_free + self.unknown
    }

    /// How many pages of `range`, which is free, have no memory for sure.
    pub(super) fn bare_in(&self, range: PageRange) -> u32 {
        count(&self.marks[indexes(range)], |mark| mark == BARE)
    }

    /// How many pages of `range`, which is free, have memory for sure.
    pub(super) fn backed_in(&self, range: PageRange) -> u32 {
        count(&self.marks[indexes(range)], |mark| mark >= FIRST_RELEASE)
    }

    /// Marks `range`, which is free and of which `backed` pages have memory for sure, as allocated.
    ///
    /// # Panics
    ///
    /// In debug builds, if a page is allocated already.
    pub(super) fn allocate(&mut self, range: PageRange, backed: u32) {
        let marks = &mut self.marks[indexes(range)];
        let allocated = |mark| mark == ALLOCATED;
        debug_assert!(count(marks, allocated) == 0, "{range:?} is allocated already");
        self.backed_free -= backed;
        if self.unknown > 0 {
            self.unknown -= count(marks, |mark| mark == UNKNOWN);
        }
        marks.fill(ALLOCATED);
    }

    /// Marks `range`, which is allocated, as free with memory from now on.
    ///
    /// # Panics
    ///
    /// If its first or last page is not allocated; in debug builds, if any is not.
    pub(super) fn release(&mut self, range: PageRange) {
        let marks = &self.marks[indexes(range)];
        let ends = [marks.first(), marks.last()];
        assert!(ends == [Some(&ALLOCATED); 2], "{range:?} is not allocated");
        debug_assert!(count(marks, |mark| mark != ALLOCATED) == 0, "{range:?} is not allocated");
        self.set_backed(range);
    }

    /// Marks `range`, which has no number, as free with memory from now on.
    fn set_backed(&mut self, range: PageRange) {
        if self.queue.len() >= self.sweep_at || self.next == u32::MAX {
            self.sweep();
        }
        self.marks[indexes(range)].fill(self.next);
        self.queue.push_back(Release { range, number: self.next });
        self.next += 1;
        self.backed_free += range.pages;
    }

    /// Punches the pages released longest ago until at most `bound` free pages may have memory, at the cost of about
    /// `budget` pages punched; returns how many were.
    pub(super) fn decay(
        &mut self,
        bound: u32,
        mut budget: u32,
        mut punch: impl FnMut(PageRange) -> io::Result<()>,
    ) -> u32 {
        let mut punched = 0;
        while self.is_over(bound) && budget > 0 {
            let release =
                self.queue.front().expect("a free page that may have memory was released");
            let Release { range, number } = *release;
            let seen = range.first(budget.saturating_mul(MARKS_PER_PAGE));
            // Not only what is too much, if that is little: the next release would be too much again.
            let pages = budget.min((self.maybe_backed() - bound).max(PUNCH_PAGES_MIN));
            let run = self.next_run(seen, |mark| mark == number).map(|run| run.first(pages));
            if let Some(run) = run {
                if punch(run).is_err() {
                    self.refused = true;
                    break;
                }
                self.set_bare(run);
                punched += run.pages;
                budget = budget.saturating_sub(run.pages.max(PUNCH_CALL_PAGES));
            }
            let done = run.map_or(seen.pages, |run| run.start.0 + run.pages - range.start.0);
            budget = budget.saturating_sub(done.div_ceil(MARKS_PER_PAGE));
            self.shorten_oldest(range.without_first(done));
        }
        punched
    }

    /// Punches the pages released longest ago until at most `bound` free pages have memory for sure; what was free when the
    /// heap was opened is left alone.
    pub(super) fn decay_known(
        &mut self,
        bound: u32,
        punch: impl FnMut(PageRange) -> io::Result<()>,
    ) {
        let before_open = self.queue.pop_front_if(|release| release.number == UNKNOWN);
        self.decay(bound.saturating_add(self.unknown), u32::MAX, punch);
        before_open.into_iter().for_each(|release| self.queue.push_front(release));
    }

    /// Whether more than `bound` free pages may have memory, and it can be taken from them.
    pub(super) fn is_over(&self, bound: u32) -> bool {
        self.maybe_backed() > bound && !self.refused
    }

    /// Leaves `rest` of the oldest release.
    fn shorten_oldest(&mut self, rest: PageRange) {
        if rest.pages == 0 {
            self.queue.pop_front();
        } else if let Some(oldest) = self.queue.front_mut() {
            oldest.range = rest;
        }
    }

    /// Punches every page of `run`, which is free, that may have memory; returns how many those are.
    pub(super) fn punch_all(
        &mut self,
        run: PageRange,
        mut punch: impl FnMut(PageRange) -> io::Result<()>,
    ) -> io::Result<u64> {
        let mut punched_pages = 0;
        let mut rest = run;
        while let Some(run) = self.next_run(rest, |mark| mark != BARE) {
            punch(run)?;
            self.set_bare(run);
            punched_pages += u64::from(run.pages);
            rest = rest.without_first(run.start.0 + run.pages - rest.start.0);
        }
        Ok(punched_pages)
    }

    /// Forgets the releases after every free page was punched.
    pub(super) fn forget_releases(&mut self) {
        assert_eq!(self.maybe_backed(), 0, "a free page has memory after all were punched");
        self.queue.clear();
        self.sweep_at = QUEUE_SLACK;
        self.next = FIRST_RELEASE;
        self.refused = false;
    }

    /// Marks `run`, which is free and was punched, as without memory.
    fn set_bare(&mut self, run: PageRange) {
        let marks = &mut self.marks[indexes(run)];
        self.backed_free -= count(marks, |mark| mark >= FIRST_RELEASE);
        self.unknown -= count(marks, |mark| mark == UNKNOWN);
        marks.fill(BARE);
    }

    /// The first run of pages in `range` whose marks are `chosen`.
    fn next_run(&self, range: PageRange, chosen: impl Fn(u32) -> bool) -> Option<PageRange> {
        let mut places = (range.start.0..).zip(&self.marks[indexes(range)]);
        let (start, _) = places.find(|&(_, &mark)| chosen(mark))?;
        let end = places.find(|&(_, &mark)| !chosen(mark));
        let end = end.map_or(range.start.0 + range.pages, |(page, _)| page);
        Some(PageRange::new(Page(start), end - start))
    }

    /// Drops the releases of which every page was used again, and numbers the others from the first on.
    ///
    /// A new number is never above the old one, and the numbers of the queue ascend: so none is given that a
    /// later release still has.
    #[cold]
    fn sweep(&mut self) {
        let mut number = FIRST_RELEASE;
        let marks = &mut self.marks;
        let unknown = self.unknown;
        self.queue.retain_mut(|release| {
            if release.number == UNKNOWN {
                return unknown > 0;
            }
            let marks = &mut marks[indexes(release.range)];
            if count(marks, |mark| mark == release.number) == 0 {
                return false;
            }
            for mark in marks.iter_mut().filter(|mark| **mark == release.number) {
                *mark = number;
            }
            release.number = number;
            number += 1;
            true
        });
        self.next = number;
        self.sweep_at = 2 * self.queue.len() + QUEUE_SLACK;
    }
}

/// The places of `range`'s marks.
fn indexes(range: PageRange) -> Range<usize> {
    let start = range.start.0 as usize;
    start..start + range.pages as usize
}

/// How many of `marks` are `chosen`: without an early end, so that it runs over several marks at a time.
#[inline]
fn count(marks: &[u32], chosen: impl Fn(u32) -> bool) -> u32 {
    marks.iter().map(|&mark| u32::from(chosen(mark))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of the heap.
    const PAGES: u32 = 600;
    /// Those that are allocated and released; the others stay as they were at open.
    const USED_PAGES: u32 = 400;
    /// Steps of a run: releases are nearly half of them, many times as many as the queue holds before it is swept.
    const STEPS: usize = 8 * QUEUE_SLACK;

    /// The naive model of a page.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Is {
        Allocated,
        Bare,
        /// Free since that release; since the heap was opened, if that is zero.
        Free(u32),
    }

    struct Run {
        memory: PageMemory,
        pages: Vec<Is>,
        releases: u32,
        random: fastrand::Rng,
    }

    impl Run {
        fn new(seed: u64) -> Self {
            println!("seed {seed}");
            let pages = vec![Is::Free(0); PAGES as usize];
            let (memory, random) = (PageMemory::new(PAGES), fastrand::Rng::with_seed(seed));
            Self { memory, pages, releases: 0, random }
        }

        /// A few pages in a row from a random one on, as far as all are allocated, or all are free.
        fn some(&mut self) -> PageRange {
            let start = self.random.u32(..USED_PAGES);
            let pages = self.random.u32(1..=6).min(USED_PAGES - start);
            let is_allocated = |&page: &Is| page == Is::Allocated;
            let first = is_allocated(&self.pages[start as usize]);
            let marks = &self.pages[indexes(PageRange::new(Page(start), pages))];
            let alike = marks.iter().take_while(|page| is_allocated(page) == first).count();
            PageRange::new(Page(start), u32::try_from(alike).expect("at most six"))
        }

        fn step(&mut self) {
            let range = self.some();
            let marks = &mut self.pages[indexes(range)];
            if marks[0] == Is::Allocated {
                self.releases += 1;
                marks.fill(Is::Free(self.releases));
                self.memory.release(range);
            } else {
                marks.fill(Is::Allocated);
                self.memory.allocate(range, self.memory.backed_in(range));
            }
            let count =
                |wanted: fn(&Is) -> bool| self.pages.iter().filter(|page| wanted(page)).count();
            let known = count(|page| matches!(page, Is::Free(1..)));
            assert_eq!(self.memory.backed_free() as usize, known);
            let maybe = count(|page| matches!(page, Is::Free(_)));
            assert_eq!(self.memory.maybe_backed() as usize, maybe);
            // Of each release that is worth its place, a page is free.
            assert!(self.memory.queue.len() <= 2 * PAGES as usize + QUEUE_SLACK);
        }

        /// Lets pages lose their memory until `bound` have some, and looks whether those were the oldest.
        fn decay(&mut self, bound: u32) {
            let pages = &mut self.pages;
            let before = self.memory.maybe_backed();
            let mut youngest = 0;
            let punched = self.memory.decay(bound, u32::MAX, |range| {
                for page in &mut pages[indexes(range)] {
                    let Is::Free(release) = *page else { panic!("{range:?} has {page:?}") };
                    assert!(release >= youngest, "{release} goes after {youngest}");
                    youngest = release;
                    *page = Is::Bare;
                }
                Ok(())
            });
            let left = pages.iter().filter(|page| matches!(page, Is::Free(_)));
            assert_eq!(before - punched, u32::try_from(left.count()).expect("few pages"));
            assert!(before - punched <= bound, "{} have memory", before - punched);
            assert!(punched < before.saturating_sub(bound) + PUNCH_PAGES_MIN, "{punched} punched");
            for page in pages.iter() {
                assert!(!matches!(page, Is::Free(kept) if *kept < youngest), "kept: {page:?}");
            }
        }
    }

    #[test]
    fn the_oldest_pages_lose_their_memory_first_after_thousands_of_releases() {
        for seed in 0..4 {
            let mut run = Run::new(seed);
            for step in 1..=STEPS {
                run.step();
                if step % (STEPS / 4) == 0 {
                    let bound = run.random.u32(..=run.memory.maybe_backed());
                    run.decay(bound);
                }
            }
            assert!(run.releases as usize > 3 * QUEUE_SLACK, "{} releases", run.releases);
            run.decay(0);
        }
    }

    #[test]
    fn numbers_of_releases_do_not_run_out() {
        let mut run = Run::new(4);
        for _ in 0..USED_PAGES {
            run.step();
        }
        run.memory.next = u32::MAX - 3;
        for _ in 0..USED_PAGES {
            run.step();
        }
        assert!(run.memory.next < u32::MAX / 2, "the next is {}", run.memory.next);
        for bound in (0..run.memory.maybe_backed()).rev().step_by(20) {
            run.decay(bound);
        }
        run.decay(0);
    }
}
