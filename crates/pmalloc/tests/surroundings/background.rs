//! Goal: a heap with a thread of its own runs its rounds there, keeps what it is told, and the thread ends with it.
//!
//! Method: threads allocate and free many times what their lanes hold; the heap is closed, counted for threads, and opened
//! again, also after a clone outlived the first handle.

use std::alloc::Layout;

use pmalloc::{Heap, Policy};

/// Threads of this process with the name of a heap's own.
fn own_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has it");
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
    tasks.filter_map(|task| name(task.ok()?).ok()).filter(|name| name.trim() == "pmalloc").count()
}

#[test]
fn the_thread_runs_rounds_and_ends_with_the_heap() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("heap");
    let options = Heap::options().policy(Policy::Batched).background_thread(true);
    let heap = options.create(&path).expect("created");
    let layout = Layout::new::<[u64; 8]>();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let heap = heap.clone();
            scope.spawn(move || {
                let slots = heap.slots(&format!("slots {thread}"), 64).expect("room");
                for round in 0..200 {
                    slots.iter().for_each(|slot| heap.alloc_to(slot, layout).expect("room"));
                    if round + 1 < 200 {
                        slots.iter().for_each(|slot| heap.free_from(slot).expect("full"));
                    }
                }
            });
        }
    });
    assert_eq!(own_threads(), 1);
    let clone = heap.clone();
    drop(heap);
    assert_eq!(own_threads(), 1, "a handle is left");
    clone.close().expect("closed");
    assert_eq!(own_threads(), 0);
    let heap = options.open(&path).expect("whole");
    let roots = 3;
    assert_eq!(heap.blocks().len(), 3 * 64 + roots);
    assert!(heap.check().expect("readable").problems.is_empty());
}

#[test]
fn a_heap_under_eager_has_no_thread() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Heap::options().policy(Policy::Eager).background_thread(true);
    let heap = options.create(dir.path().join("heap")).expect("created");
    assert_eq!(heap.policy(), Policy::Eager);
    heap.close().expect("closed");
}
