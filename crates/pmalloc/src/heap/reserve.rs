//! Reservations: blocks that a program holds before they are published.

use std::{fmt, marker::PhantomData};

use pmalloc_persist::{Medium, sync::Arc};

use super::{handle::Heap, session::Session, slot_ref::SlotRef};
#[cfg(doc)]
use crate::Error;
use crate::{
    core::{Core, Implicit, NewBlock, Pending},
    error::Result,
    op::SessionAccess,
    value::{BlockLayout, Persistent, Slot, raw},
};

/// A block that is reserved: its bytes can be written, nobody else sees it, and it goes back when it is dropped.
///
/// Made by [`Heap::reserve`](super::Heap::reserve); becomes live when a [`Publish`](super::Publish) that it was given to
/// is committed. A crash before that gives it back.
pub struct Reservation<'h, M: Medium + 'static = pmalloc_persist::Mapped, T: ?Sized = [u8]> {
    pending: Pending<'h, M>,
    holds: PhantomData<fn() -> Box<T>>,
}

impl<M: Medium + 'static> Heap<M> {
    /// Reserves a block for `layout`: it can be written, and is published later, together with other changes.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`], [`Error::Invalid`] for a size of zero or an alignment over a page, [`Error::NoSpace`].
    pub fn reserve(&self, layout: impl Into<BlockLayout>) -> Result<Reservation<'_, M>> {
        Reservation::new(self.core(), &mut Implicit(self.core()), layout.into())
    }

    /// As [`reserve`](Heap::reserve), within an explicit session of this heap.
    ///
    /// # Errors
    ///
    /// As [`reserve`](Heap::reserve), and [`Error::Invalid`] for a session of another heap.
    pub fn reserve_in(
        &self,
        session: &mut Session<M>,
        layout: impl Into<BlockLayout>,
    ) -> Result<Reservation<'_, M>> {
        session.check_heap(self.core())?;
        Reservation::new(self.core(), &mut session.access(), layout.into())
    }
}

impl<'h, M: Medium + 'static> Reservation<'h, M> {
    /// Reserves a block for `layout`.
    pub(super) fn new(
        core: &'h Arc<Core<M>>,
        access: &mut impl SessionAccess,
        layout: BlockLayout,
    ) -> Result<Self> {
        Ok(Self::of_pending(Pending::new(core, access, layout)?))
    }

    /// A block that is seen as bytes, whatever it was to hold.
    pub(super) fn of_pending(pending: Pending<'h, M>) -> Self {
        Self { pending, holds: PhantomData }
    }

    /// Lets `init` write the bytes that were asked for; they hold what they held before.
    ///
    /// What is written is durable before the block becomes reachable. A block that is never written is published
    /// uninitialised. A forked child, which has none of the memory, writes nothing.
    pub fn write(&mut self, init: impl FnOnce(&mut [u8])) {
        self.pending.write_with(|core, span| raw::initialise(core.medium(), span, init));
    }

    /// The block, for those who name slots in it by place.
    #[must_use]
    pub fn new_block(&self) -> NewBlock {
        self.pending.id()
    }
}

impl<'h, M: Medium + 'static, T: Persistent> Reservation<'h, M, T> {
    /// Reserves a block and writes the value that `init` makes.
    pub(super) fn of_value(
        core: &'h Arc<Core<M>>,
        access: &mut impl SessionAccess,
        init: impl FnOnce() -> T,
    ) -> Result<Self> {
        let mut pending = Pending::new(core, access, BlockLayout::of::<T>())?;
        let value = init();
        pending.write_with(|core, span| raw::write(core.medium(), span, value));
        Ok(Self { pending, holds: PhantomData })
    }

    /// The slot that `field` chooses in the value, for the publish that the block is given to.
    ///
    /// # Panics
    ///
    /// If `field` returns a slot that does not lie in the value.
    ///
    /// # Examples
    ///
    /// What the slot `first` owns becomes the second element of a list:
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use pmalloc::{Heap, Persistent, Slot};
    ///
    /// #[derive(Persistent)]
    /// #[repr(C)]
    /// struct Node {
    ///     value: u64,
    ///     next: Slot<Node>,
    /// }
    ///
    /// let heap = Heap::create(dir.path().join("heap"))?;
    /// let first: &Slot<Node> = heap.root("list", Slot::new)?;
    /// heap.alloc_value(first, Node { value: 2, next: Slot::new() })?;
    ///
    /// let node = heap.reserve_value(Node { value: 1, next: Slot::new() })?;
    /// let next = node.slot(|node| &node.next);
    /// heap.publish().move_to(first, next).alloc(first, node).commit()?;
    ///
    /// let guard = heap.pin();
    /// let node = first.get(&guard).expect("full");
    /// assert_eq!((node.value, node.next.get(&guard).expect("full").value), (1, 2));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn slot<U: ?Sized>(&self, field: impl FnOnce(&T) -> &Slot<U>) -> SlotRef<'h, U> {
        let at_byte =
            raw::with_reserved(self.pending.medium(), self.pending.span(), |value: &T| {
                let (base, slot) = (std::ptr::from_ref(value).addr(), field(value).cell());
                std::ptr::from_ref(slot).addr().checked_sub(base).filter(|at| *at < size_of::<T>())
            });
        let at_byte = at_byte.flatten().expect("the slot lies in the value");
        SlotRef::in_new(self.pending.id(), at_byte)
    }
}

impl<'h, M: Medium + 'static, T: ?Sized> Reservation<'h, M, T> {
    /// Byte offset of the block.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.pending.block().offset()
    }

    /// The block without its type.
    pub(super) fn into_pending(self) -> Pending<'h, M> {
        self.pending
    }
}

impl<M: Medium + 'static, T: ?Sized> fmt::Debug for Reservation<'_, M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("block", &self.pending.reserved())
            .finish_non_exhaustive()
    }
}
