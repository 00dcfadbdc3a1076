//! Who uses a heap: what its owner record says of this process, and what tells whether power was lost since.

use pmalloc_persist::{Mapped, Medium, Storage};

use super::refusal::{Kept, Power};
use crate::{
    error::{Error, Result},
    recovery::state::OwnerImage,
};

/// Who uses the heap in a file, for its owner record.
pub(super) fn owner_of(mapped: &Mapped) -> Result<OwnerImage> {
    let durability = u64::from(mapped.durability().is_power_safe());
    Ok(OwnerImage { durability, ..owner_on(mapped)? })
}

/// Who uses the heap on any medium.
pub(super) fn owner_on<M: Medium>(m: &M) -> Result<OwnerImage> {
    let process = m.process().map_err(Error::io("reading this process's identity"))?;
    let (pid, start_time) = (u64::from(process.pid), process.start_time);
    Ok(OwnerImage { boot: boot_of(m)?, pid, start_time, ..OwnerImage::default() })
}

/// What tells whether the heap in a file lost power.
pub(super) fn power_of(mapped: &Mapped) -> Result<Power> {
    let kept = if mapped.storage() == Storage::Dax { Kept::Whole } else { Kept::InPart };
    Ok(Power { boot: boot_of(mapped)?, kept })
}

/// What tells whether the heap on any medium lost power.
pub(super) fn power_on<M: Medium>(m: &M) -> Result<Power> {
    let kept = if m.needs_sync() { Kept::InPart } else { Kept::Whole };
    Ok(Power { boot: boot_of(m)?, kept })
}

fn boot_of<M: Medium>(m: &M) -> Result<u128> {
    m.boot().map_err(Error::io("reading the boot id"))
}
