//! Goal: a publish does all of its actions or none, in order, and its blocks are lost in neither case.
//!
//! Method: by hand for what each action means and for every refusal; beside a model for random groups of actions, on a
//! heap in which two bookkeeping logs, slabs and extents are small. What crashes leave is explored elsewhere.

use crate::common::shared::{Raw, Shared};
use std::{collections::HashMap, sync::Arc};

use crate::common::{fill, layout, options};
use pmalloc::{
    Error, Heap, PUBLISH_MAX, Publish, Slot, TestGeometry, VersionedCell,
    persist::{Anon, Medium, Offset, Word},
};
use proptest::{collection::vec, prelude::*};

/// Ring places of a heap with groups of up to 128 records.
const RING_PLACES: u32 = 512;

/// A heap with the slots `slots`.
fn heap(count: u64) -> Heap<Arc<Anon>> {
    let options = Heap::options().test_geometry(TestGeometry {
        capacity_bytes: 2 << 20,
        slab_bytes: 16 << 10,
        ring_places: RING_PLACES,
        lanes: 2,
        chunk_bytes: 256,
        logs: 2,
        roots: 8,
        stripes: 3,
    });
    let m = Arc::new(Anon::new(options.heap_bytes().expect("valid")));
    let heap = options.create_shared(m).expect("room");
    heap.slots("slots", count).expect("room");
    heap
}

fn block<'h>(
    heap: &'h Heap<Arc<Anon>>,
    size: usize,
    id: usize,
) -> pmalloc::Reservation<'h, Arc<Anon>> {
    let mut block = heap.reserve(layout(size)).expect("room");
    block.write(fill(id));
    block
}

/// First byte of the slot's block, which tells what filled it.
fn first_byte(heap: &Heap<Arc<Anon>>, slot: &Slot) -> Option<u8> {
    slot.get(&heap.pin()).map(|bytes| bytes[0])
}

/// Two cells in a new block that `slot` owns.
fn cells<'h>(heap: &'h Heap<Arc<Anon>>, slot: &Slot) -> [&'h VersionedCell; 2] {
    heap.alloc_init(slot, layout(16), |bytes| bytes.fill(0)).expect("room");
    let block = slot.pptr(&heap.pin()).offset();
    [0, 8].map(|at| heap.cell_in(block + at).expect("inside"))
}

fn byte_of(id: usize) -> u8 {
    let mut byte = [0];
    fill(id)(&mut byte);
    byte[0]
}

#[test]
fn actions_take_effect_in_order_and_together() {
    let heap = heap(8);
    let slots = heap.slots("slots", 8).expect("there");
    heap.alloc_init(&slots[0], layout(16), fill(1)).expect("room");
    heap.alloc_init(&slots[1], layout(20_000), fill(2)).expect("room");

    let mut publish = heap.publish();
    publish.free(&slots[0]);
    publish.alloc(&slots[0], block(&heap, 9000, 3));
    publish.move_to(&slots[1], &slots[2]).swap(&slots[0], &slots[2]).move_to(&slots[2], &slots[3]);
    assert_eq!(publish.len(), 5);
    publish.commit().expect("all can be done");
    assert!(publish.is_empty());

    let found = [0, 1, 2, 3].map(|at| first_byte(&heap, &slots[at]));
    assert_eq!(found, [Some(byte_of(2)), None, None, Some(byte_of(3))]);
    assert_eq!(heap.blocks().len(), 3, "two blocks and the slots");
    assert_eq!(heap.check().expect("readable").problems, []);
}

#[test]
fn a_new_block_takes_over_what_a_slot_owns() {
    // How a list grows at its head.
    let heap = heap(1);
    let head = &heap.slots("slots", 1).expect("there")[0];
    for id in 1..=3 {
        let mut node = heap.reserve(layout(24)).expect("room");
        node.write(|bytes| {
            bytes.fill(0);
            bytes[8] = byte_of(id);
        });
        // The head, if it is full, is emptied into the node that is about to be its block.
        let next = node.new_block().slot(0);
        heap.publish().swap(head, next).alloc(head, node).commit().expect("room");
    }
    assert_eq!(heap.blocks().len(), 1 + 3, "three nodes and an array");
    assert_eq!(heap.check().expect("readable").problems, []);
}

