//! Blocks that nothing owns: listed, given to a slot, or freed.
//!
//! A program makes one when it frees a block, or removes a root, whose slots still own others. Who owns what is surveyed
//! while no slot changes, by the locks of all of them: what nothing owns then, nothing can own later.

use pmalloc_persist::{Medium, Span, sync::lock};

use super::owners::{BlockOwner, Owners};
use crate::{
    core::{Block, Core},
    error::{Error, Result},
    op::{self, Inside, SessionAccess, SessionState, SlotAt, Step, Unlinked},
    root::{own, table},
    value::{Content, Slot, TypeGraph, declared, slot::SlotCell},
};

/// The live blocks that nothing owns, in the order of their offsets.
pub(crate) fn list<M: Medium>(core: &Core<M>) -> Result<Vec<Block>> {
    let _entered = core.enter()?;
    let _roots = lock(&core.roots);
    let _alone = core.slot_locks.lock_every();
    let owners = survey(core)?;
    let of_nobody = owners.blocks().filter(|(_, owner)| *owner == BlockOwner::Nobody);
    Ok(of_nobody.map(|(block, _)| block).collect())
}

/// Gives the block at byte `offset`, which nothing owns, to the empty `slot`.
pub(crate) fn adopt<M: Medium + 'static, T: Content + ?Sized>(
    core: &Core<M>,
    access: &mut impl SessionAccess,
    offset: u64,
    slot: &Slot<T>,
) -> Result<()> {
    access.with(|state| adopt_with::<M, T>(core, state, offset, slot.cell()))
}

/// Frees the block at byte `offset`, which nothing owns.
pub(crate) fn free<M: Medium + 'static>(
    core: &Core<M>,
    access: &mut impl SessionAccess,
    offset: u64,
) -> Result<()> {
    let freed = free_all(core, access, |core, owners| {
        check_orphan(core, owners, offset)?;
        Ok(vec![offset])
    })?;
    debug_assert_eq!(freed, 1);
    Ok(())
}

/// Frees the blocks with this tag that nothing owns, and those that nothing owns then; returns how many.
pub(crate) fn free_with_tag<M: Medium + 'static>(
    core: &Core<M>,
    access: &mut impl SessionAccess,
    tag: u8,
) -> Result<u64> {
    free_all(core, access, |_, owners| Ok(owners.orphaned(|block| block.tag == tag)))
}

/// Frees the orphans that `choose` chooses, and returns how many.
fn free_all<M: Medium + 'static>(
    core: &Core<M>,
    access: &mut impl SessionAccess,
    choose: impl FnOnce(&Core<M>, &Owners<'_, M>) -> Result<Vec<u64>>,
) -> Result<u64> {
    // Through it they are freed: each operation has a slot that it changes.
    let slot = own::slots(core, access)?[1].cell();
    access.with(|state| free_chosen(core, state, slot, choose))
}

fn free_chosen<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    slot: &SlotCell,
    choose: impl FnOnce(&Core<M>, &Owners<'_, M>) -> Result<Vec<u64>>,
) -> Result<u64> {
    let _entered = core.enter()?;
    core.prepare(state)?;
    let slot = SlotAt::live(core.offset_of(slot)?);
    let mut freed = Vec::new();
    let mut count = 0;
    let done = {
        let _roots = lock(&core.roots);
        let _alone = core.slot_locks.lock_every();
        survey_alone(core).and_then(|owners| choose(core, &owners)).and_then(|chosen| {
            for offset in chosen {
                free_one(core, state, slot, offset, &mut freed)?;
                count += 1;
            }
            Ok(())
        })
    };
    freed.into_iter().for_each(|freed| op::recycle(core, state, freed));
    done.map(|()| count)
}

/// Frees the block at byte `offset`, which nothing owns, through a slot.
///
/// # Crash consistency
///
/// One group: the slot takes the block over, and frees it. Before its last record is durable, the block is live and
/// nothing owns it; from then on recovery finishes the free.
fn free_one<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    slot: SlotAt,
    offset: u64,
    freed: &mut Vec<Unlinked>,
) -> Result<()> {
    let steps = [Step::Adopt(slot, offset), Step::Free(slot, Inside::NOTHING)];
    Ok(op::perform_alone(core, state, &steps, freed)?)
}

fn adopt_with<M: Medium + 'static, T: Content + ?Sized>(
    core: &Core<M>,
    state: &mut SessionState,
    offset: u64,
    slot: &SlotCell,
) -> Result<()> {
    let _entered = core.enter()?;
    core.prepare(state)?;
    let _roots = lock(&core.roots);
    let _alone = core.slot_locks.lock_every();
    let place = core.place_of(slot)?;
    check_orphan(core, &survey_alone(core)?, offset)?;
    let block = core.block_at(offset)?;
    if block.span().contains(Span::new(place, size_of::<SlotCell>() as u64)) {
        let why = "it lies in the block that it is to own";
        return Err(Error::Invalid { what: "slot", why: why.into() });
    }
    if block.usable_bytes < T::SIZE_BYTES as u64 {
        return Err(Error::corrupted(offset, "a block is too small for the type of the slot"));
    }
    if !T::SLOTS.is_empty() {
        check_value::<M, T>(core, (place, offset))?;
    }
    let steps = [Step::Adopt(SlotAt::live(place), offset)];
    Ok(op::perform_alone(core, state, &steps, &mut Vec::new())?)
}

/// Sees that what the slots of a `T` in the block own, and so on, is owned by nothing else.
fn check_value<M: Medium, T: Content + ?Sized>(
    core: &Core<M>,
    (slot, block): (u64, u64),
) -> Result<()> {
    let before = Owners::of(core)?.problems;
    let unknown =
        || Error::corrupted(block, "the type of the slot does not say what its slots own");
    let types = declared::types_of(&TypeGraph::of::<T>()).ok_or_else(unknown)?;
    let owners = Owners::assuming(core, (slot, block), types)?;
    if owners.problems.iter().any(|problem| !before.contains(problem)) {
        let what = "as a value of the slot's type the block owns what it can't";
        return Err(Error::corrupted(block, what));
    }
    Ok(())
}

/// Sees that the block at byte `offset` is live, and that nothing owns it.
fn check_orphan<M: Medium>(core: &Core<M>, owners: &Owners<'_, M>, offset: u64) -> Result<()> {
    core.block_at(offset)?;
    match owners.owner_of(offset) {
        None => Err(Error::NotLive { offset }),
        Some(BlockOwner::Nobody) => Ok(()),
        Some(BlockOwner::Slot(slot) | BlockOwner::Declared(slot)) => {
            Err(Error::Owned { offset, slot, how: "owns it" })
        }
        Some(BlockOwner::Unknown(slot)) => {
            let how = "may be a slot that owns it: declare where the slots are in what it lies in";
            Err(Error::Owned { offset, slot, how })
        }
    }
}

/// A survey for who is about to change what it says.
fn survey_alone<M: Medium>(core: &Core<M>) -> Result<Owners<'_, M>> {
    // A reference that was lent before shows slots that nothing leads to any more.
    if core.is_pinned() {
        return Err(Error::Pinned);
    }
    survey(core)
}

/// A survey that has seen all roots.
fn survey<M: Medium>(core: &Core<M>) -> Result<Owners<'_, M>> {
    if let Some(error) = table::entries(core)?.find_map(|(_, entry)| entry.err()) {
        return Err(error);
    }
    Owners::of(core)
}
