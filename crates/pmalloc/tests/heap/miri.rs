//! Goal: nothing that safe code can do to a heap is undefined behaviour or a data race.
//!
//! Method: small runs over anonymous memory, sized for miri, which interprets them under its rules of aliasing,
//! provenance and weak memory. They run natively, too. Two threads share slots, arenas, a lane and guards;
//! contents are checked wherever they are read.

use crate::common::shared::{Raw, Shared};
use std::{alloc::Layout, sync::Arc};

use pmalloc::{
    Error, Heap, HeapOptions, PCell, Persistent, Slot, TestGeometry,
    persist::{Anon, Medium, Offset, Word},
};

type Memory = Arc<Anon>;

const GEOMETRY: TestGeometry = TestGeometry {
    capacity_bytes: 128 << 10,
    slab_bytes: 16 << 10,
    ring_places: 8,
    lanes: 2,
    chunk_bytes: 256,
    logs: 2,
    roots: 8,
    stripes: 3,
};

fn options() -> HeapOptions {
    Heap::options().test_geometry(GEOMETRY)
}

fn create() -> Heap<Memory> {
    let len_bytes = options().heap_bytes().expect("a valid geometry");
    options().create_shared(Arc::new(Anon::new(len_bytes))).expect("the medium suffices")
}

fn reopen(heap: Heap<Memory>) -> Heap<Memory> {
    let memory = Arc::clone(heap.raw());
    heap.close().expect("the only handle");
    Heap::options().open_shared(memory).expect("a heap")
}

fn words(m: &Anon) -> &[Word] {
    m.region().array(Offset::new(0), m.len() / 8).expect("all of it")
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).expect("a small layout")
}

fn fill(heap: &Heap<Memory>, slot: &Slot, bytes: usize, value: u8) -> Result<(), Error> {
    heap.alloc_init(slot, layout(bytes), |block| block.fill(value))
}

/// Sees that what the slot owns, if anything, is one fill, and returns its value.
fn value_of<M: Medium>(slot: &Slot, guard: &pmalloc::Guard<'_, M>, bytes: usize) -> Option<u8> {
    let block = &slot.get(guard)?[..bytes];
    assert!(block.iter().all(|byte| *byte == block[0]), "two fills in one block: {block:?}");
    Some(block[0])
}

fn assert_whole<M: Medium>(heap: &Heap<M>, blocks: u64) {
    let report = heap.check().expect("memory can be read");
    assert_eq!((report.problems, report.blocks, report.unowned_blocks), (vec![], blocks, 0));
}

#[test]
fn what_is_allocated_survives_a_reopen() {
    let heap = create();
    let slots = heap.slots("slots", 4).expect("there is room");
    fill(&heap, &slots[0], 40, 1).expect("there is room");
    fill(&heap, &slots[1], 700, 2).expect("there is room");
    fill(&heap, &slots[2], 16 << 10, 3).expect("there is room");
    heap.alloc_to(&slots[3], layout(64)).expect("there is room");
    heap.free_from(&slots[3]).expect("it is full");
    assert!(matches!(heap.free_from(&slots[3]), Err(Error::SlotEmpty { .. })));

    let heap = reopen(heap);
    let slots = heap.slots("slots", 4).expect("it exists");
    let guard = heap.pin();
    assert_eq!(value_of(&slots[0], &guard, 40), Some(1));
    assert_eq!(value_of(&slots[1], &guard, 700), Some(2));
    assert_eq!(value_of(&slots[2], &guard, 16 << 10), Some(3));
    assert!(slots[3].is_empty(&guard));
    drop(guard);
    heap.free_from(&slots[2]).expect("it is full");
    assert_whole(&heap, 3);
}

#[test]
fn a_heap_that_was_not_closed_is_recovered() {
    let heap = create();
    let slots = heap.slots("slots", 2).expect("there is room");
    fill(&heap, &slots[0], 100, 7).expect("there is room");
    // As after a crash: nobody has closed the heap when what its memory held is opened.
    let left = Anon::new(heap.raw().len());
    for (to, from) in words(&left).iter().zip(words(heap.raw())) {
        left.store(to, heap.raw().load(from));
    }
    let heap = Heap::options().open_on(left).expect("a heap");
    let slots = heap.slots("slots", 2).expect("it exists");
    assert_eq!(value_of(&slots[0], &heap.pin(), 100), Some(7));
    assert_whole(&heap, 2);
}

/// What a slot leads to is all there: its bytes, and the slots in it that the same publish fills.
#[test]
fn a_publish_shows_no_block_before_its_slots_are_stored() {
    let heap = create();
    let slots = heap.slots("slots", 1).expect("there is room");
    let mut outer = heap.reserve(layout(16)).expect("there is room");
    outer.write(|bytes| bytes.fill(0));
    let within = outer.new_block().slot(8);
    let inner = heap.reserve(layout(8)).expect("there is room");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..1000 {
                let guard = heap.pin();
                if let Some(bytes) = slots[0].get(&guard) {
                    assert_ne!(bytes[8..16], [0; 8], "the block is shown with an empty slot");
                    return;
                }
                std::thread::yield_now();
            }
        });
        let mut publish = heap.publish();
        publish.alloc(&slots[0], outer).alloc(within, inner);
        publish.commit().expect("there is room");
    });
    assert!(slots[0].get(&heap.pin()).is_some());
}

