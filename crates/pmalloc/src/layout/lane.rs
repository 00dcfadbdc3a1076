//! Lanes: per-thread rings of records, and the marks that retire them.

use pmalloc_persist::{PAGE_BYTES, Word, on_media};

use super::{
    cell::{CellValue, CellWord},
    slot::{BLOCK_UNIT_BYTES, SlotWord, Version},
};

/// Bytes of a record.
pub(crate) const RECORD_BYTES: u64 = 32;

/// Lines of a lane's mark array; consecutive marks go to different ones.
pub(crate) const MARK_LINES: u64 = 8;

/// Largest operation number of a lane, and largest epoch: 40 bits. A thread that does nothing else performs as many
/// operations in a few days; a lane begins again then.
pub(crate) const NUMBER_MAX: u64 = (1 << 40) - 1;

/// Most records of one operation, however long the ring.
pub(crate) const GROUP_MAX: u32 = 128;

/// First word of a made lane.
pub(crate) const LANE_MAGIC: u64 = u64::from_le_bytes(*b"PMALLANE");

on_media! {
    /// The first line of a lane.
    pub(crate) struct LaneHeader: 64 {
        /// Persistent: [`LANE_MAGIC`].
        pub(crate) magic: Word,
        /// Persistent: index of the lane in the directory.
        pub(crate) index: Word,
        /// Persistent: ring place, pass and count at the last clean close; zero under Eager, whose open
        /// zeroes the rings and starts at place zero.
        pub(crate) position: [Word; 3],
        /// Unused, zero.
        pub(crate) reserved: [Word; 2],
        /// Persistent: CRC-32C of the words before.
        pub(crate) checksum: Word,
    }
}

on_media! {
    /// One line of the mark array.
    pub(crate) struct MarkLine: 64 {
        /// Persistent: number of a retired operation, sealed.
        pub(crate) mark: Word,
        /// Unused, zero: consecutive marks must not share a line.
        pub(crate) reserved: [Word; 7],
    }
}

on_media! {
    /// A record: four words, each with the record's tag in its top 16 bits.
    pub(crate) struct RecordWords: 32 {
        /// Persistent: block (of an extent that is allocated, with its tag) or low bits of a cell's value, operation, high
        /// bits of the page count or value, tag.
        pub(crate) block: Word,
        /// Persistent: slot or cell, index in the group, tag.
        pub(crate) slot: Word,
        /// Persistent: operation number, group size, tag.
        pub(crate) number: Word,
        /// Persistent: version of the slot or cell, low bits of the page count, tag.
        pub(crate) version: Word,
    }
}

/// What a record says was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// A block of a slab was given to the slot.
    AllocSmall,
    /// The slot's block went back to its slab.
    FreeSmall,
    /// An extent with this tag was given to the slot.
    AllocLarge(u8),
    /// The slot's extent was freed.
    FreeLarge,
    /// The slot took a block over from another slot of the group.
    Fill,
    /// The slot gave its block to another slot of the group.
    Empty,
    /// The versioned cell got this value.
    Set(CellValue),
}

impl Op {
    /// The bits that a slot gets with the block at byte `block`, or a cell.
    #[inline]
    pub(crate) const fn word(self, block: u64, version: Version) -> u64 {
        match self {
            Self::Set(value) => CellWord::holding(value, version).bits(),
            op if op.fills() => SlotWord::owning(block, version).bits(),
            _ => SlotWord::empty(version).bits(),
        }
    }

    const fn code(self) -> u64 {
        match self {
            Self::AllocSmall => 1,
            Self::FreeSmall => 2,
            Self::AllocLarge(_) => 3,
            Self::FreeLarge => 4,
            Self::Fill => 5,
            Self::Empty => 6,
            Self::Set(_) => 7,
        }
    }

    /// The operation with this number; `value` is what a cell gets if it sets one, and its low byte the tag of an extent
    /// that it allocates.
    const fn from_code(code: u64, value: CellValue) -> Option<Self> {
        match code {
            1 => Some(Self::AllocSmall),
            2 => Some(Self::FreeSmall),
            3 => Some(Self::AllocLarge(value.get().to_le_bytes()[0])),
            4 => Some(Self::FreeLarge),
            5 => Some(Self::Fill),
            6 => Some(Self::Empty),
            7 => Some(Self::Set(value)),
            _ => None,
        }
    }

