//! The root table: named slots, the only blocks that are found without a pointer.

use pmalloc_persist::{Word, on_media};

/// Longest root name, in bytes.
pub(crate) const ROOT_NAME_MAX_BYTES: usize = 63;

on_media! {
    /// One named root. It exists if and only if its slot is full.
    pub(crate) struct RootEntry: 128 {
        /// Persistent: the name, zero-padded.
        pub(crate) name: [Word; 8],
        /// Persistent: [`RootKind`].
        pub(crate) kind: Word,
        /// Persistent: number of slots, or bytes, in the block.
        pub(crate) length: Word,
        /// Persistent: what the program calls the type of a root of bytes, the layout hash of a typed one, zero for
        /// slots.
        pub(crate) layout_hash: Word,
        /// Persistent: CRC-32C of the eleven words before, plus 2^32, so that it is never zero.
        pub(crate) checksum: Word,
        /// Persistent: the slot that owns the root's block.
        pub(crate) slot: Word,
        /// Unused, zero.
        pub(crate) reserved: [Word; 3],
    }
}

/// What a root's block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RootKind {
    /// An array of slots.
    Slots,
    /// Bytes that the heap does not look into.
    Bytes,
    /// A value of a persistent type.
    Typed,
}

impl RootKind {
    /// The number that stands on media.
    pub(crate) const fn code(self) -> u64 {
        match self {
            Self::Slots => 1,
            Self::Bytes => 2,
            Self::Typed => 3,
        }
    }

    /// The kind with this number.
    pub(crate) const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Slots),
            2 => Some(Self::Bytes),
            3 => Some(Self::Typed),
            _ => None,
        }
    }
}
