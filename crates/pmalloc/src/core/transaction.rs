//! A transaction: changes of slots and cells that take effect together.

use pmalloc_persist::{Medium, sync::Arc};
use smallvec::SmallVec;

use super::{
    change::cell_value,
    open_heap::Core,
    pending::{NewBlock, Pending, persist_contents},
};
use crate::{
    error::{Error, Result},
    op::{self, CellAt, Inside, SessionAccess, SlotAt, Step},
    value::{VersionedCell, slot::SlotCell},
};

/// Most actions of one publish.
pub const PUBLISH_MAX: usize = 64;

/// A slot that an action names, whatever it owns: one in a live block, or one in a block of the same transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SlotName<'h> {
    /// In a live block.
    Live(&'h SlotCell),
    /// At this byte of a block that is not live yet.
    New { block: NewBlock, at_byte: usize },
}

/// One change.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action<'h> {
    /// With the index of the block.
    Alloc(SlotName<'h>, usize),
    /// What the type of the slot says of the block.
    Free(SlotName<'h>, Inside),
    /// From the first to the second, which is empty.
    Move(SlotName<'h>, SlotName<'h>),
    /// What two slots own.
    Swap(SlotName<'h>, SlotName<'h>),
    /// To this value.
    Set(&'h VersionedCell, u64),
}

/// The changes so far, and the blocks that they publish.
pub(crate) struct Transaction<'h, M: Medium + 'static> {
    core: &'h Arc<Core<M>>,
    actions: SmallVec<[Action<'h>; PUBLISH_MAX]>,
    blocks: SmallVec<[Pending<'h, M>; PUBLISH_MAX]>,
}

impl<'h, M: Medium + 'static> Transaction<'h, M> {
    /// One without actions.
    pub(crate) fn new(core: &'h Arc<Core<M>>) -> Self {
        Self { core, actions: SmallVec::new(), blocks: SmallVec::new() }
    }

    /// The heap that it changes.
    pub(crate) fn core(&self) -> &'h Arc<Core<M>> {
        self.core
    }

    /// Gives `block` to `slot`.
    pub(crate) fn alloc(&mut self, slot: SlotName<'h>, block: Pending<'h, M>) {
        self.add(Action::Alloc(slot, self.blocks.len()));
        self.blocks.push(block);
    }

    /// Adds an action.
    pub(crate) fn add(&mut self, action: Action<'h>) {
        self.actions.push(action);
    }

    /// The actions.
    pub(crate) fn actions(&self) -> &[Action<'h>] {
        &self.actions
    }

    /// Number of actions.
    pub(crate) fn len(&self) -> usize {
        self.actions.len()
    }

    /// The blocks that were added and are not published.
    pub(crate) fn into_blocks(self) -> impl Iterator<Item = Pending<'h, M>> {
        self.blocks.into_iter()
    }

    /// Performs the actions, and is empty then; after an error they are still here.
    ///
    /// # Crash consistency
    ///
    /// Atomic, as [`op::perform`]. Contents of new blocks are durable before.
    pub(crate) fn commit(&mut self, access: &mut impl SessionAccess) -> Result<()> {
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
            // Filled where it stands: it is large.
            let mut steps = SmallVec::<[Step; PUBLISH_MAX]>::new();
            self.actions
                .iter()
                .try_for_each(|action| self.step(action).map(|step| steps.push(step)))?;
            op::perform(core, state, &steps)
        })?;
        self.actions.clear();
        self.blocks.drain(..).for_each(Pending::published);
        Ok(())
    }

    fn step(&self, action: &Action<'h>) -> Result<Step> {
        Ok(match *action {
            Action::Alloc(slot, at) => Step::Alloc(self.place(slot)?, self.blocks[at].block()),
            Action::Free(slot, inside) => Step::Free(self.place(slot)?, inside),
            Action::Move(from, to) => Step::Move(self.place(from)?, self.place(to)?),
            Action::Swap(a, b) => Step::Swap(self.place(a)?, self.place(b)?),
            Action::Set(cell, value) => {
                Step::Set(CellAt { offset: self.core.offset_of(cell)? }, cell_value(value)?)
            }
        })
    }

    fn place(&self, slot: SlotName<'h>) -> Result<SlotAt> {
        match slot {
            SlotName::Live(slot) => Ok(SlotAt::live(self.core.offset_of(slot)?)),
            SlotName::New { block, at_byte } => self.new_place(block, at_byte),
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
