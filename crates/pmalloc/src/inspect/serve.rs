//! Serving a heap: what opening does once it is known which heap there is.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use pmalloc_persist::{
    Access, Claim, ClaimError, DurabilityChoice, Exclusive, MapOptions, Mapped, MediaFile, Medium,
    Storage,
};

use super::{
    owner::{self, Power, owner_on},
    problem::Problem,
    refusal::{self, refuse},
};
use crate::{
    arena::Space,
    core::{
        Core, format,
        header::{read_header, read_header_of},
    },
    error::{Error, Result},
    extent::KEEP_DEFAULT,
    layout::{
        geometry::Geometry,
        state::{Clean, Policy},
        superblock::Header,
    },
    op,
    recovery::{
        ensure_fixed,
        state::{self, OwnerFound, OwnerImage, StateImage},
    },
    root::table,
};

/// How a heap that exists is opened.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    /// The name of the layout that it must have, if it must have one.
    pub(crate) layout: Option<String>,
    /// The durability to run with.
    pub(crate) durability: DurabilityChoice,
    /// Whether to run with it where the memory does not have it.
    pub(crate) forced: bool,
    /// How long free pages keep their memory.
    pub(crate) decay: Duration,
    /// The policy that was asked for.
    pub(crate) policy: Option<Policy>,
    /// Whether the heap gets a thread of its own.
    pub(crate) has_thread: bool,
}

impl Default for Opening {
    fn default() -> Self {
        let (layout, durability, forced) = (None, DurabilityChoice::Auto, false);
        Self { layout, durability, forced, decay: KEEP_DEFAULT, policy: None, has_thread: false }
    }
}

impl Opening {
    /// Opens the heap in the file at `path`, on the medium that `wrap` makes of the mapping.
    pub(crate) fn open_file<M: Exclusive + 'static>(
        &self,
        path: impl AsRef<Path>,
        wrap: impl FnOnce(Mapped) -> M,
    ) -> Result<Core<M>> {
        let started = Instant::now();
        let file = owner::open_file(path, Access::Shared)?;
        let header = read_header(&file)?;
        self.check_layout(&header)?;
        refuse_longer(&file, &header.geometry)?;
        let mapped = file.map(&self.map_options(&header.geometry))?;
        ensure_fixed(&mapped, &header.geometry)?;
        let owner = owner_on(&mapped)?;
        let power = Some(owner::power_of(&mapped)?);
        refuse_weaker(&mapped)?;
        let medium = wrap(mapped);
        let claim = medium.claim()?;
        serve(medium, Some(claim), header, &Serving { power, ..self.serving(&owner) }, started)
    }

    /// As [`open_file`](Self::open_file), in a copy that only this process sees.
    pub(crate) fn open_private<M: Exclusive + 'static>(
        &self,
        path: impl AsRef<Path>,
        wrap: impl FnOnce(Mapped) -> M,
    ) -> Result<Core<M>> {
        let started = Instant::now();
        let file = owner::open_file(path, Access::PrivateCopy)?;
        let header = read_header(&file)?;
        self.check_layout(&header)?;
        refuse_longer(&file, &header.geometry)?;
        let mapped = file.map(&self.map_options(&header.geometry))?;
        let owner = owner_on(&mapped)?;
        let power = Some(owner::power_of(&mapped)?);
        let medium = wrap(mapped);
        let claim = match medium.claim() {
            Ok(claim) => Some(claim),
            // The lock of a private copy keeps writers out: the pages that are still the file's do not change.
            Err(ClaimError::NotShared { access: Access::PrivateCopy }) => None,
            Err(error) => return Err(error.into()),
        };
        serve(medium, claim, header, &Serving { power, ..self.serving(&owner) }, started)
    }

    /// Opens the heap on a medium.
    pub(crate) fn open_on<M: Medium>(&self, medium: M) -> Result<Core<M>> {
        let claim = medium.claim()?;
        let header = read_header_of(&medium)?;
        self.check_layout(&header)?;
        let owner = owner_on(&medium)?;
        let power = Some(owner::power_on(&medium)?);
        let serving = Serving { power, ..self.serving(&owner) };
        serve(medium, Some(claim), header, &serving, Instant::now())
    }

    /// Serves a heap that was just written, for `owner`.
    pub(crate) fn serve_new<M: Medium>(
        &self,
        medium: M,
        claim: Claim,
        header: Header,
        owner: &OwnerImage,
    ) -> Result<Core<M>> {
        serve(medium, Some(claim), header, &self.serving(owner), Instant::now())
    }

    /// How the file of a heap of this geometry is mapped.
    pub(crate) fn map_options(&self, geometry: &Geometry) -> MapOptions {
        let options = MapOptions::new(geometry.heap_bytes()).durability(self.durability);
        if self.forced { options.unsafe_force_durability() } else { options }
    }

    /// How a heap is served by `owner`, where no power can have been lost.
    fn serving<'a>(&self, owner: &'a OwnerImage) -> Serving<'a> {
        let Self { decay, policy, has_thread, .. } = *self;
        Serving { owner, power: None, decay, policy, has_thread }
    }

    fn check_layout(&self, header: &Header) -> Result<()> {
        match &self.layout {
            Some(expected) if *expected != header.layout_name => {
                Err(Error::Layout { expected: expected.clone(), found: header.layout_name.clone() })
            }
            _ => Ok(()),
        }
    }
}

