//! The public heap.
//!
//! | file | what it does |
//! |---|---|
//! | [`options`] | create and open, on a file or on any medium |
//! | [`serve`] | recovers a heap and marks it as open |
//! | [`format`] | writes an empty heap |
//! | [`core`] | the heap itself, shared by handles and sessions |
//! | [`session`] | what a thread has of a heap |
//! | [`reserve`] | blocks that are taken and not live yet |
//! | [`change`] | the operations that have names of their own |
//! | [`publish`] | several changes of slots as one durable operation |
//! | [`guard`] | keeps what is read from being reused |
//! | [`slot`], [`pptr`] | the cell that owns a block, the pointer that owns nothing |
//! | [`persistent`], [`typed`] | types that a block can hold, and the operations on blocks of them |
//! | [`pcell`] | a value of eight bytes that changes in place |
//! | [`versioned_cell`] | a number that changes together with slots |
//! | [`roots`], [`root_entry`], [`root_table`] | blocks with names, and the table of them |
//! | [`owner`] | who uses a heap |
//! | [`refusal`] | what keeps a heap from being served: one list, for opening and for checking |
//! | [`own_root`], [`declare`] | what the heap notes for itself: where roots and blocks have slots, as programs say it |
//! | [`owners`], [`orphans`] | which slot owns which block, and what is done with those that nothing owns |
//! | [`blocks`] | the live blocks, one after the other |
//! | [`stats`], [`check`], [`info`] | what a heap holds, whether it is whole, what its file says |
//! | [`copy`] | a copy of a heap's file, checked before it has a name |
//! | [`map`] | what each part of a heap is |
//! | [`media`] | what a heap tells of its medium |
//! | [`recover`] | recovery for its own sake, and what it did |
//! | [`salvage`], [`salvage_notes`] | a damaged heap made whole again, as far as that is possible; a file that keeps what was lost |
//! | [`raw`] | blocks as bytes and as values; with [`persistent`] all unsafe code, but for |
//! | [`entrusted`] | what is safe only by what the caller guarantees |

mod blocks;
mod change;
mod check;
mod copy;
pub(crate) mod core;
mod declare;
mod entrusted;
mod format;
mod guard;
mod info;
mod map;
mod media;
mod options;
mod orphans;
mod own_root;
mod owner;
mod owners;
mod pcell;
mod persistent;
mod pptr;
mod publish;
mod raw;
mod recover;
mod refusal;
mod reserve;
mod root_entry;
mod root_table;
mod roots;
mod salvage;
mod salvage_notes;
mod serve;
mod session;
mod slot;
mod stats;
mod typed;
mod versioned_cell;

use std::{
    fmt,
    path::Path,
    time::{Duration, Instant},
};

use pmalloc_persist::{
    Mapped, Medium,
    sync::{Arc, thread},
};

pub use self::{
    blocks::{Block, Blocks},
    check::{CheckReport, Problem, ProblemKind, check_file},
    copy::{CopyReport, copy_file, copy_file_with},
    declare::{SlotLayout, SlotScope},
    guard::Guard,
    info::{Info, info},
    map::{HeapMap, Part, PartKind, map_file},
    options::{HeapOptions, TestGeometry},
    pcell::{CellInteger, CellValue, PCell},
    persistent::{Content, LayoutHash, Persistent, TypeGraph},
    pptr::PPtr,
    publish::{PUBLISH_MAX, Publish, SlotRef},
    recover::{RecoveryReport, recover_file},
    reserve::{NewBlock, Reservation},
    root_entry::RootInfo,
    salvage::{SalvageReport, salvage_file},
    session::Session,
    slot::Slot,
    stats::{ClassStats, LogStats, Stats, TagStats, stats_file},
    versioned_cell::VersionedCell,
};
use self::{core::Core, session::Implicit};
pub use crate::value::{BlockLayout, SlotMap};
use crate::{
    error::{Error, Result},
    layout::state::Policy,
    op::Access,
};

