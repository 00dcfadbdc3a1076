//! Goal: free pages are handed out once, backed, best fit first, and never lost.
//!
//! Method: random operations run beside a naive model that looks through all pages for every answer, on a
//! medium that remembers which pages have memory, in which order it was called, and that can be full.

mod model;
mod probe;

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::{collection::vec, prelude::*};

use self::{
    model::Model,
    probe::{Call, Probe},
};
use super::*;
use crate::layout::sealed::unseal;

/// The arena of the tests that need but one.
const LOG: LogId = LogId(0);
/// Arenas of the random test: more than one, to take what another has at hand.
const LOGS: usize = 2;

fn geometry(pages: u64) -> Geometry {
    let geometry =
        Geometry { capacity_bytes: pages * PAGE_BYTES, ..crate::tests::small_geometry() };
    assert!(geometry.is_valid());
    geometry
}

fn range(start: u32, pages: u32) -> PageRange {
    PageRange::new(Page(start), pages)
}

/// A new heap of `pages` pages of capacity.
fn fresh(pages: u64) -> (Probe, Extents) {
    let probe = Probe::new(geometry(pages));
    let extents = opened(&probe, 0, &[]);
    (probe, extents)
}

/// The heap on `probe`, of which `grown` pages ever had memory and `allocated` is in use, as a program opens it.
fn opened(probe: &Probe, grown: u32, allocated: &[PageRange]) -> Extents {
    let mut extents = Extents::new(probe.geometry, grown, allocated).expect("a sound heap");
    extents.keep(probe, KEEP_DEFAULT);
    extents
}

/// Looks as operations do until nothing is left to do.
fn look(probe: &Probe, extents: &Extents) {
    extents.look(probe, 1);
    while extents.is_behind() {
        extents.look(probe, 1);
    }
}

fn kind_of(error: &Error) -> Option<io::ErrorKind> {
    match error {
        Error::Io { source, .. } | Error::NoSpace { source, .. } => Some(source.kind()),
        _ => None,
    }
}

#[derive(Debug, Clone)]
enum Op {
    /// The arena of this number takes so many pages.
    Allocate(usize, u32),
    /// Releases the live range of this number, modulo how many there are.
    Release(usize),
    Trim,
    /// Opens the heap again: free pages have lost their memory meanwhile.
    Reopen,
    /// Likewise, and they have kept it.
    Kill,
    /// Time passes, until what was in use before is forgotten.
    Wait,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..LOGS, 1..=12_u32).prop_map(|(log, pages)| Op::Allocate(log, pages)),
        3 => (0..LOGS, 1..=300_u32).prop_map(|(log, pages)| Op::Allocate(log, pages)),
        9 => any::<usize>().prop_map(Op::Release),
        1 => Just(Op::Trim),
        1 => Just(Op::Reopen),
        1 => Just(Op::Kill),
        1 => Just(Op::Wait),
    ]
}

/// The structure, its medium and its model.
struct Pair {
    probe: Probe,
    extents: Extents,
    model: Model,
}

