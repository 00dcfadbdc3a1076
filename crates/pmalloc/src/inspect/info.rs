//! What a heap's file says about itself, without opening the heap.

use std::path::Path;

use pmalloc_persist::{
    Access, DurabilityChoice, MapOptions, Mapped, MediaFile, Medium, PAGE_BYTES, ProcessId,
    Warning, boot_id,
};

use crate::{
    core::header::read_header,
    error::{Error, Result},
    layout::{
        geometry::Geometry,
        state::{Clean, Policy},
        superblock::{FORMAT_VERSION, Model},
    },
    recovery::state,
};

/// What a heap's file says about itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Info {
    /// Version of the format.
    pub format: u64,
    /// Random identity: a UUID of version 4, its first byte the highest. Heaps made before have 128 random bits.
    pub uuid: u128,
    /// The application's name for its data; empty if it gave none.
    pub layout: String,
    /// Consistency model.
    pub model: Model,
    /// Policy of the last writer; `None` if the state page is damaged.
    pub policy: Option<Policy>,
    /// The durability that a program gets here by default.
    pub durability: pmalloc_persist::Durability,
    /// Bytes of data that the heap may grow to.
    pub capacity_bytes: u64,
    /// Memory that the file occupies, in bytes.
    pub heap_bytes: u64,
    /// Bitmap stripes.
    pub stripes: u32,
    /// Arenas, each with a bookkeeping log.
    pub arenas: u32,
    /// Memory nodes.
    pub nodes: u32,
    /// Whether the heap was closed, or synchronized after its last write; `None` if the state page is damaged.
    pub clean: Option<bool>,
    /// The process that has the heap open: that opened it last, runs, and has not closed it.
    pub owner_pid: Option<u64>,
    /// What the file system does not promise of the heap's memory.
    pub warnings: Vec<Warning>,
    /// Seconds since 1970 when the heap was created.
    pub created_s: u64,
}

/// Reads what the heap in the file at `path` says about itself. Takes no lock and changes nothing: the heap may be
/// open elsewhere, or damaged.
///
/// # Errors
///
/// [`Error::Map`] if the file can't be read, [`Error::NotAHeap`], [`Error::Version`], [`Error::Corrupted`] if both
/// superblock copies are damaged.
pub fn info(path: impl AsRef<Path>) -> Result<Info> {
    let file = MediaFile::open(path.as_ref(), Access::ReadOnly)?;
    let header = read_header(&file)?;
    // Only what is there, and the state page: the heap may be larger than this process has addresses for.
    let len = file.len()?.max(state_end());
    let options = MapOptions::new(len).durability(DurabilityChoice::Auto);
    let mapped = file.map(&options)?;
    let state = read_state(&mapped, &header.geometry);
    let heap_bytes = mapped.occupied_bytes().map_err(Error::io("asking for the heap's size"))?;
    Ok(Info {
        format: FORMAT_VERSION,
        uuid: header.uuid,
        layout: header.layout_name,
        model: header.model,
        policy: state.as_ref().map(|state| state.policy),
        durability: mapped.durability(),
        capacity_bytes: header.geometry.capacity_bytes,
        heap_bytes,
        stripes: header.geometry.stripes,
        arenas: header.geometry.logs,
        nodes: 1,
        clean: state.as_ref().map(|state| state.clean.is_whole()),
        owner_pid: state.and_then(|state| running_owner(&state)),
        warnings: mapped.info().warnings.to_vec(),
        created_s: header.created_s,
    })
}

/// The state page, unless it is damaged or cut off.
fn read_state(mapped: &Mapped, geometry: &Geometry) -> Option<state::StateImage> {
    let is_there = mapped.len() >= state_end();
    // A hole says nothing, and reading it may want memory that a full tmpfs doesn't have.
    let is_there = is_there && mapped.file().has_data(Geometry::state()).unwrap_or(false);
    if is_there { state::read(mapped, geometry).ok() } else { None }
}

/// Where the state page ends.
fn state_end() -> u64 {
    Geometry::state() + PAGE_BYTES
}

/// The process that has the heap open: it opened it last, runs in this boot, and has not closed it.
fn running_owner(state: &state::StateImage) -> Option<u64> {
    let owner = state.owner.known().filter(|_| state.clean != Clean::Closed)?;
    let process = ProcessId { pid: u32::try_from(owner.pid).ok()?, start_time: owner.start_time };
    let here = boot_id().ok()? == owner.boot && process.is_alive().ok()?;
    here.then_some(owner.pid)
}
