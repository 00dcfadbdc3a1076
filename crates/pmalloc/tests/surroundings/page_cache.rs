//! Goal: on a real file in the page cache of a disk the flag of the heap reaches the disk when it must, and not before what it
//! vouches for.
//!
//! Method: the trace of every store and sync of a mapped file is read as the kernel may: what was stored before a sync is on
//! the disk, what comes after it may or may not be. The crash explorer does the rest (`crates/verify`, set "page cache").

use std::{alloc::Layout, path::Path};

use crate::common::shared::Raw as _;
use pmalloc::{
    Heap, Policy,
    persist::{Event, MapOptions, Mapped, MediaFile, Medium, PAGE_BYTES, Traced},
};

/// The state page of a heap.
const STATE: u64 = 2;

/// A directory on a disk, or `None`, with a word, if the system has only memory.
fn directory() -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let file = MediaFile::create(&directory.path().join("probe")).expect("a file");
    let probe = file.map(&MapOptions::new(PAGE_BYTES)).expect("mapped");
    if probe.needs_sync() {
        return Some(directory);
    }
    println!("skipped: the build directory lies on {}, not on a disk", probe.storage());
    None
}

/// What is done to the file, as far as its order matters; the same thing again and again is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Stores to the state page.
    Flag,
    /// Stores to other pages.
    Others,
    /// A sync of everything.
    Sync,
    /// A sync of the state page.
    SyncFlag,
}

fn open(path: &Path) -> Heap<Traced<Mapped>> {
    let heap = Heap::options().open_with(path, |mapped| {
        let traced = Traced::new(mapped);
        traced.start_trace();
        traced
    });
    heap.expect("it was whole")
}

fn acts(heap: &Heap<Traced<Mapped>>) -> Vec<Act> {
    let trace = heap.raw();
    let act = |event: &Event| match event {
        Event::Store { span, .. } if span.start / PAGE_BYTES == STATE => Some(Act::Flag),
        Event::Store { .. } => Some(Act::Others),
        Event::Sync { span: None, .. } => Some(Act::Sync),
        Event::Sync { span: Some(span), .. } => {
            assert_eq!(span.start / PAGE_BYTES, STATE, "only the state page is synchronized alone");
            Some(Act::SyncFlag)
        }
        Event::Flush { .. } | Event::Fence { .. } => None,
    };
    let mut acts: Vec<Act> = trace.take_trace().iter().filter_map(act).collect();
    trace.start_trace();
    acts.dedup();
    acts
}

#[test]
fn the_flag_is_forced_to_the_disk_before_changes_and_after_what_it_vouches_for() {
    let Some(directory) = directory() else { return };
    let path = directory.path().join("heap");
    // Under Batched a sync stores the durable epoch as well, on the page of the flag.
    let options = Heap::options().policy(Policy::Eager).capacity_bytes(1 << 20).arenas(1);
    let heap = options.create(&path).expect("room");
    let layout = Layout::new::<[u8; 64]>();
    let slots = heap.slots("slots", 4).expect("room");
    heap.alloc_init(&slots[0], layout, |bytes| bytes.fill(1)).expect("room");
    heap.close().expect("the disk works");

    let heap = open(&path);
    let opened = acts(&heap);
    assert_eq!(opened[opened.len() - 2..], [Act::Flag, Act::SyncFlag], "{opened:?}");
    let slots = heap.slots("slots", 4).expect("it is there");
    heap.alloc_init(&slots[1], layout, |bytes| bytes.fill(2)).expect("room");
    assert_eq!(acts(&heap), [Act::Others], "the flag costs only the first change something");

    heap.sync().expect("the disk works");
    assert_eq!(acts(&heap), [Act::Sync, Act::Flag, Act::SyncFlag]);
    heap.free_from(&slots[0]).expect("it is full");
    assert_eq!(acts(&heap), [Act::Flag, Act::SyncFlag, Act::Others]);
    heap.free_from(&slots[1]).expect("it is full");
    assert_eq!(acts(&heap), [Act::Others]);

    // Of what a killed process left nothing but the page with the flag is waited for.
    let copy = directory.path().join("killed");
    std::fs::copy(&path, &copy).expect("room");
    assert!(!acts(&open(&copy)).contains(&Act::Sync), "opening waits for all of the heap");
}
