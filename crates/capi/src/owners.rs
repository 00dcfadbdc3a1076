//! Where a program has slots, and what is done with blocks that no slot owns.

use std::{
    ffi::{c_int, c_void},
    slice,
};

use pmalloc::{SlotLayout, SlotScope};

use crate::{
    access::bytes,
    arguments::{null, optional, slot_at},
    error::{Failure, Result},
    handle::{call, pma_heap, served},
    numbers::*,
    types::{pma_block_fn, pma_off, pma_run, pma_slot},
};

/// Most runs of one declaration.
const RUNS_MAX: usize = 1 << 15;

/// Says where roots of a type, or blocks with a tag, have slots.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_declare(
    heap: *mut pma_heap,
    scope: u32,
    key: u64,
    runs: *const pma_run,
    n: usize,
) -> c_int {
    let declare = |heap: &pma_heap| -> Result<()> {
        if n > RUNS_MAX {
            let text = format!("no more than {RUNS_MAX} runs of slots in one declaration, not {n}");
            return Err(Failure::new(PMA_E_LIMIT, text));
        }
        let runs = match n {
            0 => &[],
            _ if runs.is_null() => return Err(null("runs")),
            // SAFETY: not null, and few; else 1 of the library's list.
            n => unsafe { slice::from_raw_parts(runs, n) },
        };
        let (scope, layout) = (scope_of(scope, key)?, layout_of(runs)?);
        Ok(served!(heap, owned => owned.heap().declare_slots(scope, &layout))?)
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, declare) }
}

fn scope_of(scope: u32, key: u64) -> Result<SlotScope> {
    match scope {
        PMA_S_ROOT => Ok(SlotScope::RootType(key)),
        PMA_S_TAG => match u8::try_from(key) {
            Ok(tag) => Ok(SlotScope::Tag(tag)),
            Err(_) => Err(Failure::invalid("tag", format_args!("{key}; 0 to 255"))),
        },
        other => Err(Failure::invalid("scope", format_args!("{other}; one of PMA_S_*"))),
    }
}

fn layout_of(runs: &[pma_run]) -> Result<SlotLayout> {
    let add = |layout: SlotLayout, run: &pma_run| {
        if run.zero != 0 {
            return Err(Failure::invalid("run", format_args!("zero is {}", run.zero)));
        }
        let (offset, stride) = (run.offset, if run.stride == 0 { 8 } else { run.stride });
        Ok(match (run.kind, run.count) {
            (PMA_R_SLOTS, 0) => layout.to_the_end(offset, stride),
            (PMA_R_SLOTS, count) => layout.every(offset, stride, count),
            (PMA_R_MAYBE, 0) => layout.maybe_to_the_end(offset, stride),
            (PMA_R_MAYBE, count) => layout.maybe_every(offset, stride, count),
            (other, _) => {
                let why = format_args!("{other}; PMA_R_SLOTS or PMA_R_MAYBE");
                return Err(Failure::invalid("kind of run", why));
            }
        })
    };
    runs.iter().try_fold(SlotLayout::none(), add)
}

/// Calls a function for each block that nothing owns, until it returns something else than zero.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_orphans(
    heap: *mut pma_heap,
    visit: pma_block_fn,
    arg: *mut c_void,
) -> c_int {
    let iterate = |heap: &pma_heap| -> Result<()> {
        let visit = visit.ok_or_else(|| null("function"))?;
        for block in served!(heap, owned => owned.heap().orphans())? {
            // SAFETY: arguments as declared (3 of the library's list).
            if unsafe { visit(block.offset, bytes(block.usable_bytes), block.tag, arg) } != 0 {
                break;
            }
        }
        Ok(())
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, iterate) }
}

/// Gives a block that nothing owns to an empty slot.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_adopt(
    heap: *mut pma_heap,
    block: pma_off,
    slot: *mut pma_slot,
) -> c_int {
    let adopt = |heap: &pma_heap| {
        served!(heap, owned => {
            let heap = owned.heap();
            Ok(heap.adopt(block, slot_at(heap, slot)?)?)
        })
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, adopt) }
}

/// Frees a block that nothing owns.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_free_orphan(heap: *mut pma_heap, block: pma_off) -> c_int {
    let free = |heap: &pma_heap| Ok(served!(heap, owned => owned.heap().free_orphan(block))?);
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, free) }
}

/// Frees all blocks with a tag that nothing owns.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_free_orphans(heap: *mut pma_heap, tag: u8, freed: *mut u64) -> c_int {
    let free = |heap: &pma_heap| -> Result<()> {
        let count = served!(heap, owned => owned.heap().free_orphans_with_tag(tag))?;
        // SAFETY: 1 of the library's list.
        if let Some(freed) = unsafe { optional(freed) } {
            freed.write(count);
        }
        Ok(())
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, free) }
}
