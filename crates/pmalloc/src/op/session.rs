//! What one thread holds of a heap while it operates on it. Volatile.

use super::{changes::Scratch, home::Homes, limbo::Bag, plan::Plan};
use crate::{lane::Claim, tcache::Cache};

/// The state of a session.
#[derive(Debug)]
pub(crate) struct SessionState {
    /// Free blocks at hand.
    pub(super) cache: Cache,
    /// The lane, once one was needed.
    pub(super) claim: Option<Claim>,
    /// What was freed of late.
    pub(super) bag: Bag,
    /// The durable epoch when what is safe was last taken out of limbo.
    pub(super) collected: u64,
    /// Index of the pin, once there was a guard.
    pub(super) pin: Option<u32>,
    /// Index of the arena that the caches are refilled from.
    pub(super) arena: usize,
    /// Where the slots of late operations lie.
    pub(super) homes: Homes,
    /// Operations that may begin before the heap is looked after. None without a lane: so an operation has but one thing to
    /// ask.
    pub(super) operations_left: u32,
    /// Operations from one look to the next.
    pub(super) operations_granted: u32,
    /// What an operation of several records comes to; empty between operations, so that none allocates.
    pub(super) plan: Plan,
    /// Likewise what a commit notes.
    pub(super) scratch: Scratch,
}

impl SessionState {
    /// A session of `arena` that holds nothing yet.
    pub(super) fn new(stripes: u32, arena: usize) -> Self {
        Self {
            cache: Cache::new(stripes),
            claim: None,
            bag: Bag::default(),
            collected: 0,
            pin: None,
            arena,
            homes: Homes::new(),
            operations_left: 0,
            operations_granted: 0,
            plan: Plan::default(),
            scratch: Scratch::default(),
        }
    }

    /// Runs `commit` with the lane and what it notes in. After a panic, whatever was noted is gone.
    pub(super) fn with_scratch<T>(
        &mut self,
        commit: impl FnOnce(&mut Option<Claim>, &mut Scratch) -> T,
    ) -> T {
        let mut scratch = std::mem::take(&mut self.scratch);
        let done = commit(&mut self.claim, &mut scratch);
        self.scratch = scratch;
        done
    }
}

/// Gives an operation its session, for as short as it needs it: never while user code runs.
pub(crate) trait SessionAccess {
    /// Runs `operation` with the session's state.
    fn with<T>(&mut self, operation: impl FnOnce(&mut SessionState) -> T) -> T;
}

/// A session that is at hand.
pub(crate) struct Explicit<'a>(pub(crate) &'a mut SessionState);

impl SessionAccess for Explicit<'_> {
    #[inline]
    fn with<T>(&mut self, operation: impl FnOnce(&mut SessionState) -> T) -> T {
        operation(self.0)
    }
}
