//! The gate between operations and `sync`: a heap on a page-cache file, or in persistent memory that is used without flushes,
//! may say that it is whole only while nothing changes it.
//!
//! The kernel writes any page of such a file to the disk when it likes, so the flag on the state page is true on the disk
//! only if a sync stands between it and all else: the flag goes before anything changes, and comes when everything is
//! written. These are the only places that change it, but for a recovery that notes that its own sync has failed.
//!
//! Operations hold the gate shared while they change the medium, a sync holds it alone. Heaps whose durability
//! does not need a sync have no gate, and their operations pay nothing.

use std::io;

use pmalloc_persist::{
    Medium,
    sync::{AtomicBool, Mutex, Ordering, RwLock, RwLockReadGuard, lock},
};

use crate::{
    error::{Error, Result},
    layout::state::Clean,
    recovery::state,
};

/// What failed, in errors.
const SYNCHRONIZING: &str = "synchronizing the heap";

/// The right to change the medium.
pub(crate) type Entered<'a> = RwLockReadGuard<'a, ()>;

/// The gate of a heap.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Volatile: held shared by operations; `None` where a sync makes no promise that they could break.
    changing: Option<RwLock<()>>,
    /// Volatile: the state page says `Synced`, and the next operation must take that back.
    synced: AtomicBool,
    /// Volatile: the state page says `Unwritten`, as a sync has failed.
    unwritten: AtomicBool,
    /// Volatile: held by the operation that takes it back.
    taking_back: Mutex<()>,
}

impl Gate {
    /// The gate of a heap on a medium that needs a sync or not.
    pub(crate) fn new(needs_sync: bool) -> Self {
        Self {
            changing: needs_sync.then(|| RwLock::new(())),
            synced: AtomicBool::new(false),
            unwritten: AtomicBool::new(false),
            taking_back: Mutex::new(()),
        }
    }

    /// Begins to change the medium.
    #[inline(always)]
    pub(crate) fn enter<M: Medium>(&self, m: &M) -> Result<Option<Entered<'_>>> {
        match &self.changing {
            None => Ok(None),
            Some(changing) => self.enter_slowly(m, changing),
        }
    }

    #[inline(never)]
    fn enter_slowly<'g, M: Medium>(
        &self,
        m: &M,
        changing: &'g RwLock<()>,
    ) -> Result<Option<Entered<'g>>> {
        let entered = changing.read().expect("a thread panicked while it synchronized the heap");
        // Relaxed: a sync stores the flag while it holds the gate alone.
        if self.synced.load(Ordering::Relaxed) {
            self.take_back(m)?;
        }
        Ok(Some(entered))
    }

    /// # Crash consistency
    ///
    /// The flag is off stable storage before anything else is stored: a power loss finds either the synchronized
    /// heap with the flag, or no flag.
    #[cold]
    fn take_back<M: Medium>(&self, m: &M) -> Result<()> {
        let _taking_back = lock(&self.taking_back);
        if self.synced.load(Ordering::Relaxed) {
            mark_open(m, Clean::Synced)?;
            self.synced.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes everything to stable storage; where a power loss would leave a mixture otherwise, says so on the state
    /// page until the next operation.
    ///
    /// `settle` sees to it that recovery has nothing to redo in a heap that says so: it runs before, and while no operation
    /// does. What recovery would change there, no flag would tell.
    pub(crate) fn sync<M: Medium>(&self, m: &M, settle: impl FnOnce() -> Result<()>) -> Result<()> {
        match &self.changing {
            None => m.sync().map_err(Error::io(SYNCHRONIZING)),
            Some(changing) => self.write_back(m, changing, Clean::Synced, settle),
        }
    }

    /// Writes everything to stable storage, and then that the heap is closed.
    ///
    /// # Crash consistency
    ///
    /// The contents reach stable storage before the flag that vouches for them.
    pub(crate) fn close<M: Medium>(&self, m: &M) -> Result<()> {
        let Some(changing) = &self.changing else {
            m.sync().map_err(Error::io(SYNCHRONIZING))?;
            state::set_clean(m, Clean::Closed)?;
            return m.sync().map_err(Error::io(SYNCHRONIZING));
        };
        self.write_back(m, changing, Clean::Closed, || Ok(()))
    }

    /// Writes everything to stable storage, and then that it is.
    ///
    /// A sync that fails leaves pages that the kernel takes for written: no later one tells whether they are, in this
    /// process or another. So the state page says it, and nobody vouches for the file any more.
    ///
    /// # Crash consistency
    ///
    /// The contents reach stable storage before the flag that vouches for them.
    fn write_back<M: Medium>(
        &self,
        m: &M,
        changing: &RwLock<()>,
        clean: Clean,
        settle: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let _alone = changing.write().expect("a thread panicked while it synchronized the heap");
        // Relaxed: as below. Where nothing has changed since the last sync, nothing is to be settled, and nothing may be: the
        // flag on the disk vouches for what is there.
        if !self.synced.load(Ordering::Relaxed) {
            settle()?;
        }
        // Relaxed, here and below: read and written by who holds the gate alone.
        if self.unwritten.load(Ordering::Relaxed) {
            return Err(unwritten());
        }
        if let Err(error) = m.sync() {
            // What was synchronized and is unchanged is on stable storage, whatever fails now.
            if !self.synced.load(Ordering::Relaxed) {
                self.unwritten.store(true, Ordering::Relaxed);
                // CRASH: the flag on the disk says that the heap is open, as it did since before the last change; a power
                // loss is told by that. This one is for who opens the file without a power loss.
                state::set_clean(m, Clean::Unwritten)?;
            }
            return Err(Error::io(SYNCHRONIZING)(error));
        }
        // CRASH: all but the flag is on stable storage. Either flag is true.
        state::set_clean(m, clean)?;
        // Also after an error: the flag may be on its way to the disk.
        self.synced.store(true, Ordering::Relaxed);
        m.sync_span(state::span()).map_err(Error::io(SYNCHRONIZING))
    }
}

/// Says that the heap is open, before anything in it changes. The flag said `was`, and says so again after an error.
///
/// # Crash consistency
///
/// Where the kernel writes pages when it likes, the flag is on stable storage on return: no page that changes from here on
/// can be found beside a flag that vouches for the heap. Before, nothing has changed, and either flag is true.
pub(crate) fn mark_open<M: Medium>(m: &M, was: Clean) -> Result<()> {
    state::set_clean(m, Clean::No)?;
    if !m.needs_sync() {
        return Ok(());
    }
    // The page alone: what a killed process left to be written may be gigabytes.
    m.sync_span(state::span()).or_else(|error| {
        state::set_unsynced(m, was)?;
        Err(Error::io(SYNCHRONIZING)(error))
    })
}

fn unwritten() -> Error {
    let why = "an earlier write to the disk failed, so that nobody knows what is on it; the heap works on in memory, and \
               when it is closed, `pmalloc check --salvage` copies it to another file";
    Error::io(SYNCHRONIZING)(io::Error::other(why))
}

#[cfg(all(test, not(shuttle)))]
mod tests;
