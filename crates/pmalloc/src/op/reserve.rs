//! Reserving: a block is taken out of the heap's free memory, and nothing durable says so yet.
//!
//! A reserved block has no live bit and no log entry, and is in no cache: a crash gives it back.

use std::alloc::Layout;

use pmalloc_persist::{Medium, PAGE_BYTES};

use super::{Result, engine::Engine, session::SessionState};
use crate::{
    arena::{Block, LargeBlock, SmallBlock},
    book::Extent,
    error::{Error, Raised},
    layout::book::ExtentKind,
    size_class::SizeClass,
    slab::Kind,
    value::BlockLayout,
};

/// Takes a block for `layout` out of the heap's free memory. Volatile.
pub(crate) fn reserve<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    wanted: BlockLayout,
) -> Result<Block> {
    prepare(engine, state, wanted)?;
    take(engine, state, wanted)
}

/// Sees that such a block can be, and begins the operation that takes it.
#[inline(always)]
pub(super) fn prepare<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    wanted: BlockLayout,
) -> Result<()> {
    check(engine, wanted.layout())?;
    engine.prepare(state)
}

/// Takes a small block that the session has at hand. Volatile.
#[inline(always)]
pub(super) fn take_at_hand(state: &mut SessionState, wanted: BlockLayout) -> Option<SmallBlock> {
    state.cache.take_at_hand(kind_of(wanted)?)
}

/// Takes a block. Volatile.
pub(super) fn take<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    wanted: BlockLayout,
) -> Result<Block> {
    reserve_once(engine, state, wanted)
        .or_else(|raised| reserve_again(engine, state, wanted, raised))
}

/// The kind of a small block.
#[inline(always)]
fn kind_of(wanted: BlockLayout) -> Option<Kind> {
    let (layout, tag) = (wanted.layout(), wanted.tag());
    let class = SizeClass::of(layout.size() as u64, layout.align() as u64)?;
    Some(Kind { class, tag })
}

/// Takes a block where the first attempt has failed, after everything was given back that is at hand.
#[cold]
fn reserve_again<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    wanted: BlockLayout,
    raised: Raised,
) -> Result<Block> {
    match raised.error() {
        // Also where the file system has no room: a block that is given back has memory.
        Error::OutOfMemory { .. } | Error::NoSpace { .. } | Error::Io { .. } => {
            engine.reclaim(state)?;
            reserve_once(engine, state, wanted)
        }
        _ => Err(raised),
    }
}

#[inline(always)]
fn check<M: Medium>(engine: &Engine<M>, layout: Layout) -> Result<()> {
    let invalid = |what, why: &str| Err(Error::Invalid { what, why: why.into() }.into());
    if layout.size() == 0 {
        return invalid("size", "zero; a block has at least one byte");
    }
    if layout.align() as u64 > PAGE_BYTES {
        return invalid("alignment", "over 4096 bytes; blocks are aligned to a page at most");
    }
    let capacity_bytes = engine.space.geometry.capacity_bytes;
    let requested_bytes = layout.size() as u64;
    if requested_bytes > capacity_bytes {
        return Err(Error::OutOfMemory { requested_bytes, capacity_bytes }.into());
    }
    Ok(())
}

fn reserve_once<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    wanted: BlockLayout,
) -> Result<Block> {
    let Some(kind) = kind_of(wanted) else { return reserve_large(engine, state, wanted) };
    let arena = &engine.arenas[state.arena];
    Ok(Block::Small(state.cache.take(&engine.space, arena, kind)?))
}

fn reserve_large<M: Medium>(
    engine: &Engine<M>,
    state: &SessionState,
    wanted: BlockLayout,
) -> Result<Block> {
    let pages = (wanted.layout().size() as u64).div_ceil(PAGE_BYTES);
    let pages = u32::try_from(pages)
        .map_err(|_| Error::Limit { what: "pages in one block", limit: u64::from(u32::MAX) })?;
    let log = engine.arenas[state.arena].log();
    let range = engine.space.extents.allocate(engine.medium(), log, pages)?;
    let extent = Extent { range, kind: ExtentKind::Large, tag: wanted.tag() };
    Ok(Block::Large(LargeBlock { extent, log, offset: engine.space.page_offset(range.start) }))
}

/// Gives a reserved block back. Volatile.
pub(crate) fn cancel<M: Medium>(engine: &Engine<M>, state: &mut SessionState, block: Block) {
    engine.reuse(state, block);
}
