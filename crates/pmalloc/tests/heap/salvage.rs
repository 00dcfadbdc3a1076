//! Goal: whatever is wrong with a heap, salvaging it gives a heap that opens and that a check finds whole; nothing in it is
//! invented; and what is not as before is reported as lost.
//!
//! Method: every byte of the metadata of a small closed heap is changed, and of heaps as crashes leave them; each is
//! salvaged and opened, and every slot compared with what it owned before. Files are cut, lose power, and have a
//! salvage interrupted in them.

// The schedule tester owns the threads there.
#![cfg(not(shuttle))]

use crate::common::shared::Shared;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::common::{
    ROOTS, fill,
    image::{self, Image, Interrupted},
    layout, options,
};
use pmalloc::{
    Error, Heap, ProblemKind, SalvageReport,
    persist::{Anon, Medium},
};

/// Bytes from one that is changed to the next, where a line holds nothing and where it does.
const STRIDES: [usize; 2] = [211, 3];

/// What a slot owned: its root, its index, and the block's bytes.
type Owned = BTreeMap<(&'static str, usize), Vec<u8>>;

/// What the slots of all roots that are there own.
fn owned<M: Medium>(heap: &Heap<M>) -> Owned {
    let guard = heap.pin();
    let mut owned = Owned::new();
    for (name, count) in ROOTS {
        for (at, slot) in heap.slots(name, count).into_iter().flatten().enumerate() {
            if let Some(bytes) = slot.get(&guard) {
                owned.insert((name, at), bytes.to_vec());
            }
        }
    }
    owned
}

/// Salvages the heap on `m` and opens it: it must be whole.
fn salvaged(m: &Arc<Anon>) -> (SalvageReport, Owned) {
    let report = options().salvage_on(m).expect("one superblock is whole");
    assert_eq!(report.check.problems, []);
    let heap = options().open_shared(Arc::clone(m)).expect("a salvaged heap opens");
    assert_eq!(heap.check().expect("readable").problems, []);
    let owned = owned(&heap);
    heap.close().expect("anonymous memory synchronizes");
    (report, owned)
}

/// Changes bytes of `image` one at a time, and hands the salvaged heaps to `judge`.
fn for_each_mutant(image: &Image, judge: impl Fn(u64, &SalvageReport, &Owned) + Sync) {
    let metadata = image.metadata();
    let offsets: Vec<u64> = metadata.iter().flat_map(|span| span.start..span.end()).collect();
    let stride = |offset: u64| STRIDES[usize::from(image.is_line_used(offset))] as u64;
    let chosen: Vec<u64> = offsets.into_iter().filter(|at| at % stride(*at) == 0).collect();
    let (next, tried) = (AtomicUsize::new(0), Mutex::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let m = Arc::new(Anon::new(image::heap_bytes()));
                while let Some(&offset) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for byte in [0, 0xff, image.byte(offset) ^ 1 << (offset % 8)] {
                        image.restore(&m);
                        image::set_byte(&*m, offset, byte);
                        let (report, owned) = salvaged(&m);
                        judge(offset, &report, &owned);
                        *tried.lock().expect("unpoisoned") += 1;
                    }
                }
            });
        }
    });
    let tried = tried.into_inner().expect("unpoisoned");
    println!("{}: {tried} heaps salvaged", image.name);
    assert!(tried > 5000, "the image has metadata");
}

#[test]
fn a_closed_heap_with_any_byte_changed_loses_only_what_is_reported() {
    let image = image::closed();
    let m = Arc::new(Anon::new(image::heap_bytes()));
    image.restore(&m);
    let (report, before) = salvaged(&m);
    assert_eq!((report.lost, report.repaired), (Vec::new(), Vec::new()), "nothing is wrong");
    assert!(before.len() > 10, "{before:?}");
    let (in_arrays, lossless) = (AtomicUsize::new(0), AtomicUsize::new(0));
    for_each_mutant(&image, |offset, report, after| {
        if image.arrays.iter().any(|array| (array.start..array.end()).contains(&offset)) {
            // The byte of a slot may make it own another one's block, or none.
            in_arrays.fetch_add(1, Ordering::Relaxed);
            return;
        }
        for (slot, bytes) in after {
            assert_eq!(before.get(slot), Some(bytes), "{offset:#x}: {slot:?} was invented");
        }
        assert!(*after == before || !report.lost.is_empty(), "{offset:#x}: lost in silence");
        lossless.fetch_add(usize::from(*after == before), Ordering::Relaxed);
    });
    let counts = [in_arrays.into_inner(), lossless.into_inner()];
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
}

