//! x86-64: `clwb`, `clflushopt`, `clflush` and `sfence`.
//!
//! Feature detection reads cpuid itself, because the standard library's macro knows none of the three.

use core::{
    arch::{
        asm,
        x86_64::{__cpuid, __cpuid_count},
    },
    ptr::NonNull,
};

use super::FlushInstruction;
use crate::LINE_BYTES;

/// Cpuid leaf 1, register edx: `clflush`.
const CLFLUSH_BIT: u32 = 1 << 19;
/// Cpuid leaf 7, register ebx: `clflushopt`.
const CLFLUSHOPT_BIT: u32 = 1 << 23;
/// Cpuid leaf 7, register ebx: `clwb`.
const CLWB_BIT: u32 = 1 << 24;

/// Bytes from one flush to the next.
const STEP_BYTES: usize = 64;
const _: () = assert!(STEP_BYTES as u64 == LINE_BYTES, "a flush writes back one line");

/// Whether the processor executes `instruction`.
pub(super) fn has(instruction: FlushInstruction) -> bool {
    match instruction {
        FlushInstruction::Clwb => extended_features() & CLWB_BIT != 0,
        FlushInstruction::Clflushopt => extended_features() & CLFLUSHOPT_BIT != 0,
        FlushInstruction::Clflush => __cpuid(1).edx & CLFLUSH_BIT != 0,
        FlushInstruction::DcCvap | FlushInstruction::DcCvac => false,
    }
}

fn extended_features() -> u32 {
    if __cpuid(0).eax < 7 { 0 } else { __cpuid_count(7, 0).ebx }
}

/// Executes `instruction` on `lines` lines from `first` on.
///
/// # Safety
///
/// 1. The lines are mapped.
/// 2. [`has`] returned true for `instruction`.
#[inline]
pub(super) unsafe fn write_back(instruction: FlushInstruction, first: NonNull<u8>, lines: u64) {
    let mut line = first.as_ptr().cast_const();
    for _ in 0..lines {
        // SAFETY: the line is mapped and the instruction exists (contract).
        unsafe { write_line_back(instruction, line) }
        line = line.wrapping_add(STEP_BYTES);
    }
}

/// Executes `instruction` on the line of `place`.
///
/// # Safety
///
/// As for [`write_back`].
#[inline(always)]
unsafe fn write_line_back(instruction: FlushInstruction, place: *const u8) {
    // Not a jump by a table, which a branch that is always predicted beats.
    if instruction == FlushInstruction::Clwb {
        // SAFETY: the line is mapped and the instruction exists (contract).
        unsafe { asm!("clwb [{}]", in(reg) place, options(nostack, preserves_flags)) }
    } else if instruction == FlushInstruction::Clflushopt {
        // SAFETY: as above.
        unsafe { asm!("clflushopt [{}]", in(reg) place, options(nostack, preserves_flags)) }
    } else {
        debug_assert!(instruction == FlushInstruction::Clflush, "one of this architecture");
        // SAFETY: as above.
        unsafe { asm!("clflush [{}]", in(reg) place, options(nostack, preserves_flags)) }
    }
}

/// Asks for the line of `place`, to store in it.
#[inline(always)]
pub(super) fn prefetch(place: NonNull<u8>) {
    // SAFETY: a hint, which never faults and which a processor that lacks the instruction passes over.
    unsafe {
        asm!("prefetchw [{}]", in(reg) place.as_ptr(), options(readonly, nostack, preserves_flags));
    }
}

/// Waits until the lines that this thread wrote back are durable, and orders its stores.
#[inline]
pub(super) fn fence() {
    // SAFETY: every x86-64 has `sfence`; it touches no register and no memory. It is not declared
    // `nomem`, so that the compiler moves no store across it.
    unsafe { asm!("sfence", options(nostack, preserves_flags)) }
}
