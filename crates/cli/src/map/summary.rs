//! The parts of a heap added up by what they are. Volatile.

use pmalloc::{HeapMap, Part, PartKind};
use serde::Serialize;

/// Block sizes that are shown as one: the largest of each group, in bytes.
pub(super) const GROUPS: [u64; 8] = [32, 64, 128, 256, 512, 1 << 10, 4 << 10, 16 << 10];

/// What the parts of a heap come to. Lengths are bytes of address space; `data_bytes` of them hold data in the file.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    pub(crate) metadata: Vec<Area>,
    pub(crate) slabs: Vec<Slabs>,
    pub(crate) large: Total,
    pub(crate) free: Total,
    pub(crate) ungrown_bytes: u64,
    /// Live blocks that nothing owns, in slabs and large ones.
    pub(crate) unowned_blocks: u64,
}

/// An area of metadata.
#[derive(Debug, Serialize)]
pub(crate) struct Area {
    pub(crate) name: &'static str,
    #[serde(flatten)]
    pub(crate) total: Total,
}

/// Slabs whose blocks are of similar size.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Slabs {
    pub(crate) block_bytes_max: u64,
    pub(crate) blocks: u64,
    pub(crate) live: u64,
    pub(crate) live_bytes: u64,
    #[serde(flatten)]
    pub(crate) total: Total,
}

/// How many parts, and how long they are together.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Total {
    pub(crate) parts: u64,
    pub(crate) bytes: u64,
    pub(crate) data_bytes: u64,
}

/// The group of blocks of this size.
pub(super) fn group_of(block_bytes: u64) -> usize {
    GROUPS.iter().position(|max| block_bytes <= *max).unwrap_or(GROUPS.len() - 1)
}

impl Total {
    fn add(&mut self, part: &Part) {
        self.parts += 1;
        self.bytes += part.len;
        self.data_bytes += part.data_bytes.unwrap_or(0);
    }
}

impl Summary {
    /// Adds up the parts of `map`; groups of block sizes without a slab are left out.
    pub(crate) fn of(map: &HeapMap) -> Self {
        let mut summary = Self::default();
        let group = |max: &u64| Slabs { block_bytes_max: *max, ..Slabs::default() };
        summary.slabs = GROUPS.iter().map(group).collect();
        map.parts.iter().for_each(|part| summary.add(part));
        summary.slabs.retain(|group| group.total.parts > 0);
        summary
    }

    fn add(&mut self, part: &Part) {
        self.unowned_blocks += part.unowned_blocks.unwrap_or(0);
        match part.kind {
            PartKind::Metadata { name } => {
                let mut total = Total::default();
                total.add(part);
                self.metadata.push(Area { name, total });
            }
            PartKind::Slab { block_bytes, blocks, live, .. } => {
                let group = &mut self.slabs[group_of(block_bytes)];
                group.blocks += blocks;
                group.live += live;
                group.live_bytes += live * block_bytes;
                group.total.add(part);
            }
            PartKind::Large { .. } => self.large.add(part),
            PartKind::Free => self.free.add(part),
            _ => self.ungrown_bytes += part.len,
        }
    }

    /// Bytes of the data area that were ever used.
    pub(super) fn grown_bytes(&self) -> u64 {
        let slabs: u64 = self.slabs.iter().map(|group| group.total.bytes).sum();
        slabs + self.large.bytes + self.free.bytes
    }
}
