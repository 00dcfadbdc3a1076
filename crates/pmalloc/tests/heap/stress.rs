//! Goal: real threads at full speed never see a block change, never lose one, and never share one.
//!
//! Method: writers fill and free slots that they share, readers hold guards over what they find; in the end the
//! heap is checked. A second by default; `PMALLOC_STRESS_SECONDS` makes it longer, for the sanitizers.

use crate::common::shared::Shared;
use std::{
    alloc::Layout,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pmalloc::{
    Error, Heap, Policy, Slot,
    persist::{Anon, Medium},
};

const SLOTS: usize = 64;
const WRITERS: u64 = 4;
const READERS: u64 = 2;

fn duration() -> Duration {
    let seconds = std::env::var("PMALLOC_STRESS_SECONDS").ok();
    Duration::from_secs(seconds.map_or(1, |text| text.parse().expect("a number of seconds")))
}

/// A block is filled with its size and then one byte over and over.
fn write(block: &mut [u8], value: u8) {
    let (head, tail) = block.split_at_mut(8);
    head.copy_from_slice(&(tail.len() as u64).to_le_bytes());
    tail.fill(value);
}

fn value_of(block: &[u8]) -> u8 {
    let (head, tail) = block.split_at(8);
    let len = u64::from_le_bytes(head.try_into().expect("eight bytes"));
    let tail = &tail[..usize::try_from(len).expect("a size")];
    assert!(tail.iter().all(|byte| *byte == tail[0]), "two fills in one block");
    tail[0]
}

fn size(rng: &mut fastrand::Rng) -> usize {
    match rng.u32(..100) {
        0..85 => rng.usize(16..=600),
        85..95 => rng.usize(600..=14 << 10),
        // Also those that arenas cut out of runs of their own.
        _ => rng.usize(14 << 10..=200 << 10),
    }
}

fn write_some<M: Medium>(heap: &Heap<M>, slots: &[Slot], rng: &mut fastrand::Rng) {
    let slot = &slots[rng.usize(..slots.len())];
    let (bytes, value) = (size(rng), rng.u8(1..));
    let layout = Layout::from_size_align(bytes, 16).expect("a small layout");
    let result = if rng.bool() {
        heap.alloc_init(slot, layout, |block| write(block, value))
    } else {
        heap.free_from(slot)
    };
    match result {
        // Guards may hold back much of a small heap.
        Ok(())
        | Err(Error::SlotFull { .. } | Error::SlotEmpty { .. } | Error::OutOfMemory { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

fn read_some<M: Medium>(heap: &Heap<M>, slots: &[Slot], rng: &mut fastrand::Rng) -> u64 {
    let guard = heap.pin();
    let blocks: Vec<_> = (0..4).filter_map(|_| slots[rng.usize(..SLOTS)].get(&guard)).collect();
    let before: Vec<u8> = blocks.iter().map(|block| value_of(block)).collect();
    std::thread::yield_now();
    let after: Vec<u8> = blocks.iter().map(|block| value_of(block)).collect();
    assert_eq!(before, after, "a block changed under a guard");
    before.len() as u64
}

fn stress<M: Medium + 'static>(heap: &Heap<M>, seed: u64) {
    let slots = heap.slots("slots", SLOTS as u64).expect("there is room");
    let (is_over, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..WRITERS {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed + thread);
                while !is_over.load(Ordering::Relaxed) {
                    // Threads come and go: what they hold must go on.
                    let short_lived = std::thread::scope(|inner| {
                        let mut rng = rng.fork();
                        let work = move || (0..500).for_each(|_| write_some(heap, slots, &mut rng));
                        inner.spawn(work).join()
                    });
                    short_lived.expect("a writer does not panic");
                    (0..500).for_each(|_| write_some(heap, slots, &mut rng));
                }
            });
        }
        for thread in 0..READERS {
            let (is_over, reads) = (&is_over, &reads);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed + 100 + thread);
                while !is_over.load(Ordering::Relaxed) {
                    reads.fetch_add(read_some(heap, slots, &mut rng), Ordering::Relaxed);
                }
            });
        }
        let started = Instant::now();
        while started.elapsed() < duration() {
            std::thread::sleep(Duration::from_millis(50));
            heap.trim().expect("memory can be given back");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(reads.into_inner() > 0, "the readers found nothing");
    let report = heap.check().expect("the medium can be read");
    assert_eq!((report.problems, report.unowned_blocks), (vec![], 0));
}

#[test]
fn threads_share_slots_on_anonymous_memory() {
    for policy in [Policy::Eager, Policy::Batched] {
        let options = Heap::options().policy(policy).capacity_bytes(32 << 20);
        let bytes = options.heap_bytes().expect("a valid capacity");
        let heap = options.create_shared(Arc::new(Anon::new(bytes))).expect("the medium suffices");
        stress(&heap, 1);
        heap.close().expect("the only handle");
    }
}

#[test]
fn threads_share_slots_on_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    for policy in [Policy::Eager, Policy::Batched] {
        let path = dir.path().join(policy.name());
        let options = Heap::options().policy(policy).capacity_bytes(32 << 20);
        let heap = options.create(&path).expect("created");
        stress(&heap, 1000);
        heap.close().expect("the only handle");
        assert_eq!(pmalloc::check_file(&path).expect("a heap").problems, []);
    }
}
