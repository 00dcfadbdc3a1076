//! Claims: who lends a medium's memory as references has it to itself. Volatile.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use crate::Access;

/// The right to lend the memory of a medium as references. Dropping it gives it back.
///
/// Made by [`Medium::claim`](crate::Medium::claim).
#[derive(Debug)]
pub struct Claim(Arc<AtomicBool>);

impl Claim {
    /// A claim to what nobody else has, or to what is claimed without limit.
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Release: pairs with the acquire in `Claimable::claim`. What was done under the claim comes before the next one.
        self.0.store(false, Ordering::Release);
    }
}

/// Why a medium can't be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// Another structure has the same memory.
    #[error(
        "the medium is in use by another heap of this process: close that one first, or use its handles"
    )]
    InUse,
    /// The mapping is not that of who may write the file: the file's next writer would change bytes under references.
    #[error(
        "the medium is a mapping with {access} access, which can't be served: map it with shared access"
    )]
    NotShared {
        /// The access of the mapping.
        access: Access,
    },
}

/// Memory that can be claimed.
///
/// The process's own atomics: a claim outlives an iteration of the schedule tester.
#[derive(Debug, Default)]
pub(crate) struct Claimable(Arc<AtomicBool>);

impl Claimable {
    /// Claims it.
    pub(crate) fn claim(&self) -> Result<Claim, ClaimError> {
        // Acquire: pairs with the release of the claim before.
        match self.0.swap(true, Ordering::Acquire) {
            true => Err(ClaimError::InUse),
            false => Ok(Claim(Arc::clone(&self.0))),
        }
    }
}
