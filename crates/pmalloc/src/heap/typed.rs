//! Operations on blocks that hold values of a [`Persistent`] type.
//!
//! Each is one of the operations on bytes, with the value as contents and with the slots in it looked at before it is
//! freed.

use pmalloc_persist::{Medium, sync::Arc};

use super::{handle::Heap, reserve::Reservation, session::Session};
use crate::{
    core::{Implicit, change},
    error::Result,
    value::{Persistent, Slot},
};

impl<M: Medium + 'static> Heap<M> {
    /// Allocates a block into the empty `slot` that holds `value`.
    ///
    /// # Errors
    ///
    /// As [`alloc_init`](Heap::alloc_init).
    ///
    /// # Crash consistency
    ///
    /// As [`alloc_init`](Heap::alloc_init): a block that is there after a crash holds the whole value.
    pub fn alloc_value<T: Persistent>(&self, slot: &Slot<T>, value: T) -> Result<()> {
        self.alloc_value_with(slot, || value)
    }

    /// As [`alloc_value`](Heap::alloc_value), with the value that `init` makes once there is a block for it.
    ///
    /// `init` may use the heap; if it panics, the block goes back.
    ///
    /// # Errors
    ///
    /// As [`alloc_init`](Heap::alloc_init).
    ///
    /// # Crash consistency
    ///
    /// As [`alloc_value`](Heap::alloc_value).
    pub fn alloc_value_with<T: Persistent>(
        &self,
        slot: &Slot<T>,
        init: impl FnOnce() -> T,
    ) -> Result<()> {
        change::alloc_value(self.core(), &mut Implicit(self.core()), slot, init)
    }

    /// Replaces the value that `slot` owns by a new one.
    ///
    /// Who looks at the old one under a guard goes on to see it.
    ///
    /// # Errors
    ///
    /// As [`alloc_value`](Heap::alloc_value) and [`free_from`](Heap::free_from):
    /// [`Error::ChildrenAlive`](crate::Error::ChildrenAlive) if a slot in the old value is full. Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// Atomic: at every moment, and after a crash at any, the slot owns the old value or the new one, whole.
    pub fn replace_value<T: Persistent>(&self, slot: &Slot<T>, value: T) -> Result<()> {
        change::replace_value(self.core(), &mut Implicit(self.core()), slot, value)
    }

    /// Reserves a block that holds `value`, to be published later, together with other changes.
    ///
    /// # Errors
    ///
    /// As [`reserve`](Heap::reserve).
    pub fn reserve_value<T: Persistent>(&self, value: T) -> Result<Reservation<'_, M, T>> {
        Reservation::of_value(self.core(), &mut Implicit(self.core()), || value)
    }

    /// As [`reserve_value`](Heap::reserve_value), within an explicit session of this heap.
    ///
    /// # Errors
    ///
    /// As [`reserve_in`](Heap::reserve_in).
    pub fn reserve_value_in<T: Persistent>(
        &self,
        session: &mut Session<M>,
        value: T,
    ) -> Result<Reservation<'_, M, T>> {
        session.check_heap(self.core())?;
        Reservation::of_value(self.core(), &mut session.access(), || value)
    }
}

impl<M: Medium + 'static> Session<M> {
    /// As [`Heap::alloc_value`].
    ///
    /// # Errors
    ///
    /// As [`Heap::alloc_value`].
    pub fn alloc_value<T: Persistent>(&mut self, slot: &Slot<T>, value: T) -> Result<()> {
        self.alloc_value_with(slot, || value)
    }

    /// As [`Heap::alloc_value_with`].
    ///
    /// # Errors
    ///
    /// As [`Heap::alloc_value_with`].
    pub fn alloc_value_with<T: Persistent>(
        &mut self,
        slot: &Slot<T>,
        init: impl FnOnce() -> T,
    ) -> Result<()> {
        let core = Arc::clone(self.heap().core());
        change::alloc_value(&core, &mut self.access(), slot, init)
    }

    /// As [`Heap::replace_value`].
    ///
    /// # Errors
    ///
    /// As [`Heap::replace_value`].
    pub fn replace_value<T: Persistent>(&mut self, slot: &Slot<T>, value: T) -> Result<()> {
        let core = Arc::clone(self.heap().core());
        change::replace_value(&core, &mut self.access(), slot, value)
    }
}
