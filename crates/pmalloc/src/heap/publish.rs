//! `publish`: many changes of slots and cells, atomic as a whole; and the four that have names of their own.

use std::{fmt, marker::PhantomData};

use pmalloc_persist::{Mapped, Medium, sync::Arc};
use smallvec::SmallVec;

use super::{
    Content, change,
    core::Core,
    reserve::{NewBlock, Pending, Reservation, persist_contents},
    session::{Implicit, Session},
    slot::{Slot, SlotCell},
    versioned_cell::{VersionedCell, cell_value},
};
use crate::{
    error::{Error, Result},
    op::{self, Access, CellAt, Inside, SlotAt, Step},
};

/// Most actions of one publish.
pub const PUBLISH_MAX: usize = 64;

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
    core: &'h Arc<Core<M>>,
    actions: SmallVec<[Action<'h>; PUBLISH_MAX]>,
    blocks: SmallVec<[Pending<'h, M>; PUBLISH_MAX]>,
}

/// A slot that an action names: one in a live block, or one in a block of the same publish, as
/// [`Reservation::slot`] and [`NewBlock::slot`] give it.
pub struct SlotRef<'h, T: ?Sized = [u8]>(Target<'h>, PhantomData<fn() -> Box<T>>);

/// A [`SlotRef`] without the type of what the slot owns.
#[derive(Debug, Clone, Copy)]
enum Target<'h> {
    Live(&'h SlotCell),
    New { block: NewBlock, at_byte: usize },
}

impl<T: ?Sized> SlotRef<'_, T> {
    /// The slot at byte `at_byte` of a block that is not live yet.
    pub(super) const fn in_new(block: NewBlock, at_byte: usize) -> Self {
        Self(Target::New { block, at_byte }, PhantomData)
    }
}