#[test]
fn blocks_of_a_refused_publish_can_be_kept_and_published_elsewhere() {
    let heap = heap(4);
    let slots = heap.slots("slots", 4).expect("there");
    heap.alloc_init(&slots[0], layout(16), fill(1)).expect("room");
    let blocks = [block(&heap, 16, 2), block(&heap, 20_000, 3)];
    let places = blocks.each_ref().map(pmalloc::Reservation::offset);
    let mut publish = heap.publish();
    for (slot, block) in [&slots[1], &slots[0]].into_iter().zip(blocks) {
        publish.alloc(slot, block);
    }
    assert!(matches!(publish.commit(), Err(Error::SlotFull { .. })));
    let kept = publish.into_reservations();
    assert!(kept.iter().map(pmalloc::Reservation::offset).eq(places));
    assert!(places.iter().all(|place| heap.block_at(*place).is_err()), "nothing is live");

    let mut publish = heap.publish();
    for (slot, block) in slots[2..].iter().zip(kept) {
        publish.alloc(slot, block);
    }
    publish.commit().expect("both are empty");
    assert!(publish.into_reservations().is_empty(), "what was published is the slots'");
    let bytes = [0, 1, 2, 3].map(|at| first_byte(&heap, &slots[at]));
    assert_eq!(bytes, [Some(byte_of(1)), None, Some(byte_of(2)), Some(byte_of(3))]);
    let owned = slots[2..].iter().map(|slot| heap.block_of(slot).expect("whole").expect("full"));
    assert!(owned.map(|block| block.offset).eq(places));
    assert_eq!(heap.check().expect("readable").problems, []);
}

#[test]
fn what_is_refused_changes_nothing_and_stays_in_the_publish() {
    let (heap, other) = (heap(8), heap(1));
    let slots = heap.slots("slots", 8).expect("there");
    heap.alloc_init(&slots[0], layout(16), fill(1)).expect("room");
    heap.alloc_init(&slots[1], layout(20_000), fill(2)).expect("room");
    let foreign = &other.slots("slots", 1).expect("there")[0];
    let refused = |build| refused(&heap, slots, build);
    let free = |at: usize| {
        refused(Box::new(move |p| {
            p.free(&slots[at]);
        }))
    };
    let moved = |from: usize, to: usize| {
        refused(Box::new(move |p| {
            p.move_to(&slots[from], &slots[to]);
        }))
    };
    assert!(matches!(free(2), Error::SlotEmpty { .. }));
    // A block of the publish itself can't be freed by it.
    assert!(matches!(free(6), Error::NotLive { .. }));
    assert!(matches!(moved(2, 3), Error::SlotEmpty { .. }));
    assert!(matches!(moved(0, 1), Error::SlotFull { .. }));
    assert!(matches!(moved(0, 0), Error::SlotFull { .. }));
    let into_full: Build<'_> = Box::new(|p| {
        p.alloc(&slots[0], block(&heap, 16, 7));
    });
    assert!(matches!(refused(into_full), Error::SlotFull { .. }));
    let swapped = refused(Box::new(|p| {
        p.swap(&slots[0], foreign);
    }));
    assert!(matches!(swapped, Error::SlotForeign));
    let bare: Build<'_> = Box::new(|p| {
        let new = heap.reserve(layout(16)).expect("room");
        let inside = new.new_block().slot(0);
        p.alloc(&slots[2], new).move_to(&slots[0], inside);
    });
    assert!(matches!(refused(bare), Error::Invalid { .. }));
    let elsewhere: Build<'_> = Box::new(|p| {
        p.move_to(&slots[0], block(&heap, 16, 7).new_block().slot(0));
    });
    assert!(matches!(refused(elsewhere), Error::Invalid { .. }));
    let stranger: Build<'_> = Box::new(|p| {
        p.alloc(&slots[2], block(&other, 16, 7));
    });
    assert!(matches!(refused(stranger), Error::Invalid { what: "block", .. }));
    for at_byte in [4, 16, usize::MAX - 7] {
        let heap = &heap;
        let outside: Build<'_> = Box::new(move |p| {
            let new = block(heap, 16, 7);
            let inside = new.new_block().slot(at_byte);
            p.alloc(&slots[2], new).move_to(&slots[0], inside);
        });
        assert!(matches!(refused(outside), Error::Invalid { .. }), "{at_byte}");
    }
    assert_eq!(heap.check().expect("readable").problems, []);
}

