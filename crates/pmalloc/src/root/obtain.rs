//! Finding a root, and making it where there is none.

use std::alloc::Layout;

use pmalloc_persist::{Medium, Offset, Span, sync::lock};

use super::{
    entry::{self, RootInfo, Shape},
    name,
    table::{self, FoundRoot},
};
use crate::{
    core::Core,
    error::{Error, Result},
    layout::{root::RootKind, slot::SlotWord},
    op::{self, SessionAccess, SessionState},
    recovery::state,
    value::{SlotMap, raw, slot::SlotCell},
};

/// Alignment of root blocks: they share no line with other blocks.
pub(super) const ROOT_ALIGN: usize = 64;

/// Writes the contents of a root that is not typed.
pub(crate) fn zero<M: Medium>(core: &Core<M>, span: Span) {
    raw::initialise(core.medium(), span, |block| block.fill(0));
}

/// Finds the root `name`, or creates it, and sees that it is of `shape`.
///
/// `prepare` is called if there is no such root, while no lock is held; what it returns writes the contents.
pub(crate) fn obtain<M: Medium, W: FnOnce(&Core<M>, Span)>(
    core: &Core<M>,
    access: &mut impl SessionAccess,
    name: &str,
    shape: (Shape, SlotMap),
    prepare: impl FnOnce() -> W,
) -> Result<RootInfo> {
    name::check(name)?;
    obtain_any(core, access, name, shape, prepare)
}

/// As [`obtain`], also for the heap's own names.
pub(crate) fn obtain_any<M: Medium, W: FnOnce(&Core<M>, Span)>(
    core: &Core<M>,
    access: &mut impl SessionAccess,
    name: &str,
    shape: (Shape, SlotMap),
    prepare: impl FnOnce() -> W,
) -> Result<RootInfo> {
    let found = {
        let _entered = core.enter()?;
        let _roots = lock(&core.roots);
        match table::find(core, name)?.root {
            Some((index, root)) => Some(admit(core, index, root, shape)?),
            None => None,
        }
    };
    if let Some(root) = found {
        return Ok(root);
    }
    let write = prepare();
    access.with(|state| find_or_create(core, state, name, shape, write))
}

/// Sees that a root is what was asked for and lies where it can; one that is seen by reference is noted as such.
fn admit<M: Medium>(
    core: &Core<M>,
    index: u32,
    root: RootInfo,
    (wanted, slots): (Shape, SlotMap),
) -> Result<RootInfo> {
    root.require(wanted)?;
    table::check_block(core, &root)?;
    if core.was_left_open && !core.root_blocks.is_handed_out(root.offset) {
        check_slots(core, &root, slots)?;
    }
    if root.kind != RootKind::Bytes && !core.root_blocks.hand_out(root.offset, index) {
        return Err(Error::corrupted(root.offset, "two roots lie in one block"));
    }
    Ok(root)
}

/// Sees that each slot at one of the places `slots` in a typed root owns a live block, or none: after a crash nothing else
/// tells whether a live bit is damaged. Those of root arrays, and of types that are declared, were looked at when the heap
/// was opened.
fn check_slots<M: Medium>(core: &Core<M>, root: &RootInfo, slots: SlotMap) -> Result<()> {
    let m = core.medium();
    let mut dangling = None;
    slots.any(0, &mut |at| {
        let slot = root.offset + at as u64;
        let block = m.at(Offset::new(slot)).ok().and_then(|cell: &SlotCell| cell.read(m).place());
        dangling = block.filter(|block| !core.is_live(*block)).map(|_| slot);
        dangling.is_some()
    });
    dangling.map_or(Ok(()), |slot| {
        let what = format!("a slot of the root {:?} owns no live block", root.name);
        Err(Error::corrupted(slot, what))
    })
}

/// As [`obtain`], where another thread may have created the root since.
fn find_or_create<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    name: &str,
    shape: (Shape, SlotMap),
    write: impl FnOnce(&Core<M>, Span),
) -> Result<RootInfo> {
    let _entered = core.enter()?;
    let _roots = lock(&core.roots);
    let FoundRoot { root, free } = table::find(core, name)?;
    let (index, root) = match root {
        Some(found) => found,
        None => create(core, state, free, (name, shape.0), write)?,
    };
    admit(core, index, root, shape)
}

/// Creates the root `name` in the entry `free` and returns it with its index.
fn create<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    free: Option<u32>,
    (name, shape): (&str, Shape),
    write: impl FnOnce(&Core<M>, Span),
) -> Result<(u32, RootInfo)> {
    let m = core.medium();
    let geometry = &core.header.geometry;
    let limit = Error::Limit { what: "named roots", limit: u64::from(geometry.roots) };
    let index = free.ok_or(limit)?;
    let size = usize::try_from(shape.size_bytes()).ok();
    let layout = size.and_then(|size| Layout::from_size_align(size, ROOT_ALIGN).ok());
    let layout = layout.ok_or_else(|| Error::Invalid {
        what: "size of a root",
        why: format!("{shape}; that is more than an address space"),
    })?;
    entry::back(m, index)?;
    let entry = entry::at(m, geometry, index)?;
    let is_new = index == state::roots_used(m, geometry)?;
    if is_new && table::is_misplaced(m, entry, true)? {
        let place = m.region().span_of(entry).start;
        return Err(Error::corrupted(place, "a root stands behind the last one of the table"));
    }
    entry::write(m, entry, name, shape);
    if is_new {
        // CRASH: until here the entry is what comes next, whatever is in it. It is durable before it counts as used: of
        // those that were used none is empty. That it counts is durable with the root's contents, before its slot is full.
        m.fence();
        state::set_roots_used(m, index + 1)?;
    }
    let slot = table::slot_of(core, entry);
    op::alloc_root(core, state, slot, layout, |span| write(core, span))?;
    let offset = SlotWord::from_bits(m.load(&entry.slot)).place();
    let offset = offset.ok_or(Error::SlotEmpty { slot })?;
    core.root_blocks.insert(offset);
    let Shape { kind, length, type_id } = shape;
    Ok((index, RootInfo { name: name.into(), kind, length, type_id, offset }))
}
