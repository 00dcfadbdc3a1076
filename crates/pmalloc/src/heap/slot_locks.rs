//! Who may change which slot: a striped table of volatile locks.
//!
//! An operation holds the lock of every slot that it names from before it loads the slot until its retirement
//! is durable (rule 1 in `docs/crash-consistency.md`). Slots share locks, so while an operation holds one it waits for locks
//! to the right of these in the lock order, for the medium, and for nothing else without a bound: where the bookkeeping
//! log is full it gives appends in flight a tenth of a second to land. An operation on several slots takes their locks in
//! the order of the table.

use std::collections::BTreeSet;

use pmalloc_persist::sync::{Mutex, MutexGuard, lock};

/// Locks in the table: enough that two threads rarely meet in one.
const STRIPES: usize = 1024;

/// The locks.
#[derive(Debug)]
pub(super) struct SlotLocks(Box<[Mutex<()>]>);

impl SlotLocks {
    /// A table with every lock free.
    pub(super) fn new() -> Self {
        Self((0..STRIPES).map(|_| Mutex::new(())).collect())
    }

    /// Locks the slot at byte `offset`.
    #[inline]
    pub(super) fn lock(&self, offset: u64) -> MutexGuard<'_, ()> {
        lock(&self.0[stripe(offset)])
    }

    /// Locks every slot: none changes, and no block is allocated into one or freed from one, while the guards live.
    pub(super) fn lock_every(&self) -> Vec<MutexGuard<'_, ()>> {
        self.0.iter().map(lock).collect()
    }

    /// Locks the slots at the byte offsets `places`, which may repeat.
    pub(super) fn lock_all(&self, places: impl Iterator<Item = u64>) -> Vec<MutexGuard<'_, ()>> {
        let stripes: BTreeSet<usize> = places.map(stripe).collect();
        stripes.into_iter().map(|stripe| lock(&self.0[stripe])).collect()
    }
}

/// Multiplicative hashing (Knuth, volume 3, section 6.4): neighbouring slots get distant locks.
#[inline]
fn stripe(offset: u64) -> usize {
    let hash = (offset / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(hash >> (64 - STRIPES.trailing_zeros())).expect("a stripe index is small")
}
