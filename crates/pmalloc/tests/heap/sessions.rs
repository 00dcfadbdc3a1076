//! Goal: what a thread holds of a heap goes back when it exits, or when it says so, and a thread that is about to end can
//! still use the heap.
//!
//! Method: real threads over a heap so small that what one of them keeps is missed by the next; destructors of values that
//! a thread made before it first used the heap, and that therefore run after its session has ended.

#![cfg(not(shuttle))]

use crate::common::shared::Shared;
use std::{alloc::Layout, cell::RefCell, sync::Arc, thread};

use pmalloc::{Heap, Slot, TestGeometry, persist::Anon};

type AnonHeap = Heap<Arc<Anon>>;

/// A heap with one arena, so that all threads take from the same slabs.
fn heap() -> AnonHeap {
    let options = Heap::options().test_geometry(TestGeometry {
        capacity_bytes: 256 << 10,
        slab_bytes: 16 << 10,
        ring_places: 8,
        lanes: 4,
        chunk_bytes: 256,
        logs: 1,
        roots: 8,
        stripes: 3,
    });
    let len = options.heap_bytes().expect("valid");
    options.create_shared(Arc::new(Anon::new(len))).expect("created")
}

fn layout() -> Layout {
    Layout::new::<[u64; 110]>()
}

fn slots(heap: &AnonHeap) -> &[Slot] {
    heap.slots("many", 1024).expect("room")
}

/// How many blocks a new thread gets until the heap is full; they are free again when this returns.
fn capacity(heap: &AnonHeap) -> usize {
    thread::scope(|scope| {
        let count = scope.spawn(|| {
            let slots = slots(heap);
            let full = slots.iter().take_while(|slot| heap.alloc_to(slot, layout()).is_ok());
            let count = full.count();
            slots[..count].iter().for_each(|slot| heap.free_from(slot).expect("it is full"));
            count
        });
        count.join().expect("the thread does not panic")
    })
}

/// Allocates and frees a block, so that the thread has a session with free blocks at hand.
fn use_once(heap: &AnonHeap) {
    let slot = &slots(heap)[0];
    heap.alloc_to(slot, layout()).expect("room");
    heap.free_from(slot).expect("it is full");
}

#[test]
fn a_thread_gives_back_what_it_holds_when_it_says_so() {
    let heap = heap();
    let all = capacity(&heap);
    use_once(&heap);
    assert!(
        capacity(&heap) < all,
        "a session keeps free blocks at hand, or this test shows nothing"
    );
    heap.release_thread();
    assert_eq!(capacity(&heap), all);
    heap.release_thread();
    use_once(&heap);
    assert_eq!(heap.check().expect("readable").problems, []);
}

#[test]
fn an_initialiser_can_give_back_what_its_thread_holds() {
    let heap = heap();
    let all = capacity(&heap);
    let slots = slots(&heap);
    heap.alloc_init(&slots[0], layout(), |_| heap.release_thread()).expect("room");
    heap.replace(&slots[0], layout(), |_| heap.release_thread()).expect("room");
    heap.free_from(&slots[0]).expect("it is full");
    heap.release_thread();
    assert_eq!(capacity(&heap), all);
}

thread_local! {
    static LAST: RefCell<Option<UsesAtExit>> = const { RefCell::new(None) };
}

/// Uses the heap when it is dropped, also within an operation of its own.
struct UsesAtExit(AnonHeap);

impl Drop for UsesAtExit {
    fn drop(&mut self) {
        use_once(&self.0);
        self.0.release_thread();
        let slot = &slots(&self.0)[1];
        self.0.alloc_init(slot, layout(), |_| use_once(&self.0)).expect("room");
    }
}

#[test]
fn a_destructor_that_runs_after_the_session_ended_can_use_the_heap() {
    let heap = heap();
    let all = capacity(&heap);
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            LAST.set(Some(UsesAtExit(heap.clone())));
            // Only now does the thread get a session, which is therefore the first to go.
            use_once(&heap);
        });
        thread.join().expect("neither the thread nor its destructors panic");
    });
    heap.free_from(&slots(&heap)[1]).expect("the destructor has filled it");
    heap.release_thread();
    assert_eq!(capacity(&heap), all, "the destructor's sessions have ended");
    assert_eq!(heap.check().expect("readable").problems, []);
}
