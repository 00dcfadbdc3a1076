//! Goal: a heap goes back and forth between programs in Rust and in C.
//!
//! Method: one process opens it in turn by the crate and by the functions that C calls.

use std::{
    alloc::Layout,
    ffi::{CStr, CString, c_void},
    path::Path,
    ptr,
};

use pmalloc::Heap;
use pmalloc_capi::*;

/// Opens a heap as C does.
fn open(path: &Path) -> *mut pma_heap {
    let path = CString::new(path.to_str().expect("UTF-8")).expect("no zero");
    let mut heap = ptr::null_mut();
    // SAFETY: a string, no options, and a place for the handle.
    let error = unsafe { pma_open(path.as_ptr(), ptr::null(), &raw mut heap) };
    assert_eq!(error, 0);
    heap
}

/// Closes it.
fn close(heap: *mut pma_heap) {
    // SAFETY: the handle is used for nothing else any more.
    assert_eq!(unsafe { pma_close(heap) }, 0);
}

/// The root `name` with type 0, and its size.
fn find(heap: *mut pma_heap, name: &CStr) -> Result<(*mut c_void, usize), i32> {
    let (mut root, mut size) = (ptr::null_mut(), 0);
    // SAFETY: an open heap, a string, and places for the answers.
    let error = unsafe { pma_root_find(heap, name.as_ptr(), 0, &raw mut root, &raw mut size) };
    if error == 0 { Ok((root, size)) } else { Err(error) }
}

#[test]
fn c_finds_what_rust_made_and_rust_what_c_made() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("heap");
    let heap = Heap::create(&path).expect("created");
    let slots = heap.slots("slots", 4).expect("room");
    let text = b"from Rust";
    heap.alloc_init(&slots[1], Layout::for_value(text), |block| block.copy_from_slice(text))
        .expect("room");
    heap.close().expect("the only handle");

    let heap = open(&path);
    let (root, size) = find(heap, c"slots").expect("it is there");
    assert_eq!(size, 32);
    let slots = root.cast::<pma_slot>();
    let at = |index: usize| slots.wrapping_add(index);
    // SAFETY: an open heap; any address may be asked for.
    let block = unsafe { pma_get(heap, at(1)) };
    // SAFETY: a block of at least as many bytes, which nobody changes.
    let found = unsafe { std::slice::from_raw_parts(block.cast::<u8>(), text.len()) };
    assert_eq!(found, text);
    // SAFETY: an open heap and a string.
    let removed = unsafe { pma_root_remove(heap, c"slots".as_ptr()) };
    assert_eq!(removed, PMA_E_CHILDREN);
    let mut root = ptr::null_mut();
    // SAFETY: an open heap, a string, and a place for the address.
    let taken = unsafe { pma_root(heap, c"slots".as_ptr(), 32, 0, &raw mut root) };
    assert_eq!(taken, PMA_E_LAYOUT);
    // SAFETY: an open heap; any address may be a slot.
    assert_eq!(unsafe { pma_move(heap, at(2), at(1)) }, 0);
    // SAFETY: an open heap, a string, and a place for the address.
    assert_eq!(unsafe { pma_root(heap, c"bytes".as_ptr(), 100, 0, &raw mut root) }, 0);
    close(heap);

    let heap = Heap::open(&path).expect("closed");
    let slots = heap.slots("slots", 4).expect("it is there");
    assert!(slots[1].is_empty(&heap.pin()));
    assert_eq!(&slots[2].get(&heap.pin()).expect("moved")[..text.len()], text);
    assert_eq!(heap.root_bytes("bytes", 100, 0).expect("it is there").length, 100);
    heap.close().expect("the only handle");

    let heap = open(&path);
    assert_eq!(find(heap, c"nothing"), Err(PMA_E_NOT_LIVE));
    close(heap);
}
