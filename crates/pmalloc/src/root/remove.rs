//! Removing a root.

use pmalloc_persist::{Medium, Offset, sync::lock};

use super::{
    entry::{self, RootInfo, Shape},
    name, table, typed,
};
use crate::{
    core::Core,
    error::{Error, Result},
    layout::{root::RootKind, slot::SlotWord},
    op::{self, SessionAccess},
    value::{Persistent, SlotMap, slot::SlotCell},
};

/// What a root that is to be removed is held for.
#[derive(Clone, Copy)]
pub(crate) enum Removal {
    /// Slots or bytes.
    Untyped,
    /// A value with slots at these places.
    Typed(Shape, SlotMap),
}

impl Removal {
    /// A `T`.
    pub(crate) fn of_typed<T: Persistent>() -> Result<Self> {
        Ok(Self::Typed(typed::shape::<T>()?, T::SLOTS))
    }
}

/// Removes the root `name`.
pub(crate) fn remove<M: Medium>(
    core: &Core<M>,
    access: &mut impl SessionAccess,
    name: &str,
    removal: Removal,
) -> Result<()> {
    name::check(name)?;
    access.with(|state| {
        let _entered = core.enter()?;
        let _roots = lock(&core.roots);
        let missing = || Error::RootMissing { name: name.into() };
        let (index, root) = table::find(core, name)?.root.ok_or_else(missing)?;
        check_unused(core, &root, removal)?;
        check_alone(core, index, &root)?;
        let entry = entry::at(core.medium(), &core.header.geometry, index)?;
        Ok(op::free_root(core, state, table::slot_of(core, entry), root.offset)?)
    })
}

/// Sees that a root is what it is held for, that nobody has a reference to it, and that none of its slots owns a block.
fn check_unused<M: Medium>(core: &Core<M>, root: &RootInfo, removal: Removal) -> Result<()> {
    match removal {
        Removal::Typed(shape, _) => root.require(shape)?,
        Removal::Untyped if root.kind == RootKind::Typed => {
            return Err(root.mismatch("slots or bytes".into()));
        }
        Removal::Untyped => {}
    }
    if core.root_blocks.is_handed_out(root.offset) {
        return Err(Error::RootInUse { name: root.name.clone() });
    }
    table::check_block(core, root)?;
    let m = core.medium();
    let is_full = |slot: &SlotCell| slot.read(m).place().is_some();
    let full = match removal {
        Removal::Typed(_, slots) => {
            let mut full = None;
            slots.any(0, &mut |at| {
                let slot = root.offset + at as u64;
                full = m.at(Offset::new(slot)).is_ok_and(is_full).then_some(slot);
                full.is_some()
            });
            full
        }
        Removal::Untyped if root.kind == RootKind::Slots => {
            let slots: &[SlotCell] = m.region().array(Offset::new(root.offset), root.length)?;
            let full = slots.iter().find(|slot| is_full(slot));
            full.map(|slot| m.region().span_of(slot).start)
        }
        Removal::Untyped => None,
    };
    full.map_or(Ok(()), |slot| Err(Error::ChildrenAlive { slot }))
}

/// Sees that no other root lies in the block of the one at `index`, as a hostile table could have it.
fn check_alone<M: Medium>(core: &Core<M>, index: u32, root: &RootInfo) -> Result<()> {
    for (other, _) in table::entries(core)?.filter(|(other, _)| *other != index) {
        let entry = entry::at(core.medium(), &core.header.geometry, other)?;
        if SlotWord::from_bits(core.medium().load(&entry.slot)).place() == Some(root.offset) {
            return Err(Error::corrupted(root.offset, "two roots lie in one block"));
        }
    }
    Ok(())
}
