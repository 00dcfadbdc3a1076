//! Sessions: what a thread holds of a heap.
//!
//! A session is a lane to record in and caches to allocate from. Every thread that calls a [`Heap`] gets one
//! implicitly, and gives it back when it exits; a program that runs its own scheduler can make
//! [`Session`]s explicitly and move them between threads.

use std::{cell::RefCell, fmt};

#[cfg(not(shuttle))]
use pmalloc_persist::AtThreadEnd;
use pmalloc_persist::{
    Medium,
    sync::{Arc, Weak},
};

use super::{
    BlockLayout, Content, Heap, change, core::Core, slot::Slot, versioned_cell::VersionedCell,
};
use crate::{
    error::{Error, Result},
    op::{Access, Explicit, SessionState},
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
    pub(super) fn access(&mut self) -> impl Access + use<'_, M> {
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

/// The calling thread's implicit session.
pub(super) struct Implicit<'a, M: Medium + 'static>(pub(super) &'a Arc<Core<M>>);

impl<M: Medium + 'static> Access for Implicit<'_, M> {
    #[inline]
    fn with<T>(&mut self, operation: impl FnOnce(&mut SessionState) -> T) -> T {
        let mut operation = Some(operation);
        let mut run = |state: &mut SessionState| (operation.take().expect("run once"))(state);
        let done = SESSIONS.try_with(|sessions| {
            let sessions = &mut *sessions.try_borrow_mut().ok()?;
            let at = match sessions.iter().position(|session| session.heap_id == self.0.id) {
                Some(at) => at,
                None => begin(sessions, self.0),
            };
            Some(run(&mut sessions[at].state))
        });
        match done {
            Ok(Some(result)) => result,
            Ok(None) | Err(_) => in_passing(self.0, run),
        }
    }
}

/// Runs an operation of a thread whose sessions can't be had: they have ended, and a destructor runs at the thread's very
/// end; or an operation uses them, and its medium calls another heap, as the simulator does to judge a recovered one.
#[cold]
fn in_passing<M: Medium + 'static, T>(
    core: &Arc<Core<M>>,
    operation: impl FnOnce(&mut SessionState) -> T,
) -> T {
    let mut sessions = Vec::new();
    let at = begin(&mut sessions, core);
    operation(&mut sessions[at].state)
}

impl<M: Medium + 'static> Heap<M> {
    /// Gives back what the calling thread holds of the heap: its lane, and the free blocks at hand.
    ///
    /// A thread that exits does so by itself. This is for one that stays and has no use for the heap for some time; its
    /// next call takes anew what it needs.
    pub fn release_thread(&self) {
        // Who has no sessions at this moment (see `in_passing`) has nothing to give back.
        let released = SESSIONS.try_with(|sessions| {
            let mut sessions = sessions.try_borrow_mut().ok()?;
            let own = |session: &ThreadSession| session.heap_id == self.core().id;
            sessions.iter().position(own).map(|at| sessions.swap_remove(at))
        });
        drop(released);
    }
}

/// What a session's end needs of its heap, whatever the medium.
trait EndSession: Send + Sync {
    fn end(&self, state: &mut SessionState);
}

impl<M: Medium> EndSession for Core<M> {
    fn end(&self, state: &mut SessionState) {
        self.end_session(state);
    }
}

/// The session of this thread with one heap.
struct ThreadSession {
    heap_id: u64,
    state: SessionState,
    /// Weak: an exited thread must not keep a heap mapped.
    heap: Weak<dyn EndSession>,
}

impl Drop for ThreadSession {
    fn drop(&mut self) {
        if let Some(heap) = self.heap.upgrade() {
            heap.end(&mut self.state);
        }
    }
}

#[cfg(not(shuttle))]
thread_local! {
    /// The sessions of this thread, one per open heap that it used.
    static SESSIONS: RefCell<Vec<ThreadSession>> = const { RefCell::new(Vec::new()) };
}
#[cfg(shuttle)]
shuttle::thread_local! {
    /// The sessions of this thread, one per open heap that it used.
    static SESSIONS: RefCell<Vec<ThreadSession>> = RefCell::new(Vec::new());
}

/// Ends the sessions of a thread that has begun its first one in the destructor of a POSIX key, when those of its
/// thread-local values had run.
#[cfg(not(shuttle))]
static LATE_END: AtThreadEnd = AtThreadEnd::new(|| {
    // Other threads' sessions have ended before.
    let sessions = SESSIONS
        .try_with(|sessions| sessions.try_borrow_mut().map(|mut all| std::mem::take(&mut *all)));
    drop(sessions);
});

#[cold]
fn begin<M: Medium + 'static>(sessions: &mut Vec<ThreadSession>, core: &Arc<Core<M>>) -> usize {
    #[cfg(not(shuttle))]
    LATE_END.arm();
    sessions.retain(|session| session.heap.strong_count() > 0);
    let weak: Weak<Core<M>> = Arc::downgrade(core);
    sessions.push(ThreadSession { heap_id: core.id, state: core.begin_session(), heap: weak });
    sessions.len() - 1
}
