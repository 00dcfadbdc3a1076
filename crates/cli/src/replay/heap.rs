//! Makes and opens the heaps of replays, on watched media.

use std::path::Path;

use pmalloc::{Heap, HeapOptions};
use pmalloc_persist::{Mapped, Traced};

use super::{
    medium::{Counted, Plain, Watched},
    plan::Plan,
    probe::Probe,
};
use crate::{args::HeapFlags, exit::Failure};

/// Least capacity of a replay's heap, in bytes.
const LEAST_CAPACITY_BYTES: u64 = 1 << 30;

/// Most capacity that is asked for: more than the machine has is of no use.
const MOST_CAPACITY_BYTES: u64 = 1 << 40;

/// Creates a heap that has room for `plan`, whatever its threads do.
pub(super) fn create(path: &Path, plan: &Plan, flags: HeapFlags) -> Result<Heap<Plain>, Failure> {
    options_for(plan, flags).create_with(path, Probe::new).map_err(Failure::heap(path))
}

/// Creates a heap whose flushes are counted.
pub(super) fn create_counted(
    path: &Path,
    plan: &Plan,
    flags: HeapFlags,
) -> Result<Heap<Counted>, Failure> {
    let wrap = |mapped| Traced::new(Probe::new(mapped));
    options_for(plan, flags).create_with(path, wrap).map_err(Failure::heap(path))
}

/// Opens a heap.
pub(super) fn open(path: &Path, flags: HeapFlags) -> Result<Heap<Plain>, Failure> {
    flags.options().open_with(path, Probe::new).map_err(Failure::heap(path))
}

/// What a heap survives, for people.
pub(super) fn durability<M: Watched>(heap: &Heap<M>) -> String {
    let mapped: &Mapped = heap.medium().probe().inner();
    let forced = if mapped.durability_is_forced() { " (forced)" } else { "" };
    format!("{}{forced}", mapped.durability())
}

fn options_for(plan: &Plan, flags: HeapFlags) -> HeapOptions {
    let room = plan.total_bytes().saturating_mul(2);
    flags.options().capacity_bytes(room.clamp(LEAST_CAPACITY_BYTES, MOST_CAPACITY_BYTES))
}