impl<'h, T: ?Sized> From<&'h Slot<T>> for SlotRef<'h, T> {
    fn from(slot: &'h Slot<T>) -> Self {
        Self(Target::Live(slot.cell()), PhantomData)
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

#[derive(Debug, Clone, Copy)]
enum Action<'h> {
    /// With the index of the block.
    Alloc(Target<'h>, usize),
    Free(Target<'h>, Inside),
    Move(Target<'h>, Target<'h>),
    Swap(Target<'h>, Target<'h>),
    Set(&'h VersionedCell, u64),
}

impl<'h, M: Medium + 'static> Publish<'h, M> {
    pub(super) fn new(core: &'h Arc<Core<M>>) -> Self {
        Self { core, actions: SmallVec::new(), blocks: SmallVec::new() }
    }

    /// Gives `block` to `slot`, which is empty.
    pub fn alloc<T: Content + ?Sized>(
        &mut self,
        slot: impl Into<SlotRef<'h, T>>,
        block: Reservation<'h, M, T>,
    ) -> &mut Self {
        let at = self.blocks.len();
        self.blocks.push(block.into_pending());
        self.add(Action::Alloc(slot.into().0, at))
    }

    /// Frees the block that `slot` owns. The slots of a typed block must be empty when the publish is done.
    pub fn free<T: Content + ?Sized>(&mut self, slot: impl Into<SlotRef<'h, T>>) -> &mut Self {
        self.add(Action::Free(slot.into().0, change::inside::<T>()))
    }

    /// Moves the block of `from` to `to`, which is empty.
    pub fn move_to<T: Content + ?Sized>(
        &mut self,
        from: impl Into<SlotRef<'h, T>>,
        to: impl Into<SlotRef<'h, T>>,
    ) -> &mut Self {
        self.add(Action::Move(from.into().0, to.into().0))
    }

    /// Exchanges what two slots own, if anything.
    pub fn swap<T: Content + ?Sized>(
        &mut self,
        a: impl Into<SlotRef<'h, T>>,
        b: impl Into<SlotRef<'h, T>>,
    ) -> &mut Self {
        self.add(Action::Swap(a.into().0, b.into().0))
    }

    /// Sets `cell` to `value`, at most [`VersionedCell::VALUE_MAX`].
    ///
    /// The cell lies in a live block. In a block of the same publish a cell gets its value with the contents.
    pub fn set(&mut self, cell: &'h VersionedCell, value: u64) -> &mut Self {
        self.add(Action::Set(cell, value))
    }

    /// Number of actions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.actions.len()
    }

    /// Whether there are no actions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
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
    /// blocks are durable before the blocks can be reached. Cost: a record per change of a slot or cell, three fences, and
    /// one more with contents.
    pub fn commit(&mut self) -> Result<()> {
        self.commit_with(&mut Implicit(self.core))
    }

    /// As [`commit`](Self::commit), within an explicit session of the same heap.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit), and [`Error::Invalid`] for a session of another heap.
    pub fn commit_in(&mut self, session: &mut Session<M>) -> Result<()> {
        session.check_heap(self.core)?;
        self.commit_with(&mut session.access())
    }

    /// The blocks that were added and are not published, in the order in which they were added.
    ///
    /// After an error of [`commit`](Self::commit) they would go back with the publish; who keeps them can publish them
    /// later, or elsewhere. What was written to them is still there.
    #[must_use]
    pub fn into_reservations(self) -> Vec<Reservation<'h, M>> {
        self.blocks.into_iter().map(Reservation::of_pending).collect()
    }

    pub(super) fn commit_with(&mut self, access: &mut impl Access) -> Result<()> {
        if self.actions.len() > PUBLISH_MAX {
            let limit = PUBLISH_MAX as u64;
            return Err(Error::Limit { what: "actions in one publish", limit });
        }
        if self.blocks.iter().any(|block| !block.is_of(self.core)) {
            let why = "it was reserved in another heap".into();
            return Err(Error::Invalid { what: "block", why });
        }
        let core: &Core<M> = self.core;
        access.with(|state| {
            let _entered = core.enter()?;
            persist_contents(core, &self.blocks);
            op::perform(core, state, &self.steps()?)
        })?;
        self.actions.clear();
        self.blocks.drain(..).for_each(Pending::published);
        Ok(())
    }

    fn add(&mut self, action: Action<'h>) -> &mut Self {
        self.actions.push(action);
        self
    }

    fn steps(&self) -> Result<SmallVec<[Step; PUBLISH_MAX]>> {
        let step = |action: &Action<'h>| {
            Ok(match *action {
                Action::Alloc(slot, at) => Step::Alloc(self.place(slot)?, self.blocks[at].block()),
                Action::Free(slot, inside) => Step::Free(self.place(slot)?, inside),
                Action::Move(from, to) => Step::Move(self.place(from)?, self.place(to)?),
                Action::Swap(a, b) => Step::Swap(self.place(a)?, self.place(b)?),
                Action::Set(cell, value) => {
                    Step::Set(CellAt { offset: self.core.offset_of(cell)? }, cell_value(value)?)
                }
            })
        };
        self.actions.iter().map(step).collect()
    }

    fn place(&self, slot: Target<'h>) -> Result<SlotAt> {
        match slot {
            Target::Live(slot) => Ok(SlotAt::live(self.core.offset_of(slot)?)),
            Target::New { block, at_byte } => self.new_place(block, at_byte),
        }
    }

    /// A slot in a block of this publish, whose contents have made it durable.
    fn new_place(&self, block: NewBlock, at_byte: usize) -> Result<SlotAt> {
        let invalid = |why: &str| Error::Invalid { what: "slot in a new block", why: why.into() };
        let block = self.blocks.iter().find(|pending| pending.id() == block);
        let block = block.ok_or_else(|| invalid("the block was not added to this publish"))?;
        let contents = block.contents();
        let contents =
            contents.ok_or_else(|| invalid("the block was not written: initialise its slots"))?;
        let at = at_byte as u64;
        if !at.is_multiple_of(8) || at.saturating_add(8) > contents.len {
            return Err(invalid("slots are 8 bytes, aligned to 8, inside the bytes asked for"));
        }
        Ok(SlotAt { offset: contents.start + at, is_new: true })
    }
}

impl<M: Medium + 'static> fmt::Debug for Publish<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish").field("actions", &self.actions).finish_non_exhaustive()
    }
}
