//! Goal: a heap has its memory to itself: what else could write under its references is refused.
//! Method: two heaps over clones of one medium, and mappings of a file that others write.

#![cfg(not(any(miri, shuttle)))]

use std::sync::Arc;

use crate::common::{fill, image, layout, options, shared::Shared};
use pmalloc::{
    Error, Heap,
    persist::{Access, Anon, MapError, MapOptions, MediaFile},
};

/// Asserts that the medium is refused, with a message that contains `phrase`.
fn assert_refused<T>(result: Result<T, Error>, phrase: &str) {
    let error = result.map(drop).expect_err(phrase);
    assert!(matches!(error, Error::Medium(_)), "{error:?}");
    assert!(error.to_string().contains(phrase), "{error}");
}

/// Two heaps over one memory would show bytes that the other one writes.
#[test]
fn a_medium_is_served_once() {
    let m = Arc::new(Anon::new(image::heap_bytes()));
    let heap = options().create_shared(Arc::clone(&m)).expect("created");
    let slots = heap.slots("first", 24).expect("there is room");
    heap.alloc_init(&slots[0], layout(100), fill(1)).expect("there is room");
    heap.slots("second", 8).expect("there is room");
    let before = crate::common::contents(&heap).expect("undamaged");
    let in_use = "in use by another heap of this process: close that one first";
    assert_refused(options().open_shared(Arc::clone(&m)), in_use);
    assert_refused(options().create_shared(Arc::clone(&m)), in_use);
    assert_refused(options().check_on(Arc::clone(&m)), in_use);
    assert_refused(options().salvage_on(&m), in_use);
    assert_eq!(crate::common::contents(&heap).expect("undamaged"), before);
    heap.close().expect("closed");
    let heap = options().open_shared(m).expect("nobody has it any more");
    assert_eq!(crate::common::contents(&heap).expect("undamaged"), before);
}

/// Whoever has the file open for writing changes the bytes of such a mapping.
#[test]
fn a_mapping_that_is_not_shared_is_not_served() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("heap");
    let heap = options().create(&path).expect("created");
    heap.sync().expect("synchronized");
    let len = options().heap_bytes().expect("valid options");
    let map = |access| {
        let file = MediaFile::open(&path, access).expect("it is there");
        file.map(&MapOptions::new(len)).expect("mapped")
    };
    let advice = "which can't be served: map it with shared access";
    assert_refused(options().open_on(map(Access::ReadOnly)), advice);
    // A wrapper may bring any mapping.
    let wrapped = options().create_with(directory.path().join("other"), |_| map(Access::ReadOnly));
    assert_refused(wrapped, advice);
    let private = MediaFile::open(&path, Access::PrivateCopy).map(drop);
    assert!(matches!(private, Err(MapError::InUse { .. })), "{private:?}");
    heap.close().expect("closed");
    assert_refused(options().open_on(map(Access::PrivateCopy)), advice);

    let heap = options().open_private_with(&path, |mapped| mapped).expect("a copy");
    assert!(matches!(Heap::open(&path), Err(Error::Map(MapError::InUse { .. }))));
    heap.slots("new", 8).expect("room");
    heap.close().expect("closed");
    let heap = options().open_on(map(Access::Shared)).expect("a heap");
    assert_eq!(heap.roots().expect("whole"), [], "nothing of the copy reached the file");
}
