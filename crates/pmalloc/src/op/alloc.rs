//! `alloc_to`: reserve, initialise, and make the block live in its slot.

use std::alloc::Layout;

use pmalloc_persist::{Medium, Span};

use super::{
    Result,
    changes::{LargeAlloc, Single, SmallAlloc},
    commit::commit,
    engine::Engine,
    plan::{FoundSlot, read},
    reserve::{cancel, prepare, reserve, take, take_at_hand},
    session::{SessionAccess, SessionState},
};
use crate::{
    arena::{Block, LargeBlock},
    error::Error,
    layout::lane::Op,
    value::BlockLayout,
};

/// Allocates an uninitialised block into the slot at byte `slot`.
#[inline(always)]
pub(crate) fn alloc_bare<M: Medium>(
    engine: &Engine<M>,
    access: &mut impl SessionAccess,
    slot: u64,
    layout: BlockLayout,
) -> Result<()> {
    access.with(
        #[inline(always)]
        |state| {
            let _entered = engine.enter()?;
            prepare(engine, state, layout)?;
            let Some(block) = take_at_hand(state, layout).map(Block::Small) else {
                return alloc_slowly(engine, state, slot, layout);
            };
            publish(engine, state, slot, &block).inspect_err(|_| cancel(engine, state, block))
        },
    )
}

/// As [`alloc_bare`], for a block that is not at hand. Not inlined: it would make room for itself in those that are.
#[inline(never)]
fn alloc_slowly<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    slot: u64,
    layout: BlockLayout,
) -> Result<()> {
    let block = take(engine, state, layout)?;
    publish(engine, state, slot, &block).inspect_err(|_| cancel(engine, state, block))
}

/// Allocates a block into the slot at byte `slot` whose first `layout.size()` bytes `init` has written.
///
/// `init` may use the heap, panic or fork.
pub(crate) fn alloc_init<M: Medium>(
    engine: &Engine<M>,
    access: &mut impl SessionAccess,
    slot: u64,
    layout: BlockLayout,
    init: impl FnOnce(Span),
) -> Result<()> {
    let block = access.with(|state| {
        let _entered = engine.enter()?;
        reserve(engine, state, layout)
    })?;
    let mut unpublished = Unpublished { engine, access, block: Some(block) };
    let span = Span::new(block.offset(), layout.layout().size() as u64);
    // The session is not borrowed here.
    init(span);
    // The initialiser may have forked: the child has none of the memory.
    engine.check_process()?;
    persist_contents(engine, span);
    unpublished.publish(slot)
}

/// # Crash consistency
///
/// The contents are durable before the record that makes them reachable can be (rule 10).
fn persist_contents<M: Medium>(engine: &Engine<M>, span: Span) {
    let m = engine.medium();
    m.stored(span);
    // CRASH: as above.
    m.persist(span);
}

/// A reserved block that goes back if it is dropped unpublished.
struct Unpublished<'a, M: Medium, A: SessionAccess> {
    engine: &'a Engine<M>,
    access: &'a mut A,
    block: Option<Block>,
}

impl<M: Medium, A: SessionAccess> Unpublished<'_, M, A> {
    fn publish(&mut self, slot: u64) -> Result<()> {
        let block = self.block.expect("published once");
        self.access.with(|state| {
            let _entered = self.engine.enter()?;
            // The initialiser may have ended the session that reserved the block. Else it is the same operation still.
            if state.claim.is_none() {
                self.engine.prepare(state)?;
            }
            publish(self.engine, state, slot, &block)
        })?;
        self.block = None;
        Ok(())
    }
}

impl<M: Medium, A: SessionAccess> Drop for Unpublished<'_, M, A> {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.access.with(|state| {
                // In a forked child the block belongs to the parent.
                if let Ok(_entered) = self.engine.enter() {
                    cancel(self.engine, state, block);
                }
            });
        }
    }
}

/// Makes a reserved block live and gives it to the slot at byte `slot`, atomically and durably.
///
/// # Crash consistency
///
/// As [`commit`].
#[inline(always)]
fn publish<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    slot: u64,
    block: &Block,
) -> Result<()> {
    let _owned = engine.slot_locks.lock(slot);
    // Under the lock: who frees a typed block holds those of its slots.
    state.homes.check(engine, slot)?;
    publish_owned(engine, state, slot, block)
}

/// As [`publish`], for a slot that the caller owns and knows to be live.
#[inline(always)]
fn publish_owned<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    slot: u64,
    block: &Block,
) -> Result<()> {
    let found = read(engine, slot);
    if found.holds.place().is_some() {
        return Err(Error::SlotFull { slot }.into());
    }
    match block {
        Block::Small(block) => {
            let single = Single::new(&found, Op::AllocSmall, block.offset(), 0);
            let mut alloc = SmallAlloc { single, bit: block.live_bit() };
            commit(engine, &mut state.claim, &mut alloc).map(drop)
        }
        Block::Large(block) => publish_large(engine, state, &found, *block),
    }
}

/// Not inlined: it would make room for itself in every operation on small blocks.
#[inline(never)]
fn publish_large<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    slot: &FoundSlot<'_>,
    block: LargeBlock,
) -> Result<()> {
    let op = Op::AllocLarge(block.extent.tag);
    let single = Single::new(slot, op, block.offset, block.range().pages);
    commit(engine, &mut state.claim, &mut LargeAlloc { single, block, append: None }).map(drop)
}

/// Allocates a block with contents that `write` writes, to all of its span, into the root slot at byte `slot`.
///
/// The caller has [entered](Engine::enter), and has flushed the root's entry.
pub(crate) fn alloc_root<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    slot: u64,
    layout: Layout,
    write: impl FnOnce(Span),
) -> Result<()> {
    let block = reserve(engine, state, layout.into())?;
    let span = Span::new(block.offset(), layout.size() as u64);
    write(span);
    persist_contents(engine, span);
    let _owned = engine.slot_locks.lock(slot);
    publish_owned(engine, state, slot, &block).inspect_err(|_| cancel(engine, state, block))
}
