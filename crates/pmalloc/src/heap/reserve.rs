//! Reservations: blocks that a program holds before they are published.

use std::{fmt, marker::PhantomData, sync::atomic::AtomicU64 as ProcessCounter};

use pmalloc_persist::{
    Medium, Offset, Span, Word,
    sync::{Arc, Ordering},
};

use super::{BlockLayout, Persistent, Slot, SlotRef, core::Core, raw, session::Implicit};
use crate::{
    arena::Block,
    error::Result,
    op::{self, Access},
};

/// A block that is reserved: its bytes can be written, nobody else sees it, and it goes back when it is dropped.
///
/// Made by [`Heap::reserve`](super::Heap::reserve); becomes live when a [`Publish`](super::Publish) that it was given to
/// is committed. A crash before that gives it back.
pub struct Reservation<'h, M: Medium + 'static = pmalloc_persist::Mapped, T: ?Sized = [u8]> {
    pending: Pending<'h, M>,
    holds: PhantomData<fn() -> Box<T>>,
}

impl<'h, M: Medium + 'static> Reservation<'h, M> {
    /// Reserves a block for `layout`.
    pub(super) fn new(
        core: &'h Arc<Core<M>>,
        access: &mut impl Access,
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
        self.pending.write_with(|core, span| raw::initialise(core, span, init));
    }

    /// Writes the first words, each as a word: what the simulator has not decided yet of the block's memory need not be
    /// decided before.
    pub(super) fn write_words(&mut self, words: &[u64]) {
        self.pending.write_with(|core, span| {
            let (m, count) = (core.medium(), words.len() as u64);
            let places = m.region().array::<Word>(Offset::new(span.start), count);
            let places = places.expect("a reserved block lies in the heap");
            places.iter().zip(words).for_each(|(place, word)| m.store(place, *word));
        });
    }

    /// The block, for those who name slots in it by place.
    #[must_use]
    pub fn new_block(&self) -> NewBlock {
        self.pending.id
    }
}

impl<'h, M: Medium + 'static, T: Persistent> Reservation<'h, M, T> {
    /// Reserves a block and writes the value that `init` makes.
    pub(super) fn of_value(
        core: &'h Arc<Core<M>>,
        access: &mut impl Access,
        init: impl FnOnce() -> T,
    ) -> Result<Self> {
        let mut pending = Pending::new(core, access, BlockLayout::of::<T>())?;
        let value = init();
        pending.write_with(|core, span| raw::write(core, span, value));
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
        let at_byte = raw::with_reserved(self.pending.core, self.pending.span(), |value: &T| {
            let (base, slot) = (std::ptr::from_ref(value).addr(), field(value).cell());
            std::ptr::from_ref(slot).addr().checked_sub(base).filter(|at| *at < size_of::<T>())
        });
        let at_byte = at_byte.flatten().expect("the slot lies in the value");
        SlotRef::in_new(self.pending.id, at_byte)
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
        f.debug_struct("Reservation").field("block", &self.pending.reserved).finish_non_exhaustive()
    }
}

/// A block that is not live yet, also when a publish has it already: names the slots in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewBlock(
    /// Of its own in the process: one publish's block is never taken for another's.
    u64,
);

impl NewBlock {
    /// One that was not given out before.
    fn next() -> Self {
        static NEXT: ProcessCounter = ProcessCounter::new(0);
        // Relaxed: only uniqueness counts.
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The slot at byte `at_byte` of the block, a multiple of 8, for the publish that the block is given to; the block's
    /// contents must have initialised it, zero for an empty one.
    #[must_use]
    pub const fn slot<'h>(self, at_byte: usize) -> SlotRef<'h> {
        SlotRef::in_new(self, at_byte)
    }
}

/// A block that is reserved, whatever it is to hold; it goes back when it is dropped unpublished.
pub(super) struct Pending<'h, M: Medium + 'static> {
    core: &'h Arc<Core<M>>,
    id: NewBlock,
    /// `None` once it was published.
    reserved: Option<Block>,
    size_bytes: u64,
    written: bool,
}

impl<'h, M: Medium + 'static> Pending<'h, M> {
    pub(super) fn new(
        core: &'h Arc<Core<M>>,
        access: &mut impl Access,
        layout: BlockLayout,
    ) -> Result<Self> {
        let reserved = access.with(|state| {
            let _entered = core.enter()?;
            op::reserve(core, state, layout)
        })?;
        let size_bytes = layout.layout().size() as u64;
        let id = NewBlock::next();
        Ok(Self { core, id, reserved: Some(reserved), size_bytes, written: false })
    }

    /// Lets `write` write the bytes that were asked for; a forked child, which has none of them, writes nothing.
    pub(super) fn write_with(&mut self, write: impl FnOnce(&Core<M>, Span)) {
        if self.core.medium().forked() {
            return;
        }
        self.written = true;
        write(self.core, self.span());
        self.core.medium().stored(self.span());
    }

    /// Whether it was reserved in the heap of `core`.
    pub(super) fn is_of(&self, core: &Arc<Core<M>>) -> bool {
        Arc::ptr_eq(self.core, core)
    }

    /// The contents to flush before the block is published, if there are any.
    pub(super) fn contents(&self) -> Option<Span> {
        self.written.then(|| self.span())
    }

    /// Which one it is.
    pub(super) fn id(&self) -> NewBlock {
        self.id
    }

    /// The block.
    pub(super) fn block(&self) -> Block {
        self.reserved.expect("a reservation has its block until it is published")
    }

    /// Notes that the block is live: it does not go back any more.
    pub(super) fn published(mut self) {
        self.reserved = None;
    }

    /// The bytes that were asked for.
    pub(super) fn span(&self) -> Span {
        Span::new(self.block().offset(), self.size_bytes)
    }
}

impl<M: Medium + 'static> Drop for Pending<'_, M> {
    fn drop(&mut self) {
        if let Some(reserved) = self.reserved.take() {
            Implicit(self.core).with(|state| {
                // In a forked child the block belongs to the parent.
                if let Ok(_entered) = self.core.enter() {
                    op::cancel(self.core, state, reserved);
                }
            });
        }
    }
}

/// Makes the contents of `blocks` durable.
///
/// # Crash consistency
///
/// They are durable before the first record that makes their block reachable can be (rule 3).
pub(super) fn persist_contents<'b, 'h: 'b, M: Medium + 'static>(
    core: &Core<M>,
    blocks: impl IntoIterator<Item = &'b Pending<'h, M>>,
) {
    let m = core.medium();
    let mut any = false;
    for contents in blocks.into_iter().filter_map(Pending::contents) {
        m.flush(contents);
        any = true;
    }
    if any {
        // CRASH: see above.
        m.fence();
    }
}
