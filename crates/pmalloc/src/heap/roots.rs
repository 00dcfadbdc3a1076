//! Named roots: the blocks that are found without a pointer.

use pmalloc_persist::{Medium, Offset, sync::lock};

use super::{
    alloc,
    core::Core,
    root_entry::{self, Entry, Root},
    session::{Access, SessionState},
    slot::Slot,
};
use crate::{
    error::{Error, Result},
    layout::{
        root::{ROOT_NAME_MAX_BYTES, RootEntry},
        slot::SlotWord,
    },
};

/// Finds or creates the root array `name`.
pub(super) fn slots<'h, M: Medium>(
    core: &'h Core<M>,
    access: &mut impl Access<M>,
    name: &str,
    count: u64,
) -> Result<&'h [Slot]> {
    check_name(name)?;
    if count == 0 || count > core.header.geometry.capacity_bytes / 8 {
        return Err(Error::Invalid {
            what: "number of slots",
            why: format!("{count}; a root array has at least one slot and must fit the heap"),
        });
    }
    let found = {
        let _entered = core.enter()?;
        let _roots = lock(&core.roots);
        find(core, name)?.0
    };
    let block = match found {
        Some(root) => check_match(&root, count)?,
        None => access.with(|state| find_or_create(core, state, name, count))?,
    };
    if core.block_span(block).is_none_or(|span| span.len < count * 8) {
        return Err(Error::corrupted(block, "a root array lies in no live block of its size"));
    }
    core.root_blocks.insert(block);
    Ok(core.medium().region().array(Offset::new(block), count)?)
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > ROOT_NAME_MAX_BYTES || name.contains('\0') {
        return Err(Error::Invalid {
            what: "root name",
            why: format!("{name:?}; a name has 1 to {ROOT_NAME_MAX_BYTES} bytes and no NUL"),
        });
    }
    Ok(())
}

fn check_match(root: &Root, count: u64) -> Result<u64> {
    if root.length == count {
        return Ok(root.block);
    }
    Err(Error::RootMismatch {
        name: root.name.clone(),
        expected: format!("{count} slots"),
        found: format!("{} slots", root.length),
    })
}

/// The root `name`, and the index of the first entry that can be used for a new one.
///
/// # Errors
///
/// [`Error::Corrupted`] if the name is not found and a damaged entry may have had it. Roots that are whole are found
/// whatever stands before them.
fn find<M: Medium>(core: &Core<M>, name: &str) -> Result<(Option<Root>, Option<u32>)> {
    let (mut free, mut damaged) = (None, None);
    for index in 0..core.header.geometry.roots {
        let entry = root_entry::at(core.medium(), &core.header.geometry, index)?;
        match root_entry::read(core.medium(), entry) {
            Ok(Entry::Live(root)) if root.name == name => return Ok((Some(root), free)),
            Ok(Entry::Live(_)) => {}
            Ok(Entry::Dead) => free = free.or(Some(index)),
            Ok(Entry::Pristine) => {
                free = free.or(Some(index));
                break;
            }
            Err(error) => damaged = damaged.or(Some(error)),
        }
    }
    damaged.map_or(Ok((None, free)), Err)
}

/// Notes the blocks of all roots, before a slot can name one of them.
pub(super) fn protect<M: Medium>(core: &Core<M>) -> Result<()> {
    for index in 0..core.header.geometry.roots {
        let entry = root_entry::at(core.medium(), &core.header.geometry, index)?;
        match SlotWord::from_bits(core.medium().load(&entry.slot)).place() {
            Some(block) => core.root_blocks.insert(block),
            None if matches!(root_entry::read(core.medium(), entry)?, Entry::Pristine) => break,
            None => {}
        }
    }
    Ok(())
}

/// As [`slots`], where another thread may have created the array since.
fn find_or_create<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    name: &str,
    count: u64,
) -> Result<u64> {
    let _entered = core.enter()?;
    let _roots = lock(&core.roots);
    match find(core, name)? {
        (Some(root), _) => check_match(&root, count),
        (None, free) => create(core, state, free, name, count),
    }
}

/// Creates the root array `name` in the entry `free` and returns its block.
fn create<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    free: Option<u32>,
    name: &str,
    count: u64,
) -> Result<u64> {
    let m = core.medium();
    let geometry = &core.header.geometry;
    let limit = Error::Limit { what: "named roots", limit: u64::from(geometry.roots) };
    let index = free.ok_or(limit)?;
    root_entry::back(m, geometry, index)?;
    let entry = root_entry::at(m, geometry, index)?;
    root_entry::write(m, entry, name, count);
    let slot_place = m.region().span_of(entry).start + std::mem::offset_of!(RootEntry, slot) as u64;
    let slot: &Slot = m.at(Offset::new(slot_place))?;
    alloc::alloc_zeroed_root(core, state, slot, slot_place, count * 8)?;
    slot.read(m).place().ok_or(Error::SlotEmpty { slot: slot_place })
}
