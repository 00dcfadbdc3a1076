//! The operations on slots: atomic, and durable when they return.

use std::{
    ffi::{c_int, c_void},
    ptr,
};

use pmalloc::BlockLayout;

use crate::{
    access::address,
    arguments::{answer, contents, layout, null, slot_at},
    error::{Failure, Result},
    handle::{call, call_or, pma_heap, served},
    numbers::{PMA_E_MODEL, PMA_E_SLOT_EMPTY},
    types::{pma_init_fn, pma_off, pma_slot},
};

/// Allocates an uninitialised block into an empty slot.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_alloc_to(
    heap: *mut pma_heap,
    slot: *mut pma_slot,
    size: usize,
    align: usize,
) -> c_int {
    let alloc = |heap: &pma_heap| -> Result<()> {
        let layout = layout(size, align)?;
        served!(heap, owned => {
            let heap = owned.heap();
            Ok(heap.alloc_to(slot_at(heap, slot)?, layout)?)
        })
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, alloc) }
}

/// Allocates a block of zeros into an empty slot.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_zalloc_to(
    heap: *mut pma_heap,
    slot: *mut pma_slot,
    size: usize,
    align: usize,
) -> c_int {
    let alloc =
        |heap: &pma_heap| alloc_init(heap, slot, layout(size, align)?, |block| block.fill(0));
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, alloc) }
}

/// Allocates a block into an empty slot with contents that a function writes.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_alloc_init(
    heap: *mut pma_heap,
    slot: *mut pma_slot,
    size: usize,
    align: usize,
    init: pma_init_fn,
    arg: *mut c_void,
) -> c_int {
    let alloc = |heap: &pma_heap| {
        let init = init.ok_or_else(|| null("function"))?;
        let write = |block: &mut [u8]| {
            // SAFETY: the bytes of a block, as declared (3 of the library's list).
            unsafe { init(block.as_mut_ptr().cast(), arg) };
        };
        alloc_init(heap, slot, layout(size, align)?, write)
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, alloc) }
}

/// Allocates a block into an empty slot with a copy of the program's bytes.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_alloc_copy(
    heap: *mut pma_heap,
    slot: *mut pma_slot,
    source: *const c_void,
    size: usize,
    align: usize,
) -> c_int {
    let alloc = |heap: &pma_heap| {
        let layout = layout(size, align)?;
        // SAFETY: 1 of the library's list.
        let source = unsafe { contents(source, layout) }?;
        alloc_init(heap, slot, layout, |block| block.copy_from_slice(source))
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, alloc) }
}

/// Allocates a block with a tag into an empty slot, with a copy of the program's bytes, or with zeros.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_alloc_tagged(
    heap: *mut pma_heap,
    slot: *mut pma_slot,
    size: usize,
    align: usize,
    tag: u8,
    source: *const c_void,
) -> c_int {
    let alloc = |heap: &pma_heap| {
        let plain = layout(size, align)?;
        let tagged = BlockLayout::new(plain).with_tag(tag);
        if source.is_null() {
            return alloc_init(heap, slot, tagged, |block| block.fill(0));
        }
        // SAFETY: 1 of the library's list.
        let source = unsafe { contents(source, plain) }?;
        alloc_init(heap, slot, tagged, |block| block.copy_from_slice(source))
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, alloc) }
}

fn alloc_init(
    heap: &pma_heap,
    slot: *mut pma_slot,
    layout: impl Into<BlockLayout>,
    write: impl FnOnce(&mut [u8]),
) -> Result<()> {
    served!(heap, owned => {
        let heap = owned.heap();
        Ok(heap.alloc_init(slot_at(heap, slot)?, layout, write)?)
    })
}

/// Frees the block that a slot owns.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_free_from(heap: *mut pma_heap, slot: *mut pma_slot) -> c_int {
    let free = |heap: &pma_heap| {
        served!(heap, owned => {
            let heap = owned.heap();
            Ok(heap.free_from(slot_at(heap, slot)?)?)
        })
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, free) }
}