impl Pair {
    fn new(pages: u64) -> Self {
        let (probe, extents) = fresh(pages);
        let capacity = usize::try_from(pages).expect("few pages");
        Self { probe, extents, model: Model { capacity, ..Model::default() } }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Allocate(log, pages) => self.allocate(*log, *pages),
            Op::Release(_) if self.model.live.is_empty() => {}
            Op::Release(nth) => self.release(*nth % self.model.live.len()),
            Op::Trim => self.trim(),
            Op::Reopen => self.reopen(),
            Op::Kill => self.kill(),
            Op::Wait => self.wait(),
        }
        self.check();
    }

    fn allocate(&mut self, log: usize, pages: u32) {
        // What is at hand has memory, and so have new pages.
        let known: Vec<bool> = {
            let space = lock(&self.extents.space);
            let is_backed = |page| space.memory.backed_in(range(page, 1)) == 1;
            (0..).zip(&self.model.used).map(|(page, used)| *used || is_backed(page)).collect()
        };
        let expected = self.model.place(log, pages, |range| {
            let start = range.start.0 as usize;
            known.iter().skip(start).take(range.pages as usize).all(|known| *known)
        });
        match self.extents.allocate(&self.probe, log_id(log), pages) {
            Ok(got) => {
                assert_eq!((Some(got.start), got.pages), (expected, pages), "the best fit");
                self.model.set(got, true);
                self.model.peak = self.model.peak.max(self.model.used_pages());
                self.model.live.push((log, got));
            }
            Err(error) => {
                assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
                assert_eq!(expected, None, "the model has room");
            }
        }
    }

    fn release(&mut self, nth: usize) {
        let (log, range) = self.model.live.swap_remove(nth);
        self.extents.release(&self.probe, log_id(log), range);
        if Front::takes(range.pages) {
            self.model.at_hand[log].push(range);
            return;
        }
        self.model.set(range, false);
        if self.extents.is_behind() {
            return;
        }
        let bound = self.model.decay_bound() + self.model.pages_at_hand();
        let backed = self.extents.stats().backed_free_bytes / PAGE_BYTES;
        assert!(backed <= bound as u64, "{backed} free pages have memory, {bound} may");
    }

    fn trim(&mut self) {
        // Apart from the trim, as it gives memory back that is over the bound.
        self.extents.empty_fronts();
        self.model.empty_hands();
        let backed = self.probe.backed_pages() - self.model.used_pages();
        let punched = self.extents.trim(&self.probe).expect("the probe punches");
        assert!(punched >= backed as u64 * PAGE_BYTES);
        assert_eq!(self.probe.backed_pages(), self.model.used_pages());
        self.model.has_unknown = false;
    }

    fn wait(&mut self) {
        self.probe.pass(2 * KEEP_DEFAULT);
        look(&self.probe, &self.extents);
        self.model.empty_hands();
        self.model.peak = self.model.used_pages();
        let backed = self.probe.backed_pages() - self.model.used_pages();
        let bound = self.model.decay_bound();
        assert!(backed <= bound, "{backed} free pages have memory, {bound} may");
    }

    /// Free pages may have lost their memory while the heap was closed.
    fn reopen(&mut self) {
        self.kill();
        for (backed, used) in self.probe.backed().iter_mut().zip(&self.model.used) {
            *backed &= used;
        }
        self.model.has_unknown = false;
    }

    fn kill(&mut self) {
        self.model.empty_hands();
        let grown = self.model.used.len();
        let live: Vec<PageRange> = self.model.live.iter().map(|(_, range)| *range).collect();
        let grown_pages = u32::try_from(grown).expect("few pages");
        self.extents = opened(&self.probe, grown_pages, &live);
        // What was free may be in use again at once.
        self.model.peak = grown;
        self.model.has_unknown = true;
    }

    fn check(&self) {
        let stats = self.extents.stats();
        // What is at hand counts as free, and coalesced, though it is not yet.
        let mut free = Model { used: self.model.used.clone(), ..Model::default() };
        self.model.all_at_hand().for_each(|range| free.set(*range, false));
        let runs = free.runs();
        let grown = free.used.len();
        let tail = runs.last().filter(|run| run.end() == grown as u64).map_or(0, |r| r.pages);
        let wilderness = self.model.capacity - grown;
        let largest = runs.iter().map(|run| run.pages as usize).max().unwrap_or(0);
        let bytes = |pages: usize| pages as u64 * PAGE_BYTES;
        assert_eq!(stats.grown_bytes, bytes(grown));
        assert_eq!(stats.free_bytes, bytes(grown - free.used_pages()));
        assert_eq!(stats.wilderness_bytes, bytes(wilderness));
        // A mark and a run's end for each grown page.
        assert!(stats.dram_bytes >= stats.grown_bytes / PAGE_BYTES * 8);
        assert_eq!(stats.largest_free_bytes, bytes(largest.max(wilderness + tail as usize)));
        let backed = self.probe.backed();
        let bare = |page: &usize| self.model.used[*page] && !backed[*page];
        assert_eq!((0..grown).find(bare), None, "a page in use or at hand without memory");
        let free_backed = (0..grown).filter(|&page| !free.used[page] && backed[page]).count();
        assert!(stats.backed_free_bytes <= bytes(free_backed));
        assert!(self.model.has_unknown || stats.backed_free_bytes == bytes(free_backed));
        let word = self.probe.grown_word();
        assert_eq!(unseal(word).unwrap_or(0), grown as u64, "the grown length on media");
    }
}

