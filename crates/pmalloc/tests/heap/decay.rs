//! Goal: memory that is free goes back to the file system, whoever freed it and when, by time and by operations of any size;
//! and not before nobody can see it any more.
//!
//! Method: simulated media, on which time passes when the test says so; and for what a killed program leaves, a real file
//! and a real kill.

#![cfg(not(any(miri, shuttle)))]

use std::{alloc::Layout, fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use crate::common::{
    child::{child_path, death_of_child},
    shared::Shared,
};
use pmalloc::{
    Heap, HeapOptions, Slot,
    persist::{
        Medium,
        sim::{Domain, Sim, SimOptions},
    },
};

const MIB: u64 = 1 << 20;

/// The time that free memory is kept by default.
const KEEP: Duration = Duration::from_secs(10);

/// What may always be kept: 1 MiB of free pages, and the pages around them.
const KEPT_BYTES: u64 = MIB + 256 * 1024;

fn options() -> HeapOptions {
    Heap::options().capacity_bytes(8 * MIB).arenas(1)
}

/// A heap of 8 MiB on a simulated medium, of which `options` say how long it keeps what is free.
fn simulated(options: &HeapOptions) -> (Sim, Heap<Sim>) {
    let len_bytes = options.heap_bytes().expect("valid sizes");
    let sim = Sim::new(SimOptions { len_bytes, domain: Domain::Line64 });
    let heap = options.create_shared(sim.clone()).expect("a fresh medium has room");
    (sim, heap)
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).expect("a valid layout")
}

fn slots<M: Medium>(heap: &Heap<M>) -> &[Slot] {
    heap.slots("slots", 100).expect("there is room")
}

/// Allocates blocks of `bytes` each into the first `count` slots and frees them.
fn rise_and_fall<M: Medium>(heap: &Heap<M>, count: usize, bytes: usize) {
    for slot in &slots(heap)[..count] {
        heap.alloc_to(slot, layout(bytes)).expect("there is room");
    }
    for slot in &slots(heap)[..count] {
        heap.free_from(slot).expect("it is full");
    }
}

/// So many pairs of small operations.
fn small_traffic<M: Medium>(heap: &Heap<M>, pairs: usize) {
    let slot = &slots(heap)[99];
    for _ in 0..pairs {
        heap.alloc_to(slot, layout(16)).expect("there is room");
        heap.free_from(slot).expect("it is full");
    }
}

/// Lets two windows of time pass, in each of which a few small operations are made.
fn wait(sim: &Sim, heap: &Heap<Sim>) {
    for _ in 0..2 {
        sim.pass(KEEP);
        // A look at the end of the window, and some for what one look does not do.
        small_traffic(heap, 256);
    }
}

fn occupied(sim: &Sim) -> u64 {
    sim.occupied_bytes().expect("the simulator knows")
}

#[test]
fn a_heap_that_has_shrunk_gives_back_when_time_has_passed() {
    let (sim, heap) = simulated(&options());
    small_traffic(&heap, 1);
    let before = occupied(&sim);
    rise_and_fall(&heap, 80, 64 << 10);
    small_traffic(&heap, 2000);
    let risen = occupied(&sim);
    assert!(risen >= before + 5 * MIB, "in use just now");
    sim.pass(KEEP - Duration::from_nanos(1));
    small_traffic(&heap, 256);
    assert_eq!(occupied(&sim), risen, "in use within this window");
    sim.pass(Duration::from_nanos(1));
    small_traffic(&heap, 256);
    assert_eq!(occupied(&sim), risen, "in use within the window before");
    sim.pass(KEEP);
    small_traffic(&heap, 256);
    assert!(occupied(&sim) <= before + KEPT_BYTES, "forgotten");
    assert_eq!(sim.violations(), Vec::<String>::new());
}

#[test]
fn what_was_free_before_a_kill_goes_back_as_well() {
    let (sim, heap) = simulated(&options());
    small_traffic(&heap, 1);
    let before = occupied(&sim);
    rise_and_fall(&heap, 80, 64 << 10);
    sim.kill();
    let next = sim.new_process();
    drop(heap);
    let heap = options().open_shared(next.clone()).expect("a killed program's heap opens");
    small_traffic(&heap, 256);
    assert!(occupied(&next) >= before + 5 * MIB, "who opens may need it");
    wait(&next, &heap);
    assert!(occupied(&next) <= before + KEPT_BYTES);
    // What has no memory gets some before it is used.
    rise_and_fall(&heap, 80, 64 << 10);
    assert_eq!(next.violations(), Vec::<String>::new());
}

/// A program died with thousands of freed blocks that a reader still saw: no block was live, and nobody ever gave the slabs
/// back.
#[test]
fn slabs_that_were_empty_at_open_go_back() {
    let (sim, heap) = simulated(&options());
    let used = |heap: &Heap<Sim>| heap.stats().expect("figures").used_bytes;
    let guard = heap.pin();
    for _ in 0..40 {
        rise_and_fall(&heap, 90, 1000);
    }
    assert!(used(&heap) > 3 * MIB, "a guard may see them");
    sim.kill();
    let next = sim.new_process();
    drop(guard);
    drop(heap);
    let heap = options().open_shared(next.clone()).expect("a killed program's heap opens");
    small_traffic(&heap, 256);
    assert!(used(&heap) > 3 * MIB, "they may be needed again");
    wait(&next, &heap);
    assert!(used(&heap) < MIB / 4, "{} bytes", used(&heap));
}

