//! What a heap holds and what it costs.

use std::{collections::BTreeMap, path::Path, time::Instant};

use pmalloc_persist::{Access, MapOptions, Medium, sync::Ordering};

use super::{blocks::Blocks, owner, refusal};
use crate::{
    core::{Block, Core, header},
    error::{Error, Result},
    layout::state::Policy,
    page_map::PageMap,
    slab::Kind,
};

/// What a heap holds and costs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// When the heap makes the effects of operations durable.
    pub policy: Policy,
    /// Blocks that slots own.
    pub live_blocks: u64,
    /// Their usable bytes.
    pub live_bytes: u64,
    /// Memory that the file occupies, in bytes, metadata included.
    pub heap_bytes: u64,
    /// The most that was seen since the heap was opened.
    pub peak_heap_bytes: u64,
    /// Bytes of slabs and page-granular blocks: what is neither free nor still to grow into. More than
    /// [`live_bytes`](Self::live_bytes) by the free blocks of slabs, and by what waits for guards.
    pub used_bytes: u64,
    /// Bytes of free extents, with and without memory, below the grown length.
    pub free_bytes: u64,
    /// Bytes of the largest block that fits without growing.
    pub largest_free_bytes: u64,
    /// Volatile memory, in bytes, that the heap's own structures use and that grows with it, estimated from their sizes.
    /// Not counted are slot locks, the free blocks that sessions have at hand, and the lists of freed blocks that wait.
    pub dram_bytes: u64,
    /// Nanoseconds that opening took.
    pub recovery_ns: u64,
    /// Records that opening redid.
    pub replayed: u64,
    /// Per size class and tag that has slabs.
    pub classes: Vec<ClassStats>,
    /// Per tag that has live blocks: what a run leaks is seen by comparing two of these.
    pub tags: Vec<TagStats>,
    /// The bookkeeping logs.
    pub log: LogStats,
}

/// The slabs of one size class and tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// Bytes of a block.
    pub block_bytes: u64,
    /// The tag of their blocks.
    pub tag: u8,
    /// Slabs.
    pub slabs: u64,
    /// Blocks in them.
    pub blocks: u64,
    /// Live blocks.
    pub live: u64,
}

/// The live blocks of one tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TagStats {
    /// The tag.
    pub tag: u8,
    /// Live blocks.
    pub blocks: u64,
    /// Their usable bytes.
    pub live_bytes: u64,
}

/// The bookkeeping logs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Chunks in use.
    pub chunks: u64,
    /// Extents that they hold.
    pub live: u64,
    /// How often empty chunks were dropped.
    pub fast_gc: u64,
    /// How often a log was copied.
    pub slow_gc: u64,
}

/// The figures of the heap in the file at `path`. A heap that was not closed is recovered in a private copy, and these are
/// the figures that opening it would lead to; the file is not touched.
///
/// # Errors
///
/// [`Error::Map`] if the file can't be opened or is in use, [`Error::NotAHeap`], [`Error::Version`], [`Error::Corrupted`] and
/// [`Error::PowerLoss`] as [`Heap::open`](crate::Heap::open).
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("heap");
/// pmalloc::Heap::create(&path)?.close()?;
/// assert_eq!(pmalloc::stats_file(&path)?.live_blocks, 0);
/// # Ok(())
/// # }
/// ```
pub fn stats_file(path: impl AsRef<Path>) -> Result<Stats> {
    let started = Instant::now();
    let file = owner::open_file(path, Access::PrivateCopy)?;
    let header = header::read_header(&file)?;
    let mapped = file.map(&MapOptions::new(header.geometry.heap_bytes()))?;
    let power = owner::power_of(&mapped)?;
    // Before anything is read: reading a hole may fill it.
    let heap_bytes = mapped.occupied_bytes().map_err(Error::io("asking for the heap's size"))?;
    let mut core = refusal::admit(mapped, header, Some(power), &mut refusal::refuse)?;
    core.recovery.elapsed_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let stats = stats(&core)?;
    Ok(Stats { heap_bytes, peak_heap_bytes: heap_bytes, ..stats })
}

/// Collects the figures of a heap.
pub(crate) fn stats<M: Medium>(core: &Core<M>) -> Result<Stats> {
    let heap_bytes =
        core.medium().occupied_bytes().map_err(Error::io("asking for the heap's size"))?;
    let peak = core.peak_bytes.fetch_max(heap_bytes, Ordering::Relaxed).max(heap_bytes);
    let tags = tags(core);
    let extents = core.space.extents.stats();
    let book = core.space.book.stats();
    Ok(Stats {
        policy: core.policy,
        live_blocks: tags.iter().map(|tag| tag.blocks).sum(),
        live_bytes: tags.iter().map(|tag| tag.live_bytes).sum(),
        heap_bytes,
        peak_heap_bytes: peak,
        used_bytes: extents.grown_bytes - extents.free_bytes,
        free_bytes: extents.free_bytes,
        largest_free_bytes: extents.largest_free_bytes,
        dram_bytes: extents.dram_bytes + dram_bytes(core),
        recovery_ns: core.recovery.elapsed_ns,
        replayed: core.recovery.replayed,
        classes: classes(core),
        tags,
        log: LogStats {
            chunks: book.chunks,
            live: book.entries_live,
            fast_gc: book.fast_gc,
            slow_gc: book.slow_gc,
        },
    })
}

fn classes<M: Medium>(core: &Core<M>) -> Vec<ClassStats> {
    let mut classes = BTreeMap::<Kind, ClassStats>::new();
    for arena in &core.arenas {
        arena.for_each_slab(|inventory| {
            let slab = inventory.descriptor();
            let Kind { class, tag } = slab.kind();
            let block_bytes = class.block_bytes();
            let none = ClassStats { block_bytes, tag, slabs: 0, blocks: 0, live: 0 };
            let class = classes.entry(slab.kind()).or_insert(none);
            class.slabs += 1;
            class.blocks += u64::from(slab.blocks());
            class.live += slab.live_blocks(core.medium());
        });
    }
    classes.into_values().collect()
}

fn tags<M: Medium>(core: &Core<M>) -> Vec<TagStats> {
    let mut tags = BTreeMap::<u8, TagStats>::new();
    for Block { tag, usable_bytes, .. } in Blocks::new(core) {
        let tag = tags.entry(tag).or_insert(TagStats { tag, blocks: 0, live_bytes: 0 });
        tag.blocks += 1;
        tag.live_bytes += usable_bytes;
    }
    tags.into_values().collect()
}

/// The page map, slab inventories and the mirrors of the logs: what grows with the heap, but for the free extents.
fn dram_bytes<M: Medium>(core: &Core<M>) -> u64 {
    const MIRROR_BYTES: u64 = 96;
    let page_map = u64::from(core.space.extents.grown_pages()) * PageMap::ENTRY_BYTES;
    let mut inventories = 0;
    for arena in &core.arenas {
        arena.for_each_slab(|inventory| inventories += inventory.dram_bytes());
    }
    let mirrors = core.space.book.stats().entries_live * MIRROR_BYTES;
    page_map + inventories + mirrors
}
