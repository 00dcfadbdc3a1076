//! The medium that a replay's heap lives on: it watches the file grow, and pulls the trigger.
//!
//! Everything is passed on to the medium underneath. Volatile.

use std::{io, time::Duration};

use clap::ValueEnum;
use pmalloc_persist::{
    Medium, Region, Span, Word,
    sync::{AtomicBool, AtomicU64, Ordering},
};
use rustix::process::{Signal, getpid, kill_process};

/// Which persist calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Calls {
    /// Flushes and fences.
    All,
    /// Fences: most flushes are of contents, and between fences lies what recovery can find.
    Fences,
}

/// A medium that knows its peak size and may kill its own process at a persist call.
#[derive(Debug)]
pub(crate) struct Probe<M> {
    medium: M,
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

impl<M: Medium> Probe<M> {
    /// Watches `medium`.
    pub(crate) fn new(medium: M) -> Self {
        let probe = Self {
            medium,
            peak_bytes: AtomicU64::new(0),
            countdown: AtomicU64::new(0),
            counts_fences: AtomicBool::new(false),
        };
        probe.sample();
        probe
    }

    /// The medium underneath.
    pub(crate) fn inner(&self) -> &M {
        &self.medium
    }

    /// Looks at the size of the file.
    pub(crate) fn sample(&self) {
        // Relaxed: a figure that nothing else depends on. A file that can't be looked at has shown its
        // error to the operation that grew it.
        if let Ok(bytes) = self.medium.occupied_bytes() {
            self.peak_bytes.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    /// Most that the file occupied whenever it was looked at, in bytes.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Ordering::Relaxed)
    }

    /// Watches `medium`, [armed](Self::arm) from its first persist call on.
    pub(crate) fn armed(medium: M, countdown: u64) -> Self {
        let probe = Self::new(medium);
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

impl<M: Medium> Medium for Probe<M> {
    #[inline]
    fn region(&self) -> &Region {
        self.medium.region()
    }
    #[inline]
    fn len(&self) -> u64 {
        self.medium.len()
    }
    #[inline]
    #[track_caller]
    fn load(&self, word: &Word) -> u64 {
        self.medium.load(word)
    }
    #[inline]
    #[track_caller]
    fn classify<C: PartialEq>(&self, word: &Word, class: impl Fn(u64) -> C) -> C {
        self.medium.classify(word, class)
    }
    #[inline]
    #[track_caller]
    fn store(&self, word: &Word, value: u64) {
        self.medium.store(word, value);
    }
    #[inline]
    #[track_caller]
    fn compare_exchange(&self, word: &Word, current: u64, new: u64) -> Result<u64, u64> {
        self.medium.compare_exchange(word, current, new)
    }
    #[inline]
    #[track_caller]
    fn fetch_or(&self, word: &Word, bits: u64) -> u64 {
        self.medium.fetch_or(word, bits)
    }
    #[inline]
    #[track_caller]
    fn fetch_and(&self, word: &Word, bits: u64) -> u64 {
        self.medium.fetch_and(word, bits)
    }
    #[inline]
    #[track_caller]
    fn flush(&self, span: Span) {
        self.count(Call::Flush);
        self.medium.flush(span);
    }
    #[inline]
    #[track_caller]
    fn fence(&self) {
        self.count(Call::Fence);
        self.medium.fence();
    }
    #[inline]
    #[track_caller]
    fn stored(&self, span: Span) {
        self.medium.stored(span);
    }
    #[inline]
    #[track_caller]
    fn settle(&self, span: Span) {
        self.medium.settle(span);
    }
    #[track_caller]
    fn back(&self, span: Span) -> io::Result<()> {
        self.medium.back(span)?;
        self.sample();
        Ok(())
    }
    #[track_caller]
    fn punch(&self, span: Span) -> io::Result<()> {
        self.medium.punch(span)
    }
    fn sync(&self) -> io::Result<()> {
        self.medium.sync()
    }
    fn occupied_bytes(&self) -> io::Result<u64> {
        self.medium.occupied_bytes()
    }
    fn now(&self) -> Duration {
        self.medium.now()
    }
}

#[cfg(test)]
mod tests {
    use pmalloc_persist::{Anon, PAGE_BYTES};

    use super::*;

    #[test]
    fn an_unarmed_probe_passes_everything_on() {
        let probe = Probe::new(Anon::new(PAGE_BYTES));
        probe.persist(Span::new(0, 64));
        assert!(probe.back(Span::new(0, PAGE_BYTES)).is_ok());
        assert!(probe.back(Span::new(0, 2 * PAGE_BYTES)).is_err());
        assert_eq!(probe.peak_bytes(), PAGE_BYTES);
    }

    #[test]
    fn a_countdown_counts_flushes_and_fences() {
        let probe = Probe::armed(Anon::new(PAGE_BYTES), 4);
        probe.persist(Span::new(0, 64));
        probe.fence();
        assert_eq!(probe.countdown(), 1, "the next one would kill");
        probe.arm(3, Calls::Fences);
        probe.persist(Span::new(0, 64));
        probe.flush(Span::new(0, 64));
        assert_eq!(probe.countdown(), 2, "flushes don't count");
    }
}
