//! Extents: runs of free pages of the data area, and who gets which.
//!
//! Arenas take pages for slabs here, and the large path for blocks beyond the size classes; both give them
//! back. A request is served by what its arena has at hand (`front`): the common case does not take the lock that arenas
//! share. Else it is served by the smallest free run that holds it, the lowest one among equals. If none does, all fronts
//! become part of the runs, and at last the heap grows from the wilderness behind its last grown page; where the file system
//! has no memory for the smallest run, a larger one serves that has some. Pages that become part of the runs coalesce with
//! both neighbours at once.
//!
//! Free pages keep their memory only up to a bound; beyond it the pages freed longest ago give theirs back, also those that
//! were free when the heap was opened (`decay`). That happens when pages are freed, now and then among operations of any
//! size ([`Extents::look`]), when the heap is closed and when the user trims it, never because a request can't be met.
//!
//! Persistent: the grown length of the data area, nothing else. Which pages are allocated is known from the
//! bookkeeping log, and all that is here is rebuilt from it at open: free space is the complement.
//!
//! | file | what it holds |
//! |---|---|
//! | `bins` | the runs of a front, by size and by their ends |
//! | `decay` | how many free pages may keep their memory, and when it is time to look |
//! | `free` | the runs that all arenas share, by size and by their ends |
//! | `front` | what an arena has at hand |
//! | `memory` | which free pages have memory, and since when |
//! | `quick_lists` | what an arena gave back lately, by size |

mod bins;
mod decay;
mod free;
mod front;
mod memory;
mod quick_lists;
#[cfg(all(test, not(shuttle)))]
mod tests;

use std::{io, time::Duration};

use crossbeam_utils::CachePadded;
use pmalloc_persist::{
    Medium, Offset, PAGE_BYTES,
    sync::{Mutex, MutexGuard, lock},
};

use crate::{
    book::LogId,
    error::{Error, Result},
    layout::{
        geometry::{Geometry, Page, PageRange},
        sealed::seal,
        state::State,
    },
};

use self::{
    decay::{Moment, Pace, RecentPeak},
    free::FreeRuns,
    front::Front,
    memory::PageMemory,
};
pub(crate) use decay::KEEP_DEFAULT;

/// The heap grows by one part in this many of its grown length, so that a peak costs little.
const GROWTH_PARTS: u32 = 64;

/// Least growth: 128 KiB, unless the file system has less.
const GROWTH_MIN_PAGES: u32 = 32;

/// Most growth beyond what is asked for: 64 MiB.
const GROWTH_MAX_PAGES: u32 = 16 << 10;

/// What lies behind a large block that an arena takes out of a run goes along, up to one part in this many of the grown
/// length: the arena's next blocks need not come here.
const REST_PARTS: u32 = 64;

/// Most of that: 1 MiB.
const REST_MAX_PAGES: u32 = 256;

/// Most pages that are punched at a time beside other work: 1 MiB. On a tmpfs that takes a fraction of a millisecond.
const PUNCH_PAGES: u32 = 256;

/// The free space of a heap.
#[derive(Debug)]
pub(crate) struct Extents {
    geometry: Geometry,
    /// Volatile: how long free memory is kept; zero for not at all.
    keep: Duration,
    /// Volatile: when it is time to look.
    pace: CachePadded<Pace>,
    /// Volatile: what each arena has at hand, in cache lines of its own. No other lock is taken while one is held.
    fronts: Vec<CachePadded<Mutex<Front>>>,
    /// Volatile: all that arenas share. Nothing is called with the lock held but the medium.
    space: Mutex<FreePages>,
}

/// What a look at the free memory found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing that was to be done.
    Idle,
    /// A window of operations or of time is over: what lay unused for all of it may go.
    WindowEnded,
}