/// Replaces the block that a slot owns by one with a copy of the program's bytes.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_replace(
    heap: *mut pma_heap,
    slot: *mut pma_slot,
    source: *const c_void,
    size: usize,
    align: usize,
) -> c_int {
    let replace = |heap: &pma_heap| {
        let layout = layout(size, align)?;
        // SAFETY: 1 of the library's list.
        let source = unsafe { contents(source, layout) }?;
        served!(heap, owned => {
            let (heap, copy) = (owned.heap(), |block: &mut [u8]| block.copy_from_slice(source));
            Ok(heap.replace(slot_at(heap, slot)?, layout, copy)?)
        })
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, replace) }
}

/// Moves the block of a slot to another one, which is empty.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_move(
    heap: *mut pma_heap,
    to: *mut pma_slot,
    from: *mut pma_slot,
) -> c_int {
    let move_to = |heap: &pma_heap| {
        served!(heap, owned => {
            let heap = owned.heap();
            Ok(heap.move_to(slot_at(heap, from)?, slot_at(heap, to)?)?)
        })
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, move_to) }
}

/// Exchanges what two slots own.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_swap(
    heap: *mut pma_heap,
    a: *mut pma_slot,
    b: *mut pma_slot,
) -> c_int {
    let swap = |heap: &pma_heap| {
        served!(heap, owned => {
            let heap = owned.heap();
            Ok(heap.swap(slot_at(heap, a)?, slot_at(heap, b)?)?)
        })
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, swap) }
}

/// The block that a slot owns, or null.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_get(heap: *const pma_heap, slot: *const pma_slot) -> *mut c_void {
    let get = |heap: &pma_heap| {
        served!(heap, owned => {
            let heap = owned.heap();
            let block = heap.block_of(slot_at(heap, slot)?)?;
            Ok(block.map_or(ptr::null_mut(), |block| address(heap, block.offset)))
        })
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call_or(ptr::null_mut(), heap, get) }
}

/// The block that a slot owns, or why there is none.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_get_checked(
    heap: *const pma_heap,
    slot: *const pma_slot,
    block: *mut *mut c_void,
) -> c_int {
    let get = |heap: &pma_heap| -> Result<()> {
        // SAFETY: 1 of the library's list.
        let place = unsafe { answer(block, "place for the address") }?;
        served!(heap, owned => {
            let heap = owned.heap();
            let slot = slot_at(heap, slot)?;
            let empty = || Failure::new(PMA_E_SLOT_EMPTY, "the slot owns no block");
            let block = heap.block_of(slot)?.ok_or_else(empty)?;
            place.write(address(heap, block.offset));
        });
        Ok(())
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, get) }
}

/// Whether a slot owns nothing: 1 or 0.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_slot_is_empty(heap: *const pma_heap, slot: *const pma_slot) -> c_int {
    let look = |heap: &pma_heap| {
        served!(heap, owned => {
            let heap = owned.heap();
            Ok(c_int::from(heap.block_of(slot_at(heap, slot)?)?.is_none()))
        })
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call_or(0, heap, look) }
}

/// Refuses to allocate without a slot, which heaps of the model LOG can't.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_alloc(
    heap: *mut pma_heap,
    _size: usize,
    _align: usize,
    _block: *mut pma_off,
) -> c_int {
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, |_| Err(slots_only("pma_alloc_to, or pma_reserve and pma_publish"))) }
}

/// Refuses to free without a slot, which heaps of the model LOG can't.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_free(heap: *mut pma_heap, _block: pma_off) -> c_int {
    // SAFETY: 1 and 4 of the library's list.
    unsafe {
        call(heap, |_| {
            Err(slots_only("pma_free_from, or pma_free_orphan for one that has lost it"))
        })
    }
}

fn slots_only(instead: &str) -> Failure {
    let text = format!("in a heap of the model PMA_LOG every block has a slot: use {instead}");
    Failure::new(PMA_E_MODEL, text)
}
