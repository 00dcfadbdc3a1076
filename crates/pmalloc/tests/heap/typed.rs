//! Goal: a typed block is seen as its type and as nothing else, its slots are never lost, and what a heap holds is known
//! again by layout.
//!
//! Method: by hand on a heap in which everything is small, again after it was closed and opened, on damaged words, on two
//! heaps at once, and by threads that free what others fill. What the derive refuses is in `crates/derive`; what crashes leave
//! of cells and typed roots is in `crash/typed_crash.rs`.

use crate::common::shared::{Raw, Shared};
use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use pmalloc::{
    Error, Heap, HeapOptions, PCell, PPtr, Persistent, RootKind, Slot, SlotMap, TestGeometry,
    VersionedCell,
    persist::{Anon, Medium, Offset, Word},
};

type Memory = Arc<Anon>;

#[derive(Persistent)]
#[repr(C)]
struct Node {
    value: u64,
    count: PCell<i64>,
    next: Slot<Self>,
}

impl Node {
    fn of(value: u64) -> Self {
        Self { value, count: PCell::new(0), next: Slot::new() }
    }
}

#[derive(Persistent)]
#[repr(C)]
struct Pair(Slot<Node>, Slot<[u8]>);

#[derive(Persistent)]
#[repr(C)]
struct Root {
    head: Slot<Node>,
    pairs: [Pair; 3],
    total: VersionedCell,
    last: PPtr<Node>,
    bytes: [u8; 8],
    wide: Slot<[u64; 1000]>,
}

fn root() -> Root {
    Root {
        head: Slot::new(),
        pairs: [const { Pair(Slot::new(), Slot::new()) }; 3],
        total: VersionedCell::new(0).expect("small"),
        last: PPtr::NULL,
        bytes: *b"12345678",
        wide: Slot::new(),
    }
}

/// As the other tests', with a ring that takes groups of eight.
fn options() -> HeapOptions {
    Heap::options().test_geometry(TestGeometry {
        capacity_bytes: 256 << 10,
        slab_bytes: 16 << 10,
        ring_places: 32,
        lanes: 2,
        chunk_bytes: 256,
        logs: 2,
        roots: 8,
        stripes: 3,
    })
}

fn heap() -> Heap<Memory> {
    let m = Arc::new(Anon::new(options().heap_bytes().expect("valid")));
    options().create_shared(m).expect("room")
}

fn reopen(heap: Heap<Memory>) -> Heap<Memory> {
    let m = Arc::clone(heap.raw());
    heap.close().expect("the only handle");
    options().open_shared(m).expect("a heap")
}

/// Pushes `values` in front of the list.
fn push(heap: &Heap<Memory>, head: &Slot<Node>, values: impl IntoIterator<Item = u64>) {
    for value in values {
        let node = heap.reserve_value(Node::of(value)).expect("room");
        let next = node.slot(|node| &node.next);
        heap.publish().swap(head, next).alloc(head, node).commit().expect("room");
    }
}

fn values(heap: &Heap<Memory>, head: &Slot<Node>) -> Vec<u64> {
    let guard = heap.pin();
    let first = head.get(&guard);
    std::iter::successors(first, |node| node.next.get(&guard)).map(|node| node.value).collect()
}

#[test]
fn a_list_is_built_found_again_and_taken_apart() {
    let heap = heap();
    push(&heap, &heap.root("root", root).expect("room").head, 1..=5);
    let heap = reopen(heap);
    let root: &Root = heap.root("root", || panic!("it exists")).expect("it exists");
    assert_eq!((values(&heap, &root.head), &root.bytes), (vec![5, 4, 3, 2, 1], b"12345678"));
    assert_eq!(heap.check().expect("readable").blocks, 6);
    // Only the last node has no child.
    assert!(matches!(heap.free_from(&root.head), Err(Error::ChildrenAlive { .. })));
    let refused = heap.replace_value(&root.head, Node::of(9));
    assert!(matches!(refused, Err(Error::ChildrenAlive { .. })), "{refused:?}");
    while !root.head.is_empty(&heap.pin()) {
        let guard = heap.pin();
        let next = &root.head.get(&guard).expect("full").next;
        let mut publish = heap.publish();
        publish.free(&root.head).swap(next, &root.head);
        publish.commit().expect("the child, if there is one, has moved out at the end");
    }
    let report = heap.check().expect("readable");
    assert_eq!((report.problems, report.blocks), (vec![], 1));
}

