//! Sessions: what a thread holds of a heap.
//!
//! A session is a lane to record in and caches to allocate from. Every thread that calls a [`Heap`] gets one
//! implicitly, and gives it back when it exits; a program that runs its own scheduler can make
//! [`Session`]s explicitly and move them between threads.

use std::fmt;

use pmalloc_persist::{Medium, sync::Arc};

use super::handle::Heap;
use crate::{
    core::{Core, change, thread},
    error::{Error, Result},
    op::{Explicit, SessionAccess, SessionState},
    value::{BlockLayout, Content, Slot, VersionedCell},
};

/// An explicit session: its own lane and caches, for one thread at a time.
///
/// Dropping it gives the lane and the cached blocks back. It keeps the heap open.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use std::alloc::Layout;
///
/// let heap = pmalloc::Heap::create(dir.path().join("heap"))?;
/// let slots = heap.slots("queue", 16)?;
/// let mut session = heap.session();
/// session.alloc_init(&slots[0], Layout::new::<u64>(), |bytes| bytes.fill(7))?;
/// session.free_from(&slots[0])?;
/// # Ok(())
/// # }
/// ```
pub struct Session<M: Medium + 'static = pmalloc_persist::Mapped> {
    heap: Heap<M>,
    state: SessionState,
}

impl<M: Medium + 'static> Session<M> {
    pub(super) fn new(heap: Heap<M>) -> Self {
        let state = heap.core().begin_session();
        Self { heap, state }
    }

    /// The heap.
    #[must_use]
    pub fn heap(&self) -> &Heap<M> {
        &self.heap
    }

    /// As [`Heap::alloc_to`].
    ///
    /// # Errors
    ///
    /// As [`Heap::alloc_to`].
    pub fn alloc_to(&mut self, slot: &Slot, layout: impl Into<BlockLayout>) -> Result<()> {
        change::alloc(self.heap.core(), &mut Explicit(&mut self.state), slot, layout.into())
    }

    /// As [`Heap::alloc_init`].
    ///
    /// # Errors
    ///
    /// As [`Heap::alloc_init`].
    pub fn alloc_init(
        &mut self,
        slot: &Slot,
        layout: impl Into<BlockLayout>,
        init: impl FnOnce(&mut [u8]),
    ) -> Result<()> {
        change::alloc_init(
            self.heap.core(),
            &mut Explicit(&mut self.state),
            slot,
            layout.into(),
            init,
        )
    }

    /// As [`Heap::free_from`].
    ///
    /// # Errors
    ///
    /// As [`Heap::free_from`].
    pub fn free_from<T: Content + ?Sized>(&mut self, slot: &Slot<T>) -> Result<()> {
        change::free_from(self.heap.core(), &mut Explicit(&mut self.state), slot)
    }

    /// As [`Heap::replace`].
    ///
    /// # Errors
    ///
    /// As [`Heap::replace`].
    pub fn replace(
        &mut self,
        slot: &Slot,
        layout: impl Into<BlockLayout>,
        init: impl FnOnce(&mut [u8]),
    ) -> Result<()> {
        change::replace(self.heap.core(), &mut Explicit(&mut self.state), slot, layout.into(), init)
    }

    /// As [`Heap::move_to`].
    ///
    /// # Errors
    ///
    /// As [`Heap::move_to`].
    pub fn move_to<T: Content + ?Sized>(&mut self, from: &Slot<T>, to: &Slot<T>) -> Result<()> {
        change::move_to(self.heap.core(), &mut Explicit(&mut self.state), from, to)
    }

    /// As [`Heap::swap`].
    ///
    /// # Errors
    ///
    /// As [`Heap::swap`].
    pub fn swap<T: Content + ?Sized>(&mut self, a: &Slot<T>, b: &Slot<T>) -> Result<()> {
        change::swap(self.heap.core(), &mut Explicit(&mut self.state), a, b)
    }

    /// As [`Heap::set`].
    ///
    /// # Errors
    ///
    /// As [`Heap::set`].
    pub fn set(&mut self, cell: &VersionedCell, value: u64) -> Result<()> {
        change::set(self.heap.core(), &mut Explicit(&mut self.state), cell, value)
    }

    /// Refuses a session of another heap.
    pub(super) fn check_heap(&self, core: &Arc<Core<M>>) -> Result<()> {
        if Arc::ptr_eq(self.heap.core(), core) {
            return Ok(());
        }
        Err(Error::Invalid { what: "session", why: "it belongs to another heap".into() })
    }

    /// The session for operations that are made elsewhere.
    pub(super) fn access(&mut self) -> impl SessionAccess + use<'_, M> {
        Explicit(&mut self.state)
    }
}

impl<M: Medium + 'static> Drop for Session<M> {
    fn drop(&mut self) {
        self.heap.core().end_session(&mut self.state);
    }
}

impl<M: Medium + 'static> fmt::Debug for Session<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("heap", &self.heap).finish_non_exhaustive()
    }
}

impl<M: Medium + 'static> Heap<M> {
    /// An explicit session, for programs that run their own scheduler.
    #[must_use]
    pub fn session(&self) -> Session<M> {
        Session::new(self.clone())
    }

    /// Gives back what the calling thread holds of the heap: its lane, and the free blocks at hand.
    ///
    /// A thread that exits does so by itself. This is for one that stays and has no use for the heap for some time; its
    /// next call takes anew what it needs.
    pub fn release_thread(&self) {
        thread::release(self.core());
    }
}