fn log_id(log: usize) -> LogId {
    LogId(u32::try_from(log).expect("few arenas"))
}

proptest! {
    #[test]
    fn extents_do_as_the_naive_model(
        slabs in 10_u64..400, ops in vec(op(), 1..150),
    ) {
        let mut pair = Pair::new(slabs * 4);
        for op in &ops {
            pair.apply(op);
        }
        while !pair.model.live.is_empty() {
            pair.apply(&Op::Release(0));
        }
        pair.extents.empty_fronts();
        let grown = pair.model.used.len();
        let runs: Vec<PageRange> = lock(&pair.extents.space).free.iter().collect();
        let whole = range(0, u32::try_from(grown).expect("few pages"));
        prop_assert_eq!(runs, if grown == 0 { vec![] } else { vec![whole] });
    }
}

#[test]
fn the_grown_length_is_durable_before_pages_are_handed_out() {
    let (probe, extents) = fresh(400);
    extents.allocate(&probe, LOG, 5).expect("room");
    let grown = seal(u64::from(GROWTH_MIN_PAGES));
    assert_eq!(probe.take_calls(), [Call::Back, Call::Store(grown), Call::Flush, Call::Fence]);
    extents.allocate(&probe, LOG, 5).expect("room");
    assert_eq!(probe.take_calls(), [], "grown pages cost no system call");
}

#[test]
fn the_ragged_tail_of_the_capacity_is_used_up() {
    let (probe, extents) = fresh(148);
    let taken: u32 = (0..21).map(|_| extents.allocate(&probe, LOG, 7).expect("room").pages).sum();
    assert_eq!((taken, extents.stats().largest_free_bytes), (147, PAGE_BYTES));
    let error = extents.allocate(&probe, LOG, 2).expect_err("one page is left");
    assert!(matches!(error, Error::OutOfMemory { requested_bytes: 8192, .. }), "{error}");
    assert_eq!(extents.allocate(&probe, LOG, 1).expect("one page is left"), range(147, 1));
    assert_eq!(extents.stats().largest_free_bytes, 0);
}

#[test]
fn a_request_beyond_the_capacity_changes_nothing() {
    let (probe, extents) = fresh(400);
    for pages in [401, u32::MAX] {
        let error = extents.allocate(&probe, LOG, pages).expect_err("there are 400 pages");
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    }
    assert_eq!(probe.take_calls(), []);
    assert_eq!(extents.allocate(&probe, LOG, 400).expect("all of it"), range(0, 400));
}

#[test]
fn a_full_file_system_changes_nothing_and_smaller_requests_still_fit() {
    let (probe, extents) = fresh(400);
    probe.room_pages.store(50, Ordering::Relaxed);
    extents.allocate(&probe, LOG, 40).expect("40 of 50 pages, without the usual step");
    let before = (extents.stats(), probe.grown_word());
    let error = extents.allocate(&probe, LOG, 11).expect_err("10 pages are left");
    assert_eq!(kind_of(&error), Some(io::ErrorKind::StorageFull));
    assert_eq!((extents.stats(), probe.grown_word()), before);
    assert_eq!(extents.allocate(&probe, LOG, 10).expect("10 pages are left"), range(40, 10));
}

