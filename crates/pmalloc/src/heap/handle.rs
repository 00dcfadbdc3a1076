//! The handle of an open heap.

use std::{
    fmt,
    time::{Duration, Instant},
};

use pmalloc_persist::{
    Mapped, Medium,
    sync::{Arc, thread},
};

use crate::{
    core::{Core, Implicit, own_thread},
    error::{Error, Result},
    layout::state::Policy,
    root,
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
        if let Err(error) = root::close(self.core()) {
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

impl<M: Medium + 'static> Heap<M> {
    pub(super) fn new(core: Core<M>) -> Result<Self> {
        let heap = Self(Arc::new(Handle(Some(Arc::new(core)))));
        own_thread::begin(heap.core())?;
        Ok(heap)
    }

    #[inline]
    pub(crate) fn core(&self) -> &Arc<Core<M>> {
        self.0.core()
    }

    /// Makes what operations have done durable in place, and writes everything to stable storage where flushing lines is not
    /// enough: a page-cache file survives a power loss only if it was synchronized after its last write.
    ///
    /// Otherwise no operation needs it to survive. Under [`Policy::Batched`], where it writes no pages, it runs a round, which waits
    /// for threads that are inside an operation: behind it recovery has nothing to redo of those that had returned.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Forked`], [`Error::Limit`] if the heap has used up its epochs, which start again when it is opened.
    pub fn sync(&self) -> Result<()> {
        Ok(self.core().sync()?)
    }

    /// When the heap makes the effects of operations durable.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.core().policy
    }

    /// Gives free memory back to the file system and returns how many bytes.
    ///
    /// On its own the heap gives back only what is beyond its use of late ([`HeapOptions::decay`](crate::HeapOptions::decay)), little by little, and only
    /// while operations run. A program that has shrunk for good, or that has nothing to do for some time, says so here. What was
    /// free when the heap was opened counts as given back, whether it had memory or not.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn trim(&self) -> Result<u64> {
        self.core().trim(&mut Implicit(self.core()))
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
            Ok(handle) => root::close(handle.core()),
            Err(_) => Err(Error::HandlesRemain),
        }
    }
}

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
