//! Every crash of every short sequence of operations, on every image that it can leave.
//!
//! The oracle: replay finds the extents of before the operation, with any subset of its effects, since an
//! operation's entries are written behind one fence. What recovery then does is what the heap does: it
//! appends the missing effects, as for a live record, and copies logs with torn places. Its own crashes are
//! explored, too.
//!
//! A crash while chunks are made leaves them in very many states, which nothing reads: replay tells none of
//! them apart, and neither does a recovery that makes such a chunk anew. All points are explored in full.

use std::sync::{Arc, Mutex};

use pmalloc_persist::{
    PAGE_BYTES, Span,
    sim::{
        BackFault, Digest, Domain, ExploreOptions, Explorer, Report, Sim, SimOptions, SiteCount,
        SiteKind,
    },
};

use super::*;

/// What happens to the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The lowest free page is allocated in the first log.
    Alloc,
    /// The same in the second log.
    AllocOther,
    /// The extent of the lowest page is freed.
    FreeLowest,
    /// The extent of the highest page is freed.
    FreeHighest,
    /// The extent of the lowest page is freed and a page is allocated, behind one fence.
    Replace,
    /// A place is taken and given up.
    Cancel,
    /// Empty chunks are unlinked.
    Fast,
    /// The live entries are copied.
    Slow,
}

const STEPS: [Step; 8] = [
    Step::Alloc,
    Step::AllocOther,
    Step::FreeLowest,
    Step::FreeHighest,
    Step::Replace,
    Step::Cancel,
    Step::Fast,
    Step::Slow,
];

/// What the book has been through before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Nothing.
    Fresh,
    /// The last chunk has one place left.
    AlmostFull,
    /// Of four chunks the first is empty; the second lives; the third frees what the first allocated.
    Collectable,
    /// The first chunk has one live entry; the second frees all others of the first, and nothing else.
    Needed,
    /// The next append finds a log that is to be copied.
    Sparse,
    /// The last chunk is full, and the next one was in use before.
    Recycled,
}

const STARTS: [Start; 6] = [
    Start::Fresh,
    Start::AlmostFull,
    Start::Collectable,
    Start::Needed,
    Start::Sparse,
    Start::Recycled,
];

/// What recovery does beyond replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recovery {
    /// Nothing: the operation had no live record.
    AsFound,
    /// Nothing, but the book is used then.
    AsFoundAndUse,
    /// What is missing is appended, as for a live record.
    Redo,
    /// That, and both collectors run.
    RedoAndCollect,
    /// What is missing is appended, but with the planted mistake of going on behind the last entry that is valid.
    GoOnBehindLastValid,
}

/// Whether the driver plants a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    /// None.
    None,
    /// Free entries are dropped although their allocations are linked.
    DropFreesEarly,
    /// An entry counts before its fence.
    CommitBeforeFence,
}

type Extents = BTreeMap<u32, Held>;

/// What the check may find.
#[derive(Debug, Clone, Default)]
struct Expect {
    before: Extents,
    after: Extents,
}

impl Expect {
    /// Whether `found` is the state before with some of the effects.
    fn allows(&self, found: &Extents) -> bool {
        let all = self.before.keys().chain(self.after.keys()).chain(found.keys());
        all.into_iter().all(|start| {
            let found = found.get(start);
            found == self.before.get(start) || found == self.after.get(start)
        })
    }
}

fn as_map(held: &[Held]) -> Extents {
    held.iter().map(|held| (held.extent.range.start.0, *held)).collect()
}

/// Recovers the book on `sim` and judges it.
fn check(sim: &Sim, expect: &Expect, recovery: Recovery) -> Result<Digest, String> {
    let geometry = small_geometry();
    let replay = || Book::replay(sim, &geometry).map_err(|error| error.to_string());
    let (book, held) = replay()?;
    let found = as_map(&held);
    if !expect.allows(&found) {
        return Err(format!("found {found:?}, expected {expect:?}"));
    }
    if recovery == Recovery::GoOnBehindLastValid {
        forget_torn_tails(&book, sim);
    }
    match recovery {
        Recovery::AsFound => {}
        Recovery::AsFoundAndUse => {
            sim.recovered();
            works(sim, &book, &held)?;
        }
        _ => {
            recover(sim, &book, &found, expect, recovery)?;
            sim.recovered();
            let (_, held) = replay()?;
            if as_map(&held) != expect.after {
                return Err(format!("recovered {held:?}, not {:?}", expect.after));
            }
        }
    }
    Ok(Digest::of(&format!("{found:?}")))
}

