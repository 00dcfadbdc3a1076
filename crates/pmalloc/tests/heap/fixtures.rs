//! Goal: heaps that earlier versions of this program wrote open in this one, with all that was in them.
//!
//! Method: `tests/fixtures` holds a closed heap of the sizes that production uses, and a small one as a crash left it
//! with a record in flight, per format version. A fixture is text: the hash of what its slots read, its length, and
//! runs of equal words that are not zero. `PMALLOC_WRITE_FIXTURES=1` (the recipe `just fixtures`) writes those of the
//! present version anew; nothing else does, and a released version's are never written again.

use crate::common::shared::Shared;
use std::{
    fmt::Write,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::common::{
    ROOTS, SIZES, contents, fill,
    image::{self, Image, Interrupted},
    layout, options,
};
use pmalloc::{
    Heap, HeapOptions,
    persist::{Anon, Medium, Offset, Word},
};

/// Largest fixture, in bytes: they stay in the repository for ever.
const FIXTURE_MAX_BYTES: usize = 50_000;

/// The words of a heap, without the zeros, and what it holds.
#[derive(Debug, PartialEq, Eq)]
struct Fixture {
    contents: u64,
    len_bytes: u64,
    /// First word, number of words, value.
    runs: Vec<(u64, u64, u64)>,
}

impl Fixture {
    fn of(contents: u64, words: &[u64]) -> Self {
        let mut runs: Vec<(u64, u64, u64)> = Vec::new();
        for (at, &value) in (0..).zip(words).filter(|(_, value)| **value != 0) {
            match runs.last_mut() {
                Some((start, count, same)) if *start + *count == at && *same == value => {
                    *count += 1;
                }
                _ => runs.push((at, 1, value)),
            }
        }
        Self { contents, len_bytes: words.len() as u64 * 8, runs }
    }

    fn render(&self) -> String {
        let mut text = format!("contents {:x}\nlength {:x}\n", self.contents, self.len_bytes);
        for (start, count, value) in &self.runs {
            writeln!(text, "{start:x} {count:x} {value:x}").expect("a string takes all");
        }
        text
    }

    fn parse(text: &str) -> Self {
        let number = |digits: &str| u64::from_str_radix(digits, 16).expect("a number");
        let mut lines = text.lines();
        let mut named = |name: &str| {
            let line = lines.next().expect("a header");
            number(line.strip_prefix(name).expect("the header's name").trim())
        };
        let (contents, len_bytes) = (named("contents"), named("length"));
        let runs = lines.map(|line| {
            let mut parts = line.split(' ').map(number);
            let mut part = || parts.next().expect("three numbers");
            (part(), part(), part())
        });
        Self { contents, len_bytes, runs: runs.collect() }
    }

    fn words(&self) -> impl Iterator<Item = (u64, u64)> {
        self.runs
            .iter()
            .flat_map(|&(start, count, value)| (start..start + count).map(move |at| (at, value)))
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The fixture `name`, written anew first if that was asked for.
fn fixture(name: &str, make: impl FnOnce() -> Fixture) -> Fixture {
    if std::env::var("PMALLOC_WRITE_FIXTURES").is_ok_and(|value| value == "1") {
        let made = make().render();
        assert!(made.len() < FIXTURE_MAX_BYTES, "{} bytes are too many to keep", made.len());
        fs::create_dir_all(path("")).expect("a directory");
        fs::write(path(name), made).expect("written");
    }
    Fixture::parse(&fs::read_to_string(path(name)).expect("fixtures are in the repository"))
}

fn production() -> HeapOptions {
    Heap::options().capacity_bytes(16 << 20).arenas(2).layout("fixture")
}

/// A closed heap with blocks of all kinds, frees between them and a log that was collected.
fn make_closed() -> Fixture {
    let len = production().heap_bytes().expect("valid options");
    let medium = Arc::new(Anon::new(len));
    let heap = production().create_shared(Arc::clone(&medium)).expect("created");
    let [first, second] = ROOTS.map(|(name, count)| heap.slots(name, count).expect("room"));
    for _ in 0..140 {
        heap.alloc_to(&first[0], layout(20_000)).expect("there is room");
        heap.free_from(&first[0]).expect("it is full");
    }
    for (at, slot) in first.iter().enumerate().skip(1) {
        heap.alloc_init(slot, layout(SIZES[at % 8]), fill(at)).expect("there is room");
    }
    for slot in first.iter().skip(1).step_by(3) {
        heap.free_from(slot).expect("it is full");
    }
    for (at, slot) in second.iter().enumerate().take(5) {
        heap.alloc_init(slot, layout(SIZES[at]), fill(100 + at)).expect("there is room");
    }
    let log = heap.stats().expect("anonymous").log;
    assert!(log.fast_gc + log.slow_gc > 0, "{log:?}");
    let hash = contents(&heap).expect("just made");
    heap.close().expect("closed");
    let words: &[Word] = medium.region().array(Offset::new(0), len / 8).expect("the whole heap");
    Fixture::of(hash, &words.iter().map(|word| medium.load(word)).collect::<Vec<_>>())
}

fn make_crashed() -> Fixture {
    let Image { words, contents, .. } = image::crashed("fixture", Interrupted::AllocLarge, None);
    Fixture::of(contents, &words)
}

/// Frees and fills every slot.
fn use_it<M: Medium>(heap: &Heap<M>) {
    for (name, count) in ROOTS {
        for (at, slot) in heap.slots(name, count).expect("it exists").iter().enumerate() {
            if !slot.is_empty(&heap.pin()) {
                heap.free_from(slot).expect("it is full");
            }
            heap.alloc_init(slot, layout(100), fill(at)).expect("there is room");
        }
    }
    assert_eq!(heap.check().expect("readable").problems, []);
}

#[test]
fn a_closed_heap_of_version_1_opens_from_a_file() {
    let fixture = fixture("v1-closed.txt", make_closed);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("heap");
    let file = fs::File::create(&path).expect("created");
    file.set_len(fixture.len_bytes).expect("sparse");
    for (at, value) in fixture.words() {
        file.write_all_at(&value.to_le_bytes(), at * 8).expect("written");
    }
    let info = pmalloc::info(&path).expect("a heap");
    assert_eq!((info.format, &*info.layout, info.clean), (1, "fixture", Some(true)));
    assert_eq!(pmalloc::check_file(&path).expect("a heap").problems, []);
    let heap = Heap::open(&path).expect("opened");
    assert_eq!(contents(&heap).expect("undamaged"), fixture.contents);
    use_it(&heap);
}

#[test]
fn a_crashed_heap_of_version_1_is_recovered() {
    let fixture = fixture("v1-crashed.txt", make_crashed);
    let medium = Anon::new(fixture.len_bytes);
    let words: &[Word] =
        medium.region().array(Offset::new(0), fixture.len_bytes / 8).expect("the whole heap");
    for (at, value) in fixture.words() {
        medium.store(&words[usize::try_from(at).expect("inside")], value);
    }
    let heap = options().open_shared(medium).expect("recovered");
    assert_eq!(heap.stats().expect("anonymous").replayed, 1, "one record was in flight");
    assert_eq!(contents(&heap).expect("undamaged"), fixture.contents);
    use_it(&heap);
}
