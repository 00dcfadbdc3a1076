//! The crash simulator: memory that can lose power between any two steps, and an explorer that tries every
//! content that a power failure could leave.
//!
//! A [`Sim`] is a [`Medium`]. The code under test runs on it as on a mapping; the simulator knows for each
//! cache line which stores are durable for certain and which may or may not be. An [`Explorer`] watches it
//! and, at every point where the set of possible contents differs, runs the real recovery and an oracle on
//! *all* contents that they can tell apart. Recovery runs on a `Sim` too, so it can be crashed in turn.
//!
//! # The model
//!
//! That of x86 with write-back memory, as [`Medium`] states it. The contents of a unit after a crash are
//! those that are durable for certain plus any prefix of the stores made since; units are independent of
//! each other. [`Domain`] chooses the unit. A line may be written back at any time, so a store that was
//! never flushed may survive.
//!
//! Beyond that:
//!
//! - A page without memory must not be touched: that is a violation, as it is a `SIGBUS` on a real file.
//!   Backing and punching are durable at once, but in a page cache; the zeroes that a punch leaves are ordinary stores, because
//!   a file system may undo a punch after a power failure.
//! - Plain stores must be announced by [`Medium::stored`] and plain loads by [`Medium::settle`].
//! - A recovery that only [classifies](Medium::classify) a word is run once for each class that the word can
//!   be in, not for each value; what it writes over unread, it is not run for at all.
//! - In a page cache ([`Domain::Page4096`]) the unit is the page, and a sync is the only barrier. A page that got its
//!   memory since the last sync may lack it after a crash, and one that was punched may lack it as well.
//! - A crash is another boot ([`Medium::boot`]); the kill of a process ([`Sim::kill`]) is not.
//! - Recovery must be deterministic, and must not touch the medium from several threads.
//!
//! # Examples
//!
//! Two words are set, one after the other; a crash may not leave the second without the first.
//!
//! ```
//! use pmalloc_persist::{Medium, Offset, Span, Word};
//! use pmalloc_persist::sim::{Digest, Domain, ExploreOptions, Explorer, Sim, SimOptions};
//!
//! let sim = Sim::new(SimOptions { len_bytes: 4096, domain: Domain::Word8 });
//! sim.back(Span::new(0, 4096))?;
//! let explorer = Explorer::watch(&sim, ExploreOptions::default(), |sim: &Sim| {
//!     let read = |at| sim.load(sim.at::<Word>(Offset::new(at)).expect("in bounds"));
//!     let state = (read(0), read(64));
//!     if state == (0, 1) { Err("the second without the first".into()) } else { Ok(Digest::of(&state)) }
//! });
//! for at in [0, 64] {
//!     let word = sim.at::<Word>(Offset::new(at))?;
//!     sim.store(word, 1);
//!     sim.flush_of(word);
//!     sim.fence();
//! }
//! let report = explorer.finish();
//! assert!(report.violations.is_empty(), "{report}");
//! assert_eq!(report.states.len(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod boot;
mod crash_state;
mod eager;
mod engine;
mod explore;
mod medium;
mod memory;
mod mix;
mod model;
mod mutate;
mod pages;
mod process;
mod quiet;
mod report;
mod state;
mod undecided;

use core::{
    fmt,
    panic::Location,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    time::Duration,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use crash_state::CrashState;
pub use eager::{TooManyImages, explore_eagerly};
pub use explore::{ExploreOptions, Explorer, explore_state};
pub use model::Domain;
pub use mutate::{SiteCount, SiteKind};
pub use pages::BackFault;
pub use report::{
    Crash, Digest, Fate, ImageId, ImageIdError, PointKind, Report, StoreFate, Violation,
};

use self::{
    boot::Image,
    memory::{Memory, WordAt, to_index},
    model::Site,
    pages::Pages,
    process::Process,
    state::State,
};
use crate::{Anon, Medium, PAGE_BYTES, Span};

/// How to make a [`Sim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimOptions {
    /// Capacity in bytes, rounded up to whole pages.
    pub len_bytes: u64,
    /// What a power failure preserves.
    pub domain: Domain,
}

/// A simulated medium.
///
/// Clones are handles to the same medium, and belong to the same process. Every [claim](Medium::claim) is granted, so that
/// a structure can be opened again while the one that was killed is still in memory: who does that sees to it that the first
/// one's references are used no more.
#[derive(Clone)]
pub struct Sim {
    inner: Arc<Inner>,
    process: Arc<Process>,
}

