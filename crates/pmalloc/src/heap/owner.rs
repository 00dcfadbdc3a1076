//! Who uses a heap: what its owner record says of this process, and of the one that has it open; and what tells whether power
//! was lost since.

use std::path::Path;

use pmalloc_persist::{Access, MapError, Mapped, MediaFile, Medium, Storage};

use super::{
    info,
    refusal::{Kept, Power},
};
use crate::{
    error::{Error, Result},
    recovery::state::OwnerImage,
};

/// Opens the file of a heap. If it is in use, the error says by whom.
pub(super) fn open_file(path: impl AsRef<Path>, access: Access) -> Result<MediaFile> {
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
pub(super) fn owner_of(mapped: &Mapped) -> Result<OwnerImage> {
    let durability = u64::from(mapped.durability().is_power_safe());
    Ok(OwnerImage { durability, ..owner_on(mapped)? })
}

/// Who uses the heap on any medium.
pub(super) fn owner_on<M: Medium>(m: &M) -> Result<OwnerImage> {
    let boot = boot_of(m)?;
    let process = m.process().map_err(Error::io("reading this process's identity"))?;
    let (pid, start_time) = (u64::from(process.pid), process.start_time);
    Ok(OwnerImage { boot, pid, start_time, ..OwnerImage::default() })
}

/// What tells whether the heap in a file lost power.
pub(super) fn power_of(mapped: &Mapped) -> Result<Power> {
    Ok(Power { boot: boot_of(mapped)?, kept: kept_on(mapped.storage()) })
}

/// What a power loss leaves of a file there.
pub(super) fn kept_on(storage: Storage) -> Kept {
    if storage == Storage::Dax { Kept::Whole } else { Kept::InPart }
}

/// What tells whether the heap on any medium lost power.
pub(super) fn power_on<M: Medium>(m: &M) -> Result<Power> {
    let kept = if m.needs_sync() { Kept::InPart } else { Kept::Whole };
    Ok(Power { boot: boot_of(m)?, kept })
}

fn boot_of<M: Medium>(m: &M) -> Result<u128> {
    m.boot().map_err(Error::io("reading the boot id"))
}
