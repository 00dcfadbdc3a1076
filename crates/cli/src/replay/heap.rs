//! Makes and opens the heaps of replays, on watched media.

use std::{fmt, path::Path};

use pmalloc::{Heap, HeapOptions};
use pmalloc_persist::{Durability, Mapped, Medium, Observed, Traced};

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
    options_for(plan, flags).create_with(path, watched).map_err(Failure::heap(path))
}

/// Creates a heap whose flushes are counted.
pub(super) fn create_counted(
    path: &Path,
    plan: &Plan,
    flags: HeapFlags,
) -> Result<Heap<Counted>, Failure> {
    let wrap = |mapped| Traced::new(watched(mapped));
    options_for(plan, flags).create_with(path, wrap).map_err(Failure::heap(path))
}

/// Opens a heap.
pub(super) fn open(path: &Path, flags: HeapFlags) -> Result<Heap<Plain>, Failure> {
    flags.options().open_with(path, watched).map_err(Failure::heap(path))
}

/// Opens a heap in a process that kills itself at the `countdown`-th persist call of that.
pub(super) fn open_armed(
    path: &Path,
    flags: HeapFlags,
    countdown: u64,
) -> Result<Heap<Plain>, Failure> {
    let wrap = |mapped| Observed::new(mapped, Probe::armed(countdown));
    flags.options().open_with(path, wrap).map_err(Failure::heap(path))
}

/// Number of persist calls that opening a heap takes, found out on a private copy.
pub(super) fn persist_calls_to_open(path: &Path, flags: HeapFlags) -> Result<u64, Failure> {
    let wrap = |mapped| Observed::new(mapped, Probe::armed(u64::MAX));
    let heap = flags.options().open_private_with(path, wrap).map_err(Failure::heap(path))?;
    Ok(u64::MAX - heap.observer().countdown())
}

/// What a heap survives.
pub(super) fn survival<M: Watched>(heap: &Heap<M>) -> Survival {
    let media = heap.media();
    let durability = media.durability.expect("a replay's heap lies in a file");
    Survival { durability, is_forced: media.durability_is_forced }
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

/// A file whose size is looked at.
fn watched(mapped: Mapped) -> Plain {
    let probe = Probe::default();
    probe.sample(mapped.occupied_bytes().ok());
    Observed::new(mapped, probe)
}

fn options_for(plan: &Plan, flags: HeapFlags) -> HeapOptions {
    let room = plan.total_bytes().saturating_mul(2);
    flags.options().capacity_bytes(room.clamp(LEAST_CAPACITY_BYTES, MOST_CAPACITY_BYTES))
}