#[test]
fn parent_and_children_are_freed_together() {
    let heap = heap();
    let root = heap.root("root", root).expect("room");
    push(&heap, &root.head, 1..=3);
    let guard = heap.pin();
    let first = root.head.get(&guard).expect("full");
    let second = first.next.get(&guard).expect("full");
    // The third is left: its owner lies in a block that is freed.
    let refused = heap.publish().free(&first.next).free(&root.head).commit();
    assert!(matches!(refused, Err(Error::ChildrenAlive { .. })), "{refused:?}");
    heap.publish()
        .free(&second.next)
        .free(&first.next)
        .free(&root.head)
        .commit()
        .expect("nothing is left");
    assert_eq!((first.value, second.value), (3, 2), "a guard lives");
    assert!(matches!(heap.free_from(&second.next), Err(Error::SlotForeign)));
    assert!(matches!(heap.alloc_value(&first.next, Node::of(7)), Err(Error::SlotForeign)));
    assert!(matches!(first.count.store(&heap, 1), Err(Error::SlotForeign)));
    drop(guard);
    assert_eq!(heap.check().expect("readable").blocks, 1);
}

#[test]
fn values_are_replaced_moved_and_exchanged_whole() {
    let heap = heap();
    let root = heap.root("root", root).expect("room");
    let [Pair(a, bytes), Pair(b, _), _] = &root.pairs;
    heap.alloc_value(a, Node::of(1)).expect("room");
    let guard = heap.pin();
    let old = a.get(&guard).expect("full");
    heap.replace_value(a, Node::of(2)).expect("room");
    assert_eq!((old.value, a.get(&guard).map(|node| node.value)), (1, Some(2)));
    heap.swap(a, b).expect("both are the heap's");
    heap.move_to(b, &root.head).expect("one is full");
    assert!(a.is_empty(&guard) && b.get(&guard).is_none());
    assert_eq!(root.head.get(&guard).map(|node| node.value), Some(2));
    heap.alloc_value_with(&root.wide, || [7; 1000]).expect("room");
    assert_eq!(root.wide.get(&guard).map(|wide| wide[999]), Some(7));
    heap.alloc_to(bytes, crate::common::layout(20)).expect("room");
    assert!(matches!(heap.alloc_value(a, Node::of(3)), Ok(())));
    assert!(matches!(heap.alloc_value(a, Node::of(3)), Err(Error::SlotFull { .. })));
}

#[test]
fn cells_count_and_survive() {
    let heap = heap();
    let cell: &PCell<i64> = heap.root("cell", || PCell::new(-1)).expect("room");
    assert_eq!(cell.fetch_add(&heap, 2).expect("live"), -1);
    assert_eq!(cell.compare_exchange(&heap, 5, 6).expect("live"), Err(1));
    assert_eq!(cell.compare_exchange(&heap, 1, i64::MAX).expect("live"), Ok(1));
    cell.fetch_add(&heap, 1).expect("live");
    assert_eq!(cell.load(&heap), i64::MIN, "it wraps");
    let halved = cell.fetch_update(&heap, |value| (value < 0).then_some(value / 2));
    assert_eq!(halved.expect("live"), Ok(i64::MIN));
    let float: &PCell<f64> = heap.root("float", || PCell::new(0.5)).expect("room");
    float.store(&heap, f64::NAN).expect("live");
    let heap = reopen(heap);
    assert_eq!(
        heap.root("cell", || PCell::new(0_i64)).expect("it exists").load(&heap),
        i64::MIN / 2
    );
    assert!(heap.root("float", || PCell::new(0_f64)).expect("it exists").load(&heap).is_nan());
    // A cell that is not in the heap is not changed. Two of these calls used to panic.
    let loose = PCell::new(1_u64);
    assert!(matches!(loose.store(&heap, 2), Err(Error::SlotForeign)));
    assert!(matches!(loose.compare_exchange(&heap, 1, 2), Err(Error::SlotForeign)));
    assert!(matches!(loose.fetch_add(&heap, 1), Err(Error::SlotForeign)));
    assert!(matches!(loose.fetch_update(&heap, |_| None), Err(Error::SlotForeign)));
}

/// As [`Node`] but for one thing each.
mod other {
    use super::{PCell, Persistent, Slot};

