//! Which free pages have memory, and in which order they lose it.
//!
//! Each page below the grown length has a mark: allocated, or free without memory, or free with memory
//! since the release of that number. The releases queue up in order; decay takes the oldest and punches
//! those of its pages that still carry its number, so a page that was used again in between is as young as
//! its last release.

use std::{collections::VecDeque, io, ops::Range};

use crate::layout::geometry::{Page, PageRange};

/// Marks of pages: these, or the number of a release from [`FIRST_RELEASE`] on.
/// Free since before the heap was opened: it may have memory, but nothing says that it does. Zero, so that the marks of
/// pages that nobody ever uses need no memory themselves.
const UNKNOWN: u32 = 0;
const ALLOCATED: u32 = 1;
/// Free, and without memory.
const BARE: u32 = 2;
const FIRST_RELEASE: u32 = 3;

/// Releases in the queue that are always worth less than looking for those that are void.
const QUEUE_SLACK: usize = 1024;

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
    /// The marks of a heap with `grown` pages: all unknown.
    pub(super) fn new(grown: u32) -> Self {
        Self {
            marks: vec![UNKNOWN; grown as usize],
            queue: VecDeque::new(),
            sweep_at: QUEUE_SLACK,
            next: FIRST_RELEASE,
            backed_free: 0,
            refused: false,
        }
    }

    /// Makes room for the pages below `grown`; new ones are unknown.
    pub(super) fn grow(&mut self, grown: u32) {
        self.marks.resize(grown as usize, UNKNOWN);
    }

    /// Bytes of volatile memory.
    pub(super) fn dram_bytes(&self) -> u64 {
        (size_of_val(&*self.marks) + self.queue.capacity() * size_of::<Release>()) as u64
    }

    /// Free pages that have memory for sure.
    pub(super) fn backed_free(&self) -> u32 {
        self.backed_free
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
    pub(super) fn set_backed(&mut self, range: PageRange) {
        if self.queue.len() >= self.sweep_at || self.next == u32::MAX {
            self.sweep();
        }
        self.marks[indexes(range)].fill(self.next);
        self.queue.push_back(Release { range, number: self.next });
        self.next += 1;
        self.backed_free += range.pages;
    }

    /// Punches the pages released longest ago until at most `bound` free pages have memory.
    pub(super) fn decay(&mut self, bound: u32, mut punch: impl FnMut(PageRange) -> io::Result<()>) {
        while self.backed_free > bound && !self.refused {
            let release = self.queue.pop_front().expect("a free page with memory was released");
            let is_of_it = |mark| mark == release.number;
            if self.punch_where(release.range, is_of_it, &mut punch).is_err() {
                self.refused = true;
                self.queue.push_front(release);
            }
        }
    }

    /// Punches every page of `run`, which is free, that may have memory; returns how many those are.
    pub(super) fn punch_all(
        &mut self,
        run: PageRange,
        mut punch: impl FnMut(PageRange) -> io::Result<()>,
    ) -> io::Result<u64> {
        self.punch_where(run, |mark| mark != BARE, &mut punch)
    }

    /// Forgets the releases after every free page was punched.
    pub(super) fn forget_releases(&mut self) {
        assert_eq!(self.backed_free, 0, "a free page has memory after all were punched");
        self.queue.clear();
        self.sweep_at = QUEUE_SLACK;
        self.next = FIRST_RELEASE;
        self.refused = false;
    }

    /// Punches every run of pages in `range` whose marks are `chosen`; returns the number of pages.
    fn punch_where(
        &mut self,
        range: PageRange,
        chosen: impl Fn(u32) -> bool,
        punch: &mut impl FnMut(PageRange) -> io::Result<()>,
    ) -> io::Result<u64> {
        let mut punched_pages = 0;
        let mut rest = range;
        while let Some(run) = self.next_run(rest, &chosen) {
            punch(run)?;
            let marks = &mut self.marks[indexes(run)];
            self.backed_free -= count(marks, |mark| mark >= FIRST_RELEASE);
            marks.fill(BARE);
            punched_pages += u64::from(run.pages);
            let next = run.start.0 + run.pages;
            rest = PageRange::new(Page(next), rest.pages - (next - rest.start.0));
        }
        Ok(punched_pages)
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
        self.queue.retain_mut(|release| {
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
