//! The tracer: counts what a program asks of its medium.
//!
//! It wraps any [`Medium`]. The counts are those of golden tables (flushes, fences, bytes, reflushes per
//! operation); the trace names every store, flush, fence and sync with its place in the source. Everything here is
//! volatile.

use core::{ops::Sub, panic::Location, time::Duration};
use std::{
    collections::HashMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    Claim, ClaimError, Exclusive, Line, MediaInfo, Medium, Region, Span, Word,
    process::ProcessId,
    sync::thread::{self, ThreadId},
};

/// Distances of reflushes that have a count of their own; all above share the last one.
const DISTANCES: usize = 9;

/// What was asked of a medium, by all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Lines flushed.
    pub flushes: u64,
    /// Fences.
    pub fences: u64,
    /// Bytes stored: eight for each word, the announced length for plain stores.
    pub bytes: u64,
    /// Flushes of a line that the same thread had flushed before, by the number of distinct other lines that
    /// it flushed in between; the last element counts all from eight on.
    pub reflushes: [u64; DISTANCES],
}

impl Counts {
    /// The counts of `events`, which one thread made, leaving out the lines that `is_counted` rejects.
    ///
    /// Lines that are left out don't add to the distances of the others either.
    pub fn of<'a>(
        events: impl IntoIterator<Item = &'a Event>,
        is_counted: impl Fn(Line) -> bool,
    ) -> Self {
        let mut counts = Self::default();
        let mut recent = Recent::default();
        for event in events {
            match event {
                Event::Store { span, .. } if is_counted(Line::of(span.start)) => {
                    counts.bytes += span.len;
                }
                Event::Flush { line, .. } if is_counted(*line) => counts.flush(&mut recent, *line),
                Event::Fence { .. } => counts.fences += 1,
                Event::Store { .. } | Event::Flush { .. } | Event::Sync { .. } => {}
            }
        }
        counts
    }

    /// Reflushes at a distance below `distance`.
    #[must_use]
    pub fn reflushes_below(&self, distance: usize) -> u64 {
        self.reflushes.iter().take(distance).sum()
    }

    fn flush(&mut self, recent: &mut Recent, line: Line) {
        self.flushes += 1;
        if let Some(distance) = recent.flush(line) {
            self.reflushes[distance] += 1;
        }
    }
}

impl Sub for Counts {
    type Output = Self;

    /// What was asked between the moments of `earlier` and `self`.
    fn sub(self, earlier: Self) -> Self {
        Self {
            flushes: self.flushes - earlier.flushes,
            fences: self.fences - earlier.fences,
            bytes: self.bytes - earlier.bytes,
            reflushes: core::array::from_fn(|d| self.reflushes[d] - earlier.reflushes[d]),
        }
    }
}

/// A step of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// `span` was written: by one word store, or by plain stores that were announced.
    Store {
        /// The bytes.
        span: Span,
        /// Where in the source.
        site: &'static Location<'static>,
    },
    /// A line was flushed.
    Flush {
        /// The line.
        line: Line,
        /// Where in the source.
        site: &'static Location<'static>,
    },
    /// A fence was made.
    Fence {
        /// Where in the source.
        site: &'static Location<'static>,
    },
    /// Everything was synchronized, or some pages.
    Sync {
        /// The bytes whose pages were; `None` for all.
        span: Option<Span>,
        /// Where in the source.
        site: &'static Location<'static>,
    },
}

/// A medium that counts what is asked of it.
///
/// # Examples
///
/// ```
/// use pmalloc_persist::{Anon, Medium, Offset, Traced, Word};
///
/// let medium = Traced::new(Anon::new(4096));
/// let word = medium.at::<Word>(Offset::new(0))?;
/// medium.store(word, 1);
/// medium.flush_of(word);
/// medium.fence();
/// medium.flush_of(word);
/// let counts = medium.counts();
/// assert_eq!((counts.flushes, counts.fences, counts.bytes), (2, 1, 8));
/// assert_eq!(counts.reflushes[0], 1);
/// # Ok::<(), pmalloc_persist::OutOfBounds>(())
/// ```
#[derive(Debug)]
pub struct Traced<M> {
    medium: M,
    log: Mutex<Log>,
}

/// Volatile: what was counted so far.
#[derive(Debug, Default)]
struct Log {
    counts: Counts,
    recent: HashMap<ThreadId, Recent>,
    trace: Option<Vec<Event>>,
}

impl<M: Medium> Traced<M> {
    /// Counts what is asked of `medium`.
    #[must_use]
    pub fn new(medium: M) -> Self {
        Self { medium, log: Mutex::default() }
    }

    /// The medium underneath.
    #[must_use]
    pub fn inner(&self) -> &M {
        &self.medium
    }

    /// What was asked since the beginning or the last [`Traced::reset`].
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Counts from zero again, and forgets which lines were flushed.
    pub fn reset(&self) {
        let log = &mut *self.lock();
        log.counts = Counts::default();
        log.recent.clear();
    }

    /// Records every step from now on.
    pub fn start_trace(&self) {
        self.lock().trace = Some(Vec::new());
    }

    /// Ends the recording and hands it out; empty if there was none.
    #[must_use]
    pub fn take_trace(&self) -> Vec<Event> {
        self.lock().trace.take().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // No foreign code runs under the lock, so a poisoned log is still a consistent one.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrote(&self, span: Span, site: &'static Location<'static>) {
        let log = &mut *self.lock();
        log.counts.bytes += span.len;
        log.record(Event::Store { span, site });
    }