    #[derive(Persistent)]
    #[repr(C)]
    pub(super) struct SameNode {
        value: u64,
        #[persistent(name = "count")]
        total: PCell<i64>,
        next: Slot<Self>,
    }
    #[derive(Persistent)]
    #[repr(C)]
    pub(super) struct Renamed {
        value: u64,
        total: PCell<i64>,
        next: Slot<Self>,
    }
    #[derive(Default, Persistent)]
    #[repr(C)]
    pub(super) struct Pair(Slot<[u8]>, Slot<super::Node>);
    #[derive(Persistent)]
    #[repr(C)]
    pub(super) struct Signed {
        value: i64,
        count: PCell<i64>,
        next: Slot<Self>,
    }
    #[derive(Persistent)]
    #[repr(C)]
    pub(super) struct OtherChild {
        value: u64,
        count: PCell<i64>,
        next: Slot<Renamed>,
    }
}

#[test]
fn a_root_of_another_layout_is_refused_however_far_the_difference() {
    let heap = heap();
    heap.root("node", Slot::<Node>::new).expect("room");
    let refused = |result: Result<bool, Error>| match result {
        Err(Error::RootMismatch { expected, found, .. }) => expected != found,
        other => panic!("{other:?}"),
    };
    assert!(refused(heap.root("node", Slot::<other::Renamed>::new).map(|_| true)));
    assert!(refused(heap.root("node", Slot::<other::Signed>::new).map(|_| true)));
    assert!(refused(heap.root("node", Slot::<other::OtherChild>::new).map(|_| true)));
    assert!(refused(heap.root("node", Slot::<[u8]>::new).map(|_| true)));
    assert!(refused(heap.root("node", || 0_u64).map(|_| true)));
    assert!(refused(heap.slots("node", 1).map(|_| true)));
    assert!(refused(heap.root_bytes("node", 8, 0).map(|_| true)));
    heap.root("pair", || Pair(Slot::new(), Slot::new())).expect("room");
    assert!(refused(heap.root("pair", other::Pair::default).map(|_| true)));
    heap.root("node", Slot::<other::SameNode>::new).expect("a field was renamed, and says so");
    assert_eq!(heap.root_find("node").expect("whole").expect("it exists").kind, RootKind::Typed);
}

#[test]
fn a_typed_root_is_removed_as_what_it_is() {
    let heap = heap();
    heap.alloc_value(&heap.root("root", root).expect("room").pairs[1].0, Node::of(1))
        .expect("room");
    assert!(matches!(heap.root_remove_typed::<Root>("root"), Err(Error::RootInUse { .. })));
    let heap = reopen(heap);
    assert!(matches!(heap.root_remove("root"), Err(Error::RootMismatch { .. })));
    assert!(matches!(heap.root_remove_typed::<Node>("root"), Err(Error::RootMismatch { .. })));
    assert!(matches!(heap.root_remove_typed::<Root>("root"), Err(Error::ChildrenAlive { .. })));
    heap.free_from(&heap.root("root", root).expect("it exists").pairs[1].0).expect("full");
    let heap = reopen(heap);
    heap.root_remove_typed::<Root>("root").expect("it owns nothing, and nobody has it");
    assert_eq!(heap.check().expect("readable").blocks, 0);
}

#[test]
fn an_explicit_session_has_values_too() {
    let (heap, other) = (heap(), heap());
    let head: &Slot<Node> = heap.root("head", Slot::new).expect("room");
    let mut session = heap.session();
    session.alloc_value_with(head, || Node::of(1)).expect("room");
    session.replace_value(head, Node::of(2)).expect("room");
    let next = heap.reserve_value_in(&mut session, Node::of(3)).expect("room");
    assert!(matches!(
        other.reserve_value_in(&mut session, Node::of(4)),
        Err(Error::Invalid { what: "session", .. })
    ));
    let guard = heap.pin();
    let link = &head.get(&guard).expect("full").next;
    heap.publish().alloc(link, next).commit_in(&mut session).expect("room");
    assert_eq!(values(&heap, head), [2, 3]);
    session.free_from(link).expect("full");
    session.free_from(head).expect("full");
    drop((guard, session));
    let heap = reopen(heap);
    heap.session().root_remove_typed::<Slot<Node>>("head").expect("nobody has it");
    assert_eq!(heap.check().expect("readable").blocks, 0);
}

#[test]
fn a_value_can_be_all_zero() {
    let heap = heap();
    let root: &Root = heap.root("root", Root::zeroed).expect("room");
    let guard = heap.pin();
    assert!(root.head.is_empty(&guard) && root.pairs[2].1.is_empty(&guard));
    assert_eq!((root.total.load(&heap), root.last, root.bytes), (0, PPtr::NULL, [0; 8]));
    heap.alloc_value(&root.head, Node::zeroed()).expect("room");
    assert_eq!(root.head.get(&guard).map(|node| node.count.load(&heap)), Some(0));
    assert_eq!(<[f64; 2]>::zeroed(), [0.0; 2]);
}

