//! Goal: in a forked child every call of a heap in a file is refused, and dropping it harms nobody.
//! Method: real forks of a process with an open heap; the child calls, drops and exits. That is a program of its own: a lock
//! that another test held when a child was made would never come free in it.

#![cfg(not(any(miri, shuttle)))]
#![allow(unsafe_code)]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{fill, layout, options};
use pmalloc::{
    Error, Heap, PCell, Persistent, RootInfo, Session, Slot, SlotLayout, SlotScope, VersionedCell,
    persist::{Counts, Mapped, Span, Traced},
};

unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn _exit(status: i32) -> !;
}

/// Runs `child` in a forked child and returns its wait status: 0 if it returned true, 256 if false.
fn in_child(child: impl FnOnce() -> bool) -> i32 {
    let pid = fork_here();
    if pid == 0 {
        end_child(child())
    }
    status_of(pid)
}

/// Forks; the child ends by [`end_child`].
fn fork_here() -> i32 {
    // SAFETY: the child only calls a heap, which refuses it, and frees memory before it exits. The C library keeps its
    // allocator usable in the child, whatever the other threads were doing.
    unsafe { fork() }
}

fn end_child(was_right: bool) -> ! {
    // SAFETY: ends the child without running the handlers and destructors of the parent.
    unsafe { _exit(i32::from(!was_right)) }
}

/// The wait status of the child `pid`: 0 if it did what it should.
fn status_of(pid: i32) -> i32 {
    assert!(pid > 0, "a child");
    let mut status = -1;
    // SAFETY: waits for the child just made, with room for its status.
    let waited = unsafe { waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "the child's end");
    status
}

#[derive(Persistent)]
#[repr(C)]
struct Node {
    next: Slot<Self>,
    count: PCell<u64>,
    changes: VersionedCell,
}

impl Node {
    fn new() -> Self {
        let changes = VersionedCell::new(0).expect("it fits");
        Self { next: Slot::new(), count: PCell::new(0), changes }
    }
}

fn is_refused<T>(result: Result<T, Error>) -> bool {
    result.is_err_and(|error| matches!(error, Error::Forked))
}

/// What a parent has of its heap, and hands to its child.
struct Parent<'h> {
    heap: &'h Heap<Traced<Mapped>>,
    slots: &'h [Slot],
    root: &'h Node,
    bytes: RootInfo,
    block: u64,
}

/// A call, and whether it did what it should in a forked child.
type Call<'c> = (&'static str, Box<dyn FnOnce() -> bool + 'c>);

impl<'h> Parent<'h> {
    fn of(heap: &'h Heap<Traced<Mapped>>) -> Self {
        let slots = heap.slots("first", 24).expect("room");
        let root = heap.root("node", Node::new).expect("room");
        let bytes = heap.root_bytes("bytes", 64, 0).expect("room");
        heap.alloc_init(&slots[0], layout(100), fill(1)).expect("room");
        heap.alloc_value(&root.next, Node::new()).expect("room");
        let block = heap.block_of(&slots[0]).expect("whole").expect("full").offset;
        Self { heap, slots, root, bytes, block }
    }

