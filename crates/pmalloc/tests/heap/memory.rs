//! Goal: memory that is nowhere on media, in caches, in the queues between arenas or waiting for guards, is neither lost nor
//! used while somebody may see it.
//!
//! Method: sessions of two arenas free what the others allocate, at random and under guards that come and go, beside a model
//! of what is in each block; at the end all is freed, and the heap must be as empty as before, and as large.

#![cfg(not(any(miri, shuttle)))]

use std::alloc::Layout;

use pmalloc::{Error, Guard, Heap, Session, Slot, persist::Anon};

type Memory = Anon;

const SLOTS: usize = 2048;

fn heap(capacity_bytes: u64) -> Heap<Memory> {
    let options = Heap::options().capacity_bytes(capacity_bytes).arenas(2);
    let memory = Anon::new(options.heap_bytes().expect("valid options"));
    options.create_on(memory).expect("a fresh medium has room")
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a small layout")
}

/// Bytes in use when everything that is kept for later was given back.
fn used_bytes(heap: &Heap<Memory>) -> u64 {
    heap.trim().expect("anonymous memory can be given back");
    heap.stats().expect("readable").used_bytes
}

/// The slots, after one block of each arena came and went: what an arena makes once is there.
fn slots(heap: &Heap<Memory>) -> &[Slot] {
    let slots = heap.slots("slots", SLOTS as u64).expect("room");
    let mut sessions = [heap.session(), heap.session()];
    for session in &mut sessions {
        session.alloc_to(&slots[0], layout(64)).expect("room");
        session.free_from(&slots[0]).expect("full");
    }
    slots
}

#[test]
fn a_queue_between_arenas_that_overflows_loses_nothing() {
    let heap = heap(8 << 20);
    let slots = slots(&heap);
    let before = used_bytes(&heap);
    for size in [16, 64, 700] {
        let (mut one, mut other) = (heap.session(), heap.session());
        for slot in slots {
            one.alloc_to(slot, layout(size)).expect("room");
        }
        // The one asks for no block meanwhile: what comes back to its arena stays in the queue, until that is too long.
        for slot in slots {
            other.free_from(slot).expect("full");
        }
        drop((one, other));
        assert_eq!(used_bytes(&heap), before, "blocks of {size} bytes were lost");
    }
}

/// What the slots own: the byte that fills it, and the size.
type Model = Vec<Option<(u8, usize)>>;

/// One free or allocation by one of the sessions.
fn change(
    sessions: &mut [Session<Memory>],
    slots: &[Slot],
    model: &mut Model,
    rng: &mut fastrand::Rng,
) {
    let at = rng.usize(..slots.len());
    let session = rng.usize(..sessions.len());
    let session = &mut sessions[session];
    if model[at].take().is_some() {
        session.free_from(&slots[at]).expect("full");
        return;
    }
    let size = [16, 64, 64, 300, 2500, 20_000, 70_000][rng.usize(..7)];
    let byte = rng.u8(1..);
    match session.alloc_init(&slots[at], layout(size), |bytes| bytes.fill(byte)) {
        Ok(()) => model[at] = Some((byte, size)),
        // Much of the room may wait for guards.
        Err(Error::OutOfMemory { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

/// The blocks that a guard sees, and what is in them.
fn seen<'g>(guard: &'g Guard<'_, Memory>, slots: &'g [Slot], model: &Model) -> Vec<(&'g [u8], u8)> {
    let full = slots.iter().zip(model).filter_map(|(slot, held)| Some((slot, (*held)?)));
    full.map(|(slot, (byte, size))| (&slot.get(guard).expect("full")[..size], byte)).collect()
}

#[test]
fn what_a_guard_sees_stays_and_what_nobody_sees_comes_back() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let heap = heap(4 << 20);
    let slots = &slots(&heap)[..160];
    let before = used_bytes(&heap);
    let mut model: Model = vec![None; slots.len()];
    let mut sessions: Vec<_> = (0..3).map(|_| heap.session()).collect();
    let mut older: Vec<Guard<'_, Memory>> = Vec::new();
    for _ in 0..400 {
        let guard = heap.pin();
        let blocks = seen(&guard, slots, &model);
        for _ in 0..rng.usize(..60) {
            change(&mut sessions, slots, &mut model, &mut rng);
            // Guards overlap: the one before goes at some time in the life of this one, and the epoch moves on.
            if rng.u8(..) < 8 {
                older.clear();
            }
        }
        for (bytes, byte) in blocks {
            assert!(bytes.iter().all(|found| *found == byte), "a block changed under a guard");
        }
        older.clear();
        older.extend((rng.u8(..4) > 0).then_some(guard));
    }
    drop(older);
    for (slot, held) in slots.iter().zip(&model) {
        if held.is_some() {
            sessions[0].free_from(slot).expect("full");
        }
    }
    drop(sessions);
    // Under Batched, what was freed last is free when that is durable.
    heap.sync().expect("memory needs no disk");
    assert_eq!(used_bytes(&heap), before, "memory was lost");
}