#[test]
fn a_crashed_heap_with_any_byte_changed_can_be_salvaged() {
    for (name, interrupted, seed) in [
        ("crashed in alloc, large", Interrupted::AllocLarge, None),
        ("crashed in free, small", Interrupted::FreeSmall, Some(0)),
    ] {
        let image = image::crashed(name, interrupted, seed);
        let m = Arc::new(Anon::new(image::heap_bytes()));
        image.restore(&m);
        let (report, _) = salvaged(&m);
        assert_eq!(report.lost, [], "the operation in flight is completed");
        for_each_mutant(&image, |_, _, _| {});
    }
}

#[test]
fn a_salvage_may_be_cut_off_anywhere_and_repeated() {
    // A medium has no second name: here the same bytes are salvaged again after a part of a salvage.
    let image = image::closed();
    let before = Arc::new(Anon::new(image::heap_bytes()));
    image.restore(&before);
    let areas = options().areas().expect("valid options");
    let of = |name: &str| areas.iter().find(|(area, _)| *area == name).expect("an area").1.start;
    for offset in [of("state"), of("log roots"), of("lane directory"), of("book") + 8] {
        image::set_byte(&*before, offset, 0x5a);
    }
    let words = |m: &Anon| image::words(m).iter().map(|word| m.load(word)).collect::<Vec<_>>();
    let damaged = words(&before);
    let (first, expected) = salvaged(&before);
    assert!(!first.lost.is_empty());
    let after = words(&before);
    let changed: Vec<usize> = (0..damaged.len()).filter(|at| damaged[*at] != after[*at]).collect();
    for kept in (0..changed.len()).step_by(changed.len().div_ceil(40)) {
        let m = Arc::new(Anon::new(image::heap_bytes()));
        for (at, (word, value)) in image::words(&*m).iter().zip(&damaged).enumerate() {
            let is_new = changed[..kept].contains(&at);
            m.store(word, if is_new { after[at] } else { *value });
        }
        let (_, owned) = salvaged(&m);
        for (slot, bytes) in &owned {
            assert_eq!(expected.get(slot).unwrap_or(bytes), bytes, "{kept} words were new");
        }
    }
}

/// A small closed heap in a file with 3 blocks of different size.
fn heap_file(path: &Path) {
    let heap = options().create(path).expect("created");
    let slots = heap.slots("first", 24).expect("room");
    for (at, size) in [100, 20_000, 3000].into_iter().enumerate() {
        heap.alloc_init(&slots[at], layout(size), fill(at)).expect("room");
    }
    heap.close().expect("closed");
}

fn blocks_in(path: &Path) -> usize {
    let heap = Heap::open(path).expect("a salvaged heap opens");
    assert_eq!(heap.check().expect("readable").problems, []);
    let owned = owned(&heap).len();
    heap.close().expect("closed");
    owned
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).expect("it exists");
    file.write_all_at(bytes, offset).expect("written");
}

#[test]
fn a_whole_file_is_left_alone_and_a_damaged_one_is_kept() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (path, kept) = (directory.path().join("heap"), directory.path().join("heap.damaged"));
    heap_file(&path);
    let bytes = fs::read(&path).expect("readable");
    let report = pmalloc::salvage_file(&path).expect("readable");
    assert_eq!((report.kept, report.lost), (None, Vec::new()));
    assert_eq!(fs::read(&path).expect("readable"), bytes);

    write_at(&path, 2 * 4096, b"damage");
    let damaged = fs::read(&path).expect("readable");
    // What interrupted salvages left: a half copy, and the second name of the damaged file.
    fs::write(directory.path().join(".heap.unpublished"), "half a copy").expect("written");
    fs::hard_link(&path, &kept).expect("a second name");
    let report = pmalloc::salvage_file(&path).expect("it can be mended");
    assert_eq!(report.kept.as_deref(), Some(&*kept));
    assert_eq!(fs::read(&kept).expect("kept"), damaged);
    assert_eq!(blocks_in(&path), 3);
    let names: Vec<_> = fs::read_dir(directory.path()).expect("a directory").collect();
    // The heap, the damaged file, and what was lost.
    assert_eq!(names.len(), 3, "{names:?}");

    write_at(&path, 2 * 4096, b"damage");
    let again = pmalloc::salvage_file(&path).expect_err("the name is taken");
    assert!(again.to_string().contains("heap.damaged"), "{again}");
    assert!(
        fs::exists(&path).expect("a directory")
            && !fs::exists(path.with_file_name(".heap.unpublished")).expect("a directory")
    );
}

