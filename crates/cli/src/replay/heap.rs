//! Makes and opens the heaps of replays, on watched media.

use std::{fmt, path::Path};

use pmalloc::{Heap, HeapOptions};
use pmalloc_persist::{Access, Durability, MapOptions, Mapped, MediaFile, Traced};

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

/// Opens a heap in a process that kills itself at the `countdown`-th persist call of that.
pub(super) fn open_armed(
    path: &Path,
    flags: HeapFlags,
    countdown: u64,
) -> Result<Heap<Plain>, Failure> {
    let wrap = |mapped| Probe::armed(mapped, countdown);
    flags.options().open_with(path, wrap).map_err(Failure::heap(path))
}

/// Number of persist calls that opening a heap takes, found out on a private copy.
pub(super) fn persist_calls_to_open(
    path: &Path,
    plan: &Plan,
    flags: HeapFlags,
) -> Result<u64, Failure> {
    let options = options_for(plan, flags);
    let open = || {
        let file = MediaFile::open(path, Access::PrivateCopy)?;
        let mapped = file.map(&MapOptions::new(options.heap_bytes()?))?;
        options.open_on(Probe::armed(mapped, u64::MAX))
    };
    let heap = open().map_err(Failure::heap(path))?;
    Ok(u64::MAX - heap.medium().countdown())
}

/// What a heap survives.
pub(super) fn survival<M: Watched>(heap: &Heap<M>) -> Survival {
    let mapped: &Mapped = heap.medium().probe().inner();
    Survival { durability: mapped.durability(), is_forced: mapped.durability_is_forced() }
}

/// What a heap survives, and so which persists it really makes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Survival {
    durability: Durability,
    is_forced: bool,
}

impl Survival {
    /// Whether a flush is an instruction.
    pub(super) fn flushes(self) -> bool {
        self.durability == Durability::PowerFail
    }

    /// Whether a fence is an instruction.
    pub(super) fn fences(self) -> bool {
        self.durability.is_power_safe()
    }
}

impl fmt::Display for Survival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let forced = if self.is_forced { " (forced)" } else { "" };
        write!(f, "{}{forced}", self.durability)
    }
}

fn options_for(plan: &Plan, flags: HeapFlags) -> HeapOptions {
    let room = plan.total_bytes().saturating_mul(2);
    flags.options().capacity_bytes(room.clamp(LEAST_CAPACITY_BYTES, MOST_CAPACITY_BYTES))
}
