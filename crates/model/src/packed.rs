//! Words with several fields: slots, records, entries.
//!
//! Fields are as narrow as a small model allows. Numbers that never wrap in a real heap don't in a run;
//! versions are compared by serial number, as they do wrap.

use crate::layout::{Block, Slot};

/// Bits of a slot's version.
const VERSION_BITS: u32 = 6;
const VERSION_MASK: u8 = (1 << VERSION_BITS) - 1;

/// Set in words that the user wrote, and in no slot.
pub(crate) const CONTENTS: u32 = 0x8000_0000;

/// The version of a slot or a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Version(u8);

impl Version {
    pub(crate) fn after(self, changes: u8) -> Self {
        Self((self.0 + changes) & VERSION_MASK)
    }

    /// Serial-number comparison.
    pub(crate) fn is_newer_than(self, other: Self) -> bool {
        let ahead = self.0.wrapping_sub(other.0) & VERSION_MASK;
        ahead != 0 && ahead < 1 << (VERSION_BITS - 1)
    }
}

fn block_code(block: Option<Block>) -> u32 {
    block.map_or(0, |block| block as u32 + 1)
}

fn block_of(code: u32) -> Option<Block> {
    let index = usize::try_from(code.checked_sub(1)?).ok()?;
    Block::ALL.get(index).copied()
}

fn byte(word: u32, nth: u32) -> u8 {
    (word >> (8 * nth)).to_le_bytes()[0]
}

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SlotValue {
    pub(crate) block: Option<Block>,
    pub(crate) version: Version,
}

impl SlotValue {
    pub(crate) fn encode(self) -> u32 {
        u32::from(self.version.0) << 8 | block_code(self.block)
    }

    pub(crate) fn decode(word: u32) -> Self {
        let version = Version(byte(word, 1) & VERSION_MASK);
        Self { block: block_of(word & 0xff), version }
    }
}

/// What a record does beside changing its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// Its block is allocated, into the slot.
    Alloc,
    /// Its block is freed, the slot emptied.
    Free,
    /// Nothing.
    Set,
}

/// One change of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Change {
    pub(crate) effect: Effect,
    pub(crate) block: Option<Block>,
    pub(crate) slot: Slot,
    pub(crate) version: Version,
}

impl Change {
    /// What the slot holds after it.
    pub(crate) fn value(self) -> SlotValue {
        let block = if self.effect == Effect::Free { None } else { self.block };
        SlotValue { block, version: self.version }
    }

    /// The block that is allocated or freed.
    pub(crate) fn concerned(self) -> Option<Block> {
        if self.effect == Effect::Set { None } else { self.block }
    }
}

/// A record: a change, and what makes it valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) change: Change,
    /// Which of its group.
    pub(crate) nth: u8,
    /// Records of its group.
    pub(crate) of: u8,
    /// Batched: the epoch. Eager: the lane's operation number.
    pub(crate) number: u8,
    /// The lane's record count; never zero.
    pub(crate) tag: u8,
}

impl Record {
    pub(crate) fn encode(self) -> [u32; 2] {
        let Change { effect, block, slot, version } = self.change;
        let tag = u32::from(self.tag) << 24;
        let group = u32::from(self.nth) << 12 | u32::from(self.of) << 8;
        let what = (effect as u32 + 1) << 4 | block_code(block);
        [
            tag | group | what,
            tag | u32::from(self.number) << 16 | u32::from(version.0) << 8 | slot as u32,
        ]
    }

    /// The record in two words, if they belong to one.
    pub(crate) fn decode(words: [u32; 2]) -> Option<Self> {
        (byte(words[0], 3) == byte(words[1], 3)).then(|| Self::decode_unchecked(words))?
    }

    /// The record in two words, whether or not they belong to one.
    pub(crate) fn decode_unchecked(words: [u32; 2]) -> Option<Self> {
        let tag = byte(words[0], 3);
        let effect = match words[0] >> 4 & 15 {
            1 => Effect::Alloc,
            2 => Effect::Free,
            3 => Effect::Set,
            _ => return None,
        };
        let change = Change {
            effect,
            block: block_of(words[0] & 15),
            slot: *Slot::ALL.get(usize::from(byte(words[1], 0)))?,
            version: Version(byte(words[1], 1)),
        };
        let group = byte(words[0], 1);
        let record =
            Self { change, nth: group >> 4, of: group & 15, number: byte(words[1], 2), tag };
        (tag != 0).then_some(record)
    }
}

/// What the bookkeeping log keeps account of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Extent {
    /// The pages of a large block.
    Large(Block),
    /// The pages of the slab.
    Slab,
}

impl Extent {
    pub(crate) const ALL: [Self; 5] = [
        Self::Large(Block::X),
        Self::Large(Block::A),
        Self::Large(Block::B),
        Self::Large(Block::Y),
        Self::Slab,
    ];

    fn code(self) -> u32 {
        match self {
            Self::Large(block) => block as u32 + 1,
            Self::Slab => 5,
        }
    }

    fn of(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|extent| extent.code() == code)
    }
}

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Booked {
    /// The extent was allocated.
    Alloc,
    /// The extent was freed.
    Free,
}

/// An entry of a bookkeeping log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) booked: Booked,
    pub(crate) extent: Extent,
    pub(crate) sequence: u8,
    /// The epoch in which it was written. Only a broken recovery looks at it.
    pub(crate) epoch: u8,
}

impl Entry {
    pub(crate) fn encode(self) -> [u32; 2] {
        let tag = u32::from(self.sequence) << 24;
        let extent = self.extent.code();
        let what = (self.booked as u32 + 1) << 8 | extent;
        [tag | extent, tag | u32::from(self.epoch) << 16 | what]
    }

    /// The entry in two words, if they belong to one.
    pub(crate) fn decode(words: [u32; 2]) -> Option<Self> {
        let booked = match words[1] >> 8 & 15 {
            1 => Booked::Alloc,
            2 => Booked::Free,
            _ => return None,
        };
        let extent = Extent::of(words[0] & 15)?;
        let belongs = byte(words[0], 3) == byte(words[1], 3) && words[1] & 15 == extent.code();
        let sequence = byte(words[0], 3);
        belongs.then_some(Self { booked, extent, sequence, epoch: byte(words[1], 2) })
    }
}
