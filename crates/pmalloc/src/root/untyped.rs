//! Roots that are arrays of slots, or bytes, and what there is to ask of roots of any kind.

use pmalloc_persist::{
    Medium, Offset,
    sync::{Arc, lock},
};

use super::{
    entry::{RootInfo, RootState, Shape},
    name,
    obtain::{obtain, zero},
    table,
};
use crate::{
    core::{Core, Implicit},
    error::{Error, Result},
    layout::root::RootKind,
    value::{Slot, SlotMap, VersionedCell, raw, slot::SlotCell, versioned_cell::CellImage},
};

/// The `count` slots of the root array `name`, which is made with empty slots if there is none.
pub(crate) fn slots<'c, M: Medium + 'static>(
    core: &'c Arc<Core<M>>,
    name: &str,
    count: u64,
) -> Result<&'c [Slot]> {
    if count == 0 || count > core.header.geometry.capacity_bytes / 8 {
        return Err(Error::Invalid {
            what: "number of slots",
            why: format!("{count}; a root array has at least one slot and must fit the heap"),
        });
    }
    let shape = Shape { kind: RootKind::Slots, length: count, type_id: 0 };
    let root = obtain(core, &mut Implicit(core), name, (shape, SlotMap::None), || zero)?;
    Ok(raw::slots(core.medium().region().array(Offset::<SlotCell>::new(root.offset), count)?))
}

/// The root `name` of `size_bytes` bytes, which is made with zeros if there is none.
pub(crate) fn bytes<M: Medium + 'static>(
    core: &Arc<Core<M>>,
    name: &str,
    size_bytes: usize,
    type_id: u64,
) -> Result<RootInfo> {
    if size_bytes == 0 {
        return Err(Error::Invalid {
            what: "size of a root",
            why: "zero; a root has at least one byte".into(),
        });
    }
    let shape = Shape { kind: RootKind::Bytes, length: size_bytes as u64, type_id };
    obtain(core, &mut Implicit(core), name, (shape, SlotMap::None), || zero)
}

/// The versioned cell at byte `at_byte` of a root of bytes, which can't be removed from now on.
pub(crate) fn cell<'c, M: Medium>(
    core: &'c Core<M>,
    root: &RootInfo,
    at_byte: u64,
) -> Result<&'c VersionedCell> {
    {
        let _entered = core.enter()?;
        let _roots = lock(&core.roots);
        let found =
            table::find(core, &root.name)?.root.filter(|(_, found)| found.offset == root.offset);
        let missing = || Error::RootMissing { name: root.name.clone() };
        let (index, found) = found.ok_or_else(missing)?;
        if found.kind != RootKind::Bytes {
            return Err(found.mismatch("bytes".into()));
        }
        if !at_byte.is_multiple_of(8) || at_byte.saturating_add(8) > found.size_bytes() {
            let why = format!("byte {at_byte}; cells are 8 bytes, aligned to 8, inside the root");
            return Err(Error::Invalid { what: "place of a cell", why });
        }
        table::check_block(core, &found)?;
        if !core.root_blocks.hand_out(found.offset, index) {
            return Err(Error::corrupted(found.offset, "two roots lie in one block"));
        }
    }
    Ok(raw::cell(core.medium().at(Offset::<CellImage>::new(root.offset + at_byte))?))
}

/// The root `name`, if there is one.
pub(crate) fn find<M: Medium>(core: &Core<M>, name: &str) -> Result<Option<RootInfo>> {
    name::check(name)?;
    let _entered = core.enter()?;
    let _roots = lock(&core.roots);
    let root = table::find(core, name)?.root.map(|(_, root)| root);
    root.iter().try_for_each(|root| table::check_block(core, root))?;
    Ok(root)
}

/// All roots of the program.
pub(crate) fn all<M: Medium>(core: &Core<M>) -> Result<Vec<RootInfo>> {
    let _entered = core.enter()?;
    let _roots = lock(&core.roots);
    let live = |(_, entry)| match entry {
        Ok(RootState::Live(root)) if !name::is_own(&root.name) => Some(Ok(root)),
        Ok(RootState::Live(_) | RootState::Dead) => None,
        Err(error) => Some(Err(error)),
    };
    table::entries(core)?.filter_map(live).collect()
}
