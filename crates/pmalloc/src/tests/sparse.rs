//! Goal: what opening a heap costs is bounded by what is in it, not by the length that its file claims.
//!
//! Method: the state page of a small heap is forged to say that the heap has grown to a terabyte, and the file is made as
//! long without a block behind it: what anybody can do to a file, and what a heap looks like that was once full and then
//! trimmed.

use std::{
    alloc::Layout,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
};

use pmalloc_persist::PAGE_BYTES;

use crate::{
    Heap,
    layout::{geometry::Geometry, sealed::seal, state::State},
};

/// A table of 4 bytes per page would be 1 GiB.
const CAPACITY_BYTES: u64 = 1 << 40;

/// Enough for the tests that run at the same time.
const MEMORY_MAX_BYTES: u64 = 256 << 20;

#[test]
fn a_heap_that_grew_to_a_terabyte_of_nothing_opens_in_little_memory() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("heap");
    let options = Heap::options().capacity_bytes(CAPACITY_BYTES);
    options.create(&path).expect("created").close().expect("closed");

    let file = OpenOptions::new().write(true).open(&path).expect("ours");
    file.set_len(options.heap_bytes().expect("valid")).expect("a sparse file");
    let grown_at = Geometry::state() + std::mem::offset_of!(State, grown_pages) as u64;
    let grown = seal(CAPACITY_BYTES / PAGE_BYTES);
    file.write_all_at(&grown.to_le_bytes(), grown_at).expect("written");

    let before = resident_bytes();
    let heap = Heap::open(&path).expect("nothing is wrong with it");
    let slots = heap.slots("slots", 2).expect("room");
    for (slot, size) in slots.iter().zip([64, 1 << 20]) {
        heap.alloc_to(slot, Layout::from_size_align(size, 8).expect("valid")).expect("room");
        heap.free_from(slot).expect("full");
    }
    let used = resident_bytes().saturating_sub(before);
    assert!(used < MEMORY_MAX_BYTES, "{used} bytes to open a heap of next to none");
}

/// Memory of this process that is there, in bytes.
fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").expect("readable");
    let pages: u64 =
        text.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a number of pages");
    pages * rustix::param::page_size() as u64
}
