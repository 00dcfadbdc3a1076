//! Blocks that nothing owns: listed, given to a slot, or freed.
//!
//! A program makes one when it frees a block, or removes a root, whose slots still own others. Who owns what is surveyed
//! while no slot changes, by the locks of all of them: what nothing owns then, nothing can own later.

use pmalloc_persist::{
    Medium, Span,
    sync::{Arc, lock},
};

use super::{
    Block, Content, Heap, Slot, TypeGraph,
    core::Core,
    declare, own_root,
    owners::{Owner, Owners},
    roots,
    session::Implicit,
    slot::SlotCell,
};
use crate::{
    error::{Error, Result},
    op::{self, Access, Inside, SessionState, SlotAt, Step, Unlinked},
};

impl<M: Medium + 'static> Heap<M> {
    /// The live blocks that nothing owns, in the order of their offsets.
    ///
    /// A block counts as owned where that can't be excluded: if a word names it of which nothing is known. See
    /// [`declare_slots`](Heap::declare_slots). No slot changes meanwhile: other operations wait.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupted`] if the root table is damaged; [`Error::Io`], [`Error::Forked`].
    pub fn orphans(&self) -> Result<Vec<Block>> {
        let core = self.core();
        let _entered = core.enter()?;
        let _roots = lock(&core.roots);
        let _alone = core.slot_locks.lock_every();
        let owners = survey(core)?;
        let of_nobody = owners.blocks().filter(|(_, owner)| *owner == Owner::Nobody);
        Ok(of_nobody.map(|(block, _)| block).collect())
    }

    /// Gives the block at byte `offset`, which nothing owns, to the empty `slot`.
    ///
    /// The block holds what it held. If the slot is for values of a type, the block has to be large enough for one, and
    /// what the slots in it own must be owned by nothing else; that the bytes mean such a value is the program's to know.
    ///
    /// As long as a survey of the whole heap takes, no slot changes: other operations wait.
    ///
    /// # Errors
    ///
    /// [`Error::NotLive`] if no live block starts there; [`Error::Owned`] if a slot owns it, or a word of which nothing is
    /// known may; [`Error::Pinned`] while a guard lives, as one may show what was owned before; [`Error::SlotFull`],
    /// [`Error::SlotForeign`]; [`Error::Corrupted`] if the block is none for the slot's type, or the root table is damaged;
    /// [`Error::Io`]. Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// After return it is durable that the slot owns the block; after a crash before that, the slot or nothing does.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use pmalloc::Heap;
    ///
    /// let heap = Heap::create(dir.path().join("heap"))?;
    /// let slots = heap.slots("slots", 1)?;
    /// for orphan in heap.orphans()? {
    ///     heap.adopt(orphan.offset, &slots[0])?;
    ///     // What it is can be read now, and it can be moved to where it belongs, or freed:
    ///     heap.free_from(&slots[0])?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn adopt<T: Content + ?Sized>(&self, offset: u64, slot: &Slot<T>) -> Result<()> {
        let core = self.core();
        Implicit(core).with(|state| adopt::<M, T>(core, state, offset, slot.cell()))
    }

    /// Frees the block at byte `offset`, which nothing owns. What slots in it own is owned by nothing then.
    ///
    /// # Errors
    ///
    /// As [`adopt`](Heap::adopt), but for those of its slot; and as [`slots`](Heap::slots).
    ///
    /// # Crash consistency
    ///
    /// After return the free is durable; after a crash before that, the block is live or free.
    pub fn free_orphan(&self, offset: u64) -> Result<()> {
        let freed = self.free_orphans(|core, owners| {
            check_orphan(core, owners, offset)?;
            Ok(vec![offset])
        })?;
        debug_assert_eq!(freed, 1);
        Ok(())
    }

    /// Frees the blocks with this tag that nothing owns, and those that nothing owns then; returns how many.
    ///
    /// # Errors
    ///
    /// As [`free_orphan`](Heap::free_orphan), but for those of a block. Those that were freed before the error stay so.
    ///
    /// # Crash consistency
    ///
    /// Each is freed by itself: after a crash before the return, some are.
    pub fn free_orphans_with_tag(&self, tag: u8) -> Result<u64> {
        self.free_orphans(|_, owners| Ok(owners.orphaned(|block| block.tag == tag)))
    }

    /// Frees the orphans that `choose` chooses, and returns how many.
    fn free_orphans(
        &self,
        choose: impl FnOnce(&Core<M>, &Owners<'_, M>) -> Result<Vec<u64>>,
    ) -> Result<u64> {
        let core = self.core();
        // Through it they are freed: each operation has a slot that it changes.
        let slot = own_root::slots(core, &mut Implicit(core))?[1].cell();
        Implicit(core).with(|state| free_chosen(core, state, slot, choose))
    }
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
    op::perform_alone(core, state, &steps, freed)
}

fn adopt<M: Medium + 'static, T: Content + ?Sized>(
    core: &Arc<Core<M>>,
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
    op::perform_alone(core, state, &[Step::Adopt(SlotAt::live(place), offset)], &mut Vec::new())
}

/// Sees that what the slots of a `T` in the block own, and so on, is owned by nothing else.
fn check_value<M: Medium, T: Content + ?Sized>(
    core: &Core<M>,
    (slot, block): (u64, u64),
) -> Result<()> {
    let before = Owners::of(core)?.problems;
    let unknown =
        || Error::corrupted(block, "the type of the slot does not say what its slots own");
    let types = declare::types_of(&TypeGraph::of::<T>()).ok_or_else(unknown)?;
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
        Some(Owner::Nobody) => Ok(()),
        Some(Owner::Slot(slot) | Owner::Declared(slot)) => {
            Err(Error::Owned { offset, slot, how: "owns it" })
        }
        Some(Owner::Unknown(slot)) => {
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
    if let Some(error) = roots::entries(core)?.find_map(|(_, entry)| entry.err()) {
        return Err(error);
    }
    Owners::of(core)
}