#[test]
fn a_punched_run_that_gets_no_memory_stays_free() {
    let (probe, extents) = fresh(400);
    let first = extents.allocate(&probe, LOG, 20).expect("room");
    extents.allocate(&probe, LOG, 20).expect("room");
    extents.release(&probe, LOG, first);
    extents.trim(&probe).expect("the probe punches");
    probe.room_pages.store(25, Ordering::Relaxed);
    let before = extents.stats();
    let error = extents.allocate(&probe, LOG, 20).expect_err("5 pages are left");
    assert_eq!(kind_of(&error), Some(io::ErrorKind::StorageFull));
    assert_eq!(extents.stats(), before);
    assert_eq!(extents.allocate(&probe, LOG, 5).expect("5 pages are left").pages, 5);
}

#[test]
fn what_is_at_hand_is_used_where_the_file_system_is_full() {
    let (probe, extents) = fresh(400);
    let blocks = [20, 1, 12, 1].map(|pages| extents.allocate(&probe, LOG, pages).expect("room"));
    extents.release(&probe, LOG, blocks[0]);
    extents.trim(&probe).expect("the probe punches");
    extents.release(&probe, LOG, blocks[2]);
    probe.room_pages.store(probe.backed_pages() as u64, Ordering::Relaxed);
    let got = extents.allocate(&probe, LOG, 9).expect("12 free pages have memory");
    assert_eq!(got, range(21, 9));
}

/// The smallest run was tried twice, and the request refused, while a larger run had all the memory it takes.
#[test]
fn a_larger_run_with_memory_serves_where_the_file_system_is_full() {
    let (probe, extents) = fresh(400);
    let [small, _, large, _, larger, _] =
        [9, 1, 12, 1, 25, 1].map(|pages| extents.allocate(&probe, LOG, pages).expect("room"));
    extents.release(&probe, LOG, small);
    extents.release(&probe, LOG, large);
    extents.trim(&probe).expect("the probe punches");
    extents.release(&probe, LOG, larger);
    probe.room_pages.store(probe.backed_pages() as u64, Ordering::Relaxed);
    let allocate = |pages| extents.allocate(&probe, LOG, pages);
    assert_eq!(allocate(9).expect("25 free pages have memory"), range(larger.start.0, 9));
    assert_eq!(allocate(9).expect("16 have"), range(larger.start.0 + 9, 9));
    assert!(matches!(allocate(9), Err(Error::NoSpace { .. })), "7 have");
    assert_eq!(allocate(7).expect("the best fit has memory"), range(larger.start.0 + 18, 7));
}

/// Lets operations happen until the peak before is two windows of them old, and all is done that was to be done.
fn work(probe: &Probe, extents: &Extents) {
    for _ in 0..2 * decay::WINDOW_OPERATIONS / 256 {
        extents.look(probe, 256);
    }
    look(probe, extents);
}

#[test]
fn decay_takes_what_was_freed_longest_ago() {
    let (probe, extents) = fresh(4000);
    let blocks: Vec<PageRange> =
        (0..40).map(|_| extents.allocate(&probe, LOG, 20).expect("room")).collect();
    for block in blocks.iter().skip(1).step_by(2) {
        extents.release(&probe, LOG, *block);
    }
    assert!(!probe.take_calls().contains(&Call::Punch), "all of it was in use just now");
    work(&probe, &extents);
    assert!(probe.take_calls().contains(&Call::Punch), "400 pages are over the bound");
    let backed = probe.backed();
    let has_memory = |range: &PageRange| backed[range.start.0 as usize];
    let kept: Vec<bool> = blocks.iter().skip(1).step_by(2).map(has_memory).collect();
    assert!(kept.is_sorted(), "freed in this order: {kept:?}");
    assert!(!kept[0] && kept[19]);
}

