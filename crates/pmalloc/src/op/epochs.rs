//! Epochs: what stamps operations, and when what they freed may be used again.
//!
//! The present epoch stamps operations and guards. Under the policy Batched a [synchronizer](super::synchronizer) begins an
//! epoch when the one before the last is durable; under Eager every operation is durable at once, and epochs, which stand
//! nowhere on media then, only tell guards from frees.
//!
//! Volatile: the durable epoch is that on the state page, as soon as it is durable there.

use crossbeam_utils::CachePadded;
use pmalloc_persist::sync::{AtomicU64, Ordering};

/// The epochs of a heap, each on a line of its own: every operation reads both.
#[derive(Debug)]
pub(crate) struct Epochs {
    present: CachePadded<AtomicU64>,
    durable: CachePadded<AtomicU64>,
}

impl Epochs {
    /// The epochs of a heap that was recovered: the present one is the first behind the `durable` one.
    pub(super) fn new(durable: u64) -> Self {
        Self {
            present: CachePadded::new(AtomicU64::new(durable + 1)),
            durable: CachePadded::new(AtomicU64::new(durable)),
        }
    }

    /// The present epoch.
    #[inline]
    pub(super) fn present(&self) -> u64 {
        // SeqCst: pairs with the mark of a lane, see `Board::enter`, and with the count of a guard, see `Pin::enter`.
        self.present.load(Ordering::SeqCst)
    }

    /// The newest epoch of which all effects are durable.
    #[inline]
    pub(super) fn durable(&self) -> u64 {
        // Acquire: who sees an epoch durable may write over what that took.
        self.durable.load(Ordering::Acquire)
    }

    /// Begins the next epoch, and returns the one that ends.
    ///
    /// One thread at a time calls this, and under the policy Batched only when the epoch before the present one is durable.
    pub(super) fn begin_next(&self) -> u64 {
        self.present.fetch_add(1, Ordering::SeqCst)
    }

    /// Notes that `epoch` is durable.
    pub(super) fn set_durable(&self, epoch: u64) {
        self.durable.store(epoch, Ordering::Release);
    }
}