    fn calls(&self) -> Vec<Call<'_>> {
        let calls = [self.changes(), self.orphans(), self.typed(), self.publishes()];
        let others = [self.sessions(), self.looks(), self.roots(), self.media()];
        calls.into_iter().chain(others).flatten().collect()
    }

    fn changes(&self) -> Vec<Call<'_>> {
        let Self { heap, slots, .. } = self;
        let cell = &self.root.changes;
        vec![
            ("alloc_to", Box::new(|| is_refused(heap.alloc_to(&slots[1], layout(16))))),
            (
                "alloc_init",
                Box::new(|| is_refused(heap.alloc_init(&slots[1], layout(20_000), |_| {}))),
            ),
            ("free_from", Box::new(|| is_refused(heap.free_from(&slots[0])))),
            ("replace", Box::new(|| is_refused(heap.replace(&slots[0], layout(9), |_| {})))),
            ("move_to", Box::new(|| is_refused(heap.move_to(&slots[0], &slots[1])))),
            ("swap", Box::new(|| is_refused(heap.swap(&slots[0], &slots[1])))),
            ("set", Box::new(move || is_refused(heap.set(cell, 1)))),
            ("reserve", Box::new(|| is_refused(heap.reserve(layout(16))))),
            ("trim", Box::new(|| is_refused(heap.trim()))),
            ("sync", Box::new(|| is_refused(heap.sync()))),
            ("close", Box::new(|| matches!(Heap::clone(heap).close(), Err(Error::HandlesRemain)))),
        ]
    }

    fn orphans(&self) -> Vec<Call<'_>> {
        let Self { heap, slots, block, .. } = self;
        let (tag, none) = (SlotScope::Tag(1), SlotLayout::none());
        vec![
            ("declare_slots", Box::new(move || is_refused(heap.declare_slots(tag, &none)))),
            ("declared_slots", Box::new(|| is_refused(heap.declared_slots()))),
            ("orphans", Box::new(|| is_refused(heap.orphans()))),
            ("adopt", Box::new(|| is_refused(heap.adopt(*block, &slots[1])))),
            ("free_orphan", Box::new(|| is_refused(heap.free_orphan(*block)))),
            ("free_orphans_with_tag", Box::new(|| is_refused(heap.free_orphans_with_tag(1)))),
        ]
    }

    fn typed(&self) -> Vec<Call<'_>> {
        let (heap, root) = (self.heap, self.root);
        let (slot, count) = (&root.next, &root.count);
        vec![
            ("alloc_value", Box::new(move || is_refused(heap.alloc_value(slot, Node::new())))),
            (
                "alloc_value_with",
                Box::new(move || is_refused(heap.alloc_value_with(slot, Node::new))),
            ),
            ("replace_value", Box::new(move || is_refused(heap.replace_value(slot, Node::new())))),
            ("reserve_value", Box::new(move || is_refused(heap.reserve_value(Node::new())))),
            (
                "reserve_value_in",
                Box::new(move || {
                    is_refused(heap.reserve_value_in(&mut heap.session(), Node::new()))
                }),
            ),
            ("get", Box::new(move || slot.get(&heap.pin()).is_none())),
            ("store", Box::new(move || is_refused(count.store(heap, 1)))),
            ("compare_exchange", Box::new(move || is_refused(count.compare_exchange(heap, 0, 1)))),
            ("fetch_update", Box::new(move || is_refused(count.fetch_update(heap, Some)))),
            ("fetch_add", Box::new(move || is_refused(count.fetch_add(heap, 1)))),
            // These have no error to answer with.
            (
                "load",
                Box::new(move || catch_unwind(AssertUnwindSafe(|| count.load(heap))).is_err()),
            ),
            (
                "load",
                Box::new(move || {
                    catch_unwind(AssertUnwindSafe(|| root.changes.load(heap))).is_err()
                }),
            ),
        ]
    }

    fn publishes(&self) -> Vec<Call<'_>> {
        let Self { heap, slots, root, .. } = self;
        let mut block = heap.reserve(layout(16)).expect("room");
        let value = heap.reserve_value(Node::new()).expect("room");
        vec![
            // A reservation of the parent's.
            (
                "write",
                Box::new(move || {
                    block.write(|_| panic!("nothing can be written"));
                    let inner = block.new_block().slot(0);
                    let mut publish = heap.publish();
                    publish.alloc(&slots[1], block).move_to(&slots[0], inner);
                    is_refused(publish.commit()) && publish.into_reservations().len() == 1
                }),
            ),
            (
                "slot",
                Box::new(move || {
                    let (next, _) = (value.slot(|node| &node.next), value.offset());
                    let mut publish = heap.publish();
                    publish.swap(&root.next, next).alloc(&root.next, value);
                    is_refused(publish.commit())
                }),
            ),
            ("publish", Box::new(|| is_refused(heap.publish().commit()))),
            (
                "commit_in",
                Box::new(move || {
                    let mut publish = heap.publish();
                    publish.free(&slots[0]).set(&root.changes, 1);
                    assert_eq!((publish.len(), publish.is_empty()), (2, false));
                    is_refused(publish.commit_in(&mut heap.session()))
                }),
            ),
        ]
    }

    fn sessions(&self) -> Vec<Call<'_>> {
        let Self { heap, slots, root, .. } = self;
        type Act<'a> = Box<dyn FnOnce(&mut Session<Traced<Mapped>>) -> bool + 'a>;
        let acts: Vec<Act<'_>> = vec![
            Box::new(|session| is_refused(session.heap().alloc_to(&slots[1], layout(16)))),
            Box::new(|session| is_refused(session.alloc_to(&slots[1], layout(16)))),
            Box::new(|session| is_refused(session.alloc_init(&slots[1], layout(16), |_| {}))),
            Box::new(|session| is_refused(session.free_from(&slots[0]))),
            Box::new(|session| is_refused(session.replace(&slots[0], layout(16), |_| {}))),
            Box::new(|session| is_refused(session.move_to(&slots[0], &slots[1]))),
            Box::new(|session| is_refused(session.swap(&slots[0], &slots[1]))),
            Box::new(|session| is_refused(session.set(&root.changes, 1))),
            Box::new(|session| is_refused(session.alloc_value(&root.next, Node::new()))),
            Box::new(|session| is_refused(session.alloc_value_with(&root.next, Node::new))),
            Box::new(|session| is_refused(session.replace_value(&root.next, Node::new()))),
            Box::new(|session| is_refused(session.root_remove("bytes"))),
            Box::new(|session| is_refused(session.root_remove_typed::<Node>("node"))),
            Box::new(|session| is_refused(heap.reserve_in(session, layout(16)))),
        ];
        // One of the parent's, and one of the child's.
        let of_both = acts.into_iter().map(|act| -> Call<'_> {
            let mut own = heap.session();
            ("session", Box::new(move || act(&mut own)))
        });
        let release = || {
            heap.release_thread();
            true
        };
        of_both.chain([("release_thread", Box::new(release) as Box<_>)]).collect()
    }

    fn looks(&self) -> Vec<Call<'_>> {
        let (heap, slots, block) = (self.heap, self.slots, self.block);
        let mut begun = heap.iter();
        begun.next().expect("there are blocks");
        let guard = heap.pin();
        vec![
            ("stats", Box::new(move || is_refused(heap.stats()))),
            ("check", Box::new(move || is_refused(heap.check()))),
            ("map", Box::new(move || heap.map().parts.is_empty())),
            ("iter", Box::new(move || heap.iter().count() == 0 && begun.count() == 0)),
            ("blocks", Box::new(move || heap.blocks().is_empty())),
            ("block_at", Box::new(move || is_refused(heap.block_at(block)))),
            ("block_of", Box::new(move || is_refused(heap.block_of(&slots[0])))),
            (
                "pin",
                Box::new(move || {
                    let own = heap.pin();
                    slots[0].get(&guard).is_none() && slots[0].get(&own).is_none()
                }),
            ),
            ("is_empty", Box::new(move || slots[0].is_empty(&heap.pin()))),
            ("offset", Box::new(move || slots[0].offset(&heap.pin()).is_none())),
            ("pptr", Box::new(move || slots[0].pptr(&heap.pin()).is_null())),
        ]
    }

    fn roots(&self) -> Vec<Call<'_>> {
        let (heap, bytes) = (self.heap, &self.bytes);
        vec![
            ("slots", Box::new(move || is_refused(heap.slots("first", 24)))),
            ("slots", Box::new(move || is_refused(heap.slots("new", 8)))),
            ("root_bytes", Box::new(move || is_refused(heap.root_bytes("bytes", 64, 0)))),
            ("root_cell", Box::new(move || is_refused(heap.root_cell(bytes, 0)))),
            ("root", Box::new(move || is_refused(heap.root("node", Node::new)))),
            ("root_find", Box::new(move || is_refused(heap.root_find("node")))),
            ("roots", Box::new(move || is_refused(heap.roots()))),
            ("root_remove", Box::new(move || is_refused(heap.root_remove("bytes")))),
            (
                "root_remove_typed",
                Box::new(move || is_refused(heap.root_remove_typed::<Node>("node"))),
            ),
        ]
    }

    fn media(&self) -> Vec<Call<'_>> {
        let (heap, block) = (self.heap, self.block);
        vec![
            ("media", Box::new(move || heap.media().path.is_some() && heap.is_forked())),
            ("offset_of", Box::new(move || heap.offset_of(std::ptr::null()).is_none())),
            ("address_of", Box::new(move || heap.address_of(block).is_none())),
            ("occupied_bytes", Box::new(move || is_refused(heap.occupied_bytes()))),
            ("flush", Box::new(move || is_refused(heap.flush(Span::new(0, 8))))),
            (
                "fence",
                Box::new(move || {
                    heap.fence();
                    heap.reset_counts();
                    heap.start_trace();
                    heap.counts() == Counts::default() && heap.take_trace().is_empty()
                }),
            ),
            // SAFETY: nothing uses what would be found.
            ("slot_at", Box::new(move || is_refused(unsafe { heap.slot_at(block) }))),
            // SAFETY: as above.
            ("cell_at", Box::new(move || is_refused(unsafe { heap.cell_at(block) }))),
            ("debug", Box::new(move || !format!("{heap:?} {:?}", heap.pin()).is_empty())),
        ]
    }
}