#[test]
fn the_last_empty_slab_of_a_kind_goes_back_when_nobody_uses_it_for_a_window() {
    let (sim, heap) = simulated(&options());
    rise_and_fall(&heap, 1, 3000);
    heap.release_thread();
    let slabs = || {
        let stats = heap.stats().expect("figures");
        stats
            .classes
            .iter()
            .filter(|class| class.block_bytes >= 3000)
            .map(|class| class.slabs)
            .sum::<u64>()
    };
    assert_eq!(slabs(), 1, "it may be needed again");
    wait(&sim, &heap);
    assert_eq!(slabs(), 0);
}

#[test]
fn freed_memory_is_not_taken_from_under_a_guard() {
    let (sim, heap) = simulated(&options().decay(Duration::ZERO));
    let [large, small] = [&slots(&heap)[0], &slots(&heap)[1]];
    for (slot, bytes) in [(large, 1 << 20), (small, 3000)] {
        heap.alloc_init(slot, layout(bytes), |bytes| bytes.fill(7)).expect("there is room");
    }
    let before = occupied(&sim);
    let guard = heap.pin();
    let seen = [large, small].map(|slot| &slot.get(&guard).expect("it is full")[..3000]);
    heap.free_from(large).expect("it is full");
    heap.free_from(small).expect("it is full");
    small_traffic(&heap, 600);
    assert!(seen.iter().all(|bytes| bytes.iter().all(|byte| *byte == 7)));
    assert!(occupied(&sim) > before - MIB / 2, "what else is free has gone");
    drop(guard);
    small_traffic(&heap, 600);
    assert!(occupied(&sim) <= before - MIB);
    assert_eq!(sim.violations(), Vec::<String>::new());
}

#[test]
fn a_heap_keeps_nothing_or_everything_if_it_is_told_to() {
    let (sim, heap) = simulated(&options().decay(Duration::ZERO));
    small_traffic(&heap, 1);
    let before = occupied(&sim);
    rise_and_fall(&heap, 10, 64 << 10);
    heap.sync().expect("no sync fails here");
    assert!(occupied(&sim) <= before, "nothing that is free for good");

    let (sim, heap) = simulated(&options().decay(Duration::MAX));
    rise_and_fall(&heap, 80, 64 << 10);
    let before = occupied(&sim);
    wait(&sim, &heap);
    assert!(occupied(&sim) >= before, "everything");
    heap.trim().expect("the simulator punches");
    assert!(occupied(&sim) < before - 5 * MIB, "but what is trimmed");
}

/// Bytes that the file at `path` occupies.
fn file_bytes(path: &Path) -> u64 {
    fs::metadata(path).expect("it is there").blocks() * 512
}

/// 500 MiB of a service that was killed stayed in `/dev/shm`, though it freed them and was started again: what was free at
/// open counted as having no memory, and small blocks were no reason to look.
#[test]
fn small_traffic_gives_back_what_a_killed_program_had_freed() {
    if let Some(path) = child_path() {
        let heap = Heap::create(path).expect("a new file");
        let slots = heap.slots("many", 32 << 10).expect("there is room");
        for slot in slots {
            heap.alloc_to(slot, layout(1000)).expect("there is room");
        }
        heap.alloc_to(&self::slots(&heap)[0], layout(32 << 20)).expect("there is room");
        heap.free_from(&self::slots(&heap)[0]).expect("it is full");
        for slot in slots {
            heap.free_from(slot).expect("it is full");
        }
        std::process::abort();
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("heap");
    let status = death_of_child(small_traffic_gives_back_what_a_killed_program_had_freed, &path);
    assert!(!status.success());
    let left = file_bytes(&path);
    assert!(left >= 64 * MIB, "{left} bytes");
    // Each look finds the time over.
    let options = Heap::options().decay(Duration::from_nanos(1));
    let heap = options.open(&path).expect("a killed program's heap opens");
    small_traffic(&heap, 2000);
    let (live, now) = (heap.stats().expect("figures").used_bytes, file_bytes(&path));
    assert!(now < live + 4 * MIB, "{now} bytes for {live}");
    assert!(heap.check().expect("readable").problems.is_empty());
}

#[test]
fn a_closed_heap_keeps_no_more_than_an_idle_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("heap");
    let heap = Heap::create(&path).expect("a new file");
    rise_and_fall(&heap, 1, 32 << 20);
    assert!(file_bytes(&path) >= 32 * MIB, "in use just now");
    heap.close().expect("the disk answers");
    assert!(file_bytes(&path) < 4 * MIB, "{} bytes", file_bytes(&path));
}
