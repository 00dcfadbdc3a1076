//! Goal: what a program put into a heap is there when it comes back.
//!
//! Method: random allocations and frees from several threads against a model of what each slot must hold; the
//! heap is closed and reopened between rounds, on a file and on anonymous memory.

use crate::common::shared::{Raw, Shared};
use std::{alloc::Layout, sync::Arc};

use pmalloc::{
    Error, Heap, Slot,
    persist::{Anon, Medium},
};

/// The byte at `index` of block `id`.
fn byte(id: u64, index: usize) -> u8 {
    (id.wrapping_mul(0x9e37_79b9) ^ (index as u64).wrapping_mul(31)).to_le_bytes()[0]
}

fn fill(id: u64) -> impl FnOnce(&mut [u8]) {
    move |bytes| bytes.iter_mut().enumerate().for_each(|(at, b)| *b = byte(id, at))
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a small layout")
}

/// A size: mostly small, sometimes a few pages.
fn size(rng: &mut fastrand::Rng) -> usize {
    match rng.u32(..100) {
        0..80 => rng.usize(1..=512),
        80..95 => rng.usize(512..=16 << 10),
        _ => rng.usize(16 << 10..=200 << 10),
    }
}

/// Fills and frees slots at random and keeps `model[i]` as what slot `i` holds: (id, size).
fn churn<M: Medium + 'static>(
    heap: &Heap<M>,
    slots: &[Slot],
    model: &mut [Option<(u64, usize)>],
    rng: &mut fastrand::Rng,
    operations: usize,
) {
    for _ in 0..operations {
        let at = rng.usize(..slots.len());
        if model[at].take().is_some() {
            heap.free_from(&slots[at]).expect("a full slot can be freed");
        } else {
            let (id, size) = (rng.u64(..), size(rng));
            heap.alloc_init(&slots[at], layout(size), fill(id)).expect("there is room");
            model[at] = Some((id, size));
        }
    }
}

fn verify<M: Medium + 'static>(heap: &Heap<M>, slots: &[Slot], model: &[Option<(u64, usize)>]) {
    let guard = heap.pin();
    for (slot, expected) in slots.iter().zip(model) {
        match (slot.get(&guard), expected) {
            (None, None) => {}
            (Some(bytes), Some((id, size))) => {
                assert!(bytes.len() >= *size);
                assert!(bytes[..*size].iter().enumerate().all(|(at, b)| *b == byte(*id, at)));
            }
            (found, expected) => {
                panic!("found {:?}, expected {expected:?}", found.map(<[u8]>::len))
            }
        }
    }
}

fn check_clean<M: Medium + 'static>(heap: &Heap<M>) {
    let report = heap.check().expect("the file can be read");
    assert_eq!(report.problems, []);
    assert_eq!(report.unowned_blocks, 0, "a leak");
}

#[test]
fn a_heap_in_a_file_keeps_its_blocks_over_reopens() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("heap");
    let mut rng = fastrand::Rng::with_seed(1);
    let mut model = vec![None; 500];
    Heap::create(&path).expect("created").close().expect("closed");
    for _ in 0..5 {
        let heap = Heap::open(&path).expect("opened");
        let slots = heap.slots("slots", 500).expect("there is room");
        verify(&heap, slots, &model);
        churn(&heap, slots, &mut model, &mut rng, 3000);
        verify(&heap, slots, &model);
        check_clean(&heap);
        heap.close().expect("closed");
        assert_eq!(pmalloc::check_file(&path).expect("a heap").problems, []);
    }
}

#[test]
fn memory_from_the_start_is_the_files_and_counts_as_not_yet_grown() {
    const INITIAL: u64 = 4 << 20;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("heap");
    let heap = Heap::options().initial_bytes(INITIAL).create(&path).expect("created");
    let at_first = heap.stats().expect("readable");
    assert!(at_first.heap_bytes > INITIAL && at_first.free_bytes == 0, "{at_first:?}");
    heap.close().expect("closed");

    let heap = Heap::open(&path).expect("opened");
    let slots = heap.slots("slots", 500).expect("room");
    let (mut model, mut rng) = (vec![None; 500], fastrand::Rng::with_seed(2));
    churn(&heap, slots, &mut model, &mut rng, 300);
    heap.trim().expect("free pages go back");
    let used = heap.stats().expect("readable");
    assert!(used.heap_bytes + used.free_bytes > INITIAL, "what was never used stays: {used:?}");
    verify(&heap, slots, &model);
    check_clean(&heap);
    drop(heap);
    assert_eq!(pmalloc::check_file(&path).expect("a heap").problems, []);
}

#[test]
fn threads_share_a_heap_and_free_each_others_blocks() {
    const THREADS: usize = 4;
    let heap = Heap::options().capacity_bytes(1 << 30).create_shared(Arc::new(Anon::new(1 << 31)));
    let heap = heap.expect("created");
    let mut models = vec![vec![None; 200]; THREADS];
    for round in 0..4 {
        std::thread::scope(|scope| {
            for (thread, model) in models.iter_mut().enumerate() {
                let heap = &heap;
                scope.spawn(move || {
                    // Each round another thread works on the array, and frees what the one before allocated.
                    let mut rng = fastrand::Rng::with_seed((round * 10 + thread) as u64);
                    let slots = heap.slots(&format!("slots {thread}"), 200).expect("there is room");
                    churn(heap, slots, model, &mut rng, 2000);
                    verify(heap, slots, model);
                });
            }
        });
        check_clean(&heap);
    }
    let medium = Arc::clone(heap.raw());
    heap.close().expect("closed");
    let heap = Heap::<Arc<Anon>>::open_again(medium);
    for (thread, model) in models.iter().enumerate() {
        let slots = heap.slots(&format!("slots {thread}"), 200).expect("it exists");
        verify(&heap, slots, model);
    }
    check_clean(&heap);
}

/// Opening on a medium, by a name that reads well above.
trait OpenAgain<M: Medium + 'static> {
    fn open_again(medium: M) -> Heap<M>;
}

impl<M: Medium + 'static> OpenAgain<M> for Heap<M> {
    fn open_again(medium: M) -> Self {
        Heap::options().open_shared(medium).expect("opened")
    }
}

#[test]
fn everything_freed_gives_the_whole_capacity_back() {
    let options = Heap::options().capacity_bytes(8 << 20).arenas(1);
    let len = options.heap_bytes().expect("valid options");
    let heap = options.create_shared(Anon::new(len)).expect("created");
    let slots = heap.slots("slots", 4096).expect("there is room");
    for size in [16, 100, 5000, 70_000, 1 << 20] {
        let mut full = 0;
        let error = loop {
            match heap.alloc_to(&slots[full], layout(size)) {
                Ok(()) => full += 1,
                Err(error) => break error,
            }
            if full == slots.len() {
                break Error::Limit { what: "slots", limit: 4096 };
            }
        };
        assert!(matches!(error, Error::OutOfMemory { .. } | Error::Limit { .. }), "{error}");
        assert!(full as u64 * size as u64 > 6 << 20 || full == slots.len(), "{full} of {size}");
        for slot in &slots[..full] {
            heap.free_from(slot).expect("a full slot can be freed");
        }
        check_clean(&heap);
    }
}
