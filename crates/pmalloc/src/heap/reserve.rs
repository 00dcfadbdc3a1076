//! Reserving: a block is taken out of the heap's free memory, and nothing durable says so yet.
//!
//! A reserved block has no live bit and no log entry, and is in no cache: a crash gives it back.

use std::{alloc::Layout, fmt, marker::PhantomData, sync::atomic::AtomicU64 as ProcessCounter};

use pmalloc_persist::{
    Medium, Offset, PAGE_BYTES, Span, Word,
    sync::{Arc, Ordering},
};

use super::{
    Persistent, Slot, SlotRef,
    block_layout::BlockLayout,
    core::Core,
    guard::Freed,
    raw,
    session::{Access, Implicit, SessionState},
};
use crate::{
    book::{Extent, LogId},
    error::{Error, Result},
    layout::book::ExtentKind,
    size_class::SizeClass,
    slab::{Descriptor, Kind},
};

/// A block that no slot names yet. It is in no cache and has no bit set: a crash gives it back.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reserved {
    /// A block of a slab.
    Small {
        /// The slab.
        slab: Descriptor,
        /// Index in the slab.
        block: u32,
        /// Byte offset.
        offset: u64,
        /// The slab's owner.
        arena: LogId,
    },
    /// An extent.
    Large {
        /// Its pages, as the log is to name them.
        extent: Extent,
        /// Byte offset.
        offset: u64,
    },
}

impl Reserved {
    /// Byte offset of the block.
    pub(super) fn offset(&self) -> u64 {
        match self {
            Self::Small { offset, .. } | Self::Large { offset, .. } => *offset,
        }
    }
}

/// Takes a block for `layout` out of the heap's free memory. Volatile.
#[inline]
pub(super) fn reserve<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    layout: impl Into<BlockLayout>,
) -> Result<Reserved> {
    let wanted = layout.into();
    check(core, wanted.layout())?;
    core.prepare(state)?;
    match reserve_once(core, state, wanted) {
        // Also where the file system has no room: a block that is given back has memory.
        Err(Error::OutOfMemory { .. } | Error::NoSpace { .. } | Error::Io { .. }) => {
            core.reclaim(state);
            reserve_once(core, state, wanted)
        }
        result => result,
    }
}

fn check<M: Medium>(core: &Core<M>, layout: Layout) -> Result<()> {
    let invalid = |what, why: &str| Err(Error::Invalid { what, why: why.into() });
    if layout.size() == 0 {
        return invalid("size", "zero; a block has at least one byte");
    }
    if layout.align() as u64 > PAGE_BYTES {
        return invalid("alignment", "over 4096 bytes; blocks are aligned to a page at most");
    }
    let capacity_bytes = core.header.geometry.capacity_bytes;
    let requested_bytes = layout.size() as u64;
    if requested_bytes > capacity_bytes {
        return Err(Error::OutOfMemory { requested_bytes, capacity_bytes });
    }
    Ok(())
}

#[inline]
fn reserve_once<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    wanted: BlockLayout,
) -> Result<Reserved> {
    let (layout, tag) = (wanted.layout(), wanted.tag());
    let Some(class) = SizeClass::of(layout.size() as u64, layout.align() as u64) else {
        return reserve_large(core, state, wanted);
    };
    let arena = &core.arenas[state.arena];
    let offset = state.cache.take(&core.space, arena, Kind { class, tag })?;
    let slab = core.space.slab_of(offset);
    let block = slab.block_at(offset).expect("a cached block starts where its slab says");
    Ok(Reserved::Small { slab, block, offset, arena: arena.log() })
}

fn reserve_large<M: Medium>(
    core: &Core<M>,
    state: &SessionState,
    wanted: BlockLayout,
) -> Result<Reserved> {
    let pages = (wanted.layout().size() as u64).div_ceil(PAGE_BYTES);
    let pages = u32::try_from(pages)
        .map_err(|_| Error::Limit { what: "pages in one block", limit: u64::from(u32::MAX) })?;
    let log = core.arenas[state.arena].log();
    let range = core.space.extents.allocate(core.medium(), log, pages)?;
    let extent = Extent { range, kind: ExtentKind::Large, tag: wanted.tag() };
    Ok(Reserved::Large { extent, offset: core.space.page_offset(range.start) })
}

/// Gives a reserved block back. Volatile.
pub(super) fn cancel<M: Medium>(core: &Core<M>, state: &mut SessionState, reserved: Reserved) {
    match reserved {
        Reserved::Small { slab, block, offset, arena } => {
            let own = &core.arenas[state.arena];
            if own.log() == arena {
                state.cache.put(&core.space, own, slab.kind(), (offset, block));
            } else {
                core.recycle(Freed::Small { arena, offset });
            }
        }
        Reserved::Large { extent, .. } => {
            let log = core.arenas[state.arena].log();
            core.space.extents.release(core.medium(), log, extent.range);
        }
    }
}

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
        access: &mut impl Access<M>,
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
        access: &mut impl Access<M>,
        init: impl FnOnce() -> T,
    ) -> Result<Self> {
        let mut pending =
            Pending::new(core, access, BlockLayout::new(Layout::new::<T>()).with_tag(T::TAG))?;
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
    reserved: Option<Reserved>,
    size_bytes: u64,
    written: bool,
}

impl<'h, M: Medium + 'static> Pending<'h, M> {
    fn new(
        core: &'h Arc<Core<M>>,
        access: &mut impl Access<M>,
        layout: BlockLayout,
    ) -> Result<Self> {
        let reserved = access.with(|state| {
            let _entered = core.enter()?;
            reserve(core, state, layout)
        })?;
        let size_bytes = layout.layout().size() as u64;
        let id = NewBlock::next();
        Ok(Self { core, id, reserved: Some(reserved), size_bytes, written: false })
    }

    fn write_with(&mut self, write: impl FnOnce(&Core<M>, Span)) {
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
    pub(super) fn block(&self) -> Reserved {
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
                    cancel(self.core, state, reserved);
                }
            });
        }
    }
}
