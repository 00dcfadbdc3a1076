//! Goal: a full file system is a typed error at whichever point memory is asked for; nothing is lost or half done; and the
//! heap goes on where it was when there is room again.
//!
//! Method: a tmpfs with a size limit, filled so that 0, 1, 2, ... pages are left, until a program that needs memory of every
//! kind gets through. A touch of a page without memory would end the child with a bus error. The same with every single
//! request refused is in `heap/errors.rs`, on simulated media.

#![cfg(not(any(miri, shuttle)))]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{ErrorKind, Write},
    path::Path,
};

use crate::common::{
    child::{child_path, run_mounted},
    fill, layout, options,
};
use pmalloc::{Error, Heap};
use rustix::fs::statvfs;

/// Slots of the program's root array.
const SLOTS: u64 = 24;

/// Bytes of the file system.
const DISK_BYTES: u64 = 2 << 20;

/// Takes all room of the file system of `path` but that of `pages`.
fn leave(path: &Path, pages: u64) {
    let free = statvfs(path.parent().expect("a directory")).expect("an answer").f_bfree;
    let mut file = File::options().create(true).append(true).open(path).expect("a ballast");
    let bytes = free.saturating_sub(pages) * 4096;
    file.write_all(&vec![1; usize::try_from(bytes).expect("a small disk")]).expect("room");
}

/// What was being done when there was no room.
type Points = BTreeSet<String>;

fn is_full(error: &Error) -> bool {
    let advises = error.to_string().contains("free space on its file system");
    matches!(error, Error::NoSpace { source, .. } if source.kind() == ErrorKind::StorageFull)
        && advises
}

/// Fills and empties slots with blocks of every kind; says whether all was done.
fn work(heap: &Heap, points: &mut Points) -> bool {
    let slots = match heap.slots("first", SLOTS) {
        Ok(slots) => slots,
        Err(error) => {
            assert!(is_full(&error), "{error:?}");
            note(points, &error);
            return false;
        }
    };
    let mut done = true;
    for round in 0..4 {
        for (at, slot) in slots.iter().enumerate().take(8) {
            let size = [100, 3000, 20_000, 5000][(at + round) % 4];
            let was_empty = slot.is_empty(&heap.pin());
            let result = match was_empty {
                true => heap.alloc_init(slot, layout(size), fill(at)),
                false => heap.free_from(slot),
            };
            if let Err(error) = result {
                let expected = is_full(&error) || matches!(error, Error::OutOfMemory { .. });
                assert!(expected, "{error:?}");
                note(points, &error);
                assert_eq!(slot.is_empty(&heap.pin()), was_empty, "an error changes nothing");
                done = false;
            }
        }
    }
    done
}

fn note(points: &mut Points, error: &Error) {
    if let Error::NoSpace { doing, .. } = error {
        points.insert(doing.to_string());
    }
}

fn assert_whole(heap: &Heap) {
    let report = heap.check().expect("readable");
    assert_eq!((report.problems, report.unowned_blocks), (Vec::new(), 0));
}

/// Runs the program with `pages` left; says whether it got through.
fn try_with(directory: &Path, pages: u64, points: &mut Points) -> bool {
    let (path, ballast) = (directory.join("heap"), directory.join("ballast"));
    let heap = options().create(&path).expect("there is room");
    leave(&ballast, pages);
    let done = work(&heap, points);
    assert_whole(&heap);
    // What the heap gave back, others took.
    let trimmed = heap.trim().expect("giving back needs no room");
    leave(&ballast, 0);
    assert!(!work(&heap, points) || trimmed == 0, "memory out of nothing");
    assert_whole(&heap);
    // Room again, and the same heap goes on.
    fs::remove_file(&ballast).expect("removed");
    assert!(work(&heap, &mut Points::new()), "there is room");
    assert_whole(&heap);
    let before = heap.blocks();
    heap.close().expect("closed");
    // A closed heap opens, and is closed, on a full disk.
    leave(&ballast, 0);
    let heap = Heap::open(&path).expect("it needs no room");
    assert_eq!(heap.blocks(), before);
    work(&heap, points);
    assert_whole(&heap);
    heap.close().expect("it needs no room");
    fs::remove_file(&ballast).expect("removed");
    fs::remove_file(&path).expect("removed");
    done
}

