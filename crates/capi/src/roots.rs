//! Named roots.

use std::ffi::{c_char, c_int, c_void};

use pmalloc::RootInfo;

use crate::{
    access::address,
    arguments::{answer, name, optional},
    error::{Failure, Result},
    handle::{call, pma_heap, served},
    numbers::{PMA_E_LAYOUT, PMA_E_NOT_LIVE},
};

/// Finds a root of bytes, or creates it zeroed.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_root(
    heap: *mut pma_heap,
    root: *const c_char,
    size: usize,
    kind: u64,
    bytes: *mut *mut c_void,
) -> c_int {
    let obtain = |heap: &pma_heap| -> Result<()> {
        // SAFETY: 1 of the library's list.
        let place = unsafe { answer(bytes, "place for the address") }?;
        // SAFETY: 1 of the library's list.
        let name = unsafe { name(root, "root name") }?;
        place.write(served!(heap, owned => {
            let heap = owned.heap();
            address(heap, heap.root_bytes(name, size, kind)?.offset)
        }));
        Ok(())
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, obtain) }
}

/// Finds a root, of whatever size.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_root_find(
    heap: *mut pma_heap,
    root: *const c_char,
    kind: u64,
    bytes: *mut *mut c_void,
    size: *mut usize,
) -> c_int {
    let find = |heap: &pma_heap| -> Result<()> {
        // SAFETY: 1 of the library's list.
        let place = unsafe { answer(bytes, "place for the address") }?;
        // SAFETY: 1 of the library's list.
        let size = unsafe { optional(size) };
        // SAFETY: 1 of the library's list.
        let name = unsafe { name(root, "root name") }?;
        let (start, found) = served!(heap, owned => {
            let heap = owned.heap();
            let found = of_kind(heap.root_find(name)?, name, kind)?;
            (address(heap, found.offset), found)
        });
        place.write(start);
        if let (Some(size), Ok(bytes)) = (size, usize::try_from(found.size_bytes())) {
            size.write(bytes);
        }
        Ok(())
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, find) }
}

/// Sees that a root is there, and of the type that was asked for.
fn of_kind(root: Option<RootInfo>, name: &str, kind: u64) -> Result<RootInfo> {
    let missing = || Failure::new(PMA_E_NOT_LIVE, format!("no root is called {name:?}"));
    let root = root.ok_or_else(missing)?;
    if root.type_id != kind {
        let text = format!("the root {name:?} is of type {:#x}, not {kind:#x}", root.type_id);
        return Err(Failure::new(PMA_E_LAYOUT, text));
    }
    Ok(root)
}

/// Removes a root and frees its block.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_root_remove(heap: *mut pma_heap, root: *const c_char) -> c_int {
    let remove = |heap: &pma_heap| -> Result<()> {
        // SAFETY: 1 of the library's list.
        let name = unsafe { name(root, "root name") }?;
        Ok(served!(heap, owned => owned.heap().root_remove(name))?)
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, remove) }
}
