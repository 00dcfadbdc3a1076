//! The gate between operations and `sync`: a heap on a page-cache file may say that it is synchronized only while
//! nothing changes it.
//!
//! Operations hold the gate shared while they change the medium, a sync holds it alone. Heaps whose durability
//! does not need a sync have no gate, and their operations pay nothing.

use pmalloc_persist::{
    Medium,
    sync::{AtomicBool, Mutex, Ordering, RwLock, RwLockReadGuard, lock},
};

use crate::{
    error::{Error, Result},
    layout::state::Clean,
    recovery::state,
};

/// The right to change the medium.
pub(super) type Entered<'a> = RwLockReadGuard<'a, ()>;

/// The gate of a heap.
#[derive(Debug)]
pub(super) struct Gate {
    /// Volatile: held shared by operations; `None` where a sync makes no promise that they could break.
    changing: Option<RwLock<()>>,
    /// Volatile: the state page says `Synced`, and the next operation must take that back.
    synced: AtomicBool,
    /// Volatile: held by the operation that takes it back.
    taking_back: Mutex<()>,
}

impl Gate {
    /// The gate of a heap on a medium that needs a sync or not.
    pub(super) fn new(needs_sync: bool) -> Self {
        Self {
            changing: needs_sync.then(|| RwLock::new(())),
            synced: AtomicBool::new(false),
            taking_back: Mutex::new(()),
        }
    }

    /// Begins to change the medium.
    #[inline]
    pub(super) fn enter<M: Medium>(&self, m: &M) -> Result<Option<Entered<'_>>> {
        let Some(changing) = &self.changing else { return Ok(None) };
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
            state::set_clean(m, Clean::No)?;
            m.sync().map_err(Error::io("synchronizing the heap"))?;
            self.synced.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes everything to stable storage; where a power loss would leave a mixture otherwise, says so on the state
    /// page until the next operation.
    pub(super) fn sync<M: Medium>(&self, m: &M) -> Result<()> {
        let Some(changing) = &self.changing else {
            return m.sync().map_err(Error::io("synchronizing the heap"));
        };
        let _alone = changing.write().expect("a thread panicked while it synchronized the heap");
        let written = write_back(m, Clean::Synced);
        // Also after an error: the flag may be on its way to the disk.
        self.synced.store(true, Ordering::Relaxed);
        written
    }
}

/// Writes everything to stable storage, and then that it is.
///
/// # Crash consistency
///
/// The contents reach stable storage before the flag that vouches for them.
pub(super) fn write_back<M: Medium>(m: &M, clean: Clean) -> Result<()> {
    m.sync().map_err(Error::io("synchronizing the heap"))?;
    state::set_clean(m, clean)?;
    m.sync().map_err(Error::io("synchronizing the heap"))
}

#[cfg(all(test, not(shuttle)))]
mod tests;