#[test]
fn two_threads_allocate_and_free_each_others_blocks() {
    let heap = create();
    std::thread::scope(|scope| {
        for thread in 0..2_u8 {
            let heap = &heap;
            scope.spawn(move || {
                let slots = heap.slots("slots", 3).expect("there is room");
                for round in 0..4_u8 {
                    let at = usize::from(thread + round) % 3;
                    match fill(heap, &slots[at], 120, 1 + thread) {
                        Ok(()) | Err(Error::SlotFull { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    match heap.free_from(&slots[(at + 1) % 3]) {
                        Ok(()) | Err(Error::SlotEmpty { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let slots = heap.slots("slots", 3).expect("it exists");
    let guard = heap.pin();
    let full = slots.iter().filter(|slot| value_of(slot, &guard, 120).is_some()).count();
    drop(guard);
    assert_whole(&heap, 1 + full as u64);
    drop(reopen(heap));
}

#[test]
fn a_reader_never_sees_a_block_change() {
    let heap = create();
    let slots = heap.slots("slots", 1).expect("there is room");
    fill(&heap, &slots[0], 64, 1).expect("there is room");
    std::thread::scope(|scope| {
        let reader = || {
            for _ in 0..6 {
                let guard = heap.pin();
                let before = value_of(&slots[0], &guard, 64);
                std::thread::yield_now();
                let block = slots[0].get(&guard);
                std::thread::yield_now();
                let after = block.map(|block| block[63]);
                assert!(
                    before.is_none_or(|value| value > 0) && after.is_none_or(|value| value > 0)
                );
            }
        };
        scope.spawn(reader);
        for value in 2..8 {
            heap.free_from(&slots[0]).expect("only this thread frees");
            fill(&heap, &slots[0], 64, value).expect("there is room");
        }
    });
    assert_whole(&heap, 2);
}

#[test]
fn two_threads_share_the_log_and_the_last_lane() {
    let heap = create();
    let slots = heap.slots("slots", 2).expect("there is room");
    std::thread::scope(|scope| {
        for slot in slots {
            let heap = &heap;
            scope.spawn(move || {
                for _ in 0..5 {
                    heap.alloc_to(slot, layout(20_000)).expect("there is room for two");
                    heap.free_from(slot).expect("it was just filled");
                }
            });
        }
    });
    assert_whole(&heap, 1);
}

#[test]
fn an_explicit_session_moves_between_threads() {
    let heap = create();
    let mut session = heap.session();
    let slots = heap.slots("slots", 2).expect("there is room");
    session.alloc_to(&slots[0], layout(48)).expect("there is room");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            session.free_from(&slots[0]).expect("it is full");
            session
                .alloc_init(&slots[1], layout(48), |block| block.fill(9))
                .expect("there is room");
        });
    });
    assert_eq!(value_of(&slots[1], &heap.pin(), 48), Some(9));
    assert_whole(&heap, 2);
}

#[test]
fn an_initialiser_may_use_the_heap_and_may_panic() {
    let heap = create();
    let slots = heap.slots("slots", 2).expect("there is room");
    heap.alloc_init(&slots[0], layout(80), |block| {
        block.fill(1);
        fill(&heap, &slots[1], 80, 2).expect("there is room");
    })
    .expect("there is room");
    heap.free_from(&slots[0]).expect("it is full");
    let panicking = || drop(heap.alloc_init(&slots[0], layout(80), |_| panic!("no contents")));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(panicking)).expect_err("it panics");
    let guard = heap.pin();
    assert!(slots[0].is_empty(&guard));
    assert_eq!(value_of(&slots[1], &guard, 80), Some(2));
    drop(guard);
    assert_whole(&heap, 2);
}

#[derive(Persistent)]
#[repr(C)]
struct Node {
    value: u64,
    count: PCell<u64>,
    next: Slot<Self>,
}

fn node(value: u64) -> Node {
    Node { value, count: PCell::new(0), next: Slot::new() }
}

#[test]
fn typed_values_are_seen_while_they_are_replaced() {
    let heap = create();
    let head = heap.root("head", Slot::<Node>::new).expect("there is room");
    heap.alloc_value(head, node(0)).expect("there is room");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for value in 1..6 {
                heap.replace_value(head, node(value)).expect("nobody fills the child");
            }
        });
        for _ in 0..6 {
            let guard = heap.pin();
            let found = head.get(&guard).expect("it is replaced and never empty");
            // The node may have been freed meanwhile: it is still seen, and is not changed any more.
            assert!(found.value < 6 && found.next.is_empty(&guard));
            let _ = found.count.fetch_add(&heap, 1);
        }
    });
    heap.alloc_value(&head.get(&heap.pin()).expect("full").next, node(7)).expect("room");
    assert!(matches!(heap.free_from(head), Err(Error::ChildrenAlive { .. })));
    let guard = heap.pin();
    heap.publish().free(&head.get(&guard).expect("full").next).free(head).commit().expect("full");
    drop(guard);
    assert_whole(&heap, 1);
}
