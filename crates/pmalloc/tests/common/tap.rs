//! A simulated medium that keeps what a crash at chosen fences would leave, and that can be made to fail.

#![allow(unsafe_code, reason = "a medium is trusted")]

use std::{
    io,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use pmalloc::persist::{
    Claim, ClaimError, Medium, Region, Span, Word,
    sim::{CrashState, Sim},
};

/// A medium that counts its fences and keeps the crash state in front of one of them.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) sim: Sim,
    /// Whether the process is to look like a forked child.
    pub(crate) forked: AtomicBool,
    /// Syncs that succeed before all others fail.
    pub(crate) syncs_left: AtomicU64,
    /// Fences until the one that is kept.
    left: AtomicU64,
    kept: Mutex<Option<CrashState>>,
}

impl Tap {
    pub(crate) fn new(sim: Sim) -> Self {
        Self {
            sim,
            forked: AtomicBool::new(false),
            syncs_left: AtomicU64::new(u64::MAX),
            left: AtomicU64::new(u64::MAX),
            kept: Mutex::new(None),
        }
    }

    /// Keeps the state in front of the `nth` fence from now on, counted from zero.
    pub(crate) fn arm(&self, nth: u64) {
        self.left.store(nth, Ordering::Relaxed);
    }

    /// The state that was kept.
    pub(crate) fn take(&self) -> CrashState {
        self.kept.lock().expect("unpoisoned").take().expect("the fence was reached")
    }
}

// SAFETY: all is passed on to the simulator, also by one that looks forked; 5. the simulator's claims.
unsafe impl Medium for Tap {
    fn region(&self) -> &Region {
        self.sim.region()
    }
    fn len(&self) -> u64 {
        self.sim.len()
    }
    fn load(&self, word: &Word) -> u64 {
        self.sim.load(word)
    }
    fn store(&self, word: &Word, value: u64) {
        self.sim.store(word, value);
    }
    fn compare_exchange(&self, word: &Word, current: u64, new: u64) -> Result<u64, u64> {
        self.sim.compare_exchange(word, current, new)
    }
    fn fetch_or(&self, word: &Word, bits: u64) -> u64 {
        self.sim.fetch_or(word, bits)
    }
    fn fetch_and(&self, word: &Word, bits: u64) -> u64 {
        self.sim.fetch_and(word, bits)
    }
    fn flush(&self, span: Span) {
        self.sim.flush(span);
    }
    fn fence(&self) {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            *self.kept.lock().expect("unpoisoned") = Some(self.sim.crash_state());
        }
        self.left.store(if left == 0 { u64::MAX } else { left - 1 }, Ordering::Relaxed);
        self.sim.fence();
    }
    fn stored(&self, span: Span) {
        self.sim.stored(span);
    }
    fn settle(&self, span: Span) {
        self.sim.settle(span);
    }
    fn back(&self, span: Span) -> io::Result<()> {
        self.sim.back(span)
    }
    fn ensure(&self, spans: &[Span]) -> io::Result<()> {
        self.sim.ensure(spans)
    }
    fn punch(&self, span: Span) -> io::Result<()> {
        self.sim.punch(span)
    }
    fn sync(&self) -> io::Result<()> {
        let left = self.syncs_left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(io::Error::other("the device does not answer"));
        }
        self.syncs_left.store(left - 1, Ordering::Relaxed);
        self.sim.sync()
    }
    fn needs_sync(&self) -> bool {
        true
    }
    fn forked(&self) -> bool {
        self.forked.load(Ordering::Relaxed)
    }
    fn occupied_bytes(&self) -> io::Result<u64> {
        self.sim.occupied_bytes()
    }
    fn now(&self) -> Duration {
        self.sim.now()
    }
    fn claim(&self) -> Result<Claim, ClaimError> {
        self.sim.claim()
    }
}
