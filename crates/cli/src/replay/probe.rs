//! What watches the medium of a replay's heap: it sees the file grow, and pulls the trigger. Volatile.

use std::io;

use pmalloc_persist::{
    Observer, Span,
    sync::{AtomicBool, AtomicU64, Ordering},
};
use rustix::process::{Signal, getpid, kill_process};

use crate::args::Calls;

/// An observer that knows the peak size of a file and may kill its own process at a persist call.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    /// Volatile: most that the file ever occupied, in bytes.
    peak_bytes: AtomicU64,
    /// Volatile: persist calls until the process kills itself; 0 for never.
    countdown: AtomicU64,
    /// Volatile: whether only fences are counted.
    counts_fences: AtomicBool,
}

/// A persist call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Flush,
    Fence,
}

impl Probe {
    /// Looks at the size of the file.
    pub(crate) fn sample(&self, occupied_bytes: Option<u64>) {
        // Relaxed: a figure that nothing else depends on. A file that can't be looked at has shown its
        // error to the operation that grew it.
        if let Some(bytes) = occupied_bytes {
            self.peak_bytes.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    /// Most that the file occupied whenever it was looked at, in bytes.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Ordering::Relaxed)
    }

    /// A probe that is [armed](Self::arm) from the first persist call on.
    pub(crate) fn armed(countdown: u64) -> Self {
        let probe = Self::default();
        probe.arm(countdown, Calls::All);
        probe
    }

    /// Kills this process at the `countdown`-th of the `calls` from now on, before it takes effect.
    pub(crate) fn arm(&self, countdown: u64, calls: Calls) {
        // Relaxed: which thread's call is the last one is left to chance anyway.
        self.counts_fences.store(calls == Calls::Fences, Ordering::Relaxed);
        self.countdown.store(countdown, Ordering::Relaxed);
    }

    /// Persist calls that are left until the process kills itself; 0 if it will not.
    pub(crate) fn countdown(&self) -> u64 {
        self.countdown.load(Ordering::Relaxed)
    }

    /// Counts a flush or fence, also where it costs nothing and does nothing.
    #[inline]
    fn count(&self, call: Call) {
        if self.countdown.load(Ordering::Relaxed) != 0 {
            self.count_armed(call);
        }
    }

    #[cold]
    fn count_armed(&self, call: Call) {
        if call == Call::Flush && self.counts_fences.load(Ordering::Relaxed) {
            return;
        }
        if self.countdown.fetch_sub(1, Ordering::Relaxed) == 1 {
            kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
        }
    }
}

impl Observer for Probe {
    #[inline]
    fn flushing(&self, _: Span) {
        self.count(Call::Flush);
    }

    #[inline]
    fn fencing(&self) {
        self.count(Call::Fence);
    }

    fn backed(&self, occupied_bytes: &dyn Fn() -> io::Result<u64>) {
        self.sample(occupied_bytes().ok());
    }
}

#[cfg(test)]
mod tests {
    use pmalloc_persist::{Anon, Medium, Observed, PAGE_BYTES};

    use super::*;

    #[test]
    fn an_unarmed_probe_only_looks_at_the_size() {
        let medium = Observed::new(Anon::new(PAGE_BYTES), Probe::default());
        medium.persist(Span::new(0, 64));
        assert!(medium.back(Span::new(0, PAGE_BYTES)).is_ok());
        assert!(medium.back(Span::new(0, 2 * PAGE_BYTES)).is_err());
        assert_eq!(medium.observer().peak_bytes(), PAGE_BYTES);
    }

    #[test]
    fn a_countdown_counts_flushes_and_fences() {
        let medium = Observed::new(Anon::new(PAGE_BYTES), Probe::armed(4));
        medium.persist(Span::new(0, 64));
        medium.fence();
        assert_eq!(medium.observer().countdown(), 1, "the next one would kill");
        medium.observer().arm(3, Calls::Fences);
        medium.persist(Span::new(0, 64));
        medium.flush(Span::new(0, 64));
        assert_eq!(medium.observer().countdown(), 2, "flushes don't count");
    }
}
