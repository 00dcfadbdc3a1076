//! Who uses a heap: what its owner record says of this process, and what tells whether power was lost since.

use pmalloc_persist::{Mapped, Medium, boot_id};

use super::refusal::Power;
use crate::{
    error::{Error, Result},
    recovery::state::OwnerImage,
};

/// Who uses the heap in a file, for its owner record.
pub(super) fn owner_of(mapped: &Mapped) -> Result<OwnerImage> {
    let boot = boot_id().map_err(Error::io("reading the boot id"))?;
    let durability = u64::from(mapped.durability().is_power_safe());
    Ok(OwnerImage { boot, durability, ..owner_on(mapped)? })
}

/// Who uses the heap on any medium.
pub(super) fn owner_on<M: Medium>(m: &M) -> Result<OwnerImage> {
    let process = m.process().map_err(Error::io("reading this process's identity"))?;
    let (pid, start_time) = (u64::from(process.pid), process.start_time);
    Ok(OwnerImage { pid, start_time, ..OwnerImage::default() })
}

/// What tells whether the heap in a file lost power.
pub(super) fn power_of(mapped: &Mapped) -> Result<Power> {
    Ok(Power { boot: owner_of(mapped)?.boot, storage: mapped.storage() })
}
