//! The guard: while it lives, freed memory that it may still see is not reused.

use std::fmt;

use pmalloc_persist::{Medium, sync::Arc};

use super::handle::Heap;
use crate::{
    core::{Core, Implicit},
    op::{Pin, SessionAccess},
    value::raw::BlockGuard,
};

/// While it lives, memory that slots owned when it was made, or later, is not reused, not given back to the
/// system and not changed by the heap.
///
/// Made by [`Heap::pin`](super::Heap::pin). Guards nest. A guard that is kept for long keeps all memory
/// freed meanwhile from being reused.
pub struct Guard<'h, M: Medium> {
    core: &'h Core<M>,
    pin: &'h Pin,
}

impl<M: Medium + 'static> Heap<M> {
    /// Keeps memory that is freed from now on from being reused until the guard is dropped.
    #[must_use]
    pub fn pin(&self) -> Guard<'_, M> {
        Guard::new(self.core())
    }
}

impl<'h, M: Medium + 'static> Guard<'h, M> {
    pub(super) fn new(core: &'h Arc<Core<M>>) -> Self {
        Self { pin: Implicit(core).with(|state| core.pin(state)), core }
    }
}

impl<'h, M: Medium> Guard<'h, M> {
    pub(super) fn core(&self) -> &'h Core<M> {
        self.core
    }

    /// What counts it.
    #[cfg(all(test, not(shuttle)))]
    pub(crate) fn pin(&self) -> &'h Pin {
        self.pin
    }
}

impl<M: Medium> BlockGuard for Guard<'_, M> {}

impl<M: Medium> Drop for Guard<'_, M> {
    fn drop(&mut self) {
        self.pin.leave();
        if self.core.waits_for_guards()
            && let Ok(_entered) = self.core.enter()
        {
            self.core.collect();
        }
    }
}

impl<M: Medium> fmt::Debug for Guard<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}
