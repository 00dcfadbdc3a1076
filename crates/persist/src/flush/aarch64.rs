//! aarch64: `dc cvap` (or `dc cvac`) and `dsb`.
//!
//! Both are written as their `sys` encodings, so that the assembler asks for no feature. Linux lets
//! user space execute them.

use core::{arch::asm, ptr::NonNull};
use std::sync::OnceLock;

use super::FlushInstruction;
use crate::LINE_BYTES;

/// Whether the processor executes `instruction`.
pub(super) fn has(instruction: FlushInstruction) -> bool {
    match instruction {
        FlushInstruction::DcCvap => std::arch::is_aarch64_feature_detected!("dpb"),
        FlushInstruction::DcCvac => true,
        FlushInstruction::Clwb | FlushInstruction::Clflushopt | FlushInstruction::Clflush => false,
    }
}

/// Executes `instruction` on `lines` lines from `first` on.
///
/// # Safety
///
/// 1. The lines are mapped.
/// 2. [`has`] returned true for `instruction`.
#[inline]
pub(super) unsafe fn write_back(instruction: FlushInstruction, first: NonNull<u8>, lines: u64) {
    match instruction {
        FlushInstruction::DcCvap => each_line(first, lines, |line| {
            // SAFETY: the line is mapped and the instruction exists (contract of `write_back`).
            unsafe {
                asm!("sys #3, C7, C12, #1, {}", in(reg) line, options(nostack, preserves_flags))
            }
        }),
        FlushInstruction::DcCvac => each_line(first, lines, |line| {
            // SAFETY: as above.
            unsafe {
                asm!("sys #3, C7, C10, #1, {}", in(reg) line, options(nostack, preserves_flags))
            }
        }),
        FlushInstruction::Clwb | FlushInstruction::Clflushopt | FlushInstruction::Clflush => {
            unreachable!("an instruction of another architecture was never detected")
        }
    }
}

#[inline(always)]
fn each_line(first: NonNull<u8>, lines: u64, write_back: impl Fn(*const u8)) {
    let step = step_bytes();
    // A value may begin inside its line: smaller steps from there would leave its last one.
    let first =
        first.as_ptr().cast_const().map_addr(|address| address & !(LINE_BYTES as usize - 1));
    for done in (0..lines * LINE_BYTES).step_by(step) {
        write_back(first.wrapping_add(done as usize));
    }
}

/// Bytes from one flush to the next: a line of the format, or of the processor if that has smaller ones.
#[inline]
fn step_bytes() -> usize {
    static STEP: OnceLock<usize> = OnceLock::new();
    *STEP.get_or_init(|| {
        let cache_type: u64;
        // SAFETY: Linux lets user space read `ctr_el0`; reading it has no effect.
        unsafe {
            asm!("mrs {}, ctr_el0", out(reg) cache_type, options(nomem, nostack, preserves_flags));
        }
        // Bits 16 to 19: log2 of the 4-byte words in the smallest data cache line.
        let smallest = 4_usize << ((cache_type >> 16) & 0xf);
        smallest.min(LINE_BYTES as usize)
    })
}

/// Asks for the line of `place`, to store in it.
#[inline(always)]
pub(super) fn prefetch(place: NonNull<u8>) {
    // SAFETY: a hint, which never faults.
    unsafe {
        asm!("prfm pstl1keep, [{}]", in(reg) place.as_ptr(), options(readonly, nostack, preserves_flags));
    }
}

/// Waits until the lines that this thread wrote back are durable, and orders its stores.
#[inline]
pub(super) fn fence() {
    // SAFETY: every aarch64 has `dsb`; it touches no register and no memory. It is not declared `nomem`,
    // so that the compiler moves no store across it.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) }
}
