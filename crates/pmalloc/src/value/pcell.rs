//! The cell: eight bytes of a value that change in place.

use std::{fmt, marker::PhantomData};

use pmalloc_persist::Word;

use super::{persistent::Persistent, pptr::PPtr};

/// Eight bytes of heap memory that hold a plain value and change in place.
///
/// A change is stored and made durable before the call returns; it stands by itself, and takes part in no publish. What has
/// to change together with slots is a [`VersionedCell`](super::VersionedCell), what is larger than eight bytes is
/// replaced.
///
/// Another thread may load a value before it is durable. What it stores because of that value may be durable first; where
/// that matters, persist in an order of your own, or publish. So may another process: if one is killed before the call
/// returns, the next one finds the new value in the cache, and the old one is back when the power fails before the line is
/// written back. A [`store`](Self::store) of the value that was found, after opening, rules that out.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use pmalloc::{Heap, PCell};
///
/// let heap = Heap::create(dir.path().join("heap"))?;
/// let runs: &PCell<u64> = heap.root("runs", || PCell::new(0))?;
/// assert_eq!(runs.fetch_add(&heap, 1)?, 0);
/// assert_eq!(runs.load(&heap), 1);
/// # Ok(())
/// # }
/// ```
#[repr(transparent)]
pub struct PCell<T: CellValue> {
    /// Persistent: the bits of the value.
    word: Word,
    value: PhantomData<fn(T) -> T>,
}

/// Values that a [`PCell`] can hold: those of eight bytes. Nothing else implements it.
pub trait CellValue: Persistent + Copy + sealed::Bits {}

impl<T: Persistent + Copy + sealed::Bits> CellValue for T {}

/// Values of a [`PCell`] that can be counted with.
pub trait CellInteger: CellValue + sealed::Add {}

impl<T: CellValue + sealed::Add> CellInteger for T {}

mod sealed {
    use super::PPtr;

    /// A value as eight bytes.
    pub trait Bits {
        /// The bits.
        fn to_word(self) -> u64;
        /// The value with these bits, whatever they are.
        fn from_word(word: u64) -> Self;
    }

    /// Addition that wraps.
    pub trait Add {
        /// The sum.
        #[must_use]
        fn plus(self, other: Self) -> Self;
    }

    impl Bits for u64 {
        fn to_word(self) -> u64 {
            self
        }
        fn from_word(word: u64) -> Self {
            word
        }
    }
    impl Bits for i64 {
        fn to_word(self) -> u64 {
            self.cast_unsigned()
        }
        fn from_word(word: u64) -> Self {
            word.cast_signed()
        }
    }
    impl Bits for f64 {
        fn to_word(self) -> u64 {
            self.to_bits()
        }
        fn from_word(word: u64) -> Self {
            Self::from_bits(word)
        }
    }
    impl<T: ?Sized + 'static> Bits for PPtr<T> {
        fn to_word(self) -> u64 {
            self.offset()
        }
        fn from_word(word: u64) -> Self {
            Self::from_offset(word)
        }
    }

    impl Add for u64 {
        fn plus(self, other: Self) -> Self {
            self.wrapping_add(other)
        }
    }
    impl Add for i64 {
        fn plus(self, other: Self) -> Self {
            self.wrapping_add(other)
        }
    }
}

impl<T: CellValue> PCell<T> {
    /// A cell that holds `value`, to be moved into the heap.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { word: Word::new(value.to_word()), value: PhantomData }
    }

    /// The word that it is.
    pub(crate) fn word(&self) -> &Word {
        &self.word
    }
}

impl<T: CellValue> fmt::Debug for PCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value is not read here: only a medium may look at it.
        f.write_str("PCell")
    }
}
