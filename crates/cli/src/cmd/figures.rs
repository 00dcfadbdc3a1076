//! The figures of `pmalloc stats`, as they are printed: the names of the fields are those of the JSON. Volatile.

use serde::Serialize;

/// The figures of a heap.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) policy: &'static str,
    pub(super) live_blocks: u64,
    pub(super) live_bytes: u64,
    pub(super) heap_bytes: u64,
    pub(super) peak_heap_bytes: u64,
    pub(super) used_bytes: u64,
    pub(super) free_bytes: u64,
    pub(super) largest_free: u64,
    pub(super) dram_bytes: u64,
    pub(super) recovery_ns: u64,
    pub(super) replayed: u64,
    pub(super) classes: Vec<Class>,
    pub(super) tags: Vec<Tag>,
    /// Slabs that changed their class: none, as long as the library can't do it.
    pub(super) morphs: u64,
    pub(super) log: Log,
}

/// The slabs of a size class.
#[derive(Debug, Serialize)]
pub(super) struct Class {
    pub(super) size: u64,
    pub(super) tag: u8,
    pub(super) slabs: u64,
    pub(super) blocks: u64,
    pub(super) live: u64,
}

/// The live blocks of a tag: a leak shows as a difference between two runs.
#[derive(Debug, Serialize)]
pub(super) struct Tag {
    pub(super) tag: u8,
    pub(super) blocks: u64,
    pub(super) live_bytes: u64,
}

/// The bookkeeping logs.
#[derive(Debug, Serialize)]
pub(super) struct Log {
    pub(super) chunks: u64,
    pub(super) live: u64,
    pub(super) fast_gc: u64,
    pub(super) slow_gc: u64,
}