    /// Whether the operation makes a block live.
    pub(crate) const fn is_alloc(self) -> bool {
        matches!(self, Self::AllocSmall | Self::AllocLarge(_))
    }

    /// Whether the slot owns the block afterwards.
    pub(crate) const fn fills(self) -> bool {
        self.is_alloc() || matches!(self, Self::Fill)
    }

    /// Whether an extent is allocated or freed.
    pub(crate) const fn is_large(self) -> bool {
        matches!(self, Self::AllocLarge(_) | Self::FreeLarge)
    }

    /// The tag that the block gets, where the record has to say it.
    const fn block_tag(self) -> u8 {
        match self {
            Self::AllocLarge(tag) => tag,
            _ => 0,
        }
    }
}

/// The tag of a record: the lane's record count folded into 16 bits, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u16);

impl Tag {
    /// The tag of the lane's `count`-th record since its ring was zeroed.
    pub(crate) const fn of_count(count: u64) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "the remainder is below 2^16")]
        Self((count % 0xffff + 1) as u16)
    }

    /// The tag that `word` of a record carries, valid or not.
    pub(crate) const fn bits_in(word: u64) -> u64 {
        word >> TAG_SHIFT
    }

    /// The tag of the record after the one with this tag.
    pub(crate) const fn next(self) -> Self {
        if self.0 == 0xffff { Self(1) } else { Self(self.0 + 1) }
    }
}

/// A decoded record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    /// What was done.
    pub(crate) op: Op,
    /// Byte offset of the block, zero where there is none.
    pub(crate) block: u64,
    /// Byte offset of the slot or cell.
    pub(crate) slot: u64,
    /// The version that the slot or cell gets.
    pub(crate) version: Version,
    /// Operation number in its lane.
    pub(crate) number: u64,
    /// Index of this record in its group.
    pub(crate) index: u8,
    /// Records in the group.
    pub(crate) count: u8,
    /// Pages of a large block, zero for a small one.
    pub(crate) pages: u32,
}

const TAG_SHIFT: u32 = 48;
const BLOCK_BITS: u32 = 40;
const OP_SHIFT: u32 = 40;
const HIGH_SHIFT: u32 = 44;
const HIGH_BITS: u32 = 4;
const PAGES_LOW_BITS: u32 = 28;
const SLOT_BITS: u32 = 41;
const INDEX_SHIFT: u32 = 41;
const COUNT_SHIFT: u32 = 40;
const PAGES_LOW_SHIFT: u32 = 20;

const _: () = assert!(
    PAGE_BYTES / BLOCK_UNIT_BYTES == 1 << u8::BITS,
    "the place of an extent leaves room for a tag"
);

const fn bits(word: u64, shift: u32, width: u32) -> u64 {
    (word >> shift) & ((1 << width) - 1)
}

impl Record {
    /// The four words, each tagged.
    #[inline(always)]
    pub(crate) fn encode(&self, tag: Tag) -> [u64; 4] {
        let pages = u64::from(self.pages);
        // A cell's value stands where others have their block, and four bits of the page count.
        let (subject, high) = match self.op {
            Op::Set(value) => (bits(value.get(), 0, BLOCK_BITS), value.get() >> BLOCK_BITS),
            // An extent begins with a page, so that the low byte of its place is zero: its tag stands there.
            op => (
                (self.block / BLOCK_UNIT_BYTES) | u64::from(op.block_tag()),
                pages >> PAGES_LOW_BITS,
            ),
        };
        let pages_low = bits(pages, 0, PAGES_LOW_BITS);
        let tag = u64::from(tag.0) << TAG_SHIFT;
        let slot = self.slot / size_of::<Word>() as u64;
        [
            subject | (self.op.code() << OP_SHIFT) | (high << HIGH_SHIFT) | tag,
            slot | (u64::from(self.index) << INDEX_SHIFT) | tag,
            self.number | (u64::from(self.count) << COUNT_SHIFT) | tag,
            self.version.bits() | (pages_low << PAGES_LOW_SHIFT) | tag,
        ]
    }

