//! A medium that remembers which pages have memory and what it was asked to do, and that can be full.

#![allow(unsafe_code, reason = "a medium is trusted")]

use std::{
    io,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use pmalloc_persist::{Anon, Medium, Offset, PAGE_BYTES, Region, Span, Word, sync::lock};

use crate::layout::{geometry::Geometry, state::State};

/// What a [`Probe`] was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Back,
    Store(u64),
    Flush,
    Fence,
    Punch,
}

/// A medium that remembers.
pub(super) struct Probe {
    anon: Anon,
    pub(super) geometry: Geometry,
    /// Which pages of the data area have memory.
    backed: Mutex<Vec<bool>>,
    calls: Mutex<Vec<Call>>,
    /// Pages of the data area that the file system has memory for.
    pub(super) room_pages: AtomicU64,
    pub(super) refuses_punch: AtomicBool,
    /// What its clock shows, in nanoseconds.
    clock_ns: AtomicU64,
}

impl Probe {
    pub(super) fn new(geometry: Geometry) -> Self {
        let pages = usize::try_from(geometry.data_pages()).expect("few pages");
        Self {
            anon: Anon::new(geometry.heap_bytes()),
            geometry,
            backed: Mutex::new(vec![false; pages]),
            calls: Mutex::default(),
            room_pages: AtomicU64::new(u64::MAX),
            refuses_punch: AtomicBool::new(false),
            clock_ns: AtomicU64::new(0),
        }
    }

    fn places(&self, span: Span) -> std::ops::Range<usize> {
        let first = (span.start - self.geometry.data_span().start) / PAGE_BYTES;
        let first = usize::try_from(first).expect("few pages");
        first..first + usize::try_from(span.len / PAGE_BYTES).expect("few pages")
    }

    pub(super) fn backed(&self) -> MutexGuard<'_, Vec<bool>> {
        lock(&self.backed)
    }

    pub(super) fn backed_pages(&self) -> usize {
        self.backed().iter().filter(|&&backed| backed).count()
    }

    pub(super) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut lock(&self.calls))
    }

    /// Lets time pass.
    pub(super) fn pass(&self, time: Duration) {
        let time_ns = u64::try_from(time.as_nanos()).expect("a test is short");
        self.clock_ns.fetch_add(time_ns, Ordering::Relaxed);
    }

    fn note(&self, call: Call) {
        lock(&self.calls).push(call);
    }

    pub(super) fn grown_word(&self) -> u64 {
        let state = self.at(Offset::<State>::new(Geometry::state())).expect("the state is inside");
        self.load(&state.grown_pages)
    }
}

// SAFETY: all is passed on to anonymous memory, which is there whatever the probe says.
unsafe impl Medium for Probe {
    fn region(&self) -> &Region {
        self.anon.region()
    }
    fn len(&self) -> u64 {
        self.anon.len()
    }
    fn load(&self, word: &Word) -> u64 {
        self.anon.load(word)
    }
    fn store(&self, word: &Word, value: u64) {
        self.note(Call::Store(value));
        self.anon.store(word, value);
    }
    fn compare_exchange(&self, word: &Word, current: u64, new: u64) -> Result<u64, u64> {
        self.anon.compare_exchange(word, current, new)
    }
    fn fetch_or(&self, word: &Word, bits: u64) -> u64 {
        self.anon.fetch_or(word, bits)
    }
    fn fetch_and(&self, word: &Word, bits: u64) -> u64 {
        self.anon.fetch_and(word, bits)
    }
    fn flush(&self, span: Span) {
        assert!(
            Span::new(Geometry::state(), PAGE_BYTES).contains(span),
            "{span:?} is not the state"
        );
        self.note(Call::Flush);
    }
    fn fence(&self) {
        self.note(Call::Fence);
    }
    fn back(&self, span: Span) -> io::Result<()> {
        self.note(Call::Back);
        let places = self.places(span);
        let mut backed = self.backed();
        let new = backed[places.clone()].iter().filter(|&&backed| !backed).count();
        let before = backed.iter().filter(|&&backed| backed).count();
        if (before + new) as u64 > self.room_pages.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        backed[places].fill(true);
        Ok(())
    }
    fn punch(&self, span: Span) -> io::Result<()> {
        self.note(Call::Punch);
        if self.refuses_punch.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let places = self.places(span);
        self.backed()[places].fill(false);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        self.anon.sync()
    }
    fn occupied_bytes(&self) -> io::Result<u64> {
        self.anon.occupied_bytes()
    }
    fn now(&self) -> Duration {
        Duration::from_nanos(self.clock_ns.load(Ordering::Relaxed))
    }
}
