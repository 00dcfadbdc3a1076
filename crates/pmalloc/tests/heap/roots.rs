//! Goal: roots of every kind are found again, listed and removed; nothing that somebody may look at is taken away.
//!
//! Method: by hand, on a heap in which everything is small, and again after it was closed and opened. What crashes leave
//! of making and removing is explored elsewhere.

use crate::common::shared::{Raw, Shared};
use std::sync::Arc;

use crate::common::{fill, image, layout, options};
use pmalloc::{
    Error, Heap, RootInfo, RootKind, Slot,
    persist::{Anon, Medium, Offset, Word},
};

type Memory = Arc<Anon>;

fn heap() -> Heap<Memory> {
    options().create_shared(Arc::new(Anon::new(image::heap_bytes()))).expect("room")
}

fn reopen(heap: Heap<Memory>) -> Heap<Memory> {
    let m = Arc::clone(heap.raw());
    heap.close().expect("the only handle");
    options().open_shared(m).expect("a heap")
}

fn words<'h>(heap: &'h Heap<Memory>, root: &RootInfo) -> &'h [Word] {
    heap.raw().region().array(Offset::new(root.offset), root.length / 8).expect("inside")
}

fn assert_whole(heap: &Heap<Memory>, blocks: u64) {
    let report = heap.check().expect("readable");
    assert_eq!((report.problems, report.blocks, report.unowned_blocks), (vec![], blocks, 0));
}

#[test]
fn a_root_of_bytes_is_zero_and_found_again() {
    let heap = heap();
    // What the root gets was used before.
    let slots = heap.slots("slots", 1).expect("room");
    for size in [200, 40_000] {
        heap.alloc_init(&slots[0], layout(size), |block| block.fill(0xff)).expect("room");
        heap.free_from(&slots[0]).expect("full");
    }
    let small = heap.root_bytes("small", 200, 7).expect("room");
    let large = heap.root_bytes("large", 40_000, 0).expect("room");
    for root in [&small, &large] {
        assert_eq!((root.kind, root.size_bytes()), (RootKind::Bytes, root.length));
        assert!(root.offset.is_multiple_of(64));
        assert!(words(&heap, root).iter().all(|word| heap.raw().load(word) == 0));
    }
    let heap = reopen(heap);
    assert_eq!(heap.root_bytes("small", 200, 7).expect("it exists"), small);
    assert_eq!(heap.root_find("large").expect("whole"), Some(large.clone()));
    assert_eq!(heap.root_find("medium").expect("whole"), None);
    let roots = heap.roots().expect("whole");
    assert_eq!(
        roots.iter().map(|root| &*root.name).collect::<Vec<_>>(),
        ["slots", "small", "large"]
    );
    assert_eq!((roots[0].kind, roots[0].length, roots[0].size_bytes()), (RootKind::Slots, 1, 8));
    assert_eq!(roots[1..], [small, large]);
    assert_whole(&heap, 3);
}

#[test]
fn a_root_is_refused_as_something_else() {
    let heap = heap();
    heap.slots("slots", 4).expect("room");
    heap.root_bytes("bytes", 32, 7).expect("room");
    for (name, size, type_id) in [("slots", 32, 0), ("bytes", 33, 7), ("bytes", 32, 8)] {
        let refused = heap.root_bytes(name, size, type_id);
        assert!(matches!(refused, Err(Error::RootMismatch { .. })), "{refused:?}");
    }
    assert!(matches!(heap.slots("bytes", 4), Err(Error::RootMismatch { .. })));
    assert!(matches!(heap.root_bytes("none", 0, 0), Err(Error::Invalid { .. })));
    assert!(matches!(heap.root_bytes("huge", usize::MAX, 0), Err(Error::Invalid { .. })));
    let over = heap.root_bytes("over", 1 << 20, 0);
    assert!(matches!(over, Err(Error::OutOfMemory { .. })), "{over:?}");
    assert_eq!(heap.roots().expect("whole").len(), 2);
    assert_whole(&heap, 2);
}

#[test]
fn slots_in_a_root_of_bytes_work_in_place() {
    let heap = heap();
    let root = heap.root_bytes("slots", 8 * 16, 0).expect("room");
    let slots = |heap: &Heap<Memory>| -> Vec<u64> {
        (0..16).map(|nth| heap.root_find("slots").unwrap().unwrap().offset + nth * 8).collect()
    };
    let at = |heap: &Heap<Memory>, nth: usize| slots(heap)[nth];
    heap.alloc_init(heap.slot_in(at(&heap, 3)).unwrap(), layout(100), fill(1)).expect("room");
    heap.alloc_to(heap.slot_in(at(&heap, 15)).unwrap(), layout(20_000)).expect("room");
    let heap = reopen(heap);
    let slot: &Slot = heap.slot_in(at(&heap, 3)).unwrap();
    assert_eq!(slot.get(&heap.pin()).expect("full")[..100], [48; 100]);
    for nth in [3, 15] {
        heap.free_from(heap.slot_in(at(&heap, nth)).unwrap()).expect("full");
    }
    assert_eq!(heap.root_find("slots").expect("whole"), Some(root));
    assert_whole(&heap, 1);
}

