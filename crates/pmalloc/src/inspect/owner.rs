//! Who uses a heap: what its owner record says of this process, and of the one that has it open; and what tells whether power
//! was lost since.

use std::path::Path;

use pmalloc_persist::{Access, MapError, Mapped, MediaFile, Medium, Storage};

use super::info::info;
use crate::{
    error::{Error, Result},
    layout::state::Clean,
    recovery::state::{LeftBehind, OwnerImage},
};

/// What tells whether a heap in a file lost power.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Power {
    /// The boot that this process runs in.
    pub(crate) boot: u128,
    /// What is left of a heap that was open then.
    pub(crate) kept: Kept,
}

/// What a power loss leaves of stores that were flushed and fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All of them.
    Whole,
    /// Those that the kernel happened to write: it may have written any page at any time.
    InPart,
}

impl Power {
    /// Whether a heap that was left so is a mixture of moments: it was being written when the machine went down, on a
    /// page-cache file, or a write of it failed.
    pub(crate) fn was_lost(self, left: &LeftBehind) -> bool {
        let same_boot = left.owner.boot() == Some(self.boot);
        match left.clean {
            Clean::Closed | Clean::Synced => false,
            Clean::No => !same_boot && self.kept == Kept::InPart,
            Clean::Unwritten => true,
        }
    }
}

/// Opens the file of a heap. If it is in use, the error says by whom.
pub(crate) fn open_file(path: impl AsRef<Path>, access: Access) -> Result<MediaFile> {
    let path = path.as_ref();
    MediaFile::open(path, access).map_err(|error| match error {
        MapError::InUse { path, owner: None } => {
            let owner = info(&path).ok().and_then(|info| info.owner_pid);
            MapError::InUse { path, owner }.into()
        }
        error => error.into(),
    })
}

/// Who uses the heap in a file, for its owner record.
pub(crate) fn owner_of(mapped: &Mapped) -> Result<OwnerImage> {
    let durability = u64::from(mapped.durability().is_power_safe());
    Ok(OwnerImage { durability, ..owner_on(mapped)? })
}

/// Who uses the heap on any medium.
pub(crate) fn owner_on<M: Medium>(m: &M) -> Result<OwnerImage> {
    let boot = boot_of(m)?;
    let process = m.process().map_err(Error::io("reading this process's identity"))?;
    let (pid, start_time) = (u64::from(process.pid), process.start_time);
    Ok(OwnerImage { boot, pid, start_time, ..OwnerImage::default() })
}

/// What tells whether the heap in a file lost power.
pub(crate) fn power_of(mapped: &Mapped) -> Result<Power> {
    Ok(Power { boot: boot_of(mapped)?, kept: kept_on(mapped.storage()) })
}

/// What a power loss leaves of a file there.
pub(crate) fn kept_on(storage: Storage) -> Kept {
    if storage == Storage::Dax { Kept::Whole } else { Kept::InPart }
}

/// What tells whether the heap on any medium lost power.
pub(crate) fn power_on<M: Medium>(m: &M) -> Result<Power> {
    let kept = if m.needs_sync() { Kept::InPart } else { Kept::Whole };
    Ok(Power { boot: boot_of(m)?, kept })
}

fn boot_of<M: Medium>(m: &M) -> Result<u128> {
    m.boot().map_err(Error::io("reading the boot id"))
}
