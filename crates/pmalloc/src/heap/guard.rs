//! The guard: while it lives, freed memory that it may still see is not reused.

use std::fmt;

use pmalloc_persist::Medium;

use super::core::Core;

/// While it lives, memory that slots owned when it was made, or later, is not reused, not given back to the
/// system and not changed by the heap.
///
/// Made by [`Heap::pin`](super::Heap::pin). Guards nest. A guard that is kept for long keeps all memory
/// freed meanwhile from being reused.
pub struct Guard<'h, M: Medium> {
    core: &'h Core<M>,
    epoch: u64,
}

impl<'h, M: Medium> Guard<'h, M> {
    pub(super) fn new(core: &'h Core<M>) -> Self {
        Self { epoch: core.limbo.enter(), core }
    }

    pub(super) fn core(&self) -> &'h Core<M> {
        self.core
    }

    /// The epoch that it was made in.
    #[cfg(test)]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl<M: Medium> Drop for Guard<'_, M> {
    fn drop(&mut self) {
        self.core.limbo.leave(self.epoch);
        if self.core.limbo.has_waiting()
            && let Ok(_entered) = self.core.enter()
        {
            self.core.collect();
        }
    }
}

impl<M: Medium> fmt::Debug for Guard<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