    fn wrote_word(&self, word: &Word, site: &'static Location<'static>) {
        self.wrote(self.medium.region().span_of(word), site);
    }
}

impl Log {
    fn record(&mut self, event: Event) {
        if let Some(trace) = &mut self.trace {
            trace.push(event);
        }
    }
}

/// The lines that a thread flushed, for the distances of its reflushes.
#[derive(Debug, Default)]
struct Recent {
    /// The last distinct lines, latest first.
    latest: [Option<Line>; DISTANCES - 1],
    all: LineSet,
}

/// A set of lines, a bit each: flushes come in runs, and a set of their numbers would miss the caches.
#[derive(Debug, Default)]
struct LineSet {
    /// One word for 64 lines, by the number of their group.
    groups: HashMap<u64, u64>,
}

impl LineSet {
    /// Inserts `line`; whether it was not there before.
    fn insert(&mut self, line: Line) -> bool {
        let group = self.groups.entry(line.0 / 64).or_default();
        let bit = 1 << (line.0 % 64);
        let is_new = *group & bit == 0;
        *group |= bit;
        is_new
    }
}

impl Recent {
    /// Notes a flush of `line`; returns its distance if it was flushed before.
    fn flush(&mut self, line: Line) -> Option<usize> {
        let place = self.latest.iter().position(|&other| other == Some(line));
        let distance = place.unwrap_or(DISTANCES - 1);
        let end = distance.min(self.latest.len() - 1);
        self.latest[..=end].rotate_right(1);
        self.latest[0] = Some(line);
        let is_first = place.is_none() && self.all.insert(line);
        (!is_first).then_some(distance)
    }
}

// SAFETY: nobody has a handle to the medium underneath but by borrowing this one.
unsafe impl<M: Exclusive> Exclusive for Traced<M> {}

// SAFETY: all is passed on to the medium underneath.
unsafe impl<M: Medium> Medium for Traced<M> {
    fn region(&self) -> &Region {
        self.medium.region()
    }
    fn len(&self) -> u64 {
        self.medium.len()
    }
    #[track_caller]
    fn load(&self, word: &Word) -> u64 {
        self.medium.load(word)
    }
    #[track_caller]
    fn classify<C: PartialEq>(&self, word: &Word, class: impl Fn(u64) -> C) -> C {
        self.medium.classify(word, class)
    }
    #[track_caller]
    fn store(&self, word: &Word, value: u64) {
        self.medium.store(word, value);
        self.wrote_word(word, Location::caller());
    }
    fn prefetch(&self, word: &Word) {
        self.medium.prefetch(word);
    }
    #[track_caller]
    fn compare_exchange(&self, word: &Word, current: u64, new: u64) -> Result<u64, u64> {
        let found = self.medium.compare_exchange(word, current, new);
        if found.is_ok() {
            self.wrote_word(word, Location::caller());
        }
        found
    }
    #[track_caller]
    fn fetch_or(&self, word: &Word, bits: u64) -> u64 {
        let before = self.medium.fetch_or(word, bits);
        self.wrote_word(word, Location::caller());
        before
    }
    #[track_caller]
    fn fetch_and(&self, word: &Word, bits: u64) -> u64 {
        let before = self.medium.fetch_and(word, bits);
        self.wrote_word(word, Location::caller());
        before
    }
    #[track_caller]
    fn flush(&self, span: Span) {
        self.medium.flush(span);
        let site = Location::caller();
        let thread = thread::current().id();
        let log = &mut *self.lock();
        for line in span.lines() {
            log.counts.flush(log.recent.entry(thread).or_default(), line);
            log.record(Event::Flush { line, site });
        }
    }
    #[track_caller]
    fn fence(&self) {
        self.medium.fence();
        let log = &mut *self.lock();
        log.counts.fences += 1;
        log.record(Event::Fence { site: Location::caller() });
    }
    #[track_caller]
    fn stored(&self, span: Span) {
        self.medium.stored(span);
        self.wrote(span, Location::caller());
    }
    #[track_caller]
    fn settle(&self, span: Span) {
        self.medium.settle(span);
    }
    #[track_caller]
    fn back(&self, span: Span) -> io::Result<()> {
        self.medium.back(span)
    }
    #[track_caller]
    fn ensure(&self, spans: &[Span]) -> io::Result<()> {
        self.medium.ensure(spans)
    }
    #[track_caller]
    fn punch(&self, span: Span) -> io::Result<()> {
        self.medium.punch(span)
    }
    #[track_caller]
    fn sync(&self) -> io::Result<()> {
        self.lock().record(Event::Sync { span: None, site: Location::caller() });
        self.medium.sync()
    }
    #[track_caller]
    fn sync_span(&self, span: Span) -> io::Result<()> {
        self.lock().record(Event::Sync { span: Some(span), site: Location::caller() });
        self.medium.sync_span(span)
    }
    fn needs_sync(&self) -> bool {
        self.medium.needs_sync()
    }
    fn occupied_bytes(&self) -> io::Result<u64> {
        self.medium.occupied_bytes()
    }
    fn now(&self) -> Duration {
        self.medium.now()
    }
    #[inline]
    fn forked(&self) -> bool {
        self.medium.forked()
    }
    fn process(&self) -> io::Result<ProcessId> {
        self.medium.process()
    }
    fn boot(&self) -> io::Result<u128> {
        self.medium.boot()
    }
    fn claim(&self) -> Result<Claim, ClaimError> {
        self.medium.claim()
    }
    fn info(&self) -> MediaInfo<'_> {
        self.medium.info()
    }
}