#[test]
fn what_a_slot_does_not_own_it_does_not_hand_on() {
    let heap = heap(8);
    let slots = heap.slots("slots", 8).expect("there");
    heap.alloc_init(&slots[0], layout(16), fill(1)).expect("room");
    let victim = heap.block_of(&slots[0]).expect("whole").expect("full").offset;

    // Contents that look like a slot that owns the block.
    let mut forged = heap.reserve(layout(16)).expect("room");
    forged.write(|bytes| bytes[..8].copy_from_slice(&(victim / 16).to_le_bytes()));
    let inside = forged.new_block().slot(0);
    let mut publish = heap.publish();
    publish.alloc(&slots[1], forged).move_to(inside, &slots[2]);
    let refused = publish.commit();
    assert!(
        matches!(refused, Err(Error::Invalid { what: "slot in a new block", .. })),
        "{refused:?}"
    );
    drop(publish);

    // A slot whose word is damaged: no block, a free one, that of a root, a place outside the heap.
    let root = heap.root_find("slots").expect("readable").expect("there").offset;
    for place in [victim + 16, victim + (1 << 20), root, 1 << 43] {
        let word: &Word = heap
            .raw()
            .at(Offset::new(heap.raw().region().span_of(&slots[3]).start))
            .expect("inside");
        heap.raw().store(word, place / 16);
        let moved = heap.move_to(&slots[3], &slots[4]);
        assert!(matches!(moved, Err(Error::Corrupted { .. })), "{place:#x}: {moved:?}");
        let swapped = heap.swap(&slots[0], &slots[3]);
        assert!(matches!(swapped, Err(Error::Corrupted { .. })), "{place:#x}: {swapped:?}");
        heap.raw().store(word, 0);
    }
    assert_eq!(first_byte(&heap, &slots[0]), Some(byte_of(1)));
    assert_eq!(heap.check().expect("readable").problems, []);
}

type Build<'h> = Box<dyn FnOnce(&mut Publish<'h, Arc<Anon>>) + 'h>;

/// Commits actions of which the last ones, added by `build`, can't be done, and returns the error.
fn refused<'h>(heap: &'h Heap<Arc<Anon>>, slots: &'h [Slot], build: Build<'h>) -> Error {
    let before = heap.blocks();
    let mut publish = heap.publish();
    publish.alloc(&slots[6], block(heap, 100, 6));
    publish.swap(&slots[0], &slots[1]);
    build(&mut publish);
    let actions = publish.len();
    let error = publish.commit().expect_err("the last action can't be done");
    assert_eq!(publish.len(), actions, "{error}");
    drop(publish);
    assert_eq!(heap.blocks(), before, "{error}");
    let found = [0, 1, 6].map(|at| first_byte(heap, &slots[at]));
    assert_eq!(found, [Some(byte_of(1)), Some(byte_of(2)), None], "{error}");
    error
}

#[test]
fn cells_are_set_in_order_and_together_with_slots() {
    let heap = heap(8);
    let slots = heap.slots("slots", 8).expect("there");
    let cells = cells(&heap, &slots[0]);
    heap.set(cells[0], VersionedCell::VALUE_MAX).expect("the largest value");
    assert_eq!([0, 1].map(|at| cells[at].load(&heap)), [VersionedCell::VALUE_MAX, 0]);

    let mut publish = heap.publish();
    publish.set(cells[0], 1).set(cells[1], 2);
    publish.alloc(&slots[1], block(&heap, 100, 1));
    publish.set(cells[0], 3);
    publish.commit().expect("all can be done");
    assert_eq!([0, 1].map(|at| cells[at].load(&heap)), [3, 2]);
    assert_eq!(first_byte(&heap, &slots[1]), Some(byte_of(1)));
}

#[test]
fn a_cell_in_a_block_that_is_freed_does_not_keep_it() {
    let heap = heap(1);
    let slot = &heap.slots("slots", 1).expect("there")[0];
    let cells = cells(&heap, slot);
    heap.publish().set(cells[1], 7).free(slot).commit().expect("a cell owns nothing");
    assert_eq!(heap.blocks().len(), 1);
    assert_eq!(heap.check().expect("readable").problems, []);
}