/// The free space in figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExtentStats {
    /// Bytes of the data area that ever had memory.
    pub(crate) grown_bytes: u64,
    /// Free bytes among them.
    pub(crate) free_bytes: u64,
    /// Free bytes that have memory for sure, those at hand among them; what was free when the heap was opened may have some.
    pub(crate) backed_free_bytes: u64,
    /// The largest request, in bytes, that there is room for, growth included.
    pub(crate) largest_free_bytes: u64,
    /// Bytes that the heap may still grow by.
    pub(crate) wilderness_bytes: u64,
    /// Bytes of volatile memory that knowing all this takes.
    pub(crate) dram_bytes: u64,
}

impl Extents {
    /// The free space of a heap of which `grown_pages` ever had memory and `allocated` is in use.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupted`] if the heap grew beyond its capacity, or an allocated range is empty, overlaps
    /// another or lies beyond the grown pages.
    pub(crate) fn new(
        geometry: Geometry,
        grown_pages: u32,
        allocated: &[PageRange],
    ) -> Result<Self> {
        if u64::from(grown_pages) > geometry.data_pages() {
            let what = "the heap grew beyond its capacity";
            return Err(Error::corrupted(Geometry::state(), what));
        }
        let mut space = FreePages {
            free: FreeRuns::new(grown_pages),
            memory: PageMemory::new(grown_pages),
            peak: RecentPeak::new(Duration::MAX),
            grown: grown_pages,
        };
        space.take_over(&geometry, allocated)?;
        let front = |_| CachePadded::new(Mutex::new(Front::new()));
        let fronts = (0..geometry.logs).map(front).collect();
        let (keep, pace) = (Duration::MAX, CachePadded::new(Pace::default()));
        Ok(Self { geometry, keep, pace, fronts, space: Mutex::new(space) })
    }

    /// Keeps free memory beyond the use of late for `keep` from now on, and not for ever as at first.
    pub(crate) fn keep<M: Medium>(&mut self, medium: &M, keep: Duration) {
        self.keep = keep;
        let mut space = lock(&self.space);
        space.peak.begin(keep, self.pace.count(0, medium.now()));
        self.pace.wait_for(&space.peak);
    }

    /// Takes `pages` pages with memory of their own, for the arena of `log`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`] if neither a free run nor the capacity has room, [`Error::NoSpace`] if the file
    /// system has none. Nothing has changed then, and a smaller request may succeed.
    ///
    /// # Panics
    ///
    /// If `pages` is zero.
    ///
    /// # Crash consistency
    ///
    /// The new grown length is durable before a page beyond the old one is handed out.
    #[inline]
    pub(crate) fn allocate<M: Medium>(
        &self,
        medium: &M,
        log: LogId,
        pages: u32,
    ) -> Result<PageRange> {
        assert!(pages > 0, "an extent of no page");
        if Front::takes(pages)
            && let Some(range) = self.front(log).take(pages)
        {
            return Ok(range);
        }
        let taken = self.allocate_from_runs(medium, pages)?;
        let rest = taken.without_first(pages);
        if rest.pages > 0 {
            self.keep_at_hand(medium, log, rest);
        }
        Ok(taken.first(pages))
    }

    /// Puts the rest of what was taken at hand of the arena of `log`.
    fn keep_at_hand<M: Medium>(&self, medium: &M, log: LogId, rest: PageRange) {
        let is_kept = self.front(log).add(rest);
        if !is_kept {
            self.release_to_runs(medium, &[rest]);
        }
    }

    /// Takes `pages` pages, or a few more, out of the best run, from the wilderness if need be.
    fn allocate_from_runs<M: Medium>(&self, medium: &M, pages: u32) -> Result<PageRange> {
        let mut space = lock(&self.space);
        if let Some(run) = space.free.best_fit(pages)
            && let Ok(range) = self.take(&mut space, medium, run, pages)
        {
            return Ok(range);
        }
        drop(space);
        // What is at hand may be what is missing, or complete it; also where the file system has no memory for a run.
        self.empty_fronts();
        let mut space = lock(&self.space);
        let run = match space.free.best_fit(pages) {
            Some(run) => run,
            None => self.grow(&mut space, medium, pages)?,
        };
        self.take(&mut space, medium, run, pages).or_else(|error| {
            let run = space.backed_fit(pages).ok_or(error)?;
            self.take(&mut space, medium, run, pages)
        })
    }

