//! The word of a block: how far its life has come, which slot owns it, who waits for it.

use std::num::NonZeroU16;

use super::super::{request::Entry, slots::SlotId};

const STATE_MASK: u64 = 0x7;
const WAITER_SHIFT: u32 = 8;
const WAITER_MASK: u64 = 0xffff << WAITER_SHIFT;
const SLOT_SHIFT: u32 = 32;

/// An entry, and the thread that waits for the next one, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryWord(u64);

impl EntryWord {
    /// The word with these bits.
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// `entry`, and nobody waits.
    pub(super) fn of(entry: Entry) -> Self {
        let (state, slot) = match entry {
            Entry::Untouched => (0, 0),
            Entry::Live(slot) => (1, slot.get()),
            Entry::Freed => (2, 0),
        };
        Self(state | (u64::from(slot) << SLOT_SHIFT))
    }

    /// No entry, but that `thread` waits: to be added to another word.
    pub(super) fn waiter_bits(thread: u16) -> u64 {
        u64::from(thread + 1) << WAITER_SHIFT
    }

    /// The word with another entry and the same waiter.
    pub(super) fn with(self, entry: Entry) -> Self {
        Self(Self::of(entry).0 | (self.0 & WAITER_MASK))
    }

    /// The entry.
    pub(super) fn entry(self) -> Entry {
        let slot = SlotId::new(u32::try_from(self.0 >> SLOT_SHIFT).expect("32 bits remain"));
        match self.0 & STATE_MASK {
            0 => Entry::Untouched,
            1 => Entry::Live(slot),
            2 => Entry::Freed,
            _ => unreachable!("the journal writes valid entries"),
        }
    }

    /// The waiting thread.
    pub(super) fn waiter(self) -> Option<u16> {
        let number = u16::try_from((self.0 & WAITER_MASK) >> WAITER_SHIFT).expect("16 bits remain");
        NonZeroU16::new(number).map(|number| number.get() - 1)
    }
}