#[test]
fn use_that_goes_up_and_down_within_a_window_costs_no_system_call() {
    let (probe, extents) = fresh(4000);
    let allocate = |_| extents.allocate(&probe, LOG, 300).expect("room");
    let mut peak: Vec<PageRange> = (0..10).map(allocate).collect();
    probe.take_calls();
    for _ in 0..20 {
        peak.drain(..).for_each(|block| extents.release(&probe, LOG, block));
        let few = extents.allocate(&probe, LOG, 300).expect("room");
        let block = extents.allocate(&probe, LOG, 300).expect("room");
        extents.release(&probe, LOG, block);
        extents.look(&probe, u32::try_from(decay::WINDOW_OPERATIONS).expect("few") - 1);
        extents.release(&probe, LOG, few);
        peak.extend((0..10).map(allocate));
    }
    assert_eq!(probe.take_calls(), []);
}

#[test]
fn what_goes_along_with_a_large_block_serves_its_arena_and_who_keeps_nothing_takes_none() {
    for keep in [KEEP_DEFAULT, Duration::ZERO] {
        let probe = Probe::new(geometry(4000));
        let mut extents = Extents::new(probe.geometry, 0, &[]).expect("a sound heap");
        extents.keep(&probe, keep);
        let large = extents.allocate(&probe, LOG, 2000).expect("room");
        extents.release(&probe, LOG, large);
        let before = lock(&extents.space).free.pages();
        extents.allocate(&probe, LOG, 20).expect("room");
        let along = before - lock(&extents.space).free.pages() - 20;
        let at_hand: u32 = lock(&extents.fronts[0]).iter().map(|range| range.pages).sum();
        let expected = if keep.is_zero() { 0 } else { extents.grown_pages() / REST_PARTS };
        assert_eq!((along, at_hand), (expected, expected));
        let taken = extents.allocate(&probe, LOG, 17).expect("room");
        assert_eq!(taken.start.0, 20, "what lies behind serves first");
    }
}

#[test]
fn what_was_free_at_open_is_backed_again_and_trimmed() {
    let probe = Probe::new(geometry(400));
    let extents = opened(&probe, 100, &[range(10, 5), range(60, 40)]);
    assert_eq!(extents.stats().backed_free_bytes, 0);
    assert_eq!(extents.allocate(&probe, LOG, 10).expect("room"), range(0, 10));
    assert_eq!(probe.take_calls(), [Call::Back]);
    assert_eq!(extents.trim(&probe).expect("the probe punches"), 45 * PAGE_BYTES);
    assert_eq!(extents.trim(&probe).expect("the probe punches"), 0, "nothing is left to punch");
}

#[test]
fn what_was_free_at_open_goes_back_with_time() {
    let probe = Probe::new(geometry(4000));
    let [large, small] =
        [2000, 1].map(|pages| opened(&probe, 0, &[]).allocate(&probe, LOG, pages).expect("room"));
    assert_eq!((large, small), (range(0, 2000), range(0, 1)));
    let extents = opened(&probe, 2000, &[small]);
    look(&probe, &extents);
    assert_eq!(probe.backed_pages(), 2000, "who opens may need it");
    probe.pass(2 * KEEP_DEFAULT);
    extents.look(&probe, 1);
    assert_eq!(probe.backed_pages(), 2000 - PUNCH_PAGES as usize, "not all at once");
    look(&probe, &extents);
    assert!(probe.backed_pages() <= 1 + decay::FLOOR_PAGES as usize);
    let taken = extents.allocate(&probe, LOG, 1999).expect("room");
    let backed = probe.backed();
    assert!(backed[taken.start.0 as usize..].iter().take(1999).all(|backed| *backed));
}

#[test]
fn closing_gives_back_what_is_known_to_have_memory_and_leaves_the_rest() {
    let probe = Probe::new(geometry(4000));
    opened(&probe, 0, &[]).allocate(&probe, LOG, 2000).expect("room");
    let extents = opened(&probe, 2000, &[]);
    let taken = extents.allocate(&probe, LOG, 900).expect("room");
    extents.release(&probe, LOG, taken);
    extents.settle(&probe);
    assert_eq!(probe.backed_pages(), 1100 + decay::FLOOR_PAGES as usize);
}

