//! A slot as the actions of a publish name it.

use std::{fmt, marker::PhantomData};

use crate::{
    core::{NewBlock, SlotName},
    value::Slot,
};

/// A slot that an action names: one in a live block, or one in a block of the same publish, as
/// [`Reservation::slot`](crate::Reservation::slot) and [`NewBlock::slot`] give it.
pub struct SlotRef<'h, T: ?Sized = [u8]>(pub(super) SlotName<'h>, PhantomData<fn() -> Box<T>>);

impl<T: ?Sized> SlotRef<'_, T> {
    /// The slot at byte `at_byte` of a block that is not live yet.
    pub(super) const fn in_new(block: NewBlock, at_byte: usize) -> Self {
        Self(SlotName::New { block, at_byte }, PhantomData)
    }
}

impl<'h, T: ?Sized> From<&'h Slot<T>> for SlotRef<'h, T> {
    fn from(slot: &'h Slot<T>) -> Self {
        Self(SlotName::Live(slot.cell()), PhantomData)
    }
}

impl<T: ?Sized> Clone for SlotRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: ?Sized> Copy for SlotRef<'_, T> {}
impl<T: ?Sized> fmt::Debug for SlotRef<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SlotRef").field(&self.0).finish()
    }
}

impl NewBlock {
    /// The slot at byte `at_byte` of the block, a multiple of 8, for the publish that the block is given to; the block's
    /// contents must have initialised it, zero for an empty one.
    #[must_use]
    pub const fn slot<'h>(self, at_byte: usize) -> SlotRef<'h> {
        SlotRef::in_new(self, at_byte)
    }
}
