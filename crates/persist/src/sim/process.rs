//! Simulated processes: who uses the medium, and when they are killed.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

use super::{Sim, model::Site};

/// A simulated process that uses the medium.
///
/// Its atomics are relaxed: whoever kills a process joins its threads, or is one.
#[derive(Debug)]
pub(super) struct Process {
    /// Told apart from the process that made it; one after a crash has number zero.
    pub(super) number: u32,
    killed: AtomicBool,
    /// Calls so far that change the medium.
    calls: AtomicU64,
    /// The call at which it is killed.
    last_call: AtomicU64,
}

/// What a call unwinds with when its process is killed.
struct Killed;

impl Process {
    pub(super) fn new(number: u32) -> Self {
        Self {
            number,
            killed: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            last_call: AtomicU64::new(u64::MAX),
        }
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }
}

impl Sim {
    /// A handle of another process to the same medium.
    #[must_use]
    pub fn new_process(&self) -> Self {
        let process = Process::new(self.process.number + 1);
        Self { inner: Arc::clone(&self.inner), process: Arc::new(process) }
    }

    /// Kills the process of this handle: what it stored stays, durable or not, what it flushed without a fence behind it may
    /// or may not be durable, and what still holds one of its handles must not change the medium, as after a
    /// [fork](crate::Medium::forked).
    ///
    /// # Examples
    ///
    /// ```
    /// use pmalloc_persist::{Medium, Offset, Word, sim::{Domain, Sim, SimOptions}};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let first = Sim::new(SimOptions { len_bytes: 4096, domain: Domain::Line64 });
    /// first.back(pmalloc_persist::Span::new(0, 4096))?;
    /// first.store(first.at(Offset::<Word>::new(0))?, 7);
    /// first.kill();
    /// let second = first.new_process();
    /// assert!(first.forked() && !second.forked());
    /// // Never flushed, but no power was lost.
    /// assert_eq!(second.load(second.at(Offset::<Word>::new(0))?), 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn kill(&self) {
        self.process.killed.store(true, Ordering::Relaxed);
        // The fence of another process, on another core, is not one of these flushes.
        self.lock().pending.forget_flushes();
    }

    /// Runs `work`, which uses handles of this process, and kills the process at its `nth` call that changes the medium,
    /// counted from zero: a store, flush, fence, sync, or a page that gets or loses its memory. That call is not made any more;
    /// it unwinds, as the process is at no point of its program any longer. `None` if it came to that.
    ///
    /// # Panics
    ///
    /// If `work` does.
    ///
    /// # Examples
    ///
    /// ```
    /// use pmalloc_persist::{Medium, Offset, Span, Word, sim::{Domain, Sim, SimOptions}};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let first = Sim::new(SimOptions { len_bytes: 4096, domain: Domain::Line64 });
    /// first.back(Span::new(0, 4096))?;
    /// let word = |at| first.at::<Word>(Offset::new(at));
    /// let (a, b) = (word(0)?, word(64)?);
    /// let killed = first.kill_in(1, || {
    ///     first.store(a, 1);
    ///     first.store(b, 1);
    /// });
    /// assert!(killed.is_none() && first.forked());
    /// let second = first.new_process();
    /// assert_eq!((second.load(a), second.load(b)), (1, 0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn kill_in<T>(&self, nth: u64, work: impl FnOnce() -> T) -> Option<T> {
        let last_call = &self.process.last_call;
        last_call.store(self.persist_calls().saturating_add(nth), Ordering::Relaxed);
        let done = panic::catch_unwind(AssertUnwindSafe(work));
        last_call.store(u64::MAX, Ordering::Relaxed);
        match done {
            Ok(value) => Some(value),
            Err(payload) if payload.is::<Killed>() => None,
            Err(payload) => panic::resume_unwind(payload),
        }
    }

    /// Calls of this process so far that change the medium, as [`Sim::kill_in`] counts them.
    #[must_use]
    pub fn persist_calls(&self) -> u64 {
        self.process.calls.load(Ordering::Relaxed)
    }

    /// Counts a call that changes the medium; false if it must not be made, as the process is dead.
    pub(super) fn goes_on(&self, site: Site) -> bool {
        let process = &self.process;
        if process.is_killed() {
            // What a killed process would do while it unwinds, it does not do.
            if !std::thread::panicking() {
                self.violate(&format!("a killed process changes the medium, at {site}"));
            }
            return false;
        }
        let call = process.calls.fetch_add(1, Ordering::Relaxed);
        if call == process.last_call.load(Ordering::Relaxed) {
            self.kill();
            // No panic: nobody is told.
            panic::resume_unwind(Box::new(Killed));
        }
        true
    }
}