#[test]
fn a_cell_counts_its_changes_round_and_round() {
    let heap = heap(1);
    let cells = cells(&heap, &heap.slots("slots", 1).expect("there")[0]);
    // The version has 20 bits; what it counts to does not reach the value.
    for value in 0..=1 << 20 {
        heap.set(cells[0], value % 5).expect("it fits");
        assert_eq!(cells[0].load(&heap), value % 5);
    }
}

#[test]
fn a_set_that_is_refused_changes_nothing() {
    let heap = heap(8);
    let slots = heap.slots("slots", 8).expect("there");
    let cells = cells(&heap, &slots[0]);
    let too_large = heap.set(cells[0], VersionedCell::VALUE_MAX + 1);
    assert!(matches!(too_large, Err(Error::Invalid { .. })), "{too_large:?}");
    let mut publish = heap.publish();
    publish.set(cells[0], 1).free(&slots[1]);
    assert!(matches!(publish.commit(), Err(Error::SlotEmpty { .. })));
    heap.free_from(&slots[0]).expect("full");
    let freed = heap.set(cells[0], 1);
    assert!(matches!(freed, Err(Error::SlotForeign)), "{freed:?}");
    let other = self::heap(1);
    let foreign = self::cells(&other, &other.slots("slots", 1).expect("there")[0]);
    assert!(matches!(heap.set(foreign[0], 1), Err(Error::SlotForeign)));
}

#[test]
fn a_session_of_another_heap_is_refused() {
    let (heap, other) = (heap(1), heap(1));
    let mut session = other.session();
    let refused = heap.publish().commit_in(&mut session);
    assert!(matches!(refused, Err(Error::Invalid { what: "session", .. })));
    let refused = heap.reserve_in(&mut session, layout(16));
    assert!(matches!(refused, Err(Error::Invalid { what: "session", .. })));
}

#[test]
fn as_many_actions_as_promised_and_no_more() {
    let count_max = PUBLISH_MAX + 1;
    let heap = heap(2 * count_max as u64);
    let slots = heap.slots("slots", 2 * count_max as u64).expect("there");
    for count in [PUBLISH_MAX - 1, PUBLISH_MAX, count_max] {
        let mut allocs = heap.publish();
        for slot in &slots[..count] {
            allocs.alloc(slot, block(&heap, 16, 1));
        }
        // Moves change two slots each.
        let mut moves = heap.publish();
        for (from, to) in slots[..count].iter().zip(&slots[count_max..]) {
            moves.move_to(from, to);
        }
        if count == count_max {
            for refused in [allocs.commit(), moves.commit()] {
                assert!(matches!(refused, Err(Error::Limit { limit: 64, .. })), "{refused:?}");
            }
            continue;
        }
        allocs.commit().expect("no more than promised");
        moves.commit().expect("no more than promised");
        let mut frees = heap.publish();
        for slot in &slots[count_max..][..count] {
            frees.free(slot);
        }
        frees.commit().expect("no more than promised");
        assert_eq!(heap.blocks().len(), 1);
    }
}

#[test]
fn a_short_ring_limits_a_publish() {
    let m = Arc::new(Anon::new(options().heap_bytes().expect("valid")));
    let heap = options().create_shared(m).expect("room");
    let slots = heap.slots("first", 24).expect("room");
    for slot in &slots[..2] {
        heap.alloc_to(slot, layout(16)).expect("room");
    }
    // Eight places: two records.
    heap.swap(&slots[0], &slots[1]).expect("two changes");
    let mut publish = heap.publish();
    publish.swap(&slots[0], &slots[1]).free(&slots[0]);
    assert!(matches!(publish.commit(), Err(Error::Limit { limit: 2, .. })));
}

#[test]
fn reservations_come_back_wherever_they_are_dropped() {
    let heap = heap(1);
    let round = || {
        for size in [16, 100, 9000, 20_000] {
            let block = heap.reserve(layout(size)).expect("room");
            drop(heap.reserve(layout(size)).expect("room"));
            // Another thread's session may have another arena.
            std::thread::scope(|scope| scope.spawn(|| drop(block)).join().expect("no panic"));
        }
        heap.trim().expect("trimmed");
        heap.stats().expect("readable").free_bytes
    };
    // The first round fills the thread's cache.
    round();
    let before = round();
    for _ in 0..100 {
        assert_eq!(round(), before);
    }
    assert_eq!(heap.check().expect("readable").problems, []);
}

