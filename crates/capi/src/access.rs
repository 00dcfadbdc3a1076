//! Addresses and offsets, what the program writes by pointers of its own, and what its threads hold.

use std::{
    ffi::{c_int, c_void},
    ptr,
};

use pmalloc::{
    Heap,
    persist::{Medium, Span},
};

use crate::{
    arguments::answer,
    error::{Failure, Result},
    handle::{call, call_or, pma_heap, served},
    types::pma_off,
};

/// The address of byte `offset`, or null outside the heap. Zero is no offset.
pub(crate) fn address<M: Medium + 'static>(heap: &Heap<M>, offset: pma_off) -> *mut c_void {
    if offset == 0 {
        return ptr::null_mut();
    }
    heap.address_of(offset).map_or(ptr::null_mut(), |place| place.as_ptr().cast())
}

/// The address of an offset.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_ptr(heap: *const pma_heap, offset: pma_off) -> *mut c_void {
    let point = |heap: &pma_heap| Ok(served!(heap, owned => address(owned.heap(), offset)));
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call_or(ptr::null_mut(), heap, point) }
}

/// The offset of an address.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_offset(heap: *const pma_heap, place: *const c_void) -> pma_off {
    let locate = |heap: &pma_heap| {
        let offset = served!(heap, owned => owned.heap().offset_of(place.cast()));
        Ok(offset.unwrap_or(0))
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call_or(0, heap, locate) }
}

/// How many bytes of a live block may be used.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_usable(
    heap: *const pma_heap,
    block: pma_off,
    usable: *mut usize,
) -> c_int {
    let ask = |heap: &pma_heap| -> Result<()> {
        // SAFETY: 1 of the library's list.
        let usable = unsafe { answer(usable, "place for the size") }?;
        let block = served!(heap, owned => owned.heap().block_at(block))?;
        usable.write(bytes(block.usable_bytes));
        Ok(())
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, ask) }
}

/// A size of something in a heap, which is mapped as a whole.
pub(crate) fn bytes(count: u64) -> usize {
    usize::try_from(count).expect("a heap fits the address space")
}

/// Starts writing back what the program wrote.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_flush(heap: *mut pma_heap, place: *const c_void, size: usize) {
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, |heap| flush(heap, place, size)) };
}

/// Waits until all that this thread flushed is durable.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_fence(heap: *mut pma_heap) {
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, fence) };
}

/// Makes durable what the program wrote.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_persist(heap: *mut pma_heap, place: *const c_void, size: usize) {
    let persist = |heap: &pma_heap| flush(heap, place, size).and_then(|()| fence(heap));
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, persist) };
}

fn flush(heap: &pma_heap, place: *const c_void, size: usize) -> Result<()> {
    served!(heap, owned => {
        let heap = owned.heap();
        let offset = heap.offset_of(place.cast());
        let outside = || Failure::invalid("address", "it lies outside the heap");
        Ok(heap.flush(Span::new(offset.ok_or_else(outside)?, size as u64))?)
    })
}

fn fence(heap: &pma_heap) -> Result<()> {
    served!(heap, owned => owned.heap().fence());
    Ok(())
}

/// Keeps memory that is freed from now on from being reused.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_pin(heap: *mut pma_heap) {
    let pin = |heap: &pma_heap| {
        served!(heap, owned => {
            // SAFETY: the guard that borrows from it is kept in `pins`.
            owned.pins().pin(unsafe { owned.lasting() });
        });
        Ok(())
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, pin) };
}

/// Undoes one pin of the calling thread.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_unpin(heap: *mut pma_heap) {
    let unpin = |heap: &pma_heap| {
        if served!(heap, owned => owned.pins().unpin()) {
            return Ok(());
        }
        Err(Failure::invalid("unpin", "this thread has not pinned the heap"))
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, unpin) };
}

/// Gives back what the calling thread holds of the heap.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_thread_release(heap: *mut pma_heap) {
    let release = |heap: &pma_heap| {
        served!(heap, owned => owned.heap().release_thread());
        Ok(())
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, release) };
}