    /// Takes the first `pages` pages of `run`, or a few more.
    fn take<M: Medium>(
        &self,
        space: &mut FreePages,
        medium: &M,
        run: PageRange,
        pages: u32,
    ) -> Result<PageRange> {
        let (range, backed_pages) = space.with_rest(run, pages);
        let pages = range.pages;
        let mut bare_pages = 0;
        if backed_pages < pages {
            let backed = medium.back(self.geometry.span_of(range));
            backed.map_err(Error::backing("giving free pages of the heap memory"))?;
            bare_pages = space.memory.bare_in(range);
        }
        space.free.take_front(run, pages);
        space.memory.allocate(range, backed_pages);
        let used = space.used();
        space.peak.rise(used, bare_pages);
        Ok(range)
    }

    /// Gives back `range`; the arena of `log` has it at hand then.
    ///
    /// Memory beyond the bound goes back to the file system; if that refuses, the pages keep it until the
    /// next [`trim`](Self::trim).
    ///
    /// # Panics
    ///
    /// If the first or the last page of the range is not allocated, now or when it becomes part of the runs; in debug
    /// builds at once, if any is not.
    #[inline]
    pub(crate) fn release<M: Medium>(&self, medium: &M, log: LogId, range: PageRange) {
        if !Front::takes(range.pages) || self.keep.is_zero() {
            return self.release_to_runs(medium, &[range]);
        }
        let displaced = self.front(log).put(range);
        if let Some(extents) = displaced {
            self.release_to_runs(medium, &extents);
        }
    }

    /// Coalesces `ranges`, and gives back what is too much then.
    fn release_to_runs<M: Medium>(&self, medium: &M, ranges: &[PageRange]) {
        let mut space = lock(&self.space);
        space.release(ranges);
        let pages: u32 = ranges.iter().map(|range| range.pages).sum();
        // Twice what came, so that what is too much becomes less whatever comes.
        self.give_back(&mut space, medium, pages.saturating_mul(2).max(PUNCH_PAGES));
    }

    /// Punches free pages beyond the bound, at the cost of about `budget` pages.
    fn give_back<M: Medium>(&self, space: &mut FreePages, medium: &M, budget: u32) {
        let bound = space.peak.bound(space.used());
        let punch = |old| medium.punch(self.geometry.span_of(old));
        let punched = space.memory.decay(bound, budget, punch);
        space.peak.gave(punched);
        self.pace.set_behind(space.memory.is_over(bound));
    }

    /// Counts `operations` of any size, and gives memory back if it is time to; says whether a window is over.
    #[inline]
    pub(crate) fn look<M: Medium>(&self, medium: &M, operations: u32) -> Look {
        let now = self.pace.count(u64::from(operations), medium.now());
        if self.pace.is_due(now) { self.tend(medium, now) } else { Look::Idle }
    }

    #[cold]
    fn tend<M: Medium>(&self, medium: &M, now: Moment) -> Look {
        let is_over = lock(&self.space).peak.is_over(now);
        if is_over {
            // What is at hand of an arena that does nothing must neither be kept for ever nor count as used.
            self.empty_fronts();
        }
        let mut space = lock(&self.space);
        let used = space.used();
        let has_ended = space.peak.pass(now, used);
        self.pace.wait_for(&space.peak);
        self.give_back(&mut space, medium, PUNCH_PAGES);
        if has_ended { Look::WindowEnded } else { Look::Idle }
    }

    /// Whether memory waits for the next look to be given back.
    pub(crate) fn is_behind(&self) -> bool {
        self.pace.is_behind()
    }

    /// Gives back what the heap was to keep for later, as far as it is known to have memory: it is being closed.
    ///
    /// A file system that refuses keeps it.
    pub(crate) fn settle<M: Medium>(&self, medium: &M) {
        self.empty_fronts();
        let mut space = lock(&self.space);
        let used = space.used();
        space.peak.forget(used);
        let FreePages { memory, peak, .. } = &mut *space;
        let punch = |old| medium.punch(self.geometry.span_of(old));
        memory.decay_known(peak.bound(used), punch);
    }