#[test]
fn slots_in_new_blocks_own_blocks_at_once() {
    let heap = heap(4);
    let slots = heap.slots("slots", 4).expect("there");
    let mut parent = heap.reserve(layout(20_000)).expect("room");
    parent.write(|bytes| bytes.fill(0));
    let inside = [8, 19_992].map(|at_byte| parent.new_block().slot(at_byte));
    let mut publish = heap.publish();
    // Whether the block that a slot lies in is added before the slot is used or after it.
    publish.alloc(inside[0], block(&heap, 16, 1));
    publish.alloc(&slots[0], parent);
    publish.alloc(inside[1], block(&heap, 20_000, 2));
    publish.commit().expect("room");
    assert_eq!(heap.blocks().len(), 4);
    let guard = heap.pin();
    let bytes = slots[0].get(&guard).expect("full");
    assert!([8, 19_992].iter().all(|at| bytes[*at..*at + 8] != [0; 8]));
}

/// An action of the random groups, on slots by number.
#[derive(Debug, Clone)]
enum Random {
    Alloc(usize, usize),
    Free(usize),
    Move(usize, usize),
    Swap(usize, usize),
}

const SLOTS: usize = 12;
const SIZES: [usize; 6] = [16, 60, 3000, 5000, 16_384, 40_000];

fn random() -> impl Strategy<Value = Random> {
    let slot = || 0..SLOTS;
    prop_oneof![
        3 => (slot(), 0..SIZES.len()).prop_map(|(at, size)| Random::Alloc(at, size)),
        2 => slot().prop_map(Random::Free),
        1 => (slot(), slot()).prop_map(|(from, to)| Random::Move(from, to)),
        1 => (slot(), slot()).prop_map(|(a, b)| Random::Swap(a, b)),
    ]
}

/// Performs an action on the model, if it can be done.
fn model(slots: &mut [Option<usize>], action: &Random, id: usize) -> Result<(), ()> {
    match *action {
        Random::Alloc(at, _) if slots[at].is_none() => slots[at] = Some(id),
        Random::Free(at) if slots[at].is_some() => slots[at] = None,
        Random::Move(from, to) if slots[from].is_some() && slots[to].is_none() => {
            slots.swap(from, to);
        }
        Random::Swap(a, b) => slots.swap(a, b),
        _ => return Err(()),
    }
    Ok(())
}

proptest! {
    #[test]
    fn random_groups_do_what_their_actions_do(groups in vec(vec(random(), 1..8), 1..40)) {
        let heap = heap(SLOTS as u64);
        let slots = heap.slots("slots", SLOTS as u64).expect("there");
        let mut held: Vec<Option<usize>> = vec![None; SLOTS];
        let mut id = 0;
        for group in groups {
            let (mut after, mut can) = (held.clone(), Ok(()));
            let mut born = HashMap::new();
            let mut publish = heap.publish();
            for action in &group {
                id += 1;
                // What a group allocates it can't free.
                let frees_new =
                    matches!(action, Random::Free(at) if after[*at].is_some_and(|id| born.contains_key(&id)));
                can = can.and(if frees_new { Err(()) } else { model(&mut after, action, id) });
                match *action {
                    Random::Alloc(at, size) => {
                        born.insert(id, ());
                        publish.alloc(&slots[at], block(&heap, SIZES[size], id));
                    }
                    Random::Free(at) => {
                        publish.free(&slots[at]);
                    }
                    Random::Move(from, to) => {
                        publish.move_to(&slots[from], &slots[to]);
                    }
                    Random::Swap(a, b) => {
                        publish.swap(&slots[a], &slots[b]);
                    }
                }
            }
            let done = publish.commit();
            prop_assert_eq!(done.is_ok(), can.is_ok(), "{:?}: {:?}", group, done);
            drop(publish);
            if can.is_ok() {
                held = after;
            }
            for (slot, held) in slots.iter().zip(&held) {
                prop_assert_eq!(first_byte(&heap, slot), held.map(byte_of));
            }
            let live = held.iter().flatten().count();
            prop_assert_eq!(heap.blocks().len(), live + 1);
        }
        prop_assert_eq!(heap.check().expect("readable").problems, []);
    }
}

/// It is on somebody's stack.
#[test]
fn a_publish_is_as_large_as_its_documentation_says() {
    let bytes = size_of::<Publish<'static>>();
    assert!((17 << 9..19 << 9).contains(&bytes), "{bytes} bytes, not some 9 KiB");
}