#[test]
fn what_stands_behind_the_end_of_a_heap_is_cut_off_and_told() {
    let heap_bytes = options().heap_bytes().expect("valid");
    for behind in [0, 1, 5000] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("heap");
        heap_file(&path);
        let file = fs::OpenOptions::new().write(true).open(&path).expect("it exists");
        file.set_len(heap_bytes + behind).expect("room");
        if behind == 0 {
            write_at(&path, 2 * 4096, b"damage");
        } else {
            let refused = Heap::open(&path).expect_err("it is longer than a heap");
            assert!(matches!(refused, Error::Corrupted { .. }), "{refused}");
        }
        let report = pmalloc::salvage_file(&path).expect("it can be mended");
        let told = report.repaired.iter().filter(|repaired| repaired.offset == heap_bytes);
        assert_eq!(told.count(), usize::from(behind > 0), "{report:?}");
        assert!(behind == 0 || report.lost.is_empty(), "{report:?}");
        assert!(fs::metadata(&path).expect("it exists").len() <= heap_bytes);
        assert_eq!(blocks_in(&path), 3);
    }
}

#[test]
fn a_file_cut_at_any_page_keeps_the_blocks_in_front_of_the_cut() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (path, cut) = (directory.path().join("heap"), directory.path().join("cut"));
    heap_file(&path);
    let len = fs::metadata(&path).expect("it exists").len();
    let mut left = Vec::new();
    for at in (4096..len).step_by(4096) {
        fs::copy(&path, &cut).expect("copied");
        fs::OpenOptions::new().write(true).open(&cut).expect("opened").set_len(at).expect("cut");
        let report = pmalloc::salvage_file(&cut).expect("the superblock is there");
        // The heap grew beyond its blocks: a cut there costs nothing.
        left.push(blocks_in(&cut));
        assert!(left.last() == Some(&3) || !report.lost.is_empty(), "cut at {at}: {report:?}");
        fs::remove_file(directory.path().join("cut.damaged")).expect("kept");
    }
    assert!(left.is_sorted(), "{left:?}");
    assert!([0, 1, 3].iter().all(|count| left.contains(count)), "{left:?}");
}

#[test]
fn a_heap_that_lost_power_opens_when_it_was_salvaged() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (path, copy) = (directory.path().join("heap"), directory.path().join("copy"));
    heap_file(&path);
    let heap = Heap::open(&path).expect("opened");
    fs::copy(&path, &copy).expect("what a killed process leaves");
    heap.close().expect("closed");
    // An owner record that was being written in another boot.
    let owner = 2 * 4096 + 3 * 64;
    write_at(&copy, owner, &[0xab; 16]);
    write_at(&copy, owner + 56, &u64::MAX.to_le_bytes());
    let refused = Heap::open(&copy).expect_err("it lost power");
    assert!(matches!(refused, Error::PowerLoss), "{refused}");
    assert!(refused.to_string().contains("check --salvage"), "{refused}");
    let report = pmalloc::salvage_file(&copy).expect("it can be read");
    let kinds: Vec<_> = report.lost.iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [ProblemKind::PowerLoss], "{report:?}");
    assert_eq!(blocks_in(&copy), 3);
}

#[test]
fn what_is_no_heap_and_what_is_open_is_not_salvaged() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (path, text) = (directory.path().join("heap"), directory.path().join("text"));
    heap_file(&path);
    fs::write(&text, b"not a heap at all ".repeat(1000)).expect("written");
    let error = pmalloc::salvage_file(&text).expect_err("no heap");
    assert!(matches!(error, Error::NotAHeap { .. }), "{error}");
    let heap = Heap::open(&path).expect("opened");
    let error = pmalloc::salvage_file(&path).expect_err("in use");
    assert!(matches!(error, Error::Map(pmalloc::persist::MapError::InUse { .. })), "{error}");
    heap.close().expect("closed");
}