/// Refuses a file that is longer than its heap.
fn refuse_longer(file: &MediaFile, geometry: &Geometry) -> Result<()> {
    let heap_bytes = geometry.heap_bytes();
    if file.len()? > heap_bytes { refuse(Problem::too_long(heap_bytes)) } else { Ok(()) }
}

/// Keeps a medium from being served while metadata on it is changed. Nothing of it is lent meanwhile, so that its bytes may
/// be those of a file that others write.
pub(crate) fn claim_if_shared<M: Medium>(m: &M) -> Result<Option<Claim>> {
    match m.claim() {
        Ok(claim) => Ok(Some(claim)),
        Err(ClaimError::NotShared { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// How a heap is served.
#[derive(Clone, Copy)]
struct Serving<'a> {
    /// Who serves it.
    owner: &'a OwnerImage,
    /// What tells whether it lost power.
    power: Option<Power>,
    /// How long free pages keep their memory.
    decay: Duration,
    /// The policy that was asked for.
    policy: Option<Policy>,
    /// Whether it gets a thread of its own.
    has_thread: bool,
}

/// Refuses to recover without flushes what a killed process has kept in persistent memory with them: a loss of power meanwhile
/// would not be noticed.
fn refuse_weaker(mapped: &Mapped) -> Result<()> {
    if mapped.storage() != Storage::Dax || !mapped.needs_sync() {
        return Ok(());
    }
    // What can't be read is refused for that.
    let left = state::left_behind(mapped);
    if left.is_ok_and(|left| left.clean == Clean::No && !left.owner.needed_sync()) {
        let why = "a killed process has used the heap in persistent memory with flushes: recover it first, with the durability \
                   that the memory has (`pmalloc recover`, or open it so and close it)";
        return Err(Error::Invalid { what: "durability", why: why.into() });
    }
    Ok(())
}

/// Recovers the heap on `medium`, if nothing keeps it from being served, and marks it as open by `owner`.
fn serve<M: Medium>(
    medium: M,
    claim: Option<Claim>,
    header: Header,
    serving: &Serving<'_>,
    started: Instant,
) -> Result<Core<M>> {
    let core = refusal::admit(medium, header, serving.power, &mut refuse)?;
    let mut core = core.claimed(claim);
    let Space { extents, medium, .. } = &mut core.engine.space;
    extents.keep(medium, serving.decay);
    let m = core.medium();
    if state::read(m, &core.header.geometry)?.owner == OwnerFound::Never {
        format::complete(m, &core.header)?;
    }
    // All that can refuse the heap comes before the flag changes.
    table::protect(&core)?;
    let StateImage { clean: was, owner: found, .. } = state::read(m, &core.header.geometry)?;
    if was == Clean::No && found.needed_sync() && !m.needs_sync() {
        // CRASH: what a killed process has stored without flushes is durable before the owner record says that all is that was
        // fenced. Until then a loss of power is told by the record of that process.
        m.sync().map_err(Error::io("making durable what a killed process has stored"))?;
    }
    // CRASH: what recovery changed means nothing to a heap that was whole, and the flag of one that was not says so. The
    // owner is durable before the flag that makes it matter is cleared, and the flag before the first record.
    state::set_owner(m, serving.owner)?;
    op::mark_open(m, was)?;
    if let Some(policy) = serving.policy.filter(|policy| *policy != core.engine.policy) {
        // CRASH: recovery has zeroed the rings, and the heap counts as open: no record is read by the wrong policy.
        state::set_policy(m, policy)?;
        core.engine.policy = policy;
    }
    if serving.has_thread && core.engine.policy == Policy::Batched {
        core.background.want();
    }
    core.recovery.elapsed_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok(core)
}
