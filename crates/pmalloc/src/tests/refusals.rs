//! Goal: whatever makes `open` refuse a heap, `check` speaks of it; and what a program that knows more wrote is refused by name
//! and never mended.
//!
//! Method: small heaps in files, closed and as a crash leaves them, are damaged in one way for each reason that there is; each
//! is opened, checked and salvaged. That the list here lacks no reason is shown elsewhere, by heaps of which every byte is
//! changed (`tests/corruption.rs`) or that are forged at random: there, too, a refused heap must not pass a check.

use std::{
    fs,
    mem::{discriminant, offset_of},
    path::Path,
};

use pmalloc_persist::PAGE_BYTES;

use super::common::image::{self, Image, Interrupted, word_index};
use crate::{
    Error, Heap, ProblemKind,
    layout::{
        book::{CHUNK_MAGIC, EntryOp, ExtentKind, LogEntry},
        geometry::Geometry,
        lane::{MARK_LINES, Op, Record, Tag},
        root::RootEntry,
        sealed::{checksum, seal},
        slab::{SLAB_MAGIC, SlabHeader},
        slot::{SlotWord, Version},
        state::{Clean, Policy, State},
        superblock::SUPERBLOCK_WORDS,
    },
    recovery::superblock_places,
    tests::small_geometry,
};

const LINE: u64 = 64;

/// The words of a heap that is damaged.
struct Words(Vec<u64>);

impl Words {
    fn get(&self, at: u64) -> u64 {
        self.0[word_index(at)]
    }

    fn set(&mut self, at: u64, value: u64) {
        self.0[word_index(at)] = value;
    }

    /// Seals the `count` words at `at` with their checksum and `extra` bits in the word behind them.
    fn seal(&mut self, at: u64, count: usize, extra: u64) {
        let first = word_index(at);
        let sum = checksum(&self.0[first..first + count], at);
        self.0[first + count] = sum | extra;
    }

    /// Changes a word of both superblock copies, and seals them.
    fn superblock(&mut self, word: u64, value: u64) {
        for place in superblock_places() {
            self.set(place + word * 8, value);
            self.seal(place, SUPERBLOCK_WORDS - 1, 0);
        }
    }

    fn state(&mut self, offset: usize, value: u64) {
        self.set(Geometry::state() + offset as u64, value);
    }

    /// The first line that begins with `magic`, among those of the metadata.
    fn line_of(&self, magic: u64) -> u64 {
        let end = small_geometry().data_span().start;
        (0..end).step_by(64).find(|at| self.get(*at) == magic).expect("every image has one")
    }

    /// Where the first entry of the book stands that allocates a slab.
    fn entry(&self) -> u64 {
        let book = small_geometry().book_span();
        let is_slab = |at: &u64| {
            let words = [0, 8, 16, 24].map(|nth| self.get(at + nth));
            let op = LogEntry::decode(words, *at).map(|entry| entry.op);
            op == Some(EntryOp::Alloc(ExtentKind::Slab))
        };
        (book.start..book.end()).step_by(32).find(is_slab).expect("every image has slabs")
    }

    /// Where the first slab's header stands.
    fn slab(&self) -> u64 {
        self.line_of(SLAB_MAGIC)
    }

    /// Where the first word of a bitmap with a live bit stands.
    fn live_word(&self) -> u64 {
        let lines = small_geometry().descriptor_span();
        let live = (lines.start..lines.end()).step_by(8).find(|at| {
            let line = at / LINE * LINE;
            self.get(line) != SLAB_MAGIC && self.get(*at) != 0
        });
        live.expect("every image has live blocks")
    }

    fn root_slot(&self, nth: u64) -> u64 {
        root(nth) + offset_of!(RootEntry, slot) as u64
    }
}

fn root(nth: u64) -> u64 {
    Geometry::root_table().nth(nth).expect("inside").bytes()
}

/// What is to become of a damaged heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is refused, a check names the problem, and it can be salvaged.
    Damaged,
    /// It is refused by name: a program that knows more wrote it.
    Version,
    /// There is nothing to salvage.
    Hopeless,
}