/// A persistent heap.
///
/// Memory that is allocated here outlives the program: after a crash at any instruction the heap reopens,
/// every operation that had returned is there, and every one that had not is there wholly or not at all.
///
/// A `Heap` is a handle: clones are cheap and share one heap, which is closed when the last handle is dropped
/// or [`close`](Heap::close)d. All methods may be called from any thread. None may be called from a signal
/// handler. A forked child is refused ([`Error::Forked`]), or finds nothing: it has none of the memory.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("heap");
/// use std::alloc::Layout;
/// use pmalloc::Heap;
///
/// let heap = Heap::create(&path)?;
/// let slots = heap.slots("greetings", 8)?;
/// heap.alloc_init(&slots[0], Layout::new::<[u8; 5]>(), |bytes| bytes.copy_from_slice(b"hello"))?;
/// heap.close()?;
///
/// let heap = Heap::open(&path)?;
/// let slots = heap.slots("greetings", 8)?;
/// assert_eq!(&slots[0].get(&heap.pin()).expect("it was returned, so it is there")[..5], b"hello");
/// heap.free_from(&slots[0])?;
/// # Ok(())
/// # }
/// ```
pub struct Heap<M: Medium + 'static = Mapped>(Arc<Handle<M>>);

/// What the handles of a heap share; dropping it closes the heap.
///
/// `None` only while it is dropped.
struct Handle<M: Medium + 'static>(Option<Arc<Core<M>>>);

impl<M: Medium + 'static> Handle<M> {
    #[inline]
    pub(crate) fn core(&self) -> &Arc<Core<M>> {
        self.0.as_ref().expect("a handle has its heap until it is dropped")
    }
}

impl<M: Medium + 'static> Drop for Handle<M> {
    fn drop(&mut self) {
        if let Err(error) = self.core().close() {
            // The last handle has nobody to return the error to.
            eprintln!("pmalloc: closing a heap failed: {error}");
        }
        if let Some(core) = self.0.take() {
            unmap(core);
        }
    }
}

/// Drops a closed heap, so that its file is unlocked on return and can be opened again at once.
///
/// A thread that exits meanwhile may hold the heap for the moment that its session takes to find it closed. It is waited
/// for, but not for ever: a thread that is stopped in that moment unmaps the heap when it goes on.
fn unmap<M: Medium>(mut core: Arc<Core<M>>) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let started = Instant::now();
    while let Err(shared) = Arc::try_unwrap(core) {
        if started.elapsed() > PATIENCE || shared.medium().forked() {
            return;
        }
        core = shared;
        thread::yield_now();
    }
}

impl Heap {
    /// Options for creating and opening heaps, all at their defaults.
    pub fn options() -> HeapOptions {
        HeapOptions::new()
    }

    /// Creates a heap in a new file at `path` with default options.
    ///
    /// # Errors
    ///
    /// As [`HeapOptions::create`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().create(path)
    }

    /// Opens the heap in the file at `path` with default options.
    ///
    /// # Errors
    ///
    /// As [`HeapOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path)
    }
}

