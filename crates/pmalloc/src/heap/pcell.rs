//! The cell: eight bytes of a value that change in place.

use std::{fmt, marker::PhantomData};

use pmalloc_persist::{Medium, Word};

use super::{FORKED, Heap, PPtr, Persistent};
use crate::error::Result;

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

    /// The value. Another thread's change may be seen before it is durable.
    ///
    /// # Panics
    ///
    /// If the cell does not lie in `heap`, or in a forked child, which has none of the heap's memory.
    #[must_use]
    pub fn load<M: Medium>(&self, heap: &Heap<M>) -> T {
        let m = heap.core().medium_around(self).expect(FORKED);
        T::from_word(m.load(&self.word))
    }

    /// Stores `value`.
    ///
    /// # Errors
    ///
    /// [`Error::SlotForeign`](crate::Error::SlotForeign) if the cell lies in no live block of `heap`,
    /// [`Error::Forked`](crate::Error::Forked). Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// After return the value is durable; after a crash before that, the cell holds the old value or the new one. Cost: 1
    /// line flush, 1 fence.
    pub fn store<M: Medium>(&self, heap: &Heap<M>, value: T) -> Result<()> {
        self.change(heap, |m| m.store(&self.word, value.to_word()))
    }

    /// Stores `new` if the cell holds the bits of `current`, and returns the value before: `Ok` if it was `current`.
    ///
    /// # Errors
    ///
    /// As [`store`](Self::store).
    ///
    /// # Crash consistency
    ///
    /// As [`store`](Self::store); what is found instead of `current` is durable on return, too.
    pub fn compare_exchange<M: Medium>(
        &self,
        heap: &Heap<M>,
        current: T,
        new: T,
    ) -> Result<Result<T, T>> {
        let (current, new) = (current.to_word(), new.to_word());
        let found = self.change(heap, |m| m.compare_exchange(&self.word, current, new))?;
        Ok(found.map(T::from_word).map_err(T::from_word))
    }

    /// Stores what `change` makes of the value, if it makes anything, and returns the value before: `Ok` if it changed.
    /// `change` may be called more than once.
    ///
    /// # Errors
    ///
    /// As [`store`](Self::store).
    ///
    /// # Crash consistency
    ///
    /// As [`compare_exchange`](Self::compare_exchange).
    pub fn fetch_update<M: Medium>(
        &self,
        heap: &Heap<M>,
        mut change: impl FnMut(T) -> Option<T>,
    ) -> Result<Result<T, T>> {
        let core = heap.core();
        core.check_process()?;
        core.place_of(&self.word)?;
        let mut found = T::from_word(core.medium().load(&self.word));
        while let Some(new) = change(found) {
            match self.compare_exchange(heap, found, new)? {
                Ok(before) => return Ok(Ok(before)),
                Err(other) => found = other,
            }
        }
        // Nothing is changed, but what was found is durable on return.
        self.change(heap, |_| ())?;
        Ok(Err(found))
    }

    /// Changes the word and makes it durable.
    fn change<M: Medium, R>(&self, heap: &Heap<M>, change: impl FnOnce(&M) -> R) -> Result<R> {
        let core = heap.core();
        let _entered = core.enter()?;
        core.place_of(&self.word)?;
        let m = core.medium();
        let result = change(m);
        m.flush_of(&self.word);
        // CRASH: one word: the old value or the new one.
        m.fence();
        Ok(result)
    }
}

impl<T: CellInteger> PCell<T> {
    /// Adds `value`, wrapping at the ends of the type, and returns the value before.
    ///
    /// # Errors
    ///
    /// As [`store`](Self::store).
    ///
    /// # Crash consistency
    ///
    /// As [`store`](Self::store).
    pub fn fetch_add<M: Medium>(&self, heap: &Heap<M>, value: T) -> Result<T> {
        match self.fetch_update(heap, |found| Some(found.plus(value)))? {
            Ok(before) | Err(before) => Ok(before),
        }
    }
}

impl<T: CellValue> fmt::Debug for PCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value is not read here: only a medium may look at it.
        f.write_str("PCell")
    }
}
