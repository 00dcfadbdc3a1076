//! `free_from`: record, apply, retire, and only then reuse.

use pmalloc_persist::Medium;

use super::{
    core::Core,
    guard::Freed,
    session::{Access, SessionState},
    slot::SlotCell,
};
use crate::{
    arena::Target,
    book::LogId,
    error::{Error, Result},
    lane::Draft,
    layout::{
        geometry::{Page, PageRange},
        lane::Op,
        slot::{SlotWord, Version},
    },
    slab::{Descriptor, LiveBit},
};

/// Frees the block that `slot` owns, without looking into it.
pub(super) fn free_from<M: Medium>(
    core: &Core<M>,
    access: &mut impl Access<M>,
    slot: &SlotCell,
) -> Result<()> {
    access.with(|state| {
        let _entered = core.enter()?;
        core.prepare(state)?;
        let place = core.offset_of(slot)?;
        let freed = unlink(core, state, slot, place)?;
        recycle(core, state, freed);
        Ok(())
    })
}

/// A slot that the operation owns, what it holds, and the version it is to get.
#[derive(Clone, Copy)]
struct SlotSource<'a> {
    slot: &'a SlotCell,
    place: u64,
    block: u64,
    version: Version,
}

/// Memory that no slot names any more.
#[derive(Clone, Copy)]
pub(super) enum Unlinked {
    /// A block, its slab and the slab's owner.
    Small { slab: Descriptor, arena: LogId, block: u32 },
    /// An extent, and the log that held it.
    Large { range: PageRange, log: LogId },
    /// A block whose live bit somebody else had cleared: two slots named it, and it is reused once only.
    Lost,
}

/// Empties the slot and frees its block, atomically and durably.
///
/// # Crash consistency
///
/// As in `alloc_to`: nothing before the record is durable, all of it after; the memory is not reused before
/// the retirement is durable, so a replay of this record can't free it from its next owner.
#[inline]
fn unlink<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    slot: &SlotCell,
    place: u64,
) -> Result<Unlinked> {
    let _owned = core.slot_locks.lock(place);
    // Under the lock: who frees a typed block holds those of its slots.
    core.check_live(place)?;
    let found = slot.read(core.medium());
    let Some(block) = found.place() else { return Err(Error::SlotEmpty { slot: place }) };
    if core.root_blocks.contains(block) {
        return Err(Error::corrupted(place, "a slot owns the block of a root"));
    }
    unlink_block(core, state, SlotSource { slot, place, block, version: found.version().next() })
}

/// Frees the `block` of a root through the slot of its entry, which is at byte `place`.
///
/// The caller has [entered](Core::enter) and sees to it that nobody uses the root.
pub(super) fn free_root<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    (slot, place): (&SlotCell, u64),
    block: u64,
) -> Result<()> {
    core.prepare(state)?;
    let freed = {
        let _owned = core.slot_locks.lock(place);
        let version = slot.read(core.medium()).version().next();
        unlink_block(core, state, SlotSource { slot, place, block, version })?
    };
    // Not before: until the free is durable no slot may name the block. Not after: its next owner is a slot.
    core.root_blocks.remove(block);
    recycle(core, state, freed);
    Ok(())
}

#[inline]
fn unlink_block<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    source: SlotSource<'_>,
) -> Result<Unlinked> {
    match core.space.target(source.block)? {
        Target::Small { slab, arena, block, bit } => {
            let was_live = unlink_small(core, state, source, bit)?;
            Ok(if was_live { Unlinked::Small { slab, arena, block } } else { Unlinked::Lost })
        }
        Target::Large { range, log, .. } => unlink_large(core, state, source, range.start, log),
    }
}

#[inline]
fn unlink_small<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    SlotSource { slot, place, block, version }: SlotSource<'_>,
    bit: LiveBit,
) -> Result<bool> {
    let m = core.medium();
    let claim = state.claim.as_mut().expect("prepared with a lane");
    claim.with(|lane| {
        lane.record(m, Draft { op: Op::FreeSmall, block, pages: 0, slot: place, version });
        // CRASH: the operation is decided by this fence.
        m.fence();
        let was_live = bit.clear(m);
        slot.write(m, SlotWord::empty(version));
        // CRASH: the effects are durable before the mark that stops their being redone.
        m.fence();
        lane.retire(m);
        // CRASH: the mark is durable before the block is reused and the slot released.
        m.fence();
        was_live
    })
}

fn unlink_large<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    SlotSource { slot, place, block, version }: SlotSource<'_>,
    start: Page,
    log: LogId,
) -> Result<Unlinked> {
    let m = core.medium();
    let space = &core.space;
    let claim = state.claim.as_mut().expect("prepared with a lane");
    claim.with(|lane| {
        let (append, extent) = space.book.reserve_free(m, log, start)?;
        let pages = extent.range.pages;
        lane.record(m, Draft { op: Op::FreeLarge, block, pages, slot: place, version });
        // CRASH: the operation is decided by this fence.
        m.fence();
        space.book.write(m, &append);
        slot.write(m, SlotWord::empty(version));
        // CRASH: the effects are durable before the mark that stops their being redone.
        m.fence();
        lane.retire(m);
        // Volatile work between a flush and its fence costs nothing: the line is on its way meanwhile.
        space.book.commit(append);
        space.page_map.clear(extent.range);
        // CRASH: the mark is durable before the pages are reused and the slot released.
        m.fence();
        Ok(Unlinked::Large { range: extent.range, log })
    })?
}

/// Makes unlinked memory reusable: at once if no guard lives, else once those that live now are gone.
#[inline]
pub(super) fn recycle<M: Medium>(core: &Core<M>, state: &mut SessionState, unlinked: Unlinked) {
    if core.guards.has_waiting() {
        core.collect();
    }
    match unlinked {
        Unlinked::Small { slab, arena, block } => {
            let offset = slab.block_offset(block);
            if !core.guards.quiescent() {
                core.guards.defer(Freed::Small { arena, offset });
            } else if core.arenas[state.arena].log() == arena {
                let own = &core.arenas[state.arena];
                state.cache.put(&core.space, own, slab.kind(), (offset, block));
            } else {
                core.recycle(Freed::Small { arena, offset });
            }
        }
        Unlinked::Large { range, log } => {
            let freed = Freed::Large { range, log };
            if core.guards.quiescent() { core.recycle(freed) } else { core.guards.defer(freed) }
        }
        Unlinked::Lost => {}
    }
}