struct Inner {
    live: Arc<Anon>,
    domain: Domain,
    pages: Arc<Pages>,
    /// In a page cache, the pages that have memory on the disk for certain: those that had some at the last sync, and
    /// lost none since.
    sure_pages: Arc<Pages>,
    /// How many crashes ago the first medium was made: another boot after each. Relaxed: set before the medium is used.
    boot: AtomicU64,
    /// Per line: how many of its units a crash left undecided.
    hot: Arc<[AtomicU8]>,
    /// Accesses of the present run, and how many it may make. Both relaxed: one thread counts.
    steps: AtomicU64,
    step_limit: AtomicU64,
    is_boot: AtomicBool,
    /// What the clock shows, in nanoseconds: zero after a boot. Relaxed: nothing is published by it.
    clock_ns: AtomicU64,
    state: Mutex<State>,
}

impl Sim {
    /// A medium of zeroes, with no page backed.
    ///
    /// # Panics
    ///
    /// If the length is zero or exceeds the address space.
    #[must_use]
    pub fn new(options: SimOptions) -> Self {
        Self::with_kind(options, false)
    }

    /// The domain that the medium simulates.
    #[must_use]
    pub fn domain(&self) -> Domain {
        self.inner.domain
    }

    /// Whether this medium is one that booted after a simulated crash.
    #[must_use]
    pub fn is_boot(&self) -> bool {
        self.inner.is_boot.load(Ordering::Relaxed)
    }

    /// Whether every page that `span` touches has memory.
    #[must_use]
    pub fn has_memory(&self, span: Span) -> bool {
        self.inner.pages.first_unbacked(span).is_none()
    }

    /// Lets time pass: the clock, which stands still by itself, shows so much more.
    pub fn pass(&self, time: Duration) {
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.inner.clock_ns.fetch_add(time_ns, Ordering::Relaxed);
    }

    /// Lets calls of [`Medium::back`] fail, counted from now on.
    pub fn fail_backs(&self, fault: BackFault) {
        self.lock().backs.set(fault);
    }

    /// Calls of [`Medium::back`] since the last [`Sim::fail_backs`].
    #[must_use]
    pub fn back_calls(&self) -> u64 {
        self.lock().backs.calls()
    }

    /// Lets calls of [`Medium::sync`] fail, counted from now on. Which stores are durable is not known then, and where a
    /// sync is the only barrier a later one does not tell: as on Linux, a page that could not be written counts as clean
    /// until it is stored to again.
    pub fn fail_syncs(&self, fault: BackFault) {
        self.lock().syncs.set(fault);
    }

    /// Calls of [`Medium::sync`] and [`Medium::sync_span`] since the last [`Sim::fail_syncs`].
    #[must_use]
    pub fn sync_calls(&self) -> u64 {
        self.lock().syncs.calls()
    }

    /// The places in the source that stored, flushed, fenced or synchronized so far, also in explored recoveries.
    #[must_use]
    pub fn sites(&self) -> Vec<SiteCount> {
        self.lock().sites.list()
    }

    /// Ignores every flush made at `site` from now on, also in recoveries.
    pub fn drop_flush(&self, site: &'static Location<'static>) {
        self.lock().mutations.add(SiteKind::Flush, site);
    }

    /// Ignores every fence made at `site` from now on, also in recoveries.
    pub fn drop_fence(&self, site: &'static Location<'static>) {
        self.lock().mutations.add(SiteKind::Fence, site);
    }

    /// Lets every store made at `site` take its place in the order of persistence only after the thread's
    /// next store, as if the two had been written in the other order. The program itself still reads what
    /// it wrote.
    pub fn delay_store(&self, site: &'static Location<'static>) {
        self.lock().mutations.add(SiteKind::Store, site);
    }

    /// Lets every sync made at `site` succeed and do nothing, also in recoveries.
    pub fn drop_sync(&self, site: &'static Location<'static>) {
        self.lock().mutations.add(SiteKind::Sync, site);
    }

    /// Omits or swaps what `site` names: a shorthand for the four functions above.
    pub fn mutate(&self, site: SiteCount) {
        self.lock().mutations.add(site.kind, site.location);
    }

    /// Ends all mutations.
    pub fn clear_mutations(&self) {
        self.lock().mutations.clear();
    }

    /// Violations found so far on this medium itself: accesses to pages without memory.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// Makes this moment a crash point of the exploration that watches the medium, if any.
    ///
    /// In a check, call it where a crash is worth exploring although nothing was fenced.
    #[track_caller]
    pub fn crash_point(&self, name: &'static str) {
        self.reach(PointKind::Named(name), Location::caller());
    }