/// Each call in a child of its own, so that one that dies there is known.
#[test]
fn no_call_touches_the_memory_that_a_forked_child_lacks() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = options();
    let heap = options.create_with(directory.path().join("heap"), Traced::new).expect("created");
    {
        let parent = Parent::of(&heap);
        for (name, call) in parent.calls() {
            assert_eq!(in_child(call), 0, "{name}");
        }
        assert_eq!(parent.slots[0].get(&heap.pin()).expect("full")[..100], [48; 100]);
    }
    assert_eq!(heap.check().expect("readable").problems, []);
    heap.close().expect("the only handle");
}

/// A call that is added to the interface is to be added above, or here, with the reason.
#[test]
fn every_call_is_tried_in_a_forked_child() {
    /// Those that need no open heap, and those that only hand out what the child has anyway.
    const OTHERS: [&str; 10] = [
        "options",
        "policy",
        "create",
        "open",
        "create_on_shared",
        "open_on_shared",
        "new",
        "from_offset",
        // As unsafe as what is done with it; and the tool's own.
        "medium",
        "observer",
    ];
    let files = [
        include_str!("../src/heap/cells.rs"),
        include_str!("../src/heap/declare.rs"),
        include_str!("../src/heap/entrusted.rs"),
        include_str!("../src/heap/guard.rs"),
        include_str!("../src/heap/handle.rs"),
        include_str!("../src/heap/inspection.rs"),
        include_str!("../src/heap/media.rs"),
        include_str!("../src/heap/operations.rs"),
        include_str!("../src/heap/orphans.rs"),
        include_str!("../src/heap/publish.rs"),
        include_str!("../src/heap/reserve.rs"),
        include_str!("../src/heap/roots.rs"),
        include_str!("../src/heap/session.rs"),
        include_str!("../src/heap/slot.rs"),
        include_str!("../src/heap/slot_ref.rs"),
        include_str!("../src/heap/typed.rs"),
        include_str!("../src/value/pcell.rs"),
        include_str!("../src/value/pptr.rs"),
        include_str!("../src/value/slot.rs"),
        include_str!("../src/value/versioned_cell.rs"),
    ];
    let here = include_str!("fork.rs");
    let mut count = 0;
    for line in files.iter().flat_map(|file| file.lines()) {
        let Some(rest) = line.strip_prefix("    pub ") else { continue };
        let rest = rest.trim_start_matches("const ").trim_start_matches("unsafe ");
        let Some(rest) = rest.strip_prefix("fn ") else { continue };
        let name = rest.split(['(', '<']).next().expect("a name");
        let is_called =
            [".", "\"", "::"].iter().any(|before| here.contains(&format!("{before}{name}")));
        assert!(is_called || OTHERS.contains(&name), "{name} is not tried in a forked child");
        count += 1;
    }
    assert!(count > 60, "{count} calls were found");
}

