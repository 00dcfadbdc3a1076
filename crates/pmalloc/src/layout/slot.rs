//! The packed slot word: where the block is, and how often the slot has changed.

/// Bits of the block's place, in units of 16 bytes.
pub(super) const PLACE_BITS: u32 = 44;

/// Bits of the version.
const VERSION_BITS: u32 = 20;

/// Smallest distance between two blocks, in bytes: the unit of places.
pub(crate) const BLOCK_UNIT_BYTES: u64 = 16;

/// How often a slot has changed, modulo 2^20; compared by serial-number arithmetic (RFC 1982).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Version(u32);

impl Version {
    /// Number of versions before they begin again.
    pub(crate) const RANGE: u64 = 1 << VERSION_BITS;

    /// The version with the low 20 bits of `bits`.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "masked to 20 bits")]
        Self((bits & ((1 << VERSION_BITS) - 1)) as u32)
    }

    /// The version as a number below 2^20.
    pub(crate) const fn bits(self) -> u64 {
        self.0 as u64
    }

    /// The version after this one.
    pub(crate) const fn next(self) -> Self {
        Self::from_bits(self.0 as u64 + 1)
    }

    /// Whether this version comes after `other`: at most half the range ahead of it.
    pub(crate) const fn is_newer_than(self, other: Self) -> bool {
        let ahead = self.0.wrapping_sub(other.0) & ((1 << VERSION_BITS) - 1);
        ahead != 0 && ahead < 1 << (VERSION_BITS - 1)
    }
}

/// The content of a slot: 44 bits of place in 16-byte units, zero = empty, below 20 bits of version.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SlotWord(u64);

impl SlotWord {
    /// The word as it stands on media.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits to store.
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// A slot that owns the block at byte `place`, a multiple of 16 below 2^48.
    pub(crate) const fn owning(place: u64, version: Version) -> Self {
        debug_assert!(place.is_multiple_of(BLOCK_UNIT_BYTES));
        debug_assert!(place / BLOCK_UNIT_BYTES < 1 << PLACE_BITS);
        Self((version.bits() << PLACE_BITS) | (place / BLOCK_UNIT_BYTES))
    }

    /// An empty slot.
    pub(crate) const fn empty(version: Version) -> Self {
        Self(version.bits() << PLACE_BITS)
    }

    /// Byte offset of the block, or `None` if the slot is empty.
    pub(crate) const fn place(self) -> Option<u64> {
        match self.0 & ((1 << PLACE_BITS) - 1) {
            0 => None,
            units => Some(units * BLOCK_UNIT_BYTES),
        }
    }

    /// The version.
    pub(crate) const fn version(self) -> Version {
        Version::from_bits(self.0 >> PLACE_BITS)
    }
}

impl core::fmt::Debug for SlotWord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.place() {
            Some(place) => write!(f, "slot {place:#x} v{}", self.version().bits()),
            None => write!(f, "slot empty v{}", self.version().bits()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_word_keeps_place_and_version() {
        let word = SlotWord::owning(0x7fff_fff0, Version::from_bits(0xf_ffff));
        assert_eq!(word.place(), Some(0x7fff_fff0));
        assert_eq!(word.version().bits(), 0xf_ffff);
        assert_eq!(SlotWord::empty(word.version().next()).bits(), 0);
    }

    #[test]
    fn versions_compare_across_the_wrap() {
        let last = Version::from_bits(0xf_ffff);
        assert!(last.next().is_newer_than(last));
        assert!(!last.is_newer_than(last.next()));
        assert!(!last.is_newer_than(last));
    }
}
