//! The page cache of the simulator against a kernel that is played step by step.
//!
//! Method: the naive kernel keeps every disk that there may be. After each store it lets every set of dirty pages be
//! written back, or not; a sync writes what is dirty; a sync that fails leaves pages that count as clean. The simulator
//! keeps stores in order and thinks of prefixes. After every short sequence of steps, and after long random ones that go on
//! from one of the images, both must know the same disks.

use std::collections::BTreeSet;

use crate::common::{Images, flush, get, images, page, pages, put, set};
use pmalloc_persist::{
    Medium, PAGE_BYTES, Span,
    sim::{BackFault, Digest, Domain, ExploreOptions, Explorer, Sim, SimOptions},
};
use proptest::prelude::*;

/// Words that are stored to: two in one line, one in another line of the same page, one in another page.
const WORDS: &[u64] = &[0, 1, 8, 512];

type Disk = Vec<u64>;

/// One step of the program, or of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A store of a new value to one of the words.
    Store(usize),
    FlushAndFence,
    Sync,
    /// A sync of the page of one of the words.
    SyncPageOf(usize),
    FailingSync,
}

const STEPS: [Step; 8] = [
    Step::Store(0),
    Step::Store(1),
    Step::Store(2),
    Step::Store(3),
    Step::FlushAndFence,
    Step::Sync,
    Step::SyncPageOf(0),
    Step::FailingSync,
];

/// The kernel, and all disks that it may have written.
#[derive(Debug)]
struct Kernel {
    domain: Domain,
    cache: Disk,
    disks: BTreeSet<Disk>,
    /// Per unit that is written back as a whole.
    is_dirty: [bool; 3],
}

impl Kernel {
    fn new(domain: Domain, words: Disk) -> Self {
        Self { domain, disks: [words.clone()].into(), cache: words, is_dirty: [false; 3] }
    }

    /// What is written back as a whole, and holds the word at `index` of the list.
    fn unit(&self, index: usize) -> usize {
        match (self.domain, index) {
            (_, 3) => 2,
            (Domain::PageTorn, 2) => 1,
            _ => 0,
        }
    }

    fn write(&self, disk: &Disk, is_written: impl Fn(usize) -> bool) -> Disk {
        let words = disk.iter().zip(&self.cache).enumerate();
        words
            .map(|(at, (disk, cache))| *if is_written(self.unit(at)) { cache } else { disk })
            .collect()
    }

    /// The kernel has had time to write back any set of dirty units.
    fn idle(&mut self) {
        for unit in (0..3).filter(|&unit| self.is_dirty[unit]) {
            let written = self.disks.iter().map(|disk| self.write(disk, |other| other == unit));
            let written: Vec<Disk> = written.collect();
            self.disks.extend(written);
        }
    }

    fn step(&mut self, step: Step, value: u64) {
        match step {
            Step::Store(index) => {
                self.cache[index] = value;
                self.is_dirty[self.unit(index)] = true;
                self.idle();
            }
            Step::FlushAndFence => {}
            Step::Sync => self.sync(|_| true),
            Step::SyncPageOf(index) => {
                let is_first = index < 3;
                self.sync(|unit| (unit < 2) == is_first);
            }
            // All that could be written was, or not; that is known already.
            Step::FailingSync => self.is_dirty = [false; 3],
        }
    }

    fn sync(&mut self, is_meant: impl Fn(usize) -> bool) {
        let is_written = |unit: usize| self.is_dirty[unit] && is_meant(unit);
        self.disks = self.disks.iter().map(|disk| self.write(disk, is_written)).collect();
        let clean = [0, 1, 2].map(|unit| self.is_dirty[unit] && !is_meant(unit));
        self.is_dirty = clean;
    }
}

fn take(sim: &Sim, step: Step, value: u64) {
    let synced = match step {
        Step::Store(index) => {
            put(sim, WORDS[index], value);
            return;
        }
        Step::FlushAndFence => {
            WORDS.iter().for_each(|&word| flush(sim, word));
            sim.fence();
            return;
        }
        Step::Sync => sim.sync(),
        Step::SyncPageOf(index) => sim.sync_span(Span::new(WORDS[index] * 8, 8)),
        Step::FailingSync => {
            sim.fail_syncs(BackFault::From(0));
            assert!(sim.sync().is_err());
            sim.fail_syncs(BackFault::Never);
            return;
        }
    };
    synced.expect("no failure was asked for");
}