#[test]
fn a_heap_in_a_file_refuses_a_forked_child_and_serves_its_parent() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("heap");
    let heap = options().create(&path).expect("created");
    let slots = heap.slots("first", 24).expect("room");
    heap.alloc_init(&slots[0], layout(100), fill(1)).expect("room");

    let refused = |heap: &Heap, slots: &[Slot]| is_refused(heap.alloc_to(&slots[1], layout(16)));
    assert_eq!(in_child(|| refused(&heap, slots)), 0);
    let mut own = Some(heap.clone());
    let dropped = in_child(|| {
        drop(own.take());
        // A thread of the child has a session that ends.
        std::thread::scope(|scope| scope.spawn(|| refused(&heap, slots)).join().unwrap_or(false))
    });
    assert_eq!(dropped, 0);
    drop(own);

    heap.free_from(&slots[0]).expect("the parent goes on");
    heap.alloc_init(&slots[1], layout(20_000), fill(2)).expect("room");
    assert_eq!(heap.check().expect("readable").problems, []);
    heap.close().expect("the only handle");
    let heap = options().open(&path).expect("nobody else has it open");
    let slots = heap.slots("first", 24).expect("there");
    assert!(slots[0].is_empty(&heap.pin()) && !slots[1].is_empty(&heap.pin()));
}

#[test]
fn a_child_that_an_initialiser_makes_is_refused_and_its_parent_served() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let heap = options().create(dir.path().join("heap")).expect("a new heap");
    let slots = heap.slots("slots", 1).expect("room");
    let root = heap.root("node", Node::new).expect("room");

    let mut pid = -1;
    let made = |pid: &mut i32| {
        *pid = fork_here();
        Node::new()
    };
    let value = heap.alloc_value_with(&root.next, || made(&mut pid));
    if pid == 0 {
        end_child(is_refused(value));
    }
    assert_eq!(status_of(pid), 0, "a child of who makes a value");
    value.expect("the parent has the memory");

    let bytes = heap.alloc_init(&slots[0], layout(100), |bytes| {
        pid = fork_here();
        if pid != 0 {
            bytes.fill(1);
        }
    });
    if pid == 0 {
        end_child(is_refused(bytes));
    }
    assert_eq!(status_of(pid), 0, "a child of who writes bytes");
    bytes.expect("the parent has the memory");
    let guard = heap.pin();
    assert!(root.next.get(&guard).is_some() && slots[0].get(&guard).is_some());
}