type Damage = (&'static str, Fate, fn(&mut Words));

use Fate::{Damaged, Hopeless, Version as Newer};

/// What a closed heap is refused for.
const OF_CLOSED: &[Damage] = &[
    ("no magic word", Hopeless, |w| superblock_places().iter().for_each(|at| w.set(*at, 0))),
    ("no checksum", Hopeless, |w| superblock_places().iter().for_each(|at| w.set(at + 32, 1))),
    ("sizes", Hopeless, |w| w.superblock(17, 12345)),
    ("layout name", Hopeless, |w| w.superblock(8, 0xff)),
    ("format version", Newer, |w| superblock_places().iter().for_each(|at| w.set(at + 8, 2))),
    ("features", Newer, |w| w.superblock(3, 1)),
    ("model", Newer, |w| w.superblock(6, 2)),
    ("nodes", Newer, |w| w.superblock(24, 2)),
    ("policy", Newer, |w| w.state(offset_of!(State, policy), seal(Policy::CODE_MAX + 1))),
    ("kind of clean", Newer, |w| w.state(offset_of!(State, clean), seal(99))),
    ("clean flag", Damaged, |w| w.state(offset_of!(State, clean), 0)),
    ("policy word", Damaged, |w| w.state(offset_of!(State, policy), 0)),
    ("epoch", Damaged, |w| w.state(offset_of!(State, durable_epoch), 1)),
    ("grown", Damaged, |w| w.state(offset_of!(State, grown_pages), 1)),
    ("overgrown", Damaged, |w| w.state(offset_of!(State, grown_pages), seal(1 << 30))),
    ("roots used", Damaged, |w| w.state(offset_of!(State, roots_used), 0)),
    ("too many roots", Damaged, |w| w.state(offset_of!(State, roots_used), seal(9))),
    ("check of roots", Damaged, |w| w.state(offset_of!(State, roots_check), 0)),
    ("log root", Damaged, |w| w.set(Geometry::log_roots().bytes(), 1)),
    ("chunk", Damaged, |w| w.set(w.line_of(CHUNK_MAGIC) + 16, 99)),
    ("entry", Damaged, |w| w.set(w.entry() + 8, 1)),
    ("operation of an entry", Newer, |w| {
        let entry = w.entry();
        w.set(entry + 8, 4);
        w.seal(entry, 3, 1 << 32);
    }),
    ("lane directory", Damaged, |w| w.set(small_geometry().directory_span().start, 1)),
    ("lane", Damaged, |w| w.set(small_geometry().lane_span(0).start, 0)),
    ("mark", Damaged, |w| w.set(small_geometry().lane_span(0).start + LINE, 1)),
    ("slab", Damaged, |w| w.set(w.slab() + 16, 0)),
    ("morphing", Newer, |w| {
        let slab = w.slab();
        w.set(slab + offset_of!(SlabHeader, morph) as u64, 1);
        w.seal(slab, 6, 0);
    }),
    ("size class", Newer, |w| {
        let slab = w.slab();
        w.set(slab + offset_of!(SlabHeader, class) as u64, 15 << 10);
        w.seal(slab, 6, 0);
    }),
    ("tag", Newer, |w| {
        let slab = w.slab();
        let class = slab + offset_of!(SlabHeader, class) as u64;
        w.set(class, w.get(class) | 256 << 32);
        w.seal(slab, 6, 0);
    }),
    ("live bits", Damaged, |w| w.set(w.live_word(), w.get(w.live_word()) ^ 1)),
    ("check of live bits", Damaged, |w| {
        w.set(w.slab() + offset_of!(SlabHeader, bits_check) as u64, 0);
    }),
    ("kind of a root", Newer, |w| {
        w.set(root(0) + offset_of!(RootEntry, kind) as u64, 4);
        w.seal(root(0), 11, 1 << 32);
    }),
    ("wiped root", Damaged, |w| (0..8).for_each(|nth| w.set(root(0) + LINE + nth * 8, 0))),
    ("root behind the last", Damaged, |w| w.set(w.root_slot(2), w.get(w.root_slot(0)))),
    ("garbage behind the last root", Damaged, |w| w.set(root(3), 1)),
    ("root without a block", Damaged, |w| {
        w.set(w.root_slot(1), SlotWord::owning(PAGE_BYTES, Version::from_bits(1)).bits());
    }),
    ("root that is too long", Damaged, |w| {
        w.set(root(0) + offset_of!(RootEntry, length) as u64, 1000);
        w.seal(root(0), 11, 1 << 32);
    }),
    ("root without its slot", Damaged, |w| w.set(w.root_slot(0), 1 << 44)),
];

/// What a heap that was not closed is refused for besides.
const OF_CRASHED: &[Damage] = &[
    ("bit of no block", Damaged, |w| {
        let slab = w.slab();
        w.set(slab + LINE, w.get(slab + LINE) | 1 << 63);
        w.set(slab + 2 * LINE - 8, 1 << 63);
    }),
    ("record of no block", Damaged, |w| {
        let geometry = small_geometry();
        let lane = geometry.lane_span(0).start;
        let newest = (1..=MARK_LINES).map(|line| w.get(lane + line * LINE) & 0xffff_ffff).max();
        let record = Record {
            op: Op::AllocSmall,
            block: PAGE_BYTES,
            slot: w.root_slot(0),
            version: Version::from_bits(1),
            number: newest.expect("eight marks") + 1,
            index: 0,
            count: 1,
            pages: 0,
        };
        let ring = lane + (1 + MARK_LINES) * LINE;
        let places = u64::from(geometry.ring_places);
        (0..places * 4).for_each(|nth| w.set(ring + nth * 8, 0));
        let words = record.encode(Tag::of_count(1));
        (0..).zip(words).for_each(|(nth, word)| w.set(ring + nth * 8, word));
    }),
    ("no live bit of a root or of what its slots own", Damaged, |w| {
        let live = w.live_word();
        w.set(live, 0);
    }),
    ("power", Damaged, |w| {
        let owner = Geometry::state() + offset_of!(State, owner) as u64;
        w.set(owner, 1);
        w.seal(owner, 7, 1 << 32);
    }),
];

/// Writes the words of a heap that ran in this boot to a file.
fn write(path: &Path, words: &Words) {
    let bytes: Vec<u8> = words.0.iter().flat_map(|word| word.to_le_bytes()).collect();
    fs::write(path, bytes).expect("written");
}

fn try_all(image: &Image, all: &[Damage]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("heap");
    let mut sound = Words(image.words.clone());
    let boot = pmalloc_persist::boot_id().expect("/proc is mounted");
    let owner = Geometry::state() + offset_of!(State, owner) as u64;
    #[allow(clippy::cast_possible_truncation, reason = "the halves of the boot id")]
    let halves = [boot as u64, (boot >> 64) as u64];
    (0..).zip(halves).for_each(|(nth, half)| sound.set(owner + nth * 8, half));
    sound.seal(owner, 7, 1 << 32);
    write(&path, &sound);
    assert_eq!(crate::check_file(&path).expect("readable").problems, [], "{}", image.name);
    for (name, fate, damage) in all {
        let mut words = Words(sound.0.clone());
        damage(&mut words);
        write(&path, &words);
        let refused = Heap::open(&path).expect_err(name);
        let what = format!("{}, {name}: {refused}", image.name);
        match crate::check_file(&path) {
            Ok(report) => assert!(!report.problems.is_empty(), "{what}"),
            Err(error) => assert_eq!(discriminant(&error), discriminant(&refused), "{what}"),
        }
        assert_eq!(matches!(refused, Error::Version { .. }), *fate == Newer, "{what}");
        let before = fs::read(&path).expect("readable");
        let salvaged = crate::salvage_file(&path);
        if *fate == Damaged {
            salvaged.expect(name);
            Heap::open(&path).expect(name).close().expect("closed");
        } else {
            let error = salvaged.expect_err(name);
            assert_eq!(discriminant(&error), discriminant(&refused), "{what}");
            assert_eq!(fs::read(&path).expect("readable"), before, "{what}");
        }
        for entry in fs::read_dir(dir.path()).expect("ours") {
            fs::remove_file(entry.expect("ours").path()).expect("ours");
        }
    }
}

#[test]
fn check_speaks_of_all_that_a_closed_heap_is_refused_for() {
    try_all(&image::closed(), OF_CLOSED);
}

#[test]
fn check_speaks_of_all_that_a_crashed_heap_is_refused_for() {
    let image = image::crashed("crashed in alloc", Interrupted::AllocSmall, None);
    // Live bits have no check, and the table of roots none of its slots.
    let of_closed = ["live bits", "check of live bits", "check of roots", "root without its slot"];
    let both = OF_CLOSED.iter().filter(|(name, ..)| !of_closed.contains(name));
    let all: Vec<Damage> = both.chain(OF_CRASHED).copied().collect();
    try_all(&image, &all);
}

#[test]
fn a_heap_whose_flag_says_that_it_was_synchronized_needs_no_power() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("heap");
    let mut words = Words(image::closed().words);
    words.state(offset_of!(State, clean), seal(Clean::Synced.code()));
    write(&path, &words);
    assert_eq!(crate::check_file(&path).expect("readable").problems, []);
    Heap::open(&path).expect("another boot's").close().expect("closed");
    words.state(offset_of!(State, clean), seal(Clean::No.code()));
    write(&path, &words);
    let kinds = |path| crate::check_file(path).expect("readable").problems[0].kind;
    assert_eq!(kinds(&path), ProblemKind::PowerLoss);
    assert!(matches!(Heap::open(&path), Err(Error::PowerLoss)));
}

#[test]
fn a_file_longer_than_its_heap_is_refused_and_checked() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("heap");
    let mut words = Words(image::closed().words);
    words.0.extend([0; 512]);
    write(&path, &words);
    let error = Heap::open(&path).expect_err("too long");
    let problems = crate::check_file(&path).expect("readable").problems;
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert!(
        matches!(error, Error::Corrupted { offset, .. } if offset == problem.offset),
        "{error}"
    );
    assert!(error.to_string().contains(&problem.text), "{error}");
}
