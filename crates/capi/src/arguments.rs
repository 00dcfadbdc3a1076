//! What C passes, checked as far as it can be, as references. Volatile.

use std::{
    alloc::Layout,
    ffi::{CStr, OsStr, c_char, c_void},
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt,
    path::Path,
    slice,
};

use pmalloc::{Heap, Slot, VersionedCell, persist::Medium};

use crate::{
    error::{Failure, Result},
    numbers::PMA_E_FULL,
    types::pma_slot,
};

/// Alignment of a block for which none was asked.
const ALIGN_DEFAULT: usize = 16;

/// Largest alignment of a block: a page of the heap.
const ALIGN_MAX: usize = 4096;

/// What a null pointer is refused with.
pub(crate) fn null(what: &str) -> Failure {
    Failure::invalid(what, "it is NULL")
}

/// The value at `place`.
///
/// # Safety
///
/// `place` is null or points to a `T` that lives, and is not written, as long as the reference.
pub(crate) unsafe fn reference<'a, T>(place: *const T, what: &str) -> Result<&'a T> {
    // SAFETY: as the caller guarantees.
    unsafe { place.as_ref() }.ok_or_else(|| null(what))
}

/// The place where an answer goes.
///
/// # Safety
///
/// `place` is null or points to memory for a `T` that nobody else uses as long as the reference lives.
pub(crate) unsafe fn answer<'a, T>(place: *mut T, what: &str) -> Result<&'a mut MaybeUninit<T>> {
    // SAFETY: as the caller guarantees.
    unsafe { optional(place) }.ok_or_else(|| null(what))
}

/// The place where an answer goes that need not be wanted.
///
/// # Safety
///
/// As for [`answer`].
pub(crate) unsafe fn optional<'a, T>(place: *mut T) -> Option<&'a mut MaybeUninit<T>> {
    // SAFETY: as the caller guarantees; memory for a `T` is a `MaybeUninit<T>`, whatever it holds.
    unsafe { place.cast::<MaybeUninit<T>>().as_mut() }
}

/// The bytes of a string, without the zero that ends it.
///
/// # Safety
///
/// `text` is null or a string that a zero byte ends, which is not written as long as the reference lives.
unsafe fn string_bytes<'a>(text: *const c_char, what: &str) -> Result<&'a [u8]> {
    if text.is_null() {
        return Err(null(what));
    }
    // SAFETY: not null; else as the caller guarantees.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// A name: a string of UTF-8.
///
/// # Safety
///
/// As for [`string_bytes`].
pub(crate) unsafe fn name<'a>(text: *const c_char, what: &str) -> Result<&'a str> {
    // SAFETY: as the caller guarantees.
    let bytes = unsafe { string_bytes(text, what) }?;
    str::from_utf8(bytes).map_err(|error| Failure::invalid(what, error))
}

/// A path: a string of any bytes.
///
/// # Safety
///
/// As for [`string_bytes`].
pub(crate) unsafe fn path<'a>(text: *const c_char) -> Result<&'a Path> {
    // SAFETY: as the caller guarantees.
    let bytes = unsafe { string_bytes(text, "path") }?;
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

/// The contents of a block of `layout`.
///
/// # Safety
///
/// `source` is null or points to as many bytes as `layout` has, which are not written as long as the reference lives.
pub(crate) unsafe fn contents<'a>(source: *const c_void, layout: Layout) -> Result<&'a [u8]> {
    if source.is_null() {
        return Err(null("source"));
    }
    // SAFETY: not null, and no longer than half of the address space, by `Layout`; else as the caller guarantees.
    Ok(unsafe { slice::from_raw_parts(source.cast(), layout.size()) })
}

/// The layout of a block.
pub(crate) fn layout(size: usize, align: usize) -> Result<Layout> {
    let align = if align == 0 { ALIGN_DEFAULT } else { align };
    if !align.is_power_of_two() || align > ALIGN_MAX {
        let why = format_args!("{align}; a power of two, at most {ALIGN_MAX}");
        return Err(Failure::invalid("alignment", why));
    }
    Layout::from_size_align(size, align).map_err(|_| {
        Failure::new(
            PMA_E_FULL,
            format!("no room for {size} bytes, which is more than an address space"),
        )
    })
}

/// The slot at an address, which need not be one.
pub(crate) fn slot_at<M: Medium + 'static>(
    heap: &Heap<M>,
    place: *const pma_slot,
) -> Result<&Slot> {
    check_word(heap, place)?;
    // SAFETY: eight aligned bytes of the heap's range, which stays mapped as long as the heap is open. Operations read and
    // write them as a word, and not before they have found them in a live block; what the program has there is its own.
    Ok(unsafe { &*place.cast() })
}

/// The versioned cell at an address, which need not be one.
pub(crate) fn cell_at<M: Medium + 'static>(
    heap: &Heap<M>,
    place: *const pma_slot,
) -> Result<&VersionedCell> {
    check_word(heap, place)?;
    // SAFETY: as in `slot_at`.
    Ok(unsafe { &*place.cast() })
}

/// Sees that an aligned word of the heap lies at an address.
fn check_word<M: Medium + 'static>(heap: &Heap<M>, place: *const pma_slot) -> Result<()> {
    let offset = offset_of(heap, place)?;
    // The heap ends at the end of a page, so that an aligned word that begins in it ends in it.
    if offset.is_multiple_of(size_of::<u64>() as u64) { Ok(()) } else { Err(Failure::foreign()) }
}

/// The offset of a slot or cell at an address, which need not be one.
pub(crate) fn offset_of<M: Medium + 'static>(
    heap: &Heap<M>,
    place: *const pma_slot,
) -> Result<u64> {
    if place.is_null() {
        return Err(null("slot"));
    }
    heap.offset_of(place.cast()).ok_or_else(Failure::foreign)
}