#[test]
fn a_full_file_system_is_survived_at_every_point_of_growth() {
    if let Some(directory) = child_path() {
        let most = DISK_BYTES / 4096;
        let mut points = Points::new();
        let enough = (0..most).find(|pages| try_with(&directory, *pages, &mut points));
        assert!(enough.is_some_and(|pages| pages > 20), "{enough:?} pages were enough");
        let expected = [
            "backing a chunk of the bookkeeping log",
            "backing a lane",
            "backing slab descriptors",
            "giving free pages of the heap memory",
            "growing the heap",
        ];
        assert_eq!(points.into_iter().collect::<Vec<_>>(), expected);
        return;
    }
    in_small_disk(a_full_file_system_is_survived_at_every_point_of_growth);
}

#[test]
fn a_root_table_that_can_not_grow_says_so() {
    if let Some(directory) = child_path() {
        let (path, ballast) = (directory.join("heap"), directory.join("ballast"));
        let heap = Heap::options().capacity_bytes(1 << 20).create(&path).expect("there is room");
        heap.slots("root 0", 8).expect("there is room");
        leave(&ballast, 0);
        // The table has a page from the start; the blocks come from the slab of the first root.
        let made = |from: u32| {
            (from..100)
                .find_map(|nth| heap.slots(&format!("root {nth}"), 8).err().map(|e| (nth, e)))
        };
        let (nth, error) = made(1).expect("a page is not enough for all of them");
        assert!(is_full(&error), "{error:?}");
        let Error::NoSpace { doing, .. } = &error else { panic!("{error:?}") };
        assert_eq!(doing, "backing the root table");
        assert_whole(&heap);
        fs::remove_file(&ballast).expect("removed");
        assert!(made(nth).is_none(), "there is room");
        assert_whole(&heap);
        heap.close().expect("closed");
        return;
    }
    in_small_disk(a_root_table_that_can_not_grow_says_so);
}

/// Only where the heap's capacity was used up did an operation give back what its session had at hand.
#[test]
fn what_a_session_has_at_hand_serves_where_there_is_no_room() {
    if let Some(directory) = child_path() {
        let (path, ballast) = (directory.join("heap"), directory.join("ballast"));
        let heap = options().create(&path).expect("there is room");
        let slots = heap.slots("first", 2).expect("there is room");
        heap.alloc_to(&slots[0], layout(3000)).expect("there is room");
        heap.free_from(&slots[0]).expect("full");
        heap.trim().expect("giving back needs no room");
        leave(&ballast, 0);
        heap.alloc_to(&slots[1], layout(200)).expect("the empty slab has memory");
        assert_whole(&heap);
        heap.close().expect("closed");
        return;
    }
    in_small_disk(what_a_session_has_at_hand_serves_where_there_is_no_room);
}

/// Runs the child of the test in a directory that is a small disk.
fn in_small_disk(test: impl Fn()) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mounts = format!("mount -t tmpfs -o size={DISK_BYTES} none {}", directory.path().display());
    run_mounted(test, &mounts, directory.path());
}

#[test]
fn creating_and_salvaging_on_a_full_file_system_leave_no_trace() {
    if let Some(directory) = child_path() {
        let (path, ballast) = (directory.join("heap"), directory.join("ballast"));
        let names = || fs::read_dir(&directory).expect("a directory").count();
        for pages in 0.. {
            leave(&ballast, pages);
            let made = options().create(&path);
            let error = match made {
                Ok(heap) => {
                    heap.close().expect("closed");
                    break;
                }
                Err(error) => error,
            };
            assert!(is_full(&error), "{error:?}");
            assert_eq!(names(), 1, "only the ballast is there");
            fs::remove_file(&ballast).expect("removed");
        }
        fs::remove_file(&ballast).expect("removed");
        let heap = Heap::open(&path).expect("it was made");
        assert!(work(&heap, &mut Points::new()));
        heap.close().expect("closed");
        let mut bytes = fs::read(&path).expect("readable");
        bytes[2 * 4096] ^= 1;
        fs::write(&path, &bytes).expect("written");
        for pages in 0.. {
            leave(&ballast, pages);
            let salvaged = pmalloc::salvage_file(&path);
            fs::remove_file(&ballast).expect("removed");
            let Err(error) = salvaged else { break };
            assert!(error.to_string().contains("space"), "{error:?}");
            assert_eq!(fs::read(&path).expect("readable"), bytes, "{pages} pages were left");
            assert_eq!(names(), 1, "only the damaged heap is there");
        }
        assert_whole(&Heap::open(&path).expect("salvaged"));
        return;
    }
    in_small_disk(creating_and_salvaging_on_a_full_file_system_leave_no_trace);
}