/// Appends the effects that are missing, allocations first, and copies what has holes.
fn recover(
    sim: &Sim,
    book: &Book,
    found: &Extents,
    expect: &Expect,
    recovery: Recovery,
) -> Result<(), String> {
    let mut appends = Vec::new();
    for (start, held) in expect.after.iter().filter(|(start, _)| !found.contains_key(start)) {
        assert!(!expect.before.contains_key(start));
        let append = book.reserve_alloc(sim, held.log, held.extent);
        appends.push(append.map_err(|error| error.to_string())?);
    }
    for (start, held) in found.iter().filter(|(start, _)| !expect.after.contains_key(start)) {
        let append = book.reserve_free(sim, held.log, Page(*start));
        let (append, _) = append.map_err(|error| error.to_string())?;
        appends.push(append);
    }
    appends.iter().for_each(|append| book.write(sim, append));
    sim.fence();
    appends.into_iter().for_each(|append| book.commit(append));
    if recovery == Recovery::RedoAndCollect {
        for log in [LOG, OTHER] {
            book.collect_fast(sim, &mut lock(book.log(log)));
            book.compact(sim, log).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// The planted mistake: each log goes on behind the last entry that is valid.
fn forget_torn_tails(book: &Book, sim: &Sim) {
    for log in [LOG, OTHER] {
        let mut log = lock(book.log(log));
        let Some(tail) = log.chunks.tail() else { continue };
        let (base, index) = (tail.base, tail.index);
        while log.next > base {
            let place = book.area.place(index, log.next - 1 - base);
            if LogEntry::decode(book.area.load(sim, place), place.bytes()).is_some() {
                break;
            }
            log.next -= 1;
        }
    }
}

/// Frees all, allocates anew in both logs, and replays.
fn works(sim: &Sim, book: &Book, held: &[Held]) -> Result<(), String> {
    let mut appends = Vec::new();
    for held in held {
        let append = book.reserve_free(sim, held.log, held.extent.range.start);
        let (append, extent) = append.map_err(|error| error.to_string())?;
        assert_eq!(extent, held.extent);
        appends.push(append);
    }
    for (log, start) in [(LOG, 62), (OTHER, 63)] {
        let append = book.reserve_alloc(sim, log, extent(start, 1));
        appends.push(append.map_err(|error| error.to_string())?);
    }
    appends.iter().for_each(|append| book.write(sim, append));
    sim.fence();
    appends.into_iter().for_each(|append| book.commit(append));
    let (_, held) =
        Book::replay(sim, &small_geometry()).map_err(|error| format!("at last: {error}"))?;
    let starts: Vec<u32> = held.iter().map(|held| held.extent.range.start.0).collect();
    if starts == [62, 63] { Ok(()) } else { Err(format!("at last {held:?}")) }
}

/// A medium with an empty book.
fn formatted(domain: Domain) -> Sim {
    let geometry = small_geometry();
    let sim = Sim::new(SimOptions { len_bytes: geometry.book_span().end(), domain });
    sim.back(Span::new(0, Geometry::root_table().bytes())).unwrap();
    Book::format(&sim, &geometry);
    sim.fence();
    sim
}

/// A book on a simulated medium, beside what it holds.
struct Driver {
    sim: Sim,
    book: Book,
    now: Extents,
    expect: Arc<Mutex<Expect>>,
    mistake: Mistake,
}

impl Driver {
    fn new(domain: Domain, start: Start) -> Self {
        let sim = formatted(domain);
        let mut driver = Self {
            sim,
            book: Book::new(&small_geometry()),
            now: Extents::new(),
            expect: Arc::default(),
            mistake: Mistake::None,
        };
        driver.prepare(start);
        driver.expect(driver.now.clone());
        driver
    }

    /// One that asks for memory for every chunk, as one that was just opened, but with all that was counted since.
    fn unaware(start: Start) -> Self {
        let mut driver = Self::new(Domain::Line64, start);
        *driver.book.backed.get_mut() = 0;
        driver
    }

    fn prepare(&mut self, start: Start) {
        let all = |step: Step, count: u32| (0..count).map(move |_| step);
        let steps: Vec<Step> = match start {
            Start::Fresh => Vec::new(),
            Start::AlmostFull => all(Step::Alloc, ENTRIES - 1).collect(),
            Start::Collectable => all(Step::Alloc, ENTRIES - 1)
                .chain(all(Step::Cancel, 1))
                .chain(all(Step::Alloc, ENTRIES))
                .chain(all(Step::FreeLowest, ENTRIES - 1))
                .chain(all(Step::Cancel, 1))
                .chain(all(Step::Alloc, 1))
                .collect(),
            Start::Needed => all(Step::Alloc, ENTRIES)
                .chain(all(Step::FreeHighest, ENTRIES - 1))
                .chain(all(Step::Cancel, 1))
                .chain(all(Step::Alloc, 1))
                .collect(),
            Start::Sparse => all(Step::Alloc, 1)
                .chain((0..ENTRIES).flat_map(|_| [Step::Alloc, Step::FreeHighest]))
                .collect(),
            Start::Recycled => all(Step::Alloc, 2 * ENTRIES)
                .chain(all(Step::FreeHighest, ENTRIES - 1))
                .chain(all(Step::FreeLowest, 1))
                .chain(all(Step::Slow, 1))
                .collect(),
        };
        steps.into_iter().for_each(|step| self.step(step));
        let chunks = self.book.stats().chunks;
        let wanted = match start {
            Start::Fresh => 0,
            Start::AlmostFull | Start::Recycled => 1,
            Start::Collectable => 4,
            Start::Needed | Start::Sparse => 3,
        };
        assert_eq!(chunks, wanted, "{start:?} is not what its name says");
    }

    /// Expects the extents that there are now and the effects that make them `after`.
    fn expect(&self, after: Extents) {
        *self.expect.lock().unwrap() = Expect { before: self.now.clone(), after };
    }

    fn step(&mut self, step: Step) {
        let used = |page: &u32| self.now.contains_key(page);
        let page = (0..60).step_by(2).find(|page| !used(page)).unwrap();
        let lowest = self.now.keys().next().copied();
        let highest = self.now.keys().next_back().copied();
        match step {
            Step::Alloc => self.operate(&[], &[(LOG, page)]),
            Step::AllocOther => self.operate(&[], &[(OTHER, page)]),
            Step::FreeLowest => self.operate(lowest.as_slice(), &[]),
            Step::FreeHighest => self.operate(highest.as_slice(), &[]),
            Step::Replace => self.operate(lowest.as_slice(), &[(LOG, page)]),
            Step::Cancel => {
                let append = self.book.reserve_alloc(&self.sim, LOG, extent(page, 1));
                self.book.cancel(append.unwrap());
            }
            Step::Fast => {
                let mut log = lock(self.book.log(LOG));
                if self.mistake == Mistake::DropFreesEarly {
                    log.chunks.iter_mut().for_each(|chunk| chunk.needed = 0);
                    log.chunks.iter_mut().for_each(|chunk| chunk.frees.clear());
                }
                self.book.collect_fast(&self.sim, &mut log);
            }
            Step::Slow => {
                assert_eq!(self.book.compact(&self.sim, LOG).unwrap(), Compacted::Done);
            }
        }
    }

    /// Frees and allocates behind one fence.
    fn operate(&mut self, frees: &[u32], allocs: &[(LogId, u32)]) {
        let mut after = self.now.clone();
        after.retain(|start, _| !frees.contains(start));
        for &(log, start) in allocs {
            after.insert(start, Held { extent: extent(start, 1 + start / 2 % 2), log });
        }
        // What is reserved leaves nothing on media that replay tells.
        let mut appends = Vec::new();
        for start in frees {
            let log = self.now[start].log;
            let (append, _) = self.book.reserve_free(&self.sim, log, Page(*start)).unwrap();
            appends.push(append);
        }
        for (log, start) in allocs {
            let extent = after[start].extent;
            appends.push(self.book.reserve_alloc(&self.sim, *log, extent).unwrap());
        }
        self.expect(after.clone());
        appends.iter().for_each(|append| self.book.write(&self.sim, append));
        if self.mistake != Mistake::CommitBeforeFence {
            self.sim.fence();
        }
        appends.into_iter().for_each(|append| self.book.commit(append));
        self.now = after;
        self.expect(self.now.clone());
    }

    /// Explores the crashes of the last of `steps`.
    fn explore(mut self, steps: &[Step], recovery: Recovery, options: ExploreOptions) -> Report {
        let expect = self.expect.clone();
        let (last, prefix) = steps.split_last().expect("a sequence has steps");
        prefix.iter().for_each(|&step| self.step(step));
        let explorer = Explorer::watch(&self.sim, options, move |sim| {
            let expect = expect.lock().unwrap().clone();
            check(sim, &expect, recovery)
        });
        self.step(*last);
        explorer.crash_point("the operation returned");
        explorer.finish()
    }
}

/// All sequences of `length` steps.
fn sequences(length: u32) -> Vec<Vec<Step>> {
    (0..length).fold(vec![Vec::new()], |shorter, _| {
        let longer = |steps: &Vec<Step>| {
            let steps = steps.clone();
            STEPS.map(move |step| [steps.as_slice(), &[step]].concat())
        };
        shorter.iter().flat_map(longer).collect()
    })
}

/// Explores the sequences from every start.
fn explore_all(
    domain: Domain,
    sequences: &[Vec<Step>],
    recovery: Recovery,
    nesting: u32,
) -> Report {
    let options = ExploreOptions { nesting, ..ExploreOptions::default() };
    let mut total = Report::default();
    for start in STARTS {
        for steps in sequences {
            let report = Driver::new(domain, start).explore(steps, recovery, options.clone());
            assert!(report.violations.is_empty(), "{start:?} {steps:?} {report}");
            assert!(report.is_exhaustive(), "{start:?} {steps:?} {report}");
            total.merge(report);
        }
    }
    println!("{recovery:?} {domain:?}: {total}");
    total
}

const DOMAINS: [Domain; 3] = [Domain::Line64, Domain::Word8, Domain::Eadr];

/// Options for checks that overwrite what a crash left, or cross two entries with two.
fn sampling(nesting: u32, budget: u64, nested_budget: u64) -> ExploreOptions {
    ExploreOptions { nesting, budget, nested_budget, samples: 4, ..ExploreOptions::default() }
}

/// Finds a violation in some sequence of at most two steps from some start.
fn find_violation(recovery: Recovery, nesting: u32, plant: impl Fn(&mut Driver)) -> Option<String> {
    let options = ExploreOptions { max_violations: 1, ..sampling(nesting, 400, 40) };
    for (start, length) in STARTS.into_iter().flat_map(|start| [(start, 1), (start, 2)]) {
        for steps in sequences(length) {
            for domain in [Domain::Line64, Domain::Word8] {
                let mut driver = Driver::new(domain, start);
                plant(&mut driver);
                let report = driver.explore(&steps, recovery, options.clone());
                if let Some(violation) = report.violations.first() {
                    return Some(format!("{start:?} {steps:?}: {violation}"));
                }
            }
        }
    }
    None
}

/// Every place in the book's code that flushes or fences, but for that of `format`, which is over before
/// a crash is explored.
fn persists() -> Vec<SiteCount> {
    let formatted: Vec<_> =
        formatted(Domain::Line64).sites().iter().map(|site| site.location).collect();
    let mut all = BTreeMap::new();
    for (start, step) in STARTS.into_iter().flat_map(|start| STEPS.map(|step| (start, step))) {
        let mut driver = Driver::new(Domain::Line64, start);
        driver.step(step);
        for site in driver.sim.sites() {
            let is_persist =
                site.kind != SiteKind::Store && !site.location.file().contains("tests");
            if is_persist && !formatted.contains(&site.location) {
                all.insert((site.location, site.kind), site);
            }
        }
    }
    all.into_values().collect()
}

#[test]
fn every_crash_of_every_short_sequence_replays() {
    let all: Vec<_> = (1..4).flat_map(sequences).collect();
    for domain in DOMAINS {
        let report = explore_all(domain, &all, Recovery::AsFound, 0);
        assert!(report.states.len() > 100, "{report}");
    }
}

#[test]
fn a_recovery_that_appends_may_crash_and_its_recovery_too() {
    // Where each word persists on its own, two entries are too many images to crash in the recovery of the recovery.
    let (two_entries, one_entry): (Vec<_>, Vec<_>) =
        sequences(1).into_iter().partition(|steps| *steps == [Step::Replace]);
    for (domain, nesting) in [(Domain::Line64, 2), (Domain::Word8, 1), (Domain::Eadr, 2)] {
        explore_all(domain, &one_entry, Recovery::Redo, 2);
        explore_all(domain, &two_entries, Recovery::Redo, nesting);
    }
}

#[test]
fn a_recovery_that_collects_may_crash_and_its_recovery_too() {
    for (domain, nesting) in [(Domain::Line64, 2), (Domain::Word8, 1), (Domain::Eadr, 2)] {
        explore_all(domain, &sequences(1), Recovery::RedoAndCollect, nesting);
    }
}

#[test]
fn a_book_that_crashed_works() {
    let all: Vec<_> = (1..3).flat_map(sequences).collect();
    for domain in DOMAINS {
        explore_all(domain, &all, Recovery::AsFoundAndUse, 0);
    }
}

#[test]
fn every_flush_and_fence_left_out_is_noticed() {
    let persists = persists();
    assert!(persists.len() >= 7, "{persists:?}");
    for site in persists {
        let caught = find_violation(Recovery::AsFound, 0, |driver| driver.sim.mutate(site));
        let caught = caught.unwrap_or_else(|| panic!("nobody misses the {site:?}"));
        println!("{:?} at {}: {caught}", site.kind, site.location);
    }
}

#[test]
fn a_free_entry_dropped_too_early_is_noticed() {
    let mistake = Mistake::DropFreesEarly;
    let caught = find_violation(Recovery::AsFound, 0, |driver| driver.mistake = mistake);
    println!("{}", caught.expect("a freed extent comes back"));
}

#[test]
fn an_entry_that_counts_before_its_fence_is_noticed() {
    let mistake = Mistake::CommitBeforeFence;
    let caught = find_violation(Recovery::AsFound, 0, |driver| driver.mistake = mistake);
    println!("{}", caught.expect("a returned operation is lost"));
}

#[test]
fn a_log_that_goes_on_behind_its_last_valid_entry_is_noticed() {
    let caught = find_violation(Recovery::GoOnBehindLastValid, 0, |_| {});
    let caught = caught.expect("a torn place is written again");
    assert!(caught.contains("a place is written once"), "{caught}");
}

#[test]
fn a_full_file_system_is_an_error_that_changes_nothing() {
    let driver = Driver::unaware(Start::Recycled);
    let (sim, book) = (&driver.sim, &driver.book);
    let before = mirrors(book);
    sim.fail_backs(BackFault::From(0));
    let error = book.reserve_alloc(sim, LOG, extent(40, 1)).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    assert!(matches!(book.reserve_free(sim, LOG, Page(2)), Err(Error::NoSpace { .. })));
    assert!(matches!(book.compact(sim, LOG), Err(Error::NoSpace { .. })));
    assert_eq!(mirrors(book), before);
    sim.fail_backs(BackFault::Never);
    works(sim, book, &driver.now.values().copied().collect::<Vec<_>>()).unwrap();
    // A collection that is due but fails does not fail the append that it was to go before.
    let driver = Driver::unaware(Start::Sparse);
    driver.sim.fail_backs(BackFault::From(0));
    let append = driver.book.reserve_alloc(&driver.sim, LOG, extent(40, 1)).unwrap();
    assert!(driver.sim.back_calls() > 0, "the copy was tried");
    driver.book.cancel(append);
}

/// Allocates and frees until so many chunks are full.
fn churn(driver: &mut Driver, chunks: u32) {
    for _ in 0..chunks * ENTRIES / 2 {
        driver.step(Step::Alloc);
        driver.step(Step::FreeLowest);
    }
}

/// Each chunk that was made cost a system call, with the log's lock held.
#[test]
fn a_chunk_that_is_made_again_asks_for_no_memory() {
    let mut driver = Driver::new(Domain::Line64, Start::Fresh);
    churn(&mut driver, 8);
    let chunks = u64::from(lock(driver.book.log(LOG)).chunks.tail().unwrap().index.0) + 1;
    driver.sim.fail_backs(BackFault::Never);
    churn(&mut driver, 80);
    assert_eq!(driver.sim.back_calls(), 0, "{chunks} chunks had memory");
    // Another process does not know which of them do.
    (driver.book, _) = Book::replay(&driver.sim, &small_geometry()).unwrap();
    churn(&mut driver, 80);
    let calls = driver.sim.back_calls();
    assert!((1..=chunks).contains(&calls), "{calls} for {chunks} chunks");
}

/// The simulator would end the process, as a mapping would, were a page touched that has no memory.
#[test]
fn a_chunk_on_a_page_of_which_none_was_made_gets_memory() {
    let mut driver = Driver::new(Domain::Line64, Start::Fresh);
    driver.step(Step::Alloc);
    let page = u32::try_from(PAGE_BYTES / small_geometry().chunk_bytes).unwrap();
    let others = driver.book.pool.take_many(2 * page, 0).unwrap();
    churn(&mut driver, 4);
    let tail = lock(driver.book.log(LOG)).chunks.tail().unwrap().index;
    assert!(others.last().is_some_and(|last| *last < tail), "{tail:?} follows those taken");
}