    /// Makes everything that is at hand a part of the runs.
    #[cold]
    fn empty_fronts(&self) {
        for front in &self.fronts {
            let extents = lock(front).empty();
            lock(&self.space).release(&extents);
        }
    }

    fn front(&self, log: LogId) -> MutexGuard<'_, Front> {
        lock(&self.fronts[log.0 as usize])
    }

    /// Gives the memory of all free pages back to the file system and returns how many bytes may have had
    /// some.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file system refuses; what was punched before stays so.
    pub(crate) fn trim<M: Medium>(&self, medium: &M) -> Result<u64> {
        self.empty_fronts();
        let mut space = lock(&self.space);
        let FreePages { free, memory, .. } = &mut *space;
        let mut punched_pages = 0;
        for run in free.iter() {
            let punched = memory.punch_all(run, |old| medium.punch(self.geometry.span_of(old)));
            punched_pages += punched.map_err(Error::io("giving free pages back"))?;
        }
        memory.forget_releases();
        Ok(punched_pages * PAGE_BYTES)
    }

    /// Pages of the data area that ever had memory.
    pub(crate) fn grown_pages(&self) -> u32 {
        lock(&self.space).grown
    }

    /// The free space in figures.
    pub(crate) fn stats(&self) -> ExtentStats {
        let mut free: Vec<PageRange> = Vec::new();
        let mut tables_bytes = 0;
        for front in &self.fronts {
            let front = lock(front);
            free.extend(front.iter());
            tables_bytes += front.dram_bytes();
        }
        let at_hand: u32 = free.iter().map(|range| range.pages).sum();
        let space = lock(&self.space);
        free.extend(space.free.iter());
        let wilderness = self.geometry.data_pages() - u64::from(space.grown);
        let largest = largest_run(free, u64::from(space.grown), wilderness);
        ExtentStats {
            grown_bytes: u64::from(space.grown) * PAGE_BYTES,
            free_bytes: u64::from(space.free.pages() + at_hand) * PAGE_BYTES,
            backed_free_bytes: u64::from(space.memory.backed_free() + at_hand) * PAGE_BYTES,
            largest_free_bytes: largest * PAGE_BYTES,
            wilderness_bytes: wilderness * PAGE_BYTES,
            dram_bytes: size_of_val(&*self.fronts) as u64
                + tables_bytes
                + space.free.dram_bytes()
                + space.memory.dram_bytes(),
        }
    }

    /// Grows the heap until its last free run holds `pages`, and returns that run.
    #[cold]
    fn grow<M: Medium>(&self, space: &mut FreePages, medium: &M, pages: u32) -> Result<PageRange> {
        let needed = pages - space.tail().map_or(0, |tail| tail.pages);
        let room = self.geometry.data_pages() - u64::from(space.grown);
        if u64::from(needed) > room {
            return Err(Error::OutOfMemory {
                requested_bytes: u64::from(pages) * PAGE_BYTES,
                capacity_bytes: self.geometry.capacity_bytes,
            });
        }
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let step = (space.grown / GROWTH_PARTS).clamp(GROWTH_MIN_PAGES, GROWTH_MAX_PAGES);
        let generous = needed.max(step).min(room);
        let added = match self.back_new(space, medium, generous) {
            Err(_) if generous > needed => self.back_new(space, medium, needed),
            result => result,
        };
        let added = added.map_err(Error::backing("growing the heap"))?;
        self.persist_grown(medium, added.end())?;
        space.extend(added);
        Ok(space.tail().expect("the heap just grew by a free run"))
    }

    /// Gives the `pages` pages behind the grown ones memory.
    fn back_new<M: Medium>(
        &self,
        space: &FreePages,
        medium: &M,
        pages: u32,
    ) -> io::Result<PageRange> {
        let added = PageRange::new(Page(space.grown), pages);
        medium.back(self.geometry.span_of(added))?;
        Ok(added)
    }

    /// Makes the grown length durable.
    fn persist_grown<M: Medium>(&self, medium: &M, grown_pages: u64) -> Result<()> {
        let state = medium.at(Offset::<State>::new(Geometry::state()))?;
        // CRASH: before the store is durable, recovery finds the old length: pages behind it have memory
        // but are in no extent, and the next growth takes them as they are. Afterwards it finds the new
        // length, and the pages added are free. No extent names them before the fence: they are handed out
        // only after this function returned.
        medium.store(&state.grown_pages, seal(grown_pages));
        medium.flush_of(&state.grown_pages);
        medium.fence();
        Ok(())
    }
}

