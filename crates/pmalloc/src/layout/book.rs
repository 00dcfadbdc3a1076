//! The bookkeeping log: which extents are allocated.

use pmalloc_persist::{LINE_BYTES, Word, on_media};

use super::sealed::checksum_of_three;

/// Bytes of an entry.
pub(crate) const ENTRY_BYTES: u64 = 32;

/// The last operation that an entry can name.
pub(crate) const ENTRY_OP_LAST: u64 = 3;

/// Smallest chunk, in bytes: a header line and three lines of entries.
pub(crate) const CHUNK_MIN_BYTES: u64 = 4 * LINE_BYTES;

/// First word of a made chunk.
pub(crate) const CHUNK_MAGIC: u64 = u64::from_le_bytes(*b"PMACHUNK");

on_media! {
    /// Where a log begins, on a line of its own.
    pub(crate) struct LogRoot: 64 {
        /// Persistent: index of the log's first chunk plus one, sealed; sealed zero: the log has no chunk.
        /// Slow garbage collection switches the log to its new chain by this one store.
        pub(crate) first: Word,
        /// Unused, zero.
        pub(crate) reserved: [Word; 7],
    }
}

on_media! {
    /// The first line of a chunk.
    pub(crate) struct ChunkHeader: 64 {
        /// Persistent: [`CHUNK_MAGIC`].
        pub(crate) magic: Word,
        /// Persistent: the log that the chunk belongs to.
        pub(crate) log: Word,
        /// Persistent: sequence number of the chunk's first entry.
        pub(crate) base: Word,
        /// Unused, zero.
        pub(crate) reserved: [Word; 3],
        /// Persistent: CRC-32C of the six words before.
        pub(crate) checksum: Word,
        /// Persistent: index of the next chunk plus one, sealed; zero (never written): this is the last.
        pub(crate) next: Word,
    }
}

on_media! {
    /// An entry: three words of content and their checksum, salted with the entry's place.
    pub(crate) struct EntryWords: 32 {
        /// Persistent: start page in the low, page count in the high half.
        pub(crate) extent: Word,
        /// Persistent: operation, kind and tag.
        pub(crate) what: Word,
        /// Persistent: sequence number in its log.
        pub(crate) sequence: Word,
        /// Persistent: CRC-32C of the words before and of the place, plus 2^32, so that it is never zero.
        pub(crate) checksum: Word,
    }
}

/// What an extent is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExtentKind {
    /// One block, owned by a slot.
    Large,
    /// A slab, owned by its arena.
    Slab,
}

/// What an entry says was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryOp {
    /// The extent was allocated.
    Alloc(ExtentKind),
    /// The extent was freed.
    Free,
}

/// A decoded entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogEntry {
    /// What was done.
    pub(crate) op: EntryOp,
    /// First page of the extent in the data area.
    pub(crate) start_page: u32,
    /// Pages of the extent.
    pub(crate) pages: u32,
    /// The user's tag of a large block.
    pub(crate) tag: u8,
    /// Sequence number in its log.
    pub(crate) sequence: u64,
}

impl LogEntry {
    /// The four words of the entry at byte `place`.
    pub(crate) fn encode(&self, place: u64) -> [u64; 4] {
        let op = match self.op {
            EntryOp::Alloc(ExtentKind::Large) => 1,
            EntryOp::Alloc(ExtentKind::Slab) => 2,
            EntryOp::Free => 3,
        };
        let content = [
            u64::from(self.start_page) | u64::from(self.pages) << 32,
            op | u64::from(self.tag) << 8,
            self.sequence,
        ];
        [content[0], content[1], content[2], 1 << 32 | checksum_of_three(content, place)]
    }

    /// The operation in the words at byte `place`, with all that stands beside it, if they are sealed and
    /// this program does not know it.
    pub(crate) fn unknown_op(words: [u64; 4], place: u64) -> Option<u64> {
        let (op, rest) = (words[1] & 0xff, words[1] >> 16);
        let is_known = (1..=ENTRY_OP_LAST).contains(&op) && rest == 0;
        (Self::is_sealed(words, place) && !is_known).then_some(words[1])
    }

    fn is_sealed(words: [u64; 4], place: u64) -> bool {
        let [a, b, c, check] = words;
        check == 1 << 32 | checksum_of_three([a, b, c], place)
    }

    /// The entry in the words at byte `place`, or `None` if they are torn, never written or senseless.
    pub(crate) fn decode(words: [u64; 4], place: u64) -> Option<Self> {
        if !Self::is_sealed(words, place) {
            return None;
        }
        let op = match words[1] & 0xff {
            1 => EntryOp::Alloc(ExtentKind::Large),
            2 => EntryOp::Alloc(ExtentKind::Slab),
            3 => EntryOp::Free,
            _ => return None,
        };
        Some(Self {
            op,
            start_page: u32::try_from(words[0] & 0xffff_ffff).ok()?,
            pages: u32::try_from(words[0] >> 32).ok()?,
            tag: u8::try_from(words[1] >> 8).ok()?,
            sequence: words[2],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_valid_at_its_place_only_and_every_flip_is_detected() {
        let entry = LogEntry {
            op: EntryOp::Alloc(ExtentKind::Slab),
            start_page: 7,
            pages: u32::MAX,
            tag: 255,
            sequence: 1 << 50,
        };
        let words = entry.encode(4096);
        assert_eq!(LogEntry::decode(words, 4096), Some(entry));
        assert_eq!(LogEntry::decode(words, 4128), None);
        for bit in 0..256 {
            let mut flipped = words;
            flipped[bit / 64] ^= 1 << (bit % 64);
            assert_eq!(LogEntry::decode(flipped, 4096), None, "bit {bit}");
        }
    }

    #[test]
    fn every_torn_entry_over_zeros_is_invalid_and_not_empty() {
        let entry = LogEntry { op: EntryOp::Free, start_page: 0, pages: 0, tag: 0, sequence: 0 };
        let words = entry.encode(64);
        for kept in 1..15_u8 {
            let torn: [u64; 4] =
                std::array::from_fn(|i| if kept >> i & 1 == 1 { words[i] } else { 0 });
            assert!(torn == words || torn == [0; 4] || LogEntry::decode(torn, 64).is_none());
        }
    }
}
