//! Goal: in a forked child every call of a heap in a file is refused, and dropping it harms nobody.
//! Method: real forks of a process with an open heap; the child calls, drops and exits.

#![cfg(not(any(miri, shuttle)))]
#![allow(unsafe_code)]

mod common;

use common::{fill, layout, options};
use pmalloc::{Error, Heap, Slot, persist::Span};

unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn _exit(status: i32) -> !;
}

/// Runs `child` in a forked child and returns its wait status: 0 if it returned true, 256 if false.
fn in_child(child: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child only calls a heap, which refuses it, and frees memory before it exits. The C library keeps its
    // allocator usable in the child, whatever the other threads were doing.
    let pid = unsafe { fork() };
    if pid == 0 {
        let status = i32::from(!child());
        // SAFETY: ends the child without running the handlers and destructors of the parent.
        unsafe { _exit(status) }
    }
    assert!(pid > 0, "a child");
    let mut status = -1;
    // SAFETY: waits for the child just made, with room for its status.
    let waited = unsafe { waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "the child's end");
    status
}

/// Whether every call is refused.
fn is_refused(heap: &Heap, slots: &[Slot]) -> bool {
    let refused = |result: Result<(), Error>| matches!(result, Err(Error::Forked));
    let mut session = heap.session();
    refused(heap.alloc_to(&slots[1], layout(16)))
        && refused(heap.alloc_init(&slots[1], layout(20_000), |_| {}))
        && refused(heap.free_from(&slots[0]))
        && refused(session.alloc_to(&slots[1], layout(16)))
        && refused(heap.slots("first", 24).map(drop))
        && refused(heap.slots("new", 8).map(drop))
        && refused(heap.trim().map(drop))
        && refused(heap.sync())
        && refused(heap.block_at(0).map(drop))
        && refused(heap.block_of(&slots[0]).map(drop))
        && refused(heap.flush(Span::new(0, 8)))
}

#[test]
fn a_heap_in_a_file_refuses_a_forked_child_and_serves_its_parent() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("heap");
    let heap = options().create(&path).expect("created");
    let slots = heap.slots("first", 24).expect("room");
    heap.alloc_init(&slots[0], layout(100), fill(1)).expect("room");

    assert_eq!(in_child(|| is_refused(&heap, slots)), 0);
    let mut own = Some(heap.clone());
    let dropped = in_child(|| {
        drop(own.take());
        // A thread of the child has a session that ends.
        std::thread::scope(|scope| scope.spawn(|| is_refused(&heap, slots)).join().unwrap_or(false))
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
