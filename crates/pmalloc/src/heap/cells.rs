//! Cells, loaded and changed in a heap.

use pmalloc_persist::Medium;

use super::handle::Heap;
use crate::{
    core::in_place,
    error::Result,
    value::{CellInteger, CellValue, PCell, VersionedCell},
};

/// What a call that has no other answer stops a forked child with.
const FORKED: &str =
    "a forked child has none of the heap's memory: open the heap in one process only";

impl<T: CellValue> PCell<T> {
    /// The value. Another thread's change may be seen before it is durable.
    ///
    /// # Panics
    ///
    /// If the cell does not lie in `heap`, or in a forked child, which has none of the heap's memory.
    #[must_use]
    pub fn load<M: Medium>(&self, heap: &Heap<M>) -> T {
        let m = heap.core().medium_around(self).expect(FORKED);
        T::from_word(m.load(self.word()))
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
        in_place::change(heap.core(), self.word(), |m| m.store(self.word(), value.to_word()))
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
        let found = in_place::compare_exchange(heap.core(), self.word(), current, new)?;
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
        let change = |found| change(T::from_word(found)).map(T::to_word);
        let found = in_place::update(heap.core(), self.word(), change)?;
        Ok(found.map(T::from_word).map_err(T::from_word))
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

impl VersionedCell {
    /// The value. A change of another thread is decided, and so outlives a crash, before it is seen; the changes of one
    /// publish are seen one after the other.
    ///
    /// # Panics
    ///
    /// If the cell does not lie in `heap`, or in a forked child, which has none of the heap's memory.
    #[must_use]
    pub fn load<M: Medium>(&self, heap: &Heap<M>) -> u64 {
        let m = heap.core().medium_around(self).expect(FORKED);
        self.read(m).value().get()
    }
}
