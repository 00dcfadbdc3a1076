//! `free_from`: empty the slot, free its block, and only then reuse the memory.

use pmalloc_persist::Medium;

use super::{
    Result,
    changes::{LargeFree, Single, SmallFree},
    commit::commit,
    engine::Engine,
    plan::{FoundSlot, read},
    session::{SessionAccess, SessionState},
};
use crate::{arena::Block, error::Error, layout::lane::Op};

/// A block that no slot names any more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unlinked {
    /// The block.
    pub(super) block: Block,
    /// Whether it was live until then: two slots may have named it, and it is reused once only.
    pub(super) was_live: bool,
    /// The epoch of the free.
    pub(super) epoch: u64,
}

/// Frees the block that the slot at byte `slot` owns, without looking into it.
#[inline(always)]
pub(crate) fn free_from<M: Medium>(
    engine: &Engine<M>,
    access: &mut impl SessionAccess,
    slot: u64,
) -> Result<()> {
    access.with(
        #[inline(always)]
        |state| {
            let _entered = engine.enter()?;
            engine.prepare(state)?;
            let freed = unlink(engine, state, slot)?;
            recycle(engine, state, freed);
            Ok(())
        },
    )
}

/// Empties the slot and frees its block, atomically and durably.
///
/// # Crash consistency
///
/// As [`commit`]. The memory is not reused before the record is dead, so a replay of it can't free it from its next owner.
#[inline(always)]
fn unlink<M: Medium>(engine: &Engine<M>, state: &mut SessionState, slot: u64) -> Result<Unlinked> {
    let _owned = engine.slot_locks.lock(slot);
    // Under the lock: who frees a typed block holds those of its slots.
    state.homes.check(engine, slot)?;
    let found = read(engine, slot);
    let Some(block) = found.holds.place() else { return Err(Error::SlotEmpty { slot }.into()) };
    engine.check_no_root(slot, block)?;
    unlink_owned(engine, state, found, block)
}

/// Frees the `block` of a root through the slot of its entry, which is at byte `slot`.
///
/// The caller has [entered](Engine::enter) and sees to it that nobody uses the root.
pub(crate) fn free_root<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    slot: u64,
    block: u64,
) -> Result<()> {
    engine.prepare(state)?;
    let freed = {
        let _owned = engine.slot_locks.lock(slot);
        unlink_owned(engine, state, read(engine, slot), block)?
    };
    // Not before: until the free is durable no slot may name the block. Not after: its next owner is a slot.
    engine.root_blocks.remove(block);
    recycle(engine, state, freed);
    Ok(())
}

/// Frees the block at byte `block` through a slot that the caller owns.
#[inline(always)]
fn unlink_owned<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    slot: FoundSlot<'_>,
    block: u64,
) -> Result<Unlinked> {
    let Some((small, bit)) = engine.space.find_live_small(block) else {
        return unlink_large(engine, state, &slot, block);
    };
    let single = Single::new(&slot, Op::FreeSmall, small.offset(), 0);
    let mut free = SmallFree { single, bit, was_live: true };
    let epoch = commit(engine, &mut state.claim, &mut free)?;
    Ok(Unlinked { block: Block::Small(small), was_live: free.was_live, epoch })
}

/// Not inlined: it would make room for itself in every operation on small blocks.
#[inline(never)]
fn unlink_large<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    slot: &FoundSlot<'_>,
    block: u64,
) -> Result<Unlinked> {
    let Some(block) = engine.space.find_large(block) else {
        return Err(Error::NotLive { offset: block }.into());
    };
    let single = Single::new(slot, Op::FreeLarge, block.offset, block.range().pages);
    let mut free = LargeFree { single, block, append: None };
    let epoch = commit(engine, &mut state.claim, &mut free)?;
    Ok(Unlinked { block: Block::Large(block), was_live: true, epoch })
}

/// Makes freed memory usable again: at once where the free is durable and no guard lives, else when that is so.
#[inline(always)]
pub(crate) fn recycle<M: Medium>(engine: &Engine<M>, state: &mut SessionState, freed: Unlinked) {
    // If not, two slots named it, and the other one's free reuses it.
    if freed.was_live {
        engine.give_up(state, freed.epoch, freed.block);
    }
}
