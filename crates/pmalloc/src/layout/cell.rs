//! The packed word of a versioned cell: a value, and how often the cell has changed.

use super::slot::{PLACE_BITS, Version};

/// Largest value of a cell: what a slot keeps a place in.
pub(crate) const CELL_VALUE_MAX: u64 = (1 << PLACE_BITS) - 1;

/// A value that fits a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CellValue(u64);

impl CellValue {
    /// The value, or `None` if it is over [`CELL_VALUE_MAX`].
    pub(crate) const fn new(value: u64) -> Option<Self> {
        if value <= CELL_VALUE_MAX { Some(Self(value)) } else { None }
    }

    /// The value as a number.
    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}

/// The content of a cell: 44 bits of value below 20 bits of version.
///
/// A slot's word is packed alike, so that records and recovery treat both alike; whether a word is a slot or a cell stands
/// nowhere on media but in the record that changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CellWord(u64);

impl CellWord {
    /// The word as it stands on media.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits to store.
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// A cell that holds `value`.
    pub(crate) const fn holding(value: CellValue, version: Version) -> Self {
        Self((version.bits() << PLACE_BITS) | value.0)
    }

    /// The value.
    pub(crate) const fn value(self) -> CellValue {
        CellValue(self.0 & CELL_VALUE_MAX)
    }

    /// The version.
    pub(crate) const fn version(self) -> Version {
        Version::from_bits(self.0 >> PLACE_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::slot::SlotWord;

    #[test]
    fn a_cell_word_keeps_value_and_version_where_a_slot_has_its_own() {
        let value = CellValue::new(CELL_VALUE_MAX).expect("the largest");
        let word = CellWord::holding(value, Version::from_bits(0xf_fffe));
        assert_eq!(word.value(), value);
        assert_eq!(word.version().next().bits(), 0xf_ffff);
        assert_eq!(SlotWord::from_bits(word.bits()).version(), word.version());
        assert_eq!(CellValue::new(CELL_VALUE_MAX + 1), None);
    }
}
