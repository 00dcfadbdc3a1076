//! The interpreter: there are no caches and no instructions.

use core::{
    ptr::NonNull,
    sync::atomic::{Ordering, compiler_fence},
};

use super::FlushInstruction;

/// Whether the processor executes `instruction`: never.
pub(super) fn has(_instruction: FlushInstruction) -> bool {
    false
}

/// Does nothing.
///
/// # Safety
///
/// None is needed; the function is unsafe because its counterparts of real processors are.
pub(super) unsafe fn write_back(_instruction: FlushInstruction, _first: NonNull<u8>, _lines: u64) {}

/// Does nothing.
pub(super) fn prefetch(_place: NonNull<u8>) {}

/// Keeps the compiler from moving stores across.
pub(super) fn fence() {
    compiler_fence(Ordering::SeqCst);
}
