//! The root that the heap has for itself: where it is, and that programs don't see it.
//!
//! Persistent: a root array whose name no program can give. Its first slot owns the [declarations](super::declarations); through
//! the second, what nothing owns is [freed](crate::inspect::orphans).

use pmalloc_persist::{Medium, Offset};

use super::{
    entry::{RootInfo, Shape},
    obtain, table,
};
use crate::{
    core::Core,
    error::Result,
    layout::{
        declared::{DECLARED_ROOT, DECLARED_ROOT_SLOTS},
        root::RootKind,
    },
    op::SessionAccess,
    value::{Slot, SlotMap, raw, slot::SlotCell},
};

/// The slots that the heap has for itself, which are made when they are first asked for.
pub(crate) fn slots<'c, M: Medium + 'static>(
    core: &'c Core<M>,
    access: &mut impl SessionAccess,
) -> Result<&'c [Slot]> {
    let shape = Shape { kind: RootKind::Slots, length: DECLARED_ROOT_SLOTS, type_id: 0 };
    let root =
        obtain::obtain_any(core, access, DECLARED_ROOT, (shape, SlotMap::None), || obtain::zero)?;
    let cells = Offset::<SlotCell>::new(root.offset);
    Ok(raw::slots(core.medium().region().array(cells, DECLARED_ROOT_SLOTS)?))
}

/// The root array of the declarations; none in a forked child, where no memory is.
pub(crate) fn find<M: Medium>(core: &Core<M>) -> Option<RootInfo> {
    core.check_process().ok()?;
    let is_own = |root: &RootInfo| root.name == DECLARED_ROOT && root.kind == RootKind::Slots;
    table::live(core).find(is_own)
}

/// The offsets of the blocks that are the heap's own: those of the root array and of the declarations.
pub(crate) fn blocks<M: Medium>(core: &Core<M>) -> Vec<u64> {
    let Some(root) = find(core) else { return Vec::new() };
    let m = core.medium();
    let slot: Option<&SlotCell> = m.at(Offset::new(root.offset)).ok();
    let declarations = slot.and_then(|slot| slot.read(m).place());
    [Some(root.offset), declarations].into_iter().flatten().collect()
}
