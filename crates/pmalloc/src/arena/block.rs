//! A block: where it is and what there is to know of it, from its reservation until it is free again.

use pmalloc_persist::PAGE_BYTES;

use crate::{
    book::{Extent, LogId},
    layout::geometry::PageRange,
    slab::{Descriptor, LiveBit},
};

/// A block, whatever becomes of it: reserved, live, freed or waiting.
///
/// It travels with all that was found out about it, so that nobody looks its slab up twice.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Block {
    /// Part of a slab.
    Small(SmallBlock),
    /// Whole pages.
    Large(LargeBlock),
}

/// A block of a slab.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SmallBlock {
    slab: Descriptor,
    index: u32,
    log: u8,
}

/// A block that is an extent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LargeBlock {
    /// Its pages, as the log names them.
    pub(crate) extent: Extent,
    /// The log that holds it, or is to.
    pub(crate) log: LogId,
    /// Byte offset.
    pub(crate) offset: u64,
}

impl Block {
    /// Byte offset.
    #[inline(always)]
    pub(crate) fn offset(&self) -> u64 {
        match self {
            Self::Small(block) => block.offset(),
            Self::Large(block) => block.offset,
        }
    }

    /// Bytes that it has.
    #[inline(always)]
    pub(crate) fn usable_bytes(&self) -> u64 {
        match self {
            Self::Small(block) => block.slab.class().block_bytes(),
            Self::Large(block) => u64::from(block.extent.range.pages) * PAGE_BYTES,
        }
    }

    /// The user's tag.
    #[inline]
    pub(crate) fn tag(&self) -> u8 {
        match self {
            Self::Small(block) => block.slab.kind().tag,
            Self::Large(block) => block.extent.tag,
        }
    }
}

impl SmallBlock {
    /// The block at `index` of `slab`, which `log` holds.
    #[inline(always)]
    pub(crate) fn new(slab: Descriptor, index: u32, log: LogId) -> Self {
        Self { slab, index, log: log.code() }
    }

    /// Its slab.
    #[inline]
    pub(crate) fn slab(&self) -> &Descriptor {
        &self.slab
    }

    /// Index in the slab.
    #[inline]
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// The log that holds its slab; the arena that owns it has the same number.
    #[inline]
    pub(crate) fn log(&self) -> LogId {
        LogId(u32::from(self.log))
    }

    /// Byte offset.
    #[inline(always)]
    pub(crate) fn offset(&self) -> u64 {
        self.slab.block_offset(self.index)
    }

    /// The bit that says whether it is live.
    #[inline(always)]
    pub(crate) fn live_bit(&self) -> LiveBit {
        self.slab.live_bit(self.index)
    }
}

impl LargeBlock {
    /// Its pages.
    #[inline]
    pub(crate) fn range(&self) -> PageRange {
        self.extent.range
    }
}
