//! Goal: a process that gets no more volatile memory loses nothing of its heap and leaves no operation half done.
//!
//! Method: an allocator that refuses the n-th request and all behind it. The standard library ends the process then, like a
//! kill, at a place that no signal would choose; for n over the whole of a program, the heap is opened by the parent.

#![cfg(not(any(miri, shuttle)))]
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::common::{
    child::{child_path, death_of_child},
    fill, layout, options,
};
use pmalloc::Heap;

/// Requests until none is served any more.
static LEFT: AtomicU64 = AtomicU64::new(u64::MAX);

/// The system's allocator, until [`LEFT`] is used up.
struct Starving;

impl Starving {
    fn serves() -> bool {
        LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

// SAFETY: memory is the system allocator's, and a null pointer is an answer that callers are prepared for.
unsafe impl GlobalAlloc for Starving {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !Self::serves() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from the system's allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Starving = Starving;

const SLOTS: u64 = 24;

/// Size of the block that goes into the `at`-th slot.
fn size(at: usize) -> usize {
    [100, 3000, 20_000, 5000][at % 4]
}

/// Opens the heap and fills and empties slots; the file beside it tells how many requests there may be, and learns how many
/// there were.
fn work(path: &Path) {
    let limit = fs::read_to_string(path.with_extension("limit")).expect("the parent wrote it");
    let limit: u64 = limit.parse().expect("a number");
    LEFT.store(limit, Ordering::Relaxed);
    let heap = Heap::open(path).expect("a heap");
    let slots = heap.slots("first", SLOTS).expect("room");
    for round in 0..6 {
        for (at, slot) in slots.iter().enumerate().take(8).skip(round % 2) {
            if slot.is_empty(&heap.pin()) {
                heap.alloc_init(slot, layout(size(at)), fill(at)).expect("room");
            } else {
                heap.free_from(slot).expect("it is full");
            }
        }
    }
    heap.close().expect("closed");
    let left = LEFT.swap(u64::MAX, Ordering::Relaxed);
    fs::write(path.with_extension("limit"), (limit - left).to_string()).expect("written");
}

/// Whether every slot is empty or owns its block whole, and nothing else is live but the array of the slots.
fn is_whole(path: &Path) -> bool {
    let heap = Heap::open(path).expect("a heap");
    let report = heap.check().expect("readable");
    let slots = heap.slots("first", SLOTS).expect("room");
    let guard = heap.pin();
    let mut full = 0;
    for (at, slot) in slots.iter().enumerate() {
        if let Some(bytes) = slot.get(&guard) {
            let mut expected = vec![0; size(at)];
            fill(at)(&mut expected);
            assert_eq!(bytes[..size(at)], expected[..], "slot {at}");
            full += 1;
        }
    }
    drop(guard);
    let blocks = heap.blocks().len();
    heap.close().expect("closed");
    report.problems.is_empty() && blocks == full + 1
}

#[test]
fn a_process_without_memory_dies_and_its_heap_is_whole() {
    const SIGABRT: i32 = 6;
    if let Some(path) = child_path() {
        return work(&path);
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("heap");
    options().create(&path).expect("created").close().expect("closed");
    let run = |limit: u64| {
        fs::write(path.with_extension("limit"), limit.to_string()).expect("written");
        death_of_child(a_process_without_memory_dies_and_its_heap_is_whole, &path)
    };
    assert!(run(1 << 40).success());
    let requests = fs::read_to_string(path.with_extension("limit")).expect("the child wrote it");
    let requests: u64 = requests.parse().expect("a number");
    assert!(requests > 40, "{requests} requests");
    for limit in 0..requests {
        let status = run(limit);
        // What the program finds in the slots changes what it does, and how much it asks for.
        assert!(status.signal() == Some(SIGABRT) || status.success(), "{limit}: {status}");
        assert!(is_whole(&path), "after {limit} requests");
    }
}