impl<M: Medium + 'static> Heap<M> {
    fn new(core: Core<M>) -> Self {
        Self(Arc::new(Handle(Some(Arc::new(core)))))
    }

    #[inline]
    pub(crate) fn core(&self) -> &Arc<Core<M>> {
        self.0.core()
    }

    /// Allocates an uninitialised block into the empty `slot`.
    ///
    /// The block has at least `layout.size()` bytes, with whatever they held before, and is aligned to at
    /// least `layout.align()` (at most a page) and 16 bytes.
    ///
    /// # Errors
    ///
    /// [`Error::SlotFull`], [`Error::SlotForeign`], [`Error::OutOfMemory`], [`Error::Invalid`] for a size of
    /// zero or an alignment over a page, [`Error::NoSpace`]. Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// After return block and slot are durable; after a crash before that, both or neither are there.
    /// Cost: 4 line flushes, 3 fences.
    #[inline]
    pub fn alloc_to(&self, slot: &Slot, layout: impl Into<BlockLayout>) -> Result<()> {
        change::alloc(self.core(), &mut Implicit(self.core()), slot, layout.into())
    }

    /// Allocates a block into the empty `slot` with contents that `init` writes.
    ///
    /// `init` gets the block's first `layout.size()` bytes, with whatever they held before. It may use the
    /// heap; if it panics, the block goes back.
    ///
    /// # Errors
    ///
    /// As [`alloc_to`](Heap::alloc_to).
    ///
    /// # Crash consistency
    ///
    /// As [`alloc_to`](Heap::alloc_to), and where the block is there after a crash, its contents are whole.
    /// Cost: the contents' lines and 4 more flushes, 4 fences.
    #[inline]
    pub fn alloc_init(
        &self,
        slot: &Slot,
        layout: impl Into<BlockLayout>,
        init: impl FnOnce(&mut [u8]),
    ) -> Result<()> {
        change::alloc_init(self.core(), &mut Implicit(self.core()), slot, layout.into(), init)
    }

    /// Frees the block that `slot` owns and leaves the slot empty.
    ///
    /// A block of bytes is not looked into: what slots inside it own is lost to the program, so free that first. The slots
    /// of a typed block must be empty.
    ///
    /// # Errors
    ///
    /// [`Error::SlotEmpty`], [`Error::SlotForeign`], [`Error::ChildrenAlive`], [`Error::NotLive`] or [`Error::Corrupted`] if the slot's word is
    /// damaged,
    /// [`Error::OutOfMemory`] or [`Error::NoSpace`] if the bookkeeping log of a large block has no room.
    /// Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// After return the free is durable; after a crash before that, block and slot are both as before or both
    /// free. Cost: 4 line flushes, 3 fences.
    #[inline]
    pub fn free_from<T: Content + ?Sized>(&self, slot: &Slot<T>) -> Result<()> {
        change::free_from(self.core(), &mut Implicit(self.core()), slot)
    }

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

    /// An empty [`Publish`]: add actions to it, and commit them as one.
    #[must_use]
    pub fn publish(&self) -> Publish<'_, M> {
        Publish::new(self.core())
    }

    /// Replaces the block that `slot` owns by a new one with contents that `init` writes.
    ///
    /// `init` gets the new block's first `layout.size()` bytes, with whatever they held before. The old block is not
    /// looked into, as in [`free_from`](Heap::free_from).
    ///
    /// # Errors
    ///
    /// As [`alloc_init`](Heap::alloc_init) and [`free_from`](Heap::free_from). Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// Atomic: at every moment, and after a crash at any, the slot owns the old block or the new one, whole.
    /// Cost for small blocks: the contents' lines and 6 more flushes, 4 fences.
    pub fn replace(
        &self,
        slot: &Slot,
        layout: impl Into<BlockLayout>,
        init: impl FnOnce(&mut [u8]),
    ) -> Result<()> {
        change::replace(self.core(), &mut Implicit(self.core()), slot, layout.into(), init)
    }

    /// Moves the block that `from` owns to the empty slot `to`.
    ///
    /// # Errors
    ///
    /// [`Error::SlotEmpty`], [`Error::SlotFull`], [`Error::SlotForeign`]. Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// Atomic: after a crash one of the slots owns the block. Cost: at most 5 line flushes, 3 fences.
    pub fn move_to<T: Content + ?Sized>(&self, from: &Slot<T>, to: &Slot<T>) -> Result<()> {
        change::move_to(self.core(), &mut Implicit(self.core()), from, to)
    }

    /// Exchanges the blocks that two slots own, if any.
    ///
    /// # Errors
    ///
    /// [`Error::SlotForeign`]. Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// Atomic. Cost: at most 5 line flushes, 3 fences.
    pub fn swap<T: Content + ?Sized>(&self, a: &Slot<T>, b: &Slot<T>) -> Result<()> {
        change::swap(self.core(), &mut Implicit(self.core()), a, b)
    }

    /// Sets a versioned cell to `value`, at most [`VersionedCell::VALUE_MAX`].
    ///
    /// # Errors
    ///
    /// [`Error::SlotForeign`] if the cell lies in no live block of this heap, [`Error::Invalid`] for a larger value.
    /// Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// After return the value is durable; after a crash before that, the cell holds the old value or the new one. Cost: 3
    /// line flushes, 3 fences.
    pub fn set(&self, cell: &VersionedCell, value: u64) -> Result<()> {
        change::set(self.core(), &mut Implicit(self.core()), cell, value)
    }

    /// Keeps memory that is freed from now on from being reused until the guard is dropped.
    #[must_use]
    pub fn pin(&self) -> Guard<'_, M> {
        Guard::new(self.core())
    }

    /// An explicit session, for programs that run their own scheduler.
    #[must_use]
    pub fn session(&self) -> Session<M> {
        Session::new(self.clone())
    }

    /// Writes everything to stable storage, where flushing lines is not enough: a page-cache file survives a
    /// power loss only if it was synchronized after its last write.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Forked`].
    pub fn sync(&self) -> Result<()> {
        self.core().sync()
    }

    /// When the heap makes the effects of operations durable.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.core().policy
    }

    /// Gives free memory back to the file system and returns how many bytes.
    ///
    /// On its own the heap gives back only what is beyond its use of late ([`HeapOptions::decay`]), little by little, and only
    /// while operations run. A program that has shrunk for good, or that has nothing to do for some time, says so here. What was
    /// free when the heap was opened counts as given back, whether it had memory or not.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn trim(&self) -> Result<u64> {
        let _entered = self.core().enter()?;
        Implicit(self.core()).with(|state| self.core().reclaim(state))?;
        self.core().space.extents.trim(self.core().medium())
    }

    /// Closes the heap: everything reaches stable storage, and the heap is marked as cleanly closed.
    ///
    /// Dropping the last handle does the same, but can only print an error.
    ///
    /// # Errors
    ///
    /// [`Error::HandlesRemain`] if other handles or sessions exist, [`Error::Io`].
    pub fn close(self) -> Result<()> {
        match Arc::try_unwrap(self.0) {
            Ok(handle) => handle.core().close(),
            Err(_) => Err(Error::HandlesRemain),
        }
    }

    /// What the heap holds and costs.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file can't be asked for its size, [`Error::Forked`].
    pub fn stats(&self) -> Result<Stats> {
        self.core().check_process()?;
        stats::stats(self.core())
    }

    /// The live blocks in address order, found as the iterator goes: it holds no lock and keeps no list.
    ///
    /// Blocks that other threads allocate or free meanwhile may be among them or not. In a forked child there are none.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let heap = pmalloc::Heap::create(dir.path().join("heap"))?;
    /// let slots = heap.slots("slots", 2)?;
    /// heap.alloc_to(&slots[0], std::alloc::Layout::new::<[u8; 100]>())?;
    /// let large = heap.iter().filter(|block| block.usable_bytes >= 100).count();
    /// assert_eq!((heap.iter().count(), large), (2, 1));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn iter(&self) -> Blocks<'_, M> {
        Blocks::new(self.core())
    }

    /// Every live block at once, in address order. Blocks that other threads allocate or free meanwhile may be listed or not.
    #[must_use]
    pub fn blocks(&self) -> Vec<Block> {
        self.iter().collect()
    }

    /// What each part of the heap is. Blocks that other threads allocate or free meanwhile are counted or not. In a forked
    /// child there is no part.
    #[must_use]
    pub fn map(&self) -> HeapMap {
        if self.is_forked() {
            return HeapMap { parts: Vec::new() };
        }
        map::map(self.core())
    }

    /// Checks that what the heap's metadata says is consistent. Run it while no operation runs.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Forked`]; what is wrong with the heap is in the report.
    pub fn check(&self) -> Result<CheckReport> {
        self.core().check_process()?;
        check::check(self.core())
    }
}

/// What a call that has no other answer stops a forked child with.
const FORKED: &str =
    "a forked child has none of the heap's memory: open the heap in one process only";

impl<M: Medium + 'static> Clone for Heap<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Medium + 'static> fmt::Debug for Heap<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = &self.core().header;
        f.debug_struct("Heap")
            .field("uuid", &uuid::Uuid::from_u128(header.uuid))
            .field("layout", &header.layout_name)
            .field("capacity_bytes", &header.geometry.capacity_bytes)
            .finish_non_exhaustive()
    }
}