#[test]
fn a_medium_that_refuses_to_punch_is_asked_once_until_the_next_trim() {
    let (probe, extents) = fresh(4000);
    extents.allocate(&probe, LOG, 2).expect("room");
    let blocks: Vec<PageRange> =
        (0..4).map(|_| extents.allocate(&probe, LOG, 300).expect("room")).collect();
    probe.refuses_punch.store(true, Ordering::Relaxed);
    probe.take_calls();
    for block in &blocks[1..] {
        extents.release(&probe, LOG, *block);
    }
    work(&probe, &extents);
    assert_eq!(probe.take_calls(), [Call::Punch]);
    let error = extents.trim(&probe).expect_err("the probe refuses");
    assert_eq!(kind_of(&error), Some(io::ErrorKind::Unsupported));
    probe.refuses_punch.store(false, Ordering::Relaxed);
    assert_eq!(extents.trim(&probe).expect("the probe punches"), 900 * PAGE_BYTES);
    assert_eq!(probe.backed_pages(), 302);
}

#[test]
fn bookkeeping_that_contradicts_itself_is_corrupted() {
    let new = |grown, allocated: &[PageRange]| Extents::new(geometry(400), grown, allocated);
    let senseless: [(u32, &[PageRange]); 7] = [
        (401, &[]),
        (u32::MAX, &[]),
        (100, &[range(0, 0)]),
        (100, &[range(99, 2)]),
        (100, &[range(u32::MAX, u32::MAX)]),
        (100, &[range(20, 5), range(10, 11)]),
        (100, &[range(20, 5), range(20, 5)]),
    ];
    for (grown, allocated) in senseless {
        let error = new(grown, allocated).expect_err("senseless");
        assert!(matches!(error, Error::Corrupted { .. }), "{allocated:?}: {error}");
    }
    let full = new(400, &[range(0, 300), range(300, 100)]).expect("no free page is fine");
    assert_eq!(full.stats().largest_free_bytes, 0);
}

#[test]
#[should_panic(expected = "is not allocated")]
fn releasing_twice_panics() {
    let (probe, extents) = fresh(400);
    let range = extents.allocate(&probe, LOG, 5).expect("room");
    extents.release(&probe, LOG, range);
    extents.release(&probe, LOG, range);
}

#[test]
fn threads_never_hold_the_same_page() {
    let (probe, extents) = fresh(4000);
    let owned: Vec<AtomicBool> = (0..4000).map(|_| AtomicBool::new(false)).collect();
    let claim = |range: PageRange, now: bool| {
        let start = range.start.0 as usize;
        for page in &owned[start..start + range.pages as usize] {
            assert_ne!(page.swap(now, Ordering::Relaxed), now, "{range:?}");
        }
    };
    let work = |log: u32| {
        let log = LogId(log);
        let mut random = fastrand::Rng::with_seed(u64::from(log.0));
        let mut live: Vec<PageRange> = Vec::new();
        for _ in 0..2000 {
            if live.len() < 10 || random.bool() && live.len() < 30 {
                let range = extents.allocate(&probe, log, random.u32(1..60)).expect("room");
                claim(range, true);
                live.push(range);
            } else {
                let range = live.swap_remove(random.usize(..live.len()));
                claim(range, false);
                extents.release(&probe, log, range);
            }
        }
        live.into_iter().for_each(|range| {
            claim(range, false);
            extents.release(&probe, log, range);
        });
    };
    std::thread::scope(|scope| {
        scope.spawn(|| work(0));
        scope.spawn(|| work(1));
    });
    extents.empty_fronts();
    assert_eq!(lock(&extents.space).free.iter().count(), 1);
}
