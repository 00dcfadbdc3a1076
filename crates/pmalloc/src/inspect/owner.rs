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
    /// page-cache file or without flushes, or a write of it failed.
    pub(crate) fn was_lost(self, left: &LeftBehind) -> bool {
        let same_boot = left.owner.boot() == Some(self.boot);
        match left.clean {
            Clean::Closed | Clean::Synced => false,
            Clean::No => !same_boot && (self.kept == Kept::InPart || left.owner.needed_sync()),
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

/// Who uses the heap on a medium, for its owner record.
pub(crate) fn owner_on<M: Medium>(m: &M) -> Result<OwnerImage> {
    let boot = boot_of(m)?;
    let process = m.process().map_err(Error::io("reading this process's identity"))?;
    Ok(OwnerImage::new(boot, u64::from(process.pid), process.start_time, m.needs_sync()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::state::{OwnerFound, OwnerImage};

    const BOOT: u128 = 7;

    /// Whether power was lost, of a heap that was left so, where a later boot finds it and where the same one does.
    fn lost(kept: Kept, clean: Clean, owner: OwnerFound) -> [bool; 2] {
        [BOOT + 1, BOOT].map(|boot| Power { boot, kept }.was_lost(&LeftBehind { clean, owner }))
    }

    #[test]
    fn power_was_lost_where_nothing_was_flushed_or_the_kernel_writes_and_the_machine_went_down() {
        let left_by = |needs_sync| OwnerFound::Known(OwnerImage::new(BOOT, 1, 1, needs_sync));
        let interrupted = OwnerFound::Interrupted { boot: BOOT, durability: 1 };
        for (kept, owner, is_mixture) in [
            (Kept::Whole, left_by(false), false),
            (Kept::Whole, interrupted, false),
            (Kept::Whole, left_by(true), true),
            (Kept::InPart, left_by(false), true),
            (Kept::InPart, left_by(true), true),
            (Kept::InPart, interrupted, true),
        ] {
            assert_eq!(lost(kept, Clean::No, owner), [is_mixture, false], "{kept:?} {owner:?}");
            assert_eq!(lost(kept, Clean::Closed, owner), [false, false]);
            assert_eq!(lost(kept, Clean::Synced, owner), [false, false]);
            assert_eq!(lost(kept, Clean::Unwritten, owner), [true, true]);
        }
        // Of whom nothing is known, the memory decides.
        assert_eq!(lost(Kept::Whole, Clean::No, OwnerFound::Damaged), [false, false]);
        assert_eq!(lost(Kept::InPart, Clean::No, OwnerFound::Damaged), [true, true]);
    }
}