/// Pages of the longest run of `free` pages, where those in front of page `grown` go on for `wilderness` more.
fn largest_run(mut free: Vec<PageRange>, grown: u64, wilderness: u64) -> u64 {
    free.sort_unstable_by_key(|range| range.start);
    let (mut largest, mut run, mut end) = (0, 0, 0);
    for range in free {
        run = if u64::from(range.start.0) == end { run } else { 0 } + u64::from(range.pages);
        end = range.end();
        largest = largest.max(run);
    }
    let tail = if end == grown { run } else { 0 };
    largest.max(tail + wilderness)
}

/// What the lock guards.
#[derive(Debug)]
struct FreePages {
    free: FreeRuns,
    memory: PageMemory,
    peak: RecentPeak,
    /// Pages of the data area that ever had memory; the wilderness lies behind.
    grown: u32,
}

impl FreePages {
    /// Makes all pages free but those in `allocated`.
    fn take_over(&mut self, geometry: &Geometry, allocated: &[PageRange]) -> Result<()> {
        let mut allocated = allocated.to_vec();
        allocated.sort_unstable_by_key(|range| range.start);
        let mut end = Page(0);
        for range in allocated {
            let offset = geometry.page_offset(range.start);
            if range.pages == 0 || range.end() > u64::from(self.grown) {
                return Err(Error::corrupted(offset, "an extent is empty or lies beyond the heap"));
            }
            let Some(gap) = range.start.0.checked_sub(end.0) else {
                return Err(Error::corrupted(offset, "an extent overlaps another"));
            };
            self.free.insert_if_any(PageRange::new(end, gap));
            self.memory.allocate(range, 0);
            end = Page(range.start.0 + range.pages);
        }
        self.free.insert_if_any(PageRange::new(end, self.grown - end.0));
        // What was free before may be needed again as soon as what was in use.
        self.peak.rise(self.grown, 0);
        Ok(())
    }

    /// Enters pages that were just grown and have memory.
    fn extend(&mut self, added: PageRange) {
        self.grown += added.pages;
        self.free.grow(self.grown);
        self.memory.extend(added);
        self.free.insert(added);
    }

    /// The first `pages` pages of `run`, and what goes along with them: none for which there may be no memory. And how many of
    /// all have memory for sure.
    fn with_rest(&self, run: PageRange, pages: u32) -> (PageRange, u32) {
        if Front::splits_for(pages) && !self.peak.keeps_nothing() {
            let rest = (self.grown / REST_PARTS).min(REST_MAX_PAGES);
            let range = run.first(pages + rest);
            if self.memory.backed_in(range) == range.pages {
                return (range, range.pages);
            }
        }
        let range = run.first(pages);
        (range, self.memory.backed_in(range))
    }

    /// Coalesces `ranges`, which are in use.
    fn release(&mut self, ranges: &[PageRange]) {
        for &range in ranges {
            self.memory.release(range);
            self.free.insert(range);
        }
    }

    /// The smallest run whose first `pages` pages have memory for sure: for who can't get any.
    #[cold]
    fn backed_fit(&self, pages: u32) -> Option<PageRange> {
        if self.memory.backed_free() < pages {
            return None;
        }
        let is_backed =
            |run: &PageRange| self.memory.backed_in(PageRange::new(run.start, pages)) == pages;
        self.free.fitting(pages).find(is_backed)
    }

    /// The free run in front of the wilderness.
    fn tail(&self) -> Option<PageRange> {
        self.free.ending_at(Page(self.grown))
    }

    /// Pages in use.
    fn used(&self) -> u32 {
        self.grown - self.free.pages()
    }
}
