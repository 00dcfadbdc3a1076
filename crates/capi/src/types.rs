//! The types of `pmalloc.h`.
#![allow(non_camel_case_types, reason = "the names are C's")]

use std::ffi::{c_char, c_int, c_void};

/// A slot: in heap memory, changed by the heap only.
#[repr(C)]
#[derive(Debug)]
pub struct pma_slot {
    /// Persistent: the packed slot word.
    pub raw: u64,
}

/// Byte offset from the heap's base; zero is null.
pub type pma_off = u64;

/// How the garbage collection of other consistency models finds slots; none of this version.
#[repr(C)]
#[derive(Debug)]
pub struct pma_visitor {
    _opaque: [u8; 0],
}

/// How to create or open a heap. All zeros are the defaults.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pma_options {
    /// Bytes of this structure in the program that passes it.
    pub size: usize,
    /// How far the heap may grow.
    pub capacity: u64,
    /// Bytes that have memory from the start.
    pub initial: u64,
    /// The consistency model.
    pub consistency: u32,
    /// What operations survive.
    pub durability: u32,
    /// When effects are made durable.
    pub policy: u32,
    /// Lines over which the bits of consecutive blocks rotate.
    pub stripes: u32,
    /// The name of the data's layout.
    pub layout: *const c_char,
    /// Some of `PMA_F_*`.
    pub flags: u64,
    /// For the GC model.
    pub visitors: *const pma_visitor,
    /// How many.
    pub nvisitors: usize,
}

/// One of the changes that a publish makes together.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pma_action {
    /// One of `PMA_A_*`.
    pub kind: u32,
    /// Zero.
    pub zero: u32,
    /// The slot that changes, or gets something.
    pub slot: *mut pma_slot,
    /// The slot that a move takes from.
    pub slot2: *mut pma_slot,
    /// The reserved block.
    pub block: pma_off,
    /// The new value of a cell.
    pub value: u64,
}

/// Slots at equal distances in a root or block.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pma_run {
    /// Byte of the first one.
    pub offset: u64,
    /// Bytes from one to the next; 0 is 8.
    pub stride: u64,
    /// How many; 0 is as many as there is room for.
    pub count: u64,
    /// One of `PMA_R_*`.
    pub kind: u32,
    /// Zero.
    pub zero: u32,
}

/// What a heap holds and costs.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pma_stats {
    /// Bytes of this structure in the program that passes it.
    pub size: usize,
    /// Blocks that slots own.
    pub live_blocks: u64,
    /// Their usable bytes.
    pub live_bytes: u64,
    /// Memory that the file occupies.
    pub heap_bytes: u64,
    /// The most that was seen.
    pub peak_heap_bytes: u64,
    /// Bytes of free extents.
    pub free_bytes: u64,
    /// Bytes of the largest block that fits without growing.
    pub largest_free: u64,
    /// Volatile memory of the heap's own structures.
    pub dram_bytes: u64,
    /// How long opening took.
    pub recovery_ns: u64,
    /// Records that opening redid.
    pub replayed: u64,
}

/// What was asked of the memory under a heap.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pma_counts {
    /// Bytes of this structure in the program that passes it.
    pub size: usize,
    /// Lines flushed.
    pub flushes: u64,
    /// Fences.
    pub fences: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// Lines flushed again, by distance.
    pub reflush: [u64; 9],
}

/// Writes the first contents of a block.
pub type pma_init_fn = Option<unsafe extern "C" fn(*mut c_void, *mut c_void)>;

/// Looks at a live block.
pub type pma_block_fn = Option<unsafe extern "C" fn(pma_off, usize, u8, *mut c_void) -> c_int>;

/// Is told a problem of a heap.
pub type pma_problem_fn = Option<unsafe extern "C" fn(*const c_char, *mut c_void)>;