#[test]
fn a_type_knows_its_slots() {
    assert_eq!(Root::SLOTS.offsets(), [0, 8, 16, 24, 32, 40, 48, 80]);
    assert_eq!(<[[Pair; 2]; 2]>::SLOTS.offsets(), [0, 8, 16, 24, 32, 40, 48, 56]);
    assert!(<[u64; 1 << 40]>::SLOTS.is_empty() && <[Slot; 0]>::SLOTS.is_empty());
    assert!(!Pair::SLOTS.is_empty() && matches!(PCell::<u64>::SLOTS, SlotMap::None));
}

#[derive(Persistent)]
#[repr(C)]
#[persistent(tag = 9)]
struct Tagged([u64; 4]);

#[test]
fn blocks_carry_the_tag_of_their_type() {
    let heap = heap();
    let slot = heap.root("tagged", Slot::<Tagged>::new).expect("room");
    heap.alloc_value(slot, Tagged([1; 4])).expect("room");
    heap.replace_value(slot, Tagged([2; 4])).expect("room");
    let tags: Vec<u8> = heap.blocks().iter().map(|block| block.tag).collect();
    assert!(tags.contains(&Tagged::TAG) && Tagged::TAG == 9 && Node::TAG == 0, "{tags:?}");
    assert_eq!(slot.get(&heap.pin()).map(|tagged| tagged.0), Some([2; 4]));
}

#[test]
fn a_block_that_is_too_small_for_the_type_reads_as_empty_and_is_not_freed() {
    let heap = heap();
    let root = heap.root("root", root).expect("room");
    heap.alloc_to(&root.pairs[0].1, crate::common::layout(16)).expect("room");
    let m = heap.raw();
    let at = |slot: *const u8| {
        let offset = m.region().offset_of(slot).expect("inside");
        m.at::<Word>(Offset::new(offset)).expect("inside")
    };
    let small = m.load(at((&raw const root.pairs[0].1).cast()));
    m.store(at((&raw const root.head).cast()), small);
    assert!(root.head.get(&heap.pin()).is_none());
    assert!(matches!(heap.free_from(&root.head), Err(Error::Corrupted { .. })));
    // The block of the root itself.
    let own = heap.root_find("root").expect("whole").expect("it exists").offset / 16;
    m.store(at((&raw const root.head).cast()), own);
    assert!(root.head.get(&heap.pin()).is_none());
    assert!(matches!(heap.free_from(&root.head), Err(Error::Corrupted { .. })));
}

#[test]
fn a_slot_is_not_read_with_a_guard_of_another_heap() {
    let (first, second) = (heap(), heap());
    let root = first.root("root", root).expect("room");
    first.alloc_value(&root.head, Node::of(1)).expect("room");
    let guard = second.pin();
    std::panic::catch_unwind(AssertUnwindSafe(|| root.head.get(&guard).is_some()))
        .expect_err("foreign");
    let cell = &first.root("cell", || PCell::new(1_u64)).expect("room");
    std::panic::catch_unwind(AssertUnwindSafe(|| cell.load(&second))).expect_err("foreign");
    assert!(matches!(second.alloc_value(&root.head, Node::of(2)), Err(Error::SlotForeign)));
    assert!(matches!(cell.store(&second, 2), Err(Error::SlotForeign)));
    // Neither is a versioned cell, which used to be read as one of the other heap's.
    #[derive(Persistent)]
    #[repr(C)]
    struct Version(VersionedCell);
    let version = first.root("version", || Version(VersionedCell::new(3).expect("small")));
    let version = &version.expect("room").0;
    assert_eq!(version.load(&first), 3);
    std::panic::catch_unwind(AssertUnwindSafe(|| version.load(&second))).expect_err("foreign");
    // Neither is one on the stack.
    let loose = Slot::new();
    assert!(matches!(first.alloc_value(&loose, Node::of(2)), Err(Error::SlotForeign)));
}

