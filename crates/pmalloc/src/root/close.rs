//! Closing a heap, and what a heap that is closed vouches for.

use pmalloc_persist::Medium;

use super::table;
use crate::{core::Core, error::Result, recovery::state};

/// Ends the heap: everything to stable storage, then the clean flag, then nothing more is written.
pub(crate) fn close<M: Medium>(core: &Core<M>) -> Result<()> {
    Ok(core.engine.close_with(|| Ok(seal(core)?))?)
}

/// Writes the checks over what stands still while the heap is closed.
///
/// # Crash consistency
///
/// They count only when the clean flag says that the heap is closed, which is set behind the fence.
pub(crate) fn seal<M: Medium>(core: &Core<M>) -> Result<()> {
    let (m, geometry) = (core.medium(), &core.header.geometry);
    let mut sealed =
        table::slot_words(m, geometry).and_then(|slots| state::set_roots_check(m, &slots));
    for arena in &core.arenas {
        arena.for_each_slab(|inventory| {
            let slab = inventory.descriptor();
            sealed = std::mem::replace(&mut sealed, Ok(())).and(slab.seal_bits(m));
        });
    }
    // CRASH: as above. The checks are durable before the flag that makes them count.
    m.fence();
    sealed
}
