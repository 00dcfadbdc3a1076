//! The observer's seat: a medium that tells what is about to be asked of it. Volatile.
//!
//! It is for who wants to count, or to die at a chosen moment, and for that needs no medium of an own kind.

use std::{io, time::Duration};

use crate::{
    Claim, ClaimError, Exclusive, MediaInfo, Medium, Region, Span, Word, process::ProcessId,
};

/// What is told of a medium. Every method does nothing by default.
pub trait Observer: Send + Sync {
    /// A flush of `span` is about to begin.
    #[inline]
    fn flushing(&self, span: Span) {
        let _ = span;
    }

    /// A fence is about to be made.
    #[inline]
    fn fencing(&self) {}

    /// It is about to be seen to that all of `spans` have memory.
    fn ensuring(&self, spans: &[Span]) {
        let _ = spans;
    }

    /// Pages got memory; `occupied_bytes` asks how much there is in all.
    fn backed(&self, occupied_bytes: &dyn Fn() -> io::Result<u64>) {
        let _ = occupied_bytes;
    }
}

/// A medium that tells an [`Observer`].
///
/// # Examples
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use pmalloc_persist::{Anon, Medium, Observed, Observer};
///
/// #[derive(Default)]
/// struct Fences(AtomicU64);
///
/// impl Observer for Fences {
///     fn fencing(&self) {
///         self.0.fetch_add(1, Ordering::Relaxed);
///     }
/// }
///
/// let medium = Observed::new(Anon::new(4096), Fences::default());
/// medium.fence();
/// assert_eq!(medium.observer().0.load(Ordering::Relaxed), 1);
/// ```
#[derive(Debug)]
pub struct Observed<M, O> {
    medium: M,
    observer: O,
}

impl<M: Medium, O: Observer> Observed<M, O> {
    /// Tells `observer` what is asked of `medium`.
    #[must_use]
    pub fn new(medium: M, observer: O) -> Self {
        Self { medium, observer }
    }

    /// The observer.
    #[must_use]
    pub fn observer(&self) -> &O {
        &self.observer
    }
}

// SAFETY: the medium underneath is private, and nobody has a handle to it.
unsafe impl<M: Exclusive, O: Observer> Exclusive for Observed<M, O> {}

// SAFETY: all is passed on to the medium underneath.
unsafe impl<M: Medium, O: Observer> Medium for Observed<M, O> {
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
    fn prefetch(&self, word: &Word) {
        self.medium.prefetch(word);
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
        self.observer.flushing(span);
        self.medium.flush(span);
    }
    #[inline]
    #[track_caller]
    fn fence(&self) {
        self.observer.fencing();
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
        self.observer.backed(&|| self.medium.occupied_bytes());
        Ok(())
    }
    #[track_caller]
    fn ensure(&self, spans: &[Span]) -> io::Result<()> {
        self.observer.ensuring(spans);
        self.medium.ensure(spans)
    }
    #[track_caller]
    fn punch(&self, span: Span) -> io::Result<()> {
        self.medium.punch(span)
    }
    fn sync(&self) -> io::Result<()> {
        self.medium.sync()
    }
    fn needs_sync(&self) -> bool {
        self.medium.needs_sync()
    }
    fn occupied_bytes(&self) -> io::Result<u64> {
        self.medium.occupied_bytes()
    }
    #[inline]
    fn forked(&self) -> bool {
        self.medium.forked()
    }
    fn claim(&self) -> Result<Claim, ClaimError> {
        self.medium.claim()
    }
    fn info(&self) -> MediaInfo<'_> {
        self.medium.info()
    }
    fn process(&self) -> io::Result<ProcessId> {
        self.medium.process()
    }
    fn now(&self) -> Duration {
        self.medium.now()
    }
    fn boot(&self) -> io::Result<u128> {
        self.medium.boot()
    }
}
