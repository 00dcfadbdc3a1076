//! Goal: the public interface does what it says, in short. The programs beside these unit tests look at all of it in depth;
//! what is here is built and run in a moment, and notices a fault in what every operation goes through.
//!
//! Method: small heaps in files, and types that need no derive.

use crate::{Error, Heap, Persistent, Slot, copy_file};

/// A typed root is made of it: a slot that owns a slot that owns a number.
type Outer = Slot<Slot<u64>>;

fn create(directory: &tempfile::TempDir) -> Heap {
    Heap::options().capacity_bytes(4 << 20).create(directory.path().join("heap")).expect("room")
}

#[test]
fn what_is_allocated_into_a_slot_is_what_the_slot_owns() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let heap = create(&directory);
    let slots: &[Slot<u64>; 2] = heap.root("numbers", <[Slot<u64>; 2]>::zeroed).expect("room");
    heap.alloc_value(&slots[0], 7).expect("room");
    heap.session().alloc_value(&slots[1], 8).expect("room");
    let values = || slots.each_ref().map(|slot| slot.get(&heap.pin()).copied());
    assert_eq!(values(), [Some(7), Some(8)]);
    heap.session().replace_value(&slots[0], 9).expect("room");
    heap.session().free_from(&slots[1]).expect("full");
    assert_eq!(values(), [Some(9), None]);
}

#[test]
fn a_slot_in_a_block_that_is_not_live_changes_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let heap = create(&directory);
    let outer: &Outer = heap.root("outer", Slot::new).expect("room");
    heap.alloc_value(outer, Slot::new()).expect("room");
    let guard = heap.pin();
    let inner = outer.get(&guard).expect("just allocated");
    heap.alloc_value(inner, 7).expect("it lies in a live block");
    heap.free_from(inner).expect("full");
    // The session that worked in the block does not hear of its end.
    heap.session().free_from(outer).expect("full");
    let before = heap.stats().expect("open").live_blocks;
    let refused = heap.alloc_value(inner, 7).expect_err("nothing owns its block");
    assert!(matches!(refused, Error::SlotForeign), "{refused}");
    // Not even looked at, like one that lies in no heap.
    assert!(matches!(heap.block_of(inner), Err(Error::SlotForeign)));
    assert!(matches!(heap.block_of(&Slot::<u64>::new()), Err(Error::SlotForeign)));
    assert_eq!(heap.stats().expect("open").live_blocks, before);
}

#[test]
fn what_a_slot_owns_counts_as_part_of_a_type() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let heap = create(&directory);
    heap.root::<Slot<u64>>("number", Slot::new).expect("room");
    heap.root::<Outer>("outer", Slot::new).expect("room");
    let refused = [
        heap.root::<Slot<u32>>("number", Slot::new).map(drop),
        heap.root::<Slot>("number", Slot::new).map(drop),
        heap.root::<Outer>("number", Slot::new).map(drop),
        heap.root::<Slot<Slot<u32>>>("outer", Slot::new).map(drop),
        heap.root::<Slot<u64>>("outer", Slot::new).map(drop),
    ];
    for (at, refused) in refused.into_iter().enumerate() {
        assert!(refused.is_err(), "{at}: another type");
    }
    heap.root::<Slot<u64>>("number", Slot::new).expect("the same type");
    heap.root::<Outer>("outer", Slot::new).expect("the same type");
}

#[test]
fn a_copy_of_a_closed_heap_holds_what_the_heap_holds() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let heap = create(&directory);
    let slot: &Slot<u64> = heap.root("number", Slot::new).expect("room");
    heap.alloc_value(slot, 7).expect("room");
    heap.close().expect("closed");
    let [path, copy] = ["heap", "copy"].map(|name| directory.path().join(name));
    let report = copy_file(&path, &copy).expect("nobody has it open");
    assert_eq!(report.check.problems, []);
    assert!(report.copied_bytes > 0 && report.heap_bytes > 0);
    let copied = Heap::open(&copy).expect("a heap");
    let slot: &Slot<u64> = copied.root("number", Slot::new).expect("it is there");
    assert_eq!(slot.get(&copied.pin()), Some(&7));
}
