//! Recovery: from bytes on a medium to a heap that may be served.
//!
//! | step | file | reads | writes |
//! |---|---|---|---|
//! | identify | [`identify`] | superblock copies | nothing |
//! | state | [`state`] | state page | owner and clean flag, once the heap is to be served |
//! | replay | [`replay`] | bookkeeping logs, lanes | the effects of the operations in flight |
//! | rebuild | [`rebuild`] | slab headers and bitmaps | nothing |
//!
//! [`salvage`] is no step of these: it makes a heap that recovery refuses one that it accepts.
//!
//! The steps are those of `docs/crash-consistency.md`: apply live records
//! (allocations, then frees), fence; under the policy Batched move the durable epoch past them, fence; zero the rings,
//! fence; only then serve. Every step may be repeated after a
//! crash in any of them. Time and memory are linear in the metadata that the heap has; nothing recurses.

mod identify;
mod rebuild;
mod replay;
mod salvage;
pub(crate) mod state;

use pmalloc_persist::{Medium, Span};

use self::state::{OwnerFound, StateImage};
pub(crate) use identify::{identify, superblock_places};
pub(crate) use salvage::{require_known, salvage};

use crate::{
    arena::{Arena, Space},
    error::{Error, Finding, Result},
    lane::{LaneImage, Lanes},
    layout::{
        geometry::Geometry,
        root::RootEntry,
        state::{Clean, Policy},
    },
};

/// A heap that is consistent and may be served.
#[derive(Debug)]
pub(crate) struct Recovered<M> {
    /// Pages and their uses.
    pub(crate) space: Space<M>,
    /// One arena per log.
    pub(crate) arenas: Vec<Arena>,
    /// The lanes.
    pub(crate) lanes: Lanes,
    /// The durable epoch.
    pub(crate) durable: u64,
    /// The policy that the state page names.
    pub(crate) policy: Policy,
    /// Records that were redone.
    pub(crate) replayed: u64,
    /// Places of the bookkeeping logs that interrupted appends had torn.
    pub(crate) torn: u64,
    /// Damage that recovery could do without, and may have overwritten.
    pub(crate) findings: Vec<Finding>,
    /// How the heap was left.
    pub(crate) clean: Clean,
}

/// Recovers the heap on `medium`, whose superblock said `geometry`.
///
/// # Errors
///
/// [`Error::Corrupted`](crate::Error::Corrupted) for anything that no crash can leave behind;
/// [`Error::NoSpace`](crate::Error::NoSpace) if memory for the bookkeeping log is needed and can't be had.
///
/// # Crash consistency
///
/// See the module: a crash at any point leaves a heap that recovers to the same state.
pub(crate) fn recover<M: Medium>(medium: M, geometry: Geometry) -> Result<Recovered<M>> {
    ensure_fixed(&medium, &geometry)?;
    let state = state::read(&medium, &geometry)?;
    let replayed = replay::replay(&medium, &geometry, &state)?;
    let findings = findings(&state, &replayed.lanes);
    let lanes = Lanes::new(geometry, &replayed.lanes);
    let (space, arenas) =
        rebuild::rebuild(medium, geometry, &state, replayed.book, &replayed.held)?;
    let (records, torn) = (replayed.records, replayed.torn);
    let (clean, policy, durable) = (state.clean, state.policy, replayed.durable);
    Ok(Recovered {
        space,
        arenas,
        lanes,
        durable,
        policy,
        replayed: records,
        torn,
        findings,
        clean,
    })
}

/// Sees that what every heap has from the start, and the used part of the root table, have memory, before they are read.
///
/// # Errors
///
/// [`Error::NoSpace`](crate::Error::NoSpace) if the file is a copy with holes there, and can't get any.
pub(crate) fn ensure_fixed<M: Medium>(m: &M, geometry: &Geometry) -> Result<()> {
    // A file that was cut off is refused when its state page is read.
    if m.len() < geometry.data_span().start {
        return Ok(());
    }
    let table = geometry.root_span();
    let first = Span::new(0, table.start + 1);
    // CRASH: more of the file has memory; no byte of it has changed.
    m.ensure(&[first, geometry.directory_span()]).map_err(Error::backing(GIVING))?;
    // Where this number is damaged, the heap is refused later on.
    let used = state::roots_used(m, geometry).map_or(0, u64::from);
    let entries = (used + 1) * size_of::<RootEntry>() as u64;
    let used = Span::new(table.start, entries.min(table.len));
    // CRASH: as above.
    m.ensure(&[used]).map_err(Error::backing(GIVING))
}

/// What is being done when a copy has no memory where the heap is in use.
pub(crate) const GIVING: &str = "giving what is in use memory";

fn findings(state: &StateImage, lanes: &[LaneImage]) -> Vec<Finding> {
    let owner = (state.owner == OwnerFound::Damaged)
        .then(|| Finding::new(state::owner_offset(), "the owner record is damaged"));
    let stray = lanes.iter().filter_map(|lane| lane.stray);
    let stray =
        stray.map(|offset| Finding::new(offset, "a heap that was closed has a record in flight"));
    owner.into_iter().chain(stray).collect()
}