#[test]
fn every_short_history_leaves_the_disks_that_the_kernel_may_write() {
    for domain in [Domain::Page4096, Domain::PageTorn] {
        let mut disks = 0;
        for history in 0..STEPS.len().pow(4) {
            let steps = (0..4).map(|nth| STEPS[history / STEPS.len().pow(nth) % STEPS.len()]);
            let steps: Vec<Step> = steps.collect();
            let (sim, mut kernel) = (pages(domain, 2), Kernel::new(domain, vec![0; 4]));
            for (step, value) in steps.iter().zip(1..) {
                take(&sim, *step, value);
                kernel.step(*step, value);
            }
            let known = images(&sim, WORDS);
            assert_eq!(known, kernel.disks, "{domain:?} {steps:?}");
            disks += known.len();
        }
        println!("{domain:?}: {disks} disks of {} histories", STEPS.len().pow(4));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn long_histories_with_crashes_leave_the_disks_that_the_kernel_may_write(
        is_torn in any::<bool>(),
        steps in prop::collection::vec(0..STEPS.len(), 40),
        seeds in prop::array::uniform3(any::<u64>()),
    ) {
        let domain = if is_torn { Domain::PageTorn } else { Domain::Page4096 };
        let (mut sim, mut kernel) = (pages(domain, 2), Kernel::new(domain, vec![0; 4]));
        for (step, value) in steps.iter().zip(1..) {
            take(&sim, STEPS[*step], value);
            kernel.step(STEPS[*step], value);
            if value % 13 == 0 {
                let seed = seeds[usize::try_from(value / 13 - 1).expect("small")];
                sim = sim.crash_state().sample(seed);
                let found: Disk = WORDS.iter().map(|&word| get(&sim, word)).collect();
                prop_assert!(kernel.disks.contains(&found), "{found:?} of {kernel:?}");
                kernel = Kernel::new(domain, found);
            }
        }
        prop_assert_eq!(images(&sim, WORDS), kernel.disks);
    }
}

#[test]
fn flush_and_fence_mean_nothing() {
    for domain in [Domain::Page4096, Domain::PageTorn] {
        let sim = page(domain);
        put(&sim, 0, 1);
        flush(&sim, 0);
        sim.fence();
        assert_eq!(images(&sim, &[0]), set([[0], [1]]), "{domain:?}");
        assert!(sim.needs_sync() && !page(Domain::Line64).needs_sync());
    }
}

#[test]
fn a_page_is_as_it_was_at_some_moment_and_a_torn_one_is_not() {
    let images_in = |domain| {
        let sim = page(domain);
        put(&sim, 0, 1);
        put(&sim, 100, 1);
        images(&sim, &[0, 100])
    };
    assert_eq!(images_in(Domain::Page4096), set([[0, 0], [1, 0], [1, 1]]));
    assert_eq!(images_in(Domain::PageTorn), set([[0, 0], [1, 0], [0, 1], [1, 1]]));
}

#[test]
fn a_kill_loses_nothing_and_is_no_other_boot() {
    let sim = page(Domain::Page4096);
    put(&sim, 0, 1);
    sim.kill();
    let next = sim.new_process();
    assert_eq!((get(&next, 0), next.boot().ok()), (1, sim.boot().ok()));
    assert_eq!(images(&next, &[0]), set([[0], [1]]), "what was not synchronized is not, still");
}

#[test]
fn a_crash_is_another_boot() {
    for domain in [Domain::Line64, Domain::Page4096] {
        let sim = page(domain);
        let first = sim.crash_state().newest();
        let second = first.crash_state().newest();
        let boots: BTreeSet<u128> =
            [&sim, &first, &second].iter().map(|sim| sim.boot().expect("known")).collect();
        assert_eq!(boots.len(), 3, "{domain:?}");
    }
}

#[test]
fn memory_that_is_not_synchronized_may_be_gone() {
    let domain = Domain::Page4096;
    let sim = Sim::new(SimOptions { len_bytes: 4 * PAGE_BYTES, domain });
    let nth = |page| Span::new(page * PAGE_BYTES, PAGE_BYTES);
    // The pages that may be touched after a crash now, and the length.
    let after = || {
        let boot = sim.crash_state().newest();
        let is_backed = |page: &u64| {
            let touch = std::panic::AssertUnwindSafe(|| get(&boot, page * PAGE_BYTES / 8));
            std::panic::catch_unwind(touch).is_ok()
        };
        ((0..4).filter(is_backed).collect::<Vec<u64>>(), boot.len())
    };
    sim.back(Span::new(0, 2 * PAGE_BYTES)).expect("room");
    assert_eq!(after(), (vec![], 0));
    sim.sync().expect("no failure");
    assert_eq!(after(), (vec![0, 1], 2 * PAGE_BYTES));
    sim.back(nth(3)).expect("room");
    assert_eq!(after(), (vec![0, 1], 2 * PAGE_BYTES));
    sim.sync_span(nth(3)).expect("no failure");
    assert_eq!(after(), (vec![0, 1, 3], 4 * PAGE_BYTES));
    // The file system may free the blocks at any time, long before it writes the page back.
    sim.punch(nth(1)).expect("punching works");
    assert_eq!(after(), (vec![0, 3], 4 * PAGE_BYTES));
    sim.back(nth(1)).expect("room");
    assert_eq!(after(), (vec![0, 3], 4 * PAGE_BYTES));
    sim.sync().expect("no failure");
    assert_eq!(after(), (vec![0, 1, 3], 4 * PAGE_BYTES));
}

#[test]
fn a_crash_in_recovery_finds_what_the_first_one_left() {
    // Recovery stores to a second page, synchronizes it alone, and stores again: of the first page it reads one word.
    for domain in [Domain::Page4096, Domain::PageTorn] {
        let sim = pages(domain, 2);
        put(&sim, 0, 1);
        put(&sim, 1, 2);
        let states = std::sync::Arc::new(std::sync::Mutex::new(Images::new()));
        let seen = std::sync::Arc::clone(&states);
        let options = ExploreOptions { nesting: 1, ..ExploreOptions::default() };
        let explorer = Explorer::watch(&sim, options, move |sim: &Sim| {
            let found = vec![get(sim, 0), get(sim, 1), get(sim, 512), get(sim, 513)];
            seen.lock().expect("no panic inside").insert(found.clone());
            if found[2] == 0 {
                put(sim, 512, 7);
                sim.sync_span(Span::new(PAGE_BYTES, 8)).map_err(|error| error.to_string())?;
                put(sim, 513, 8);
                sim.crash_point("stored");
            }
            Ok(Digest::of(&found))
        });
        explorer.crash_point("crash");
        explorer.finish().assert_clean();
        let found = states.lock().expect("no panic inside").clone();
        let first = [[0, 0], [1, 0], [1, 2]];
        let second = [[0, 0], [7, 0], [7, 8]];
        let all = first.iter().flat_map(|a| second.iter().map(move |b| [*a, *b].concat()));
        assert_eq!(found, all.collect::<Images>(), "{domain:?}");
    }
}
