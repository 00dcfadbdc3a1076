//! `alloc_to`: reserve, initialise, record, apply, retire. How blocks are reserved is in `reserve`.

use std::alloc::Layout;

use pmalloc_persist::{Medium, Span};

use super::{
    block_layout::BlockLayout,
    core::Core,
    raw,
    reserve::{Reserved, cancel, reserve},
    session::{Access, SessionState},
    slot::SlotCell,
};
use crate::{
    book::Extent,
    error::{Error, Result},
    lane::Draft,
    layout::{
        lane::Op,
        slot::{SlotWord, Version},
    },
    slab::Descriptor,
};

/// Allocates an uninitialised block into `slot`.
pub(super) fn alloc_bare<M: Medium>(
    core: &Core<M>,
    access: &mut impl Access<M>,
    slot: &SlotCell,
    layout: BlockLayout,
) -> Result<()> {
    access.with(|state| {
        let _entered = core.enter()?;
        let reserved = reserve(core, state, layout)?;
        publish(core, state, slot, reserved).inspect_err(|_| cancel(core, state, reserved))
    })
}

/// Allocates a block into `slot` whose first `layout.size()` bytes `init` has written.
pub(super) fn alloc_init<M: Medium>(
    core: &Core<M>,
    access: &mut impl Access<M>,
    slot: &SlotCell,
    layout: BlockLayout,
    init: impl FnOnce(&mut [u8]),
) -> Result<()> {
    let reserved = access.with(|state| {
        let _entered = core.enter()?;
        reserve(core, state, layout)
    })?;
    let mut unpublished = Unpublished { core, access, reserved: Some(reserved) };
    let span = Span::new(reserved.offset(), layout.layout().size() as u64);
    // The session is not borrowed here: the initialiser may use the heap itself, or panic.
    raw::initialise(core, span, init);
    let m = core.medium();
    m.stored(span);
    // CRASH: the contents are durable before the record that makes them reachable can be (rule 3).
    m.persist(span);
    unpublished.publish(slot)
}

/// A reserved block that goes back if it is dropped unpublished.
struct Unpublished<'a, M: Medium, A: Access<M>> {
    core: &'a Core<M>,
    access: &'a mut A,
    reserved: Option<Reserved>,
}

impl<M: Medium, A: Access<M>> Unpublished<'_, M, A> {
    fn publish(&mut self, slot: &SlotCell) -> Result<()> {
        let reserved = self.reserved.expect("published once");
        self.access.with(|state| {
            let _entered = self.core.enter()?;
            // The initialiser may have ended the session that reserved the block. Else it is the same operation still.
            if state.claim.is_none() {
                self.core.prepare(state)?;
            }
            publish(self.core, state, slot, reserved)
        })?;
        self.reserved = None;
        Ok(())
    }
}

impl<M: Medium, A: Access<M>> Drop for Unpublished<'_, M, A> {
    fn drop(&mut self) {
        if let Some(reserved) = self.reserved.take() {
            self.access.with(|state| {
                // In a forked child the block belongs to the parent.
                if let Ok(_entered) = self.core.enter() {
                    cancel(self.core, state, reserved);
                }
            });
        }
    }
}

/// Makes a reserved block live and gives it to `slot`, atomically and durably.
///
/// # Crash consistency
///
/// Before the record is durable, nothing happened. From then on recovery finishes the operation: live bit or
/// log entry, and slot. The retirement is durable before the slot's lock is released, so no later operation on
/// the slot or the block can be undone by this record (rule 1).
#[inline]
fn publish<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    slot: &SlotCell,
    reserved: Reserved,
) -> Result<()> {
    let place = core.offset_of(slot)?;
    let _owned = core.slot_locks.lock(place);
    // Under the lock: who frees a typed block holds those of its slots.
    core.check_live(place)?;
    publish_owned(core, state, slot, place, reserved)
}

/// As [`publish`], for a slot at byte `place` that the caller owns.
#[inline]
fn publish_owned<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    slot: &SlotCell,
    place: u64,
    reserved: Reserved,
) -> Result<()> {
    let found = slot.read(core.medium());
    if found.place().is_some() {
        return Err(Error::SlotFull { slot: place });
    }
    let target = SlotTarget { slot, place, version: found.version().next() };
    match reserved {
        Reserved::Small { slab, block, offset, .. } => {
            commit_small(core, state, target, (slab, block), offset)
        }
        Reserved::Large { extent, offset } => commit_large(core, state, target, extent, offset),
    }
}

/// A slot that the operation owns, and the version it is to get.
#[derive(Clone, Copy)]
struct SlotTarget<'a> {
    slot: &'a SlotCell,
    place: u64,
    version: Version,
}

#[inline]
fn commit_small<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    SlotTarget { slot, place, version }: SlotTarget<'_>,
    (slab, block): (Descriptor, u32),
    offset: u64,
) -> Result<()> {
    let m = core.medium();
    let claim = state.claim.as_mut().expect("prepared with a lane");
    claim.with(|lane| {
        lane.record(m, Draft { op: Op::AllocSmall, block: offset, pages: 0, slot: place, version });
        // CRASH: the operation is decided by this fence.
        m.fence();
        slab.live_bit(block).set(m);
        slot.write(m, SlotWord::owning(offset, version));
        // CRASH: the effects are durable before the mark that stops their being redone.
        m.fence();
        lane.retire(m);
        // CRASH: the mark is durable before the slot is released and the operation returns.
        m.fence();
    })
}

fn commit_large<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    SlotTarget { slot, place, version }: SlotTarget<'_>,
    extent: Extent,
    offset: u64,
) -> Result<()> {
    let m = core.medium();
    let space = &core.space;
    let log = core.arenas[state.arena].log();
    let claim = state.claim.as_mut().expect("prepared with a lane");
    // The place in the log is the last thing that may fail: it is taken inside the lane's critical section,
    // whose own refusal comes first.
    claim.with(|lane| {
        let append = space.book.reserve_alloc(m, log, extent)?;
        let pages = extent.range.pages;
        lane.record(
            m,
            Draft { op: Op::AllocLarge(extent.tag), block: offset, pages, slot: place, version },
        );
        // Volatile work between a flush and its fence costs nothing: the line is on its way meanwhile. Nobody
        // can look the block up before the slot names it.
        space.page_map.set_large(extent.range, log.code(), extent.tag);
        // CRASH: the operation is decided by this fence.
        m.fence();
        space.book.write(m, &append);
        slot.write(m, SlotWord::owning(offset, version));
        // CRASH: the effects are durable before the mark that stops their being redone.
        m.fence();
        lane.retire(m);
        space.book.commit(append);
        // CRASH: the mark is durable before the slot is released and the operation returns.
        m.fence();
        Ok(())
    })?
}

/// Allocates a block with contents that `write` writes, to all of its span, into the root slot at byte `place`.
///
/// The caller has [entered](Core::enter).
pub(super) fn alloc_root<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    (slot, place): (&SlotCell, u64),
    layout: Layout,
    write: impl FnOnce(&Core<M>, Span),
) -> Result<()> {
    let reserved = reserve(core, state, layout)?;
    let span = Span::new(reserved.offset(), layout.size() as u64);
    write(core, span);
    let m = core.medium();
    m.stored(span);
    // CRASH: the contents are durable before the record that makes them reachable; so is the root's entry, which the
    // caller has flushed.
    m.persist(span);
    let _owned = core.slot_locks.lock(place);
    publish_owned(core, state, slot, place, reserved).inspect_err(|_| cancel(core, state, reserved))
}
