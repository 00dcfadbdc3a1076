//! The operations that have names of their own: each makes one change, and needs no [`Transaction`](super::Transaction).

use pmalloc_persist::{Medium, sync::Arc};

use super::{
    open_heap::Core,
    pending::{Pending, persist_contents},
};
use crate::{
    arena::Block,
    error::{Error, Result},
    layout::cell::CellValue,
    op::{self, CellAt, Inside, SessionAccess, SlotAt, Step},
    value::{BlockLayout, Content, Persistent, Slot, VersionedCell, raw},
};

/// What the type of the slot says of the block that it owns.
pub(crate) fn inside<T: Content + ?Sized>() -> Inside {
    Inside { slots: T::SLOTS, size_bytes: T::SIZE_BYTES }
}

/// Allocates an uninitialised block into `slot`.
#[inline]
pub(crate) fn alloc<M: Medium + 'static>(
    core: &Core<M>,
    access: &mut impl SessionAccess,
    slot: &Slot,
    layout: BlockLayout,
) -> Result<()> {
    Ok(op::alloc_bare(core, access, core.offset_of(slot)?, layout)?)
}

/// Allocates a block into `slot` whose first `layout.size()` bytes `init` has written.
pub(crate) fn alloc_init<M: Medium + 'static>(
    core: &Core<M>,
    access: &mut impl SessionAccess,
    slot: &Slot,
    layout: BlockLayout,
    init: impl FnOnce(&mut [u8]),
) -> Result<()> {
    let slot = core.offset_of(slot)?;
    let init = |span| raw::initialise(core.medium(), span, init);
    Ok(op::alloc_init(core, access, slot, layout, init)?)
}

/// Allocates a block into `slot` that holds the value which `init` makes.
pub(crate) fn alloc_value<M: Medium + 'static, T: Persistent>(
    core: &Core<M>,
    access: &mut impl SessionAccess,
    slot: &Slot<T>,
    init: impl FnOnce() -> T,
) -> Result<()> {
    let slot = core.offset_of(slot)?;
    let write = |span| {
        let value = init();
        // Making it may have forked: the child has none of the memory, and is refused when this returns.
        if !core.medium().forked() {
            raw::write(core.medium(), span, value);
        }
    };
    Ok(op::alloc_init(core, access, slot, BlockLayout::of::<T>(), write)?)
}

/// Frees the block that `slot` owns, if all slots in it that its type tells of are empty.
#[inline]
pub(crate) fn free_from<M: Medium + 'static, T: Content + ?Sized>(
    core: &Core<M>,
    access: &mut impl SessionAccess,
    slot: &Slot<T>,
) -> Result<()> {
    let slot = core.offset_of(slot)?;
    if T::SLOTS.is_empty() {
        return Ok(op::free_from(core, access, slot)?);
    }
    perform(core, access, &[Step::Free(SlotAt::live(slot), inside::<T>())])
}

/// Replaces the block of `slot` by a new one that `init` writes.
pub(crate) fn replace<M: Medium + 'static>(
    core: &Arc<Core<M>>,
    access: &mut impl SessionAccess,
    slot: &Slot,
    layout: BlockLayout,
    init: impl FnOnce(&mut [u8]),
) -> Result<()> {
    let mut block = Pending::new(core, access, layout)?;
    block.write_with(|core, span| raw::initialise(core.medium(), span, init));
    replace_by(core, access, slot, block)
}

/// Replaces the value of `slot` by a new one.
pub(crate) fn replace_value<M: Medium + 'static, T: Persistent>(
    core: &Arc<Core<M>>,
    access: &mut impl SessionAccess,
    slot: &Slot<T>,
    value: T,
) -> Result<()> {
    let mut block = Pending::new(core, access, BlockLayout::of::<T>())?;
    block.write_with(|core, span| raw::write(core.medium(), span, value));
    replace_by(core, access, slot, block)
}

/// Moves the block of `from` to `to`.
pub(crate) fn move_to<M: Medium + 'static, T: Content + ?Sized>(
    core: &Core<M>,
    access: &mut impl SessionAccess,
    from: &Slot<T>,
    to: &Slot<T>,
) -> Result<()> {
    let [from, to] = [core.offset_of(from)?, core.offset_of(to)?].map(SlotAt::live);
    perform(core, access, &[Step::Move(from, to)])
}

/// Exchanges what two slots own.
pub(crate) fn swap<M: Medium + 'static, T: Content + ?Sized>(
    core: &Core<M>,
    access: &mut impl SessionAccess,
    a: &Slot<T>,
    b: &Slot<T>,
) -> Result<()> {
    let [a, b] = [core.offset_of(a)?, core.offset_of(b)?].map(SlotAt::live);
    perform(core, access, &[Step::Swap(a, b)])
}

/// Sets `cell` to `value`.
pub(crate) fn set<M: Medium + 'static>(
    core: &Core<M>,
    access: &mut impl SessionAccess,
    cell: &VersionedCell,
    value: u64,
) -> Result<()> {
    let cell = CellAt { offset: core.offset_of(cell)? };
    perform(core, access, &[Step::Set(cell, cell_value(value)?)])
}

/// `value` as one that a cell can hold.
pub(crate) fn cell_value(value: u64) -> Result<CellValue> {
    CellValue::new(value).ok_or_else(|| Error::Invalid {
        what: "value of a versioned cell",
        why: format!("{value}; the largest is {}", VersionedCell::VALUE_MAX),
    })
}

fn replace_by<M: Medium + 'static, T: Content + ?Sized>(
    core: &Arc<Core<M>>,
    access: &mut impl SessionAccess,
    slot: &Slot<T>,
    block: Pending<'_, M>,
) -> Result<()> {
    let slot = SlotAt::live(core.offset_of(slot)?);
    let steps = |block| [Step::Free(slot, inside::<T>()), Step::Alloc(slot, block)];
    commit(core, access, block, steps)
}

/// Performs the `steps` that publish `block`.
fn commit<M: Medium + 'static, const N: usize>(
    core: &Core<M>,
    access: &mut impl SessionAccess,
    block: Pending<'_, M>,
    steps: impl FnOnce(Block) -> [Step; N],
) -> Result<()> {
    let steps = steps(block.block());
    access.with(|state| {
        let _entered = core.enter()?;
        persist_contents(core, [&block]);
        op::perform(core, state, &steps)
    })?;
    block.published();
    Ok(())
}

/// Gives `block` to `slot`, which lies in a live block, and frees what it owned.
pub(crate) fn put<M: Medium + 'static>(
    core: &Arc<Core<M>>,
    access: &mut impl SessionAccess,
    slot: &Slot,
    block: Pending<'_, M>,
) -> Result<()> {
    if core.owned_block(slot.cell())?.is_some() {
        return replace_by(core, access, slot, block);
    }
    let slot = SlotAt::live(core.offset_of(slot)?);
    commit(core, access, block, |block| [Step::Alloc(slot, block)])
}

fn perform<M: Medium>(
    core: &Core<M>,
    access: &mut impl SessionAccess,
    steps: &[Step],
) -> Result<()> {
    let performed = access.with(|state| {
        let _entered = core.enter()?;
        op::perform(core, state, steps)
    });
    Ok(performed?)
}
