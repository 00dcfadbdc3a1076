//! `publish`: many changes of slots and cells, atomic as a whole; and the four that have names of their own.

use std::fmt;

use pmalloc_persist::{Mapped, Medium, sync::Arc};

use super::{handle::Heap, reserve::Reservation, session::Session, slot_ref::SlotRef};
#[cfg(doc)]
use crate::{Error, PUBLISH_MAX};
use crate::{
    core::{Action, Core, Implicit, Transaction, change},
    error::Result,
    value::{Content, VersionedCell},
};

/// Actions that take effect together: all of them or, after an error or a crash, none.
///
/// They take effect in the order in which they were added, as if each was an operation of its own: a slot that an earlier
/// action empties can be filled by a later one. Only what is new or freed is so for all of them: slots in a block that the
/// publish allocates can be named by earlier actions, and those in a block that it frees by later ones. Up to
/// [`PUBLISH_MAX`], for which there is room in the value itself: it is some 9 KiB, and asks for no memory.
///
/// They are one step to a crash and to other operations. A thread that only reads takes no lock: it may find some of the
/// slots changed and others not yet.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use std::alloc::Layout;
///
/// let heap = pmalloc::Heap::create(dir.path().join("heap"))?;
/// let slots = heap.slots("accounts", 2)?;
/// let mut blocks = Vec::new();
/// for balance in [70_u64, 30] {
///     let mut block = heap.reserve(Layout::new::<u64>())?;
///     block.write(|bytes| bytes.copy_from_slice(&balance.to_le_bytes()));
///     blocks.push(block);
/// }
/// // Both accounts exist, or neither.
/// let mut publish = heap.publish();
/// for (slot, block) in slots.iter().zip(blocks) {
///     publish.alloc(slot, block);
/// }
/// publish.commit()?;
/// # Ok(())
/// # }
/// ```
pub struct Publish<'h, M: Medium + 'static = Mapped> {
    transaction: Transaction<'h, M>,
}

impl<M: Medium + 'static> Heap<M> {
    /// An empty [`Publish`]: add actions to it, and commit them as one.
    #[must_use]
    pub fn publish(&self) -> Publish<'_, M> {
        Publish::new(self.core())
    }
}

impl<'h, M: Medium + 'static> Publish<'h, M> {
    pub(super) fn new(core: &'h Arc<Core<M>>) -> Self {
        Self { transaction: Transaction::new(core) }
    }

    /// Gives `block` to `slot`, which is empty.
    pub fn alloc<T: Content + ?Sized>(
        &mut self,
        slot: impl Into<SlotRef<'h, T>>,
        block: Reservation<'h, M, T>,
    ) -> &mut Self {
        self.transaction.alloc(slot.into().0, block.into_pending());
        self
    }

    /// Frees the block that `slot` owns. The slots of a typed block must be empty when the publish is done.
    pub fn free<T: Content + ?Sized>(&mut self, slot: impl Into<SlotRef<'h, T>>) -> &mut Self {
        self.transaction.add(Action::Free(slot.into().0, change::inside::<T>()));
        self
    }

    /// Moves the block of `from` to `to`, which is empty.
    pub fn move_to<T: Content + ?Sized>(
        &mut self,
        from: impl Into<SlotRef<'h, T>>,
        to: impl Into<SlotRef<'h, T>>,
    ) -> &mut Self {
        self.transaction.add(Action::Move(from.into().0, to.into().0));
        self
    }

    /// Exchanges what two slots own, if anything.
    pub fn swap<T: Content + ?Sized>(
        &mut self,
        a: impl Into<SlotRef<'h, T>>,
        b: impl Into<SlotRef<'h, T>>,
    ) -> &mut Self {
        self.transaction.add(Action::Swap(a.into().0, b.into().0));
        self
    }

    /// Sets `cell` to `value`, at most [`VersionedCell::VALUE_MAX`].
    ///
    /// The cell lies in a live block. In a block of the same publish a cell gets its value with the contents.
    pub fn set(&mut self, cell: &'h VersionedCell, value: u64) -> &mut Self {
        self.transaction.add(Action::Set(cell, value));
        self
    }

    /// Number of actions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.transaction.len()
    }

    /// Whether there are no actions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.transaction.len() == 0
    }

    /// Performs the actions, and is empty then.
    ///
    /// # Errors
    ///
    /// Those of the actions as operations of their own: [`Error::SlotFull`], [`Error::SlotEmpty`],
    /// [`Error::SlotForeign`], [`Error::NotLive`], [`Error::Corrupted`]; [`Error::ChildrenAlive`] for a slot that would be
    /// left full in a block that is freed, if it is named here or known by the type of the block;
    /// [`Error::Limit`] for more than [`PUBLISH_MAX`] actions; [`Error::Invalid`] for a block that was reserved in another
    /// heap, for a slot in a new block that was not added to this publish, whose contents were not written, or that was
    /// not written as an empty one, and for a value that does not fit a cell; [`Error::OutOfMemory`] or [`Error::NoSpace`] if
    /// the bookkeeping log has no room for large blocks. Nothing changed then, and the actions are still here.
    ///
    /// # Crash consistency
    ///
    /// After return all actions are durable; after a crash before that, all or none of them happened. Contents of new
    /// blocks are durable before the blocks can be reached. Cost: a record per change of a slot or cell, one fence, and
    /// one more with contents; under [`Policy::Eager`](crate::Policy::Eager) three, and one more.
    pub fn commit(&mut self) -> Result<()> {
        self.transaction.commit(&mut Implicit(self.transaction.core()))
    }

    /// As [`commit`](Self::commit), within an explicit session of the same heap.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit), and [`Error::Invalid`] for a session of another heap.
    pub fn commit_in(&mut self, session: &mut Session<M>) -> Result<()> {
        session.check_heap(self.transaction.core())?;
        self.transaction.commit(&mut session.access())
    }

    /// The blocks that were added and are not published, in the order in which they were added.
    ///
    /// After an error of [`commit`](Self::commit) they would go back with the publish; who keeps them can publish them
    /// later, or elsewhere. What was written to them is still there.
    #[must_use]
    pub fn into_reservations(self) -> Vec<Reservation<'h, M>> {
        self.transaction.into_blocks().map(Reservation::of_pending).collect()
    }
}

impl<M: Medium + 'static> fmt::Debug for Publish<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("actions", &self.transaction.actions())
            .finish_non_exhaustive()
    }
}
