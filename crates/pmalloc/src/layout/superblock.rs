//! The superblock: two checksummed copies of what never changes over a heap's life.

use pmalloc_persist::{Word, on_media};

/// First word of every heap: `PMALLOC` and a version of this very line, which is frozen.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"PMALLOC\x01");

/// Version of the format; a heap of another version is refused by name.
pub(crate) const FORMAT_VERSION: u64 = 1;

/// Longest layout name, in bytes.
pub(crate) const LAYOUT_NAME_MAX_BYTES: usize = 63;

on_media! {
    /// One copy of the superblock. The first line is frozen: a later program can always tell a heap of
    /// this family and its version.
    pub(crate) struct Superblock: 256 {
        /// Persistent: [`MAGIC`].
        pub(crate) magic: Word,
        /// Persistent: [`FORMAT_VERSION`].
        pub(crate) version: Word,
        /// Persistent: features that a program without them may ignore.
        pub(crate) features_compatible: Word,
        /// Persistent: features that a program without them must refuse.
        pub(crate) features_required: Word,
        /// Persistent: random identity, low and high half.
        pub(crate) uuid: [Word; 2],
        /// Persistent: consistency model, see [`Model`].
        pub(crate) model: Word,
        /// Persistent: seconds since 1970 when the heap was created.
        pub(crate) created_s: Word,
        /// Persistent: the application's name for its data, zero-padded.
        pub(crate) layout_name: [Word; 8],
        /// Persistent: bytes of the data area.
        pub(crate) capacity_bytes: Word,
        /// Persistent: bytes of the largest slab.
        pub(crate) slab_bytes: Word,
        /// Persistent: records in a lane's ring.
        pub(crate) ring_places: Word,
        /// Persistent: lanes in the directory.
        pub(crate) lanes: Word,
        /// Persistent: bytes of a bookkeeping chunk.
        pub(crate) chunk_bytes: Word,
        /// Persistent: bookkeeping logs.
        pub(crate) logs: Word,
        /// Persistent: entries of the root table.
        pub(crate) roots: Word,
        /// Persistent: bitmap stripes.
        pub(crate) stripes: Word,
        /// Persistent: number of memory nodes; always 1 in this version.
        pub(crate) nodes: Word,
        /// Unused, zero.
        pub(crate) reserved: [Word; 6],
        /// Persistent: CRC-32C of all words before.
        pub(crate) checksum: Word,
    }
}

/// Consistency model of a heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Model {
    /// Every operation writes a record; nothing is scanned or traced after a crash.
    Log,
}

impl Model {
    /// The number that stands in the superblock.
    pub(crate) const fn code(self) -> u64 {
        match self {
            Self::Log => 1,
        }
    }

    /// The model with this number.
    pub(crate) const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Log),
            _ => None,
        }
    }
}