    /// The bits that the slot or cell gets.
    pub(crate) const fn word(&self) -> u64 {
        self.op.word(self.block, self.version)
    }

    /// The operation number in the number word of a record, valid or not.
    pub(crate) const fn number_in(word: u64) -> u64 {
        word & NUMBER_MAX
    }

    /// The record in `words` and its tag, or `None` if they are torn, never written or senseless.
    pub(crate) fn decode(words: [u64; 4]) -> Option<(Self, Tag)> {
        let tag = Tag::bits_in(words[0]);
        if tag == 0 || words.iter().any(|&word| Tag::bits_in(word) != tag) {
            return None;
        }
        let (subject, high) =
            (bits(words[0], 0, BLOCK_BITS), bits(words[0], HIGH_SHIFT, HIGH_BITS));
        let op = Op::from_code(
            bits(words[0], OP_SHIFT, 4),
            CellValue::new(subject | high << BLOCK_BITS)?,
        )?;
        let (block, pages) = match op {
            Op::Set(_) => (0, 0),
            _ => (
                (subject - u64::from(op.block_tag())) * BLOCK_UNIT_BYTES,
                bits(words[3], PAGES_LOW_SHIFT, PAGES_LOW_BITS) | high << PAGES_LOW_BITS,
            ),
        };
        let record = Self {
            op,
            block,
            slot: bits(words[1], 0, SLOT_BITS) * size_of::<Word>() as u64,
            version: Version::from_bits(words[3]),
            number: Self::number_in(words[2]),
            index: u8::try_from(bits(words[1], INDEX_SHIFT, 7)).ok()?,
            count: u8::try_from(bits(words[2], COUNT_SHIFT, 8)).ok()?,
            pages: u32::try_from(pages).ok()?,
        };
        let tag = Tag(u16::try_from(tag).ok()?);
        (record.index < record.count && record.number != 0).then_some((record, tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::cell::CELL_VALUE_MAX;

    fn sample() -> Record {
        Record {
            op: Op::AllocLarge(0xa5),
            block: (1 << 44) - 4096,
            slot: (1 << 44) - 8,
            version: Version::from_bits(0xf_fffe),
            number: NUMBER_MAX,
            index: 63,
            count: 64,
            pages: u32::MAX,
        }
    }

    #[test]
    fn a_record_survives_encoding() {
        let tag = Tag::of_count(0xfffe);
        assert_eq!(Record::decode(sample().encode(tag)), Some((sample(), tag)));
    }

    #[test]
    fn a_record_of_a_cell_keeps_all_bits_of_its_value() {
        let tag = Tag::of_count(1);
        for value in [0, 1, 1 << 39, 1 << 40, CELL_VALUE_MAX] {
            let op = Op::Set(CellValue::new(value).expect("it fits"));
            let record = Record { op, block: 0, pages: 0, ..sample() };
            assert_eq!(Record::decode(record.encode(tag)), Some((record, tag)));
            let word = CellWord::from_bits(record.word());
            assert_eq!((word.value().get(), word.version()), (value, record.version));
        }
    }

    #[test]
    fn a_record_with_one_foreign_word_does_not_exist() {
        let old = sample().encode(Tag::of_count(7));
        let new = sample().encode(Tag::of_count(7).next());
        for word in 0..4 {
            let mut torn = new;
            torn[word] = old[word];
            assert_eq!(Record::decode(torn), None);
            torn[word] = 0;
            assert_eq!(Record::decode(torn), None);
        }
        assert_eq!(Record::decode([0; 4]), None);
    }

    #[test]
    fn tags_skip_zero_and_follow_the_count() {
        let mut tag = Tag::of_count(0);
        for count in 1..200_000 {
            tag = tag.next();
            assert_eq!(tag, Tag::of_count(count));
            assert_ne!(tag.0, 0);
        }
    }
}
