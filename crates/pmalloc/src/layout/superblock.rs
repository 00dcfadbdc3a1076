//! The superblock: two checksummed copies of what never changes over a heap's life.

use pmalloc_persist::{Word, on_media};

use super::{geometry::Geometry, sealed::checksum};
use crate::error::{Error, Result};

/// First word of every heap: `PMALLOC` and a version of this very line, which is frozen.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"PMALLOC\x01");

/// Version of the format; a heap of another version is refused by name.
pub(crate) const FORMAT_VERSION: u64 = 1;

/// Memory nodes of a heap of this version.
const NODES: u64 = 1;

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
        /// Persistent: random identity, a UUID of version 4, low and high half.
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

/// Words of a superblock.
pub(crate) const SUPERBLOCK_WORDS: usize = size_of::<Superblock>() / size_of::<Word>();

/// What a superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Random identity.
    pub(crate) uuid: u128,
    /// Consistency model.
    pub(crate) model: Model,
    /// Seconds since 1970 at creation.
    pub(crate) created_s: u64,
    /// The application's name for its data.
    pub(crate) layout_name: String,
    /// The sizes.
    pub(crate) geometry: Geometry,
}

impl Header {
    /// The words of the copy that stands at byte `place`.
    pub(crate) fn encode(&self, place: u64) -> [u64; SUPERBLOCK_WORDS] {
        let geometry = &self.geometry;
        let mut words = [0; SUPERBLOCK_WORDS];
        #[allow(clippy::cast_possible_truncation, reason = "the halves of the identity")]
        let uuid = [self.uuid as u64, (self.uuid >> 64) as u64];
        words[..8].copy_from_slice(&[
            MAGIC,
            FORMAT_VERSION,
            0,
            0,
            uuid[0],
            uuid[1],
            self.model.code(),
            self.created_s,
        ]);
        words[8..16].copy_from_slice(&pack_name(&self.layout_name));
        words[16..25].copy_from_slice(&[
            geometry.capacity_bytes,
            geometry.slab_bytes,
            u64::from(geometry.ring_places),
            u64::from(geometry.lanes),
            geometry.chunk_bytes,
            u64::from(geometry.logs),
            u64::from(geometry.roots),
            u64::from(geometry.stripes),
            NODES,
        ]);
        words[SUPERBLOCK_WORDS - 1] = checksum(&words[..SUPERBLOCK_WORDS - 1], place);
        words
    }

    /// What the copy at byte `place` says.
    ///
    /// # Errors
    ///
    /// [`Error::NotAHeap`], [`Error::Version`] or [`Error::Corrupted`].
    pub(crate) fn decode(words: &[u64; SUPERBLOCK_WORDS], place: u64) -> Result<Self> {
        if words[0] != MAGIC {
            return Err(Error::NotAHeap { why: "it does not begin with the magic word" });
        }
        if words[1] != FORMAT_VERSION {
            return Err(Error::unknown("format version", words[1], FORMAT_VERSION));
        }
        let damaged = |what| Error::corrupted(place, what);
        if words[SUPERBLOCK_WORDS - 1] != checksum(&words[..SUPERBLOCK_WORDS - 1], place) {
            return Err(damaged("a superblock does not match its checksum"));
        }
        if words[3] != 0 {
            return Err(Error::unknown("required features", words[3], 0));
        }
        let model = Model::from_code(words[6])
            .ok_or_else(|| Error::unknown("consistency model", words[6], Model::Log.code()))?;
        if words[24] != NODES {
            return Err(Error::unknown("number of memory nodes", words[24], NODES));
        }
        let small = |word: u64| u32::try_from(word).unwrap_or(u32::MAX);
        let geometry = Geometry {
            capacity_bytes: words[16],
            slab_bytes: words[17],
            ring_places: small(words[18]),
            lanes: small(words[19]),
            chunk_bytes: words[20],
            logs: small(words[21]),
            roots: small(words[22]),
            stripes: small(words[23]),
        };
        if !geometry.is_valid() {
            return Err(damaged("a superblock has impossible sizes"));
        }
        let layout_name = unpack_name(&words[8..16])
            .ok_or_else(|| damaged("the layout name is not a zero-padded UTF-8 string"))?;
        Ok(Self {
            uuid: u128::from(words[4]) | u128::from(words[5]) << 64,
            model,
            created_s: words[7],
            layout_name,
            geometry,
        })
    }
}

/// A name of at most 63 bytes as eight zero-padded words.
pub(crate) fn pack_name(name: &str) -> [u64; 8] {
    let mut bytes = [0_u8; 64];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    std::array::from_fn(|word| {
        let bytes: [u8; 8] = bytes[word * 8..][..8].try_into().expect("eight bytes");
        u64::from_le_bytes(bytes)
    })
}

/// The name in eight words, or `None` if they hold no zero-padded UTF-8 string.
pub(crate) fn unpack_name(words: &[u64]) -> Option<String> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let len = bytes.iter().position(|byte| *byte == 0)?;
    if bytes[len..].iter().any(|byte| *byte != 0) {
        return None;
    }
    String::from_utf8(bytes[..len].to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            uuid: 0x0123_4567_89ab_cdef_0011_2233_4455_6677,
            model: Model::Log,
            created_s: 1_800_000_000,
            layout_name: "a".repeat(LAYOUT_NAME_MAX_BYTES),
            geometry: crate::tests::small_geometry(),
        }
    }

    #[test]
    fn a_superblock_survives_encoding_and_detects_every_flip() {
        let words = sample().encode(4096);
        assert_eq!(Header::decode(&words, 4096).expect("valid"), sample());
        assert!(Header::decode(&words, 0).is_err(), "a copy is valid at its place only");
        for bit in 0..SUPERBLOCK_WORDS * 64 {
            let mut flipped = words;
            flipped[bit / 64] ^= 1 << (bit % 64);
            assert!(Header::decode(&flipped, 4096).is_err(), "bit {bit}");
        }
    }
}
