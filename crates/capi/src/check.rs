//! Looking at a whole heap: its blocks, and whether it is whole.

use std::{
    ffi::{CString, c_int, c_void},
    ops::ControlFlow,
};

use crate::{
    access::bytes,
    arguments::{null, optional},
    error::Result,
    handle::{call, pma_heap, served},
    types::{pma_block_fn, pma_problem_fn},
};

/// Calls a function for each live block, until it returns something else than zero.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_iter(
    heap: *mut pma_heap,
    visit: pma_block_fn,
    arg: *mut c_void,
) -> c_int {
    let iterate = |heap: &pma_heap| -> Result<()> {
        let visit = visit.ok_or_else(|| null("function"))?;
        let mut visit = |block: pmalloc::Block| {
            // SAFETY: arguments as declared (3 of the library's list).
            match unsafe { visit(block.offset, bytes(block.usable_bytes), block.tag, arg) } {
                0 => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        };
        // That the function ended it is no error.
        let (ControlFlow::Continue(()) | ControlFlow::Break(())) =
            served!(heap, owned => owned.heap().iter().try_for_each(&mut visit));
        Ok(())
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, iterate) }
}

/// Checks what the heap's metadata says, and tells a function each problem.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_check(
    heap: *mut pma_heap,
    problem: pma_problem_fn,
    arg: *mut c_void,
    nproblems: *mut u64,
) -> c_int {
    let check = |heap: &pma_heap| -> Result<()> {
        // SAFETY: 1 of the library's list.
        let count = unsafe { optional(nproblems) };
        let problems = served!(heap, owned => owned.heap().check())?.problems;
        if let Some(count) = count {
            count.write(problems.len() as u64);
        }
        let Some(tell) = problem else { return Ok(()) };
        for problem in problems {
            let text =
                format!("{} at {:#x}: {}", problem.kind.name(), problem.offset, problem.text);
            let text = CString::new(text.replace('\0', "")).unwrap_or_default();
            // SAFETY: a string that outlives the call (3 of the library's list).
            unsafe { tell(text.as_ptr(), arg) };
        }
        Ok(())
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, check) }
}