#[test]
fn a_new_block_is_not_taken_for_that_of_another_publish() {
    let heap = heap();
    let root = heap.root("root", root).expect("room");
    heap.alloc_value(&root.pairs[0].0, Node::of(1)).expect("room");
    let node = heap.reserve_value(Node::of(2)).expect("room");
    let next = node.slot(|node| &node.next);
    static LOOSE: Slot<Node> = Slot::new();
    let elsewhere = || node.slot(|_| &LOOSE);
    std::panic::catch_unwind(AssertUnwindSafe(elsewhere)).expect_err("not in the block");
    let mut publish = heap.publish();
    publish.alloc(&root.head, node);
    let foreign = heap.publish().move_to(&root.pairs[0].0, next).commit();
    assert!(matches!(foreign, Err(Error::Invalid { .. })), "{foreign:?}");
    publish.move_to(&root.pairs[0].0, next).commit().expect("the block is this one's");
    assert_eq!(values(&heap, &root.head), [2, 1]);
}

/// How two threads meet: whoever gives the sign is running then, and the other may not be.
#[derive(Clone, Copy)]
struct Meeting {
    /// Whether the thread of its own gives it.
    is_sign_of_first: bool,
    /// How many turns each waits behind it.
    turns: [u32; 2],
}

/// Calls both at nearly the same moment, the first one in a thread of its own.
fn at_once<A: Send, B>(
    meeting: Meeting,
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B,
) -> (A, B) {
    let (is_here, sign) = (AtomicBool::new(false), AtomicBool::new(false));
    let wait = |flag: &AtomicBool| {
        while !flag.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    };
    let meet = |gives_sign, turns| {
        if gives_sign {
            wait(&is_here);
            sign.store(true, Ordering::SeqCst);
        } else {
            is_here.store(true, Ordering::SeqCst);
            wait(&sign);
        }
        (0..turns).for_each(|_| std::hint::spin_loop());
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            meet(meeting.is_sign_of_first, meeting.turns[0]);
            first()
        });
        meet(!meeting.is_sign_of_first, meeting.turns[1]);
        let second = second();
        (first.join().expect("it does not panic"), second)
    })
}

/// What became of a free of a typed block, and of an allocation into a slot of it.
type Raced = (Result<(), Error>, Result<(), Error>);

/// Lets both meet in many a `round`. Who is how much later is drawn, and each must have been first at times: threads of
/// which one always follows the other meet nowhere.
fn race(mut round: impl FnMut(Meeting) -> Raced) {
    let rounds = if cfg!(miri) { 10 } else { 1000 };
    let mut rng = fastrand::Rng::with_seed(19);
    let (mut freed, mut filled) = (0, 0);
    for _ in 0..rounds {
        let mut turns = [0, rng.u32(..200)];
        rng.shuffle(&mut turns);
        match round(Meeting { is_sign_of_first: rng.bool(), turns }) {
            (Ok(()), Err(Error::SlotForeign)) => freed += 1,
            (Err(Error::ChildrenAlive { .. }), Ok(())) => filled += 1,
            other => panic!("{other:?}"),
        }
    }
    println!("{freed} freed, {filled} filled");
    assert!(cfg!(miri) || freed > 0 && filled > 0, "{freed} freed, {filled} filled: no race");
}

/// One thread frees a node while the other fills its slot. Looked at without the locks of the node's slots, the child that
/// was just allocated was lost with the node.
#[test]
fn a_child_is_not_lost_with_a_parent_that_is_freed_meanwhile() {
    let heap = heap();
    let head = &heap.root("root", root).expect("room").head;
    race(|meeting| {
        heap.alloc_value(head, Node::of(1)).expect("room");
        let guard = heap.pin();
        let next = &head.get(&guard).expect("full").next;
        let fill = || heap.alloc_value(next, Node::of(2));
        let raced = at_once(meeting, || heap.free_from(head), fill);
        if raced.1.is_ok() {
            heap.publish().free(next).free(head).commit().expect("both are full");
        }
        raced
    });
    assert_eq!(heap.check().expect("readable").blocks, 1);
}

/// The same with bytes in the slot, which are allocated another way.
#[test]
fn bytes_are_not_lost_with_a_parent_that_is_freed_meanwhile() {
    let heap = heap();
    let head: &Slot<Pair> = heap.root("pair", Slot::new).expect("room");
    race(|meeting| {
        heap.alloc_value(head, Pair(Slot::new(), Slot::new())).expect("room");
        let guard = heap.pin();
        let bytes = &head.get(&guard).expect("full").1;
        let fill = || heap.alloc_to(bytes, crate::common::layout(40));
        let raced = at_once(meeting, || heap.free_from(head), fill);
        if raced.1.is_ok() {
            heap.free_from(bytes).expect("full");
            heap.free_from(head).expect("it owns nothing");
        }
        raced
    });
    assert_eq!(heap.check().expect("readable").blocks, 1);
}
