//! `free_from`: empty the slot, free its block, and only then reuse the memory.

use pmalloc_persist::Medium;

use super::{
    Result,
    changes::{LargeFree, SmallFree},
    commit::commit,
    engine::Engine,
    plan::read,
    session::{Access, SessionState},
};
use crate::{
    arena::{Block, LargeBlock},
    error::Error,
    lane::Draft,
    layout::{lane::Op, slot::Version},
};

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
#[inline]
pub(crate) fn free_from<M: Medium>(
    engine: &Engine<M>,
    access: &mut impl Access,
    slot: u64,
) -> Result<()> {
    access.with(|state| {
        let _entered = engine.enter()?;
        engine.prepare(state)?;
        let freed = unlink(engine, state, slot)?;
        recycle(engine, state, freed);
        Ok(())
    })
}

/// Empties the slot and frees its block, atomically and durably.
///
/// # Crash consistency
///
/// As [`commit`]. The memory is not reused before the record is dead, so a replay of it can't free it from its next owner.
#[inline]
fn unlink<M: Medium>(engine: &Engine<M>, state: &mut SessionState, slot: u64) -> Result<Unlinked> {
    let _owned = engine.slot_locks.lock(slot);
    // Under the lock: who frees a typed block holds those of its slots.
    state.homes.check(engine, slot)?;
    let found = read(engine, slot);
    let Some(block) = found.place() else { return Err(Error::SlotEmpty { slot }.into()) };
    engine.check_no_root(slot, block)?;
    unlink_owned(engine, state, slot, block, found.version().next())
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
        let version = read(engine, slot).version().next();
        unlink_owned(engine, state, slot, block, version)?
    };
    // Not before: until the free is durable no slot may name the block. Not after: its next owner is a slot.
    engine.root_blocks.remove(block);
    recycle(engine, state, freed);
    Ok(())
}

/// Frees the block at byte `block` through a slot that the caller owns and that gets `version`.
#[inline]
fn unlink_owned<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    slot: u64,
    block: u64,
    version: Version,
) -> Result<Unlinked> {
    let Some(block) = engine.space.find_live(block) else {
        return Err(Error::NotLive { offset: block }.into());
    };
    let draft = |op, pages| Draft { op, block: block.offset(), pages, slot, version };
    match &block {
        Block::Small(small) => {
            let draft = [draft(Op::FreeSmall, 0)];
            let mut free = SmallFree { draft, bit: small.live_bit(), was_live: true };
            let epoch = commit(engine, &mut state.claim, &mut free)?;
            Ok(Unlinked { block, was_live: free.was_live, epoch })
        }
        Block::Large(large) => {
            commit_large(engine, state, draft(Op::FreeLarge, large.range().pages), *large)
        }
    }
}

/// Not inlined: it would make room for itself in every operation on small blocks.
#[inline(never)]
fn commit_large<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    draft: Draft,
    block: LargeBlock,
) -> Result<Unlinked> {
    let mut free = LargeFree { draft: [draft], block, append: None };
    let epoch = commit(engine, &mut state.claim, &mut free)?;
    Ok(Unlinked { block: Block::Large(block), was_live: true, epoch })
}

/// Makes freed memory usable again: at once where the free is durable and no guard lives, else when that is so.
#[inline]
pub(crate) fn recycle<M: Medium>(engine: &Engine<M>, state: &mut SessionState, freed: Unlinked) {
    // If not, two slots named it, and the other one's free reuses it.
    if freed.was_live {
        engine.give_up(state, freed.epoch, freed.block);
    }
}
