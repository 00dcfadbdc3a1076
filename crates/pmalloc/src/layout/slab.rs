//! Slab descriptors: out of line, so that an overflow of user data never reaches them.
//!
//! Every page of the data area has one descriptor line. Of a slab's lines the first is the sealed header and
//! the others hold the bitmap; the lines of other extents are unused, and without memory where they can be.

use pmalloc_persist::{Word, on_media};

/// First word of a made slab header.
pub(crate) const SLAB_MAGIC: u64 = u64::from_le_bytes(*b"PMALSLAB");

on_media! {
    /// The first line of a slab's descriptor.
    pub(crate) struct SlabHeader: 64 {
        /// Persistent: [`SLAB_MAGIC`].
        pub(crate) magic: Word,
        /// Persistent: first page of the slab in the low, page count in the high half.
        pub(crate) extent: Word,
        /// Persistent: bytes of a block in the low half, tag above.
        pub(crate) class: Word,
        /// Persistent: morphing state; zero, no slab morphs in this version.
        pub(crate) morph: [Word; 3],
        /// Persistent: CRC-32C of the words before.
        pub(crate) checksum: Word,
        /// Persistent: CRC-32C of the bitmap's words, plus 2^32. Counts if the heap is closed.
        pub(crate) bits_check: Word,
    }
}

on_media! {
    /// One line of a slab's bitmap: a set bit is a live block.
    pub(crate) struct BitmapLine: 64 {
        /// Persistent: the bits.
        pub(crate) words: [Word; 8],
    }
}