    /// Tells that recovery is complete: a last crash point, after which the check may change the medium
    /// (to see that it still works) without further crashes being explored.
    ///
    /// Does nothing on a medium that did not boot after a crash.
    #[track_caller]
    pub fn recovered(&self) {
        if self.is_boot() {
            self.reach(PointKind::Named("recovered"), Location::caller());
            self.lock().run.recovered = true;
        }
    }

    /// All images that a crash at this moment could leave.
    #[must_use]
    pub fn crash_state(&self) -> CrashState {
        CrashState::of(self)
    }

    fn with_kind(options: SimOptions, is_boot: bool) -> Self {
        let live = Arc::new(Anon::new(options.len_bytes));
        let capacity = live.region().len();
        let word_count = to_index(capacity / 8);
        let unit_count = options.domain.unit_count(word_count);
        let hot: Arc<[AtomicU8]> = (0..word_count.div_ceil(8)).map(|_| AtomicU8::new(0)).collect();
        let memory = Memory::new(live.clone());
        let image = Image::new(options.domain, unit_count, hot.clone());
        let state = State::new(options.domain, memory, image, unit_count);
        Self {
            process: Arc::new(Process::new(0)),
            inner: Arc::new(Inner {
                live,
                domain: options.domain,
                pages: Pages::new(capacity),
                sure_pages: Pages::new(capacity),
                boot: AtomicU64::new(0),
                hot,
                steps: AtomicU64::new(0),
                step_limit: AtomicU64::new(u64::MAX),
                is_boot: AtomicBool::new(is_boot),
                clock_ns: AtomicU64::new(0),
                state: Mutex::new(state),
            }),
        }
    }

    /// The pages that have memory after a crash, whatever reached the disk: to touch others is a violation.
    fn surviving_pages(&self) -> &Pages {
        let is_page_cache = self.inner.domain.is_page_cache();
        if is_page_cache { &self.inner.sure_pages } else { &self.inner.pages }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under the lock but that of `classify`, before anything is changed; so a
        // poisoned state is still a consistent one.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the explorer that the medium is at a crash point.
    fn reach(&self, kind: PointKind, site: Site) {
        let hook = self.lock().hook.clone();
        if let Some(hook) = hook {
            hook.reached(self, kind, site);
        }
    }

    /// Records a violation and unwinds, unless the thread is unwinding already.
    #[cold]
    fn violate(&self, message: &str) {
        self.lock().violations.push(message.into());
        if !std::thread::panicking() {
            panic!("{message}");
        }
    }

    /// Checks that `span` has memory.
    fn touch(&self, span: Span, what: &str, site: Site) {
        if let Some(at) = self.inner.pages.first_unbacked(span) {
            let page = at / PAGE_BYTES;
            self.violate(&format!(
                "{what} of byte {at:#x} in page {page}, which has no memory, at {site}"
            ));
        }
    }

    /// Checks that the page of `word` has memory; the fast path of [`Sim::touch`].
    fn touch_word(&self, word: WordAt, what: &str, site: Site) {
        if !self.inner.pages.is_backed(word.bytes()) {
            self.touch(Span::new(word.bytes(), 8), what, site);
        }
    }

    /// Counts an access; under shuttle, lets another thread run first.
    fn step(&self, site: Site) {
        if !self.is_boot() {
            return yield_to_scheduler();
        }
        let steps = self.inner.steps.load(Ordering::Relaxed) + 1;
        self.inner.steps.store(steps, Ordering::Relaxed);
        let limit = self.inner.step_limit.load(Ordering::Relaxed);
        if steps > limit {
            self.violate(&format!("no end after {limit} accesses, at {site}"));
        }
    }

    fn is_hot(&self, word: WordAt) -> bool {
        self.inner.hot[word.line()].load(Ordering::Relaxed) != 0
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim")
            .field("domain", &self.inner.domain)
            .field("capacity_bytes", &self.inner.live.region().len())
            .field("is_boot", &self.is_boot())
            .finish_non_exhaustive()
    }
}

/// Lets shuttle run another thread. A sleep is a plain switch to it; a yield would lower the priority of the
/// thread, and with it spoil what the scheduler wants to try.
fn yield_to_scheduler() {
    #[cfg(shuttle)]
    crate::sync::thread::sleep(Duration::ZERO);
}
