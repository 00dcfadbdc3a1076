//! Serving a heap: recovered, told who uses it, and marked as open.

use std::time::{Duration, Instant};

use pmalloc_persist::{Claim, Medium};

use super::{Heap, format, refusal, roots};
use crate::{
    arena::Space,
    error::Result,
    layout::{state::Policy, superblock::Header},
    op,
    recovery::state::{self, OwnerFound, OwnerImage},
};

/// How a heap is served.
#[derive(Clone, Copy)]
pub(super) struct Serving<'a> {
    /// Who serves it.
    pub(super) owner: &'a OwnerImage,
    /// What tells whether it lost power.
    pub(super) power: Option<refusal::Power>,
    /// How long free pages keep their memory.
    pub(super) decay: Duration,
    /// The policy that was asked for.
    pub(super) policy: Option<Policy>,
}

/// Recovers the heap on `medium`, if nothing keeps it from being served, and marks it as open by `owner`.
pub(super) fn serve<M: Medium + 'static>(
    medium: M,
    claim: Option<Claim>,
    header: Header,
    serving: &Serving<'_>,
    started: Instant,
) -> Result<Heap<M>> {
    let core = refusal::admit(medium, header, serving.power, &mut refusal::refuse)?;
    let mut core = core.claimed(claim);
    let Space { extents, medium, .. } = &mut core.engine.space;
    extents.keep(medium, serving.decay);
    let m = core.medium();
    if state::read(m, &core.header.geometry)?.owner == OwnerFound::Never {
        format::complete(m, &core.header)?;
    }
    // All that can refuse the heap comes before the flag changes.
    roots::protect(&core)?;
    let was = state::read(m, &core.header.geometry)?.clean;
    // CRASH: what recovery changed means nothing to a heap that was whole, and the flag of one that was not says so. The
    // owner is durable before the flag that makes it matter is cleared, and the flag before the first record.
    state::set_owner(m, serving.owner)?;
    op::mark_open(m, was)?;
    if let Some(policy) = serving.policy.filter(|policy| *policy != core.engine.policy) {
        // CRASH: recovery has zeroed the rings, and the heap counts as open: no record is read by the wrong policy.
        state::set_policy(m, policy)?;
        core.engine.policy = policy;
    }
    core.recovery.elapsed_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok(Heap::new(core))
}