#[test]
fn what_is_removed_is_gone_and_its_name_and_memory_are_free() {
    let heap = heap();
    let used = || heap.stats().expect("anonymous").used_bytes;
    for size in [64, 3000, 40_000] {
        heap.root_bytes("keeper", 64, 0).expect("room");
        heap.root_bytes("root", size, 1).expect("room");
        let before = used();
        for round in 0..40 {
            heap.root_remove("root").expect("nobody has it");
            assert!(matches!(heap.root_remove("root"), Err(Error::RootMissing { .. })));
            let root = heap.root_bytes("root", size, round).expect("the entry is free again");
            assert!(words(&heap, &root).iter().all(|word| heap.raw().load(word) == 0));
        }
        assert_eq!(used(), before);
        heap.root_remove("root").expect("nobody has it");
    }
    let heap = reopen(heap);
    assert_eq!(heap.roots().expect("whole").len(), 1);
    // A block that held a root can be owned by a slot.
    let slots = heap.slots("slots", 8).expect("room");
    for slot in slots {
        heap.alloc_init(slot, layout(64), fill(1)).expect("room");
        assert!(slot.get(&heap.pin()).is_some());
        heap.free_from(slot).expect("full");
    }
    assert_whole(&heap, 2);
}

#[test]
fn a_root_array_is_removed_when_nobody_has_it_and_it_owns_nothing() {
    let heap = heap();
    let slots = heap.slots("slots", 4).expect("room");
    heap.alloc_to(&slots[2], layout(16)).expect("room");
    assert!(matches!(heap.root_remove("slots"), Err(Error::RootInUse { .. })));
    let heap = reopen(heap);
    let full = match heap.root_remove("slots") {
        Err(Error::ChildrenAlive { slot }) => slot,
        other => panic!("{other:?}"),
    };
    let slots = heap.slots("slots", 4).expect("it exists");
    assert_eq!(heap.raw().region().span_of(&slots[2]).start, full);
    heap.free_from(&slots[2]).expect("full");
    assert!(matches!(heap.root_remove("slots"), Err(Error::RootInUse { .. })));
    let heap = reopen(heap);
    heap.root_remove("slots").expect("empty, and not handed out");
    assert_eq!(heap.roots().expect("whole"), []);
    assert_whole(&heap, 0);
}

#[test]
fn a_removed_root_waits_for_guards() {
    let heap = heap();
    let root = heap.root_bytes("root", 3000, 0).expect("room");
    let guard = heap.pin();
    heap.root_remove("root").expect("nobody has it");
    let other = heap.root_bytes("other", 3000, 0).expect("room");
    assert_ne!(other.offset, root.offset);
    drop(guard);
}

/// A table in which two entries name one block: handed out for both, it would be seen as two things at once, and removed
/// for one, it would be freed under the other.
#[test]
fn two_roots_in_one_block_are_neither_removed_nor_both_handed_out() {
    let heap = heap();
    for name in ["first", "second", "third"] {
        heap.slots(name, 8).expect("room");
    }
    let m = Arc::clone(heap.raw());
    let table =
        options().areas().expect("valid").into_iter().find(|(name, _)| *name == "root table");
    let slot_of =
        |nth: u64| Offset::<Word>::new(table.expect("it has one").1.start + nth * 128 + 96);
    // As a killed process leaves it: a close seals the table.
    let crashed = Arc::new(Anon::new(image::heap_bytes()));
    for (word, copy) in image::words(&*m).iter().zip(image::words(&*crashed)) {
        crashed.store(copy, m.load(word));
    }
    let m = crashed;
    m.store(m.at(slot_of(1)).unwrap(), m.load(m.at(slot_of(0)).unwrap()));

    let heap = options().open_shared(m).expect("a heap");
    assert!(matches!(heap.root_remove("first"), Err(Error::Corrupted { .. })));
    assert!(matches!(heap.root_remove("second"), Err(Error::Corrupted { .. })));
    heap.slots("first", 8).expect("the first to ask gets it");
    heap.slots("first", 8).expect("again");
    assert!(matches!(heap.slots("second", 8), Err(Error::Corrupted { .. })));
    heap.root_remove("third").expect("it has a block of its own");
}
