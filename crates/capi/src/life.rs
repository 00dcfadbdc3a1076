//! Creating, opening and closing heaps, and what concerns one as a whole.

use std::ffi::{c_char, c_int};

use pmalloc::{
    Heap, Policy,
    persist::{Mapped, Traced},
};

use crate::{
    arguments::{answer, null, optional, path},
    error::{Failure, Result, report},
    handle::{Owned, Served, call, call_or, pma_heap, served},
    numbers::{PMA_P_AUTO, PMA_P_BATCHED, PMA_P_EAGER, PMA_VERSION},
    options::{Counting, Options},
    types::pma_options,
};

/// The version of the library, as the header's `PMA_VERSION`.
#[unsafe(no_mangle)]
pub extern "C" fn pma_version() -> u32 {
    PMA_VERSION
}

/// Creates a heap in a new file.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_create(
    file: *const c_char,
    options: *const pma_options,
    heap: *mut *mut pma_heap,
) -> c_int {
    // SAFETY: 1 of the library's list.
    report(|| unsafe { serve(file, options, heap, Start::New) })
}

/// Refuses to create a heap in several files.
///
/// # Safety
///
/// None: nothing is looked at.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_create_nodes(
    _paths: *const *const c_char,
    _nodes: *const c_int,
    _n: usize,
    _options: *const pma_options,
    _heap: *mut *mut pma_heap,
) -> c_int {
    report(|| {
        let why = "a heap of this version lies in one file: use pma_create";
        Err(Failure::invalid("number of nodes", why))
    })
}

/// Opens the heap in a file, recovering it first if it was not closed.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_open(
    file: *const c_char,
    options: *const pma_options,
    heap: *mut *mut pma_heap,
) -> c_int {
    // SAFETY: 1 of the library's list.
    report(|| unsafe { serve(file, options, heap, Start::Existing) })
}

/// What a heap starts with.
enum Start {
    /// An empty file of its own.
    New,
    /// What is in the file.
    Existing,
}

/// Creates or opens a heap, and gives out its handle.
///
/// # Safety
///
/// 1 of the [library's list](crate#safety).
unsafe fn serve(
    file: *const c_char,
    options: *const pma_options,
    heap: *mut *mut pma_heap,
    start: Start,
) -> Result<()> {
    // SAFETY: as the caller guarantees.
    let handle = unsafe { answer(heap, "place for the handle") }?;
    // SAFETY: as the caller guarantees.
    let Options { heap: options, counting } = unsafe { Options::of(options) }?;
    // SAFETY: as the caller guarantees.
    let path = unsafe { path(file) }?;
    let served = match (counting, start) {
        (Counting::Off, Start::New) => Served::Plain(Owned::new(options.create(path)?)),
        (Counting::Off, Start::Existing) => Served::Plain(Owned::new(options.open(path)?)),
        (Counting::On, Start::New) => counted(options.create_with(path, Traced::new)?),
        (Counting::On, Start::Existing) => counted(options.open_with(path, Traced::new)?),
    };
    // From a box: `pma_close` takes it back.
    handle.write(Box::into_raw(Box::new(pma_heap(served))));
    Ok(())
}

/// A heap whose counts start now: what opening took is not the program's.
fn counted(heap: Heap<Traced<Mapped>>) -> Served {
    heap.reset_counts();
    Served::Counted(Owned::new(heap))
}

/// Closes a heap and frees its handle.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_close(heap: *mut pma_heap) -> c_int {
    report(|| {
        if heap.is_null() {
            return Err(null("heap"));
        }
        // SAFETY: a handle is made by `serve` from a box, and taken back once (1 and 4 of the library's list).
        let heap = unsafe { Box::from_raw(heap) };
        heap.close()
    })
}

/// When the heap makes the effects of calls durable: `PMA_P_EAGER` or `PMA_P_BATCHED`; zero in a forked child.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_policy(heap: *const pma_heap) -> u32 {
    let policy = |heap: &pma_heap| {
        Ok(match served!(heap, owned => owned.heap().policy()) {
            Policy::Eager => PMA_P_EAGER,
            Policy::Batched => PMA_P_BATCHED,
            // One that the header has no number for.
            _ => PMA_P_AUTO,
        })
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call_or(PMA_P_AUTO, heap, policy) }
}

/// Writes everything to stable storage.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_sync(heap: *mut pma_heap) -> c_int {
    let sync = |heap: &pma_heap| Ok(served!(heap, owned => owned.heap().sync())?);
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, sync) }
}

/// Gives free memory back to the file system.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_trim(heap: *mut pma_heap, freed: *mut u64) -> c_int {
    let trim = |heap: &pma_heap| -> Result<()> {
        let bytes = served!(heap, owned => owned.heap().trim())?;
        // SAFETY: 1 of the library's list.
        if let Some(freed) = unsafe { optional(freed) } {
            freed.write(bytes);
        }
        Ok(())
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, trim) }
}
