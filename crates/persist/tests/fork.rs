//! Goal: a forked child knows that it is one, and neither its death nor its tidying up harms the parent.
//! Method: real forks; the child only looks, drops and exits. A program of its own: no other test may hold a lock then.

#![cfg(not(any(miri, shuttle)))]

mod common;

use std::fs;

use common::{get, options, published, set};
use pmalloc_persist::{ForkMark, MediaFile, Medium, ProcessId, Traced};

unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn _exit(status: i32) -> !;
}

/// Runs `child` in a forked child and returns its wait status: 0 if it returned true, 256 if false.
fn in_child(child: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child only makes system calls and frees memory before it exits. The C library keeps its
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

#[test]
fn only_the_child_has_forked_and_its_child_too() {
    let mark = ForkMark::new().expect("a page");
    assert!(!mark.forked());
    assert_eq!(in_child(|| mark.forked()), 0);
    assert_eq!(in_child(|| in_child(|| mark.forked()) == 0), 0);
    assert_eq!(in_child(|| ForkMark::new().is_ok_and(|own| !own.forked())), 0);
    assert!(!mark.forked());
}

#[test]
fn a_child_that_drops_its_copy_leaves_the_parent_its_mapping_its_lock_and_its_file() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (path, draft) = (directory.path().join("pool"), directory.path().join("draft"));
    let mapped = published(&path, 1, 4);
    let unpublished =
        MediaFile::create(&draft).expect("a new file").map(&options()).expect("a mapping");
    let mut held = Some((mapped, unpublished));
    let status = in_child(|| {
        let both = held.take().expect("the child's copy");
        let both_forked = both.0.forked() && both.1.forked();
        drop(both);
        both_forked
    });
    assert_eq!(status, 0);
    let (mapped, unpublished) = held.expect("the parent's values");
    set(&mapped, 8, 5);
    assert_eq!((get(&mapped, 0), get(&mapped, 8), mapped.forked()), (4, 5, false));
    MediaFile::open(&path, mapped.access()).expect_err("still locked");
    unpublished.publish().expect("the temporary file is still there");
    assert!(fs::exists(&draft).expect("a directory"));
}

#[test]
fn a_child_that_touches_the_memory_is_killed_not_answered() {
    const KILLED_BY_SEGMENTATION_FAULT: i32 = 11;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mapped = published(&directory.path().join("pool"), 1, 4);
    let status = in_child(|| get(&mapped, 0) == 4);
    assert_eq!(status & 0x7f, KILLED_BY_SEGMENTATION_FAULT);
    assert_eq!(get(&mapped, 0), 4);
}

/// A heap that counts what it asks of a mapping learns from the tracer alone that it must not touch it, and who owns it.
#[test]
fn a_traced_mapping_knows_its_process_and_its_children() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let traced = Traced::new(published(&directory.path().join("pool"), 1, 4));
    let own = ProcessId::current().expect("/proc is mounted");
    assert_eq!(traced.process().expect("/proc is mounted"), own);
    assert_eq!(in_child(|| traced.forked()), 0);
    assert!(!traced.forked());
}
