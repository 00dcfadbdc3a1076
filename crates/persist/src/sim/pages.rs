//! Which pages have memory, and how to make giving them some fail.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::{io, sync::Arc};

use super::{memory::to_index, mix::Mixer};
use crate::{PAGE_BYTES, Span};

const NEVER: u8 = 0;
const PUNCHED: u8 = 1;
const BACKED: u8 = 2;

/// The state of every page and the length of the file.
///
/// All orderings are relaxed: a page's state is only a check on the code under test, whose own
/// synchronisation orders the call that backs a page before the accesses to it.
#[derive(Debug)]
pub(super) struct Pages {
    states: Box<[AtomicU8]>,
    len: AtomicU64,
    /// Equal versions mean equal pages: tells whether there is anything to copy.
    version: AtomicU64,
}

/// The next version; one sequence for all media, so that no two histories share a number.
static NEXT_VERSION: AtomicU64 = AtomicU64::new(1);

impl Pages {
    pub(super) fn new(capacity_bytes: u64) -> Arc<Self> {
        let count = to_index(capacity_bytes / PAGE_BYTES);
        let states = (0..count).map(|_| AtomicU8::new(NEVER)).collect();
        Arc::new(Self { states, len: AtomicU64::new(0), version: AtomicU64::new(0) })
    }

    pub(super) fn len_bytes(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether the page that holds byte `at` may be touched.
    pub(super) fn is_backed(&self, at: u64) -> bool {
        let page = to_index(at / PAGE_BYTES);
        self.states.get(page).is_some_and(|state| state.load(Ordering::Relaxed) == BACKED)
    }

    /// The first byte of `span` that must not be touched.
    pub(super) fn first_unbacked(&self, span: Span) -> Option<u64> {
        let pages = if span.is_empty() { Span::new(0, 0) } else { span.to_pages() };
        (pages.start..pages.end())
            .step_by(to_index(PAGE_BYTES))
            .find(|&at| !self.is_backed(at))
            .map(|at| at.max(span.start))
    }

    pub(super) fn back(&self, span: Span) {
        let pages = span.to_pages();
        for page in pages.start / PAGE_BYTES..pages.end() / PAGE_BYTES {
            self.states[to_index(page)].store(BACKED, Ordering::Relaxed);
        }
        self.len.fetch_max(pages.end(), Ordering::Relaxed);
        self.version.store(NEXT_VERSION.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(super) fn punch(&self, page: usize) {
        self.states[page].store(PUNCHED, Ordering::Relaxed);
        self.version.store(NEXT_VERSION.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Takes over the states of the pages of `span` from `other`, and a length that reaches to its end.
    pub(super) fn sync_span(&self, other: &Self, span: Span) {
        let pages = span.to_pages();
        for page in pages.start / PAGE_BYTES..pages.end() / PAGE_BYTES {
            let state = other.states[to_index(page)].load(Ordering::Relaxed);
            self.states[to_index(page)].store(state, Ordering::Relaxed);
        }
        self.len.fetch_max(pages.end().min(other.len_bytes()), Ordering::Relaxed);
        self.version.store(NEXT_VERSION.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The backed pages that lie wholly inside `span`.
    pub(super) fn backed_inside(&self, span: Span) -> Vec<usize> {
        let first = to_index(span.start.div_ceil(PAGE_BYTES));
        let end = to_index(span.end() / PAGE_BYTES).min(self.states.len());
        let is_backed = |page: &usize| self.states[*page].load(Ordering::Relaxed) == BACKED;
        (first..end).filter(is_backed).collect()
    }

    /// The pages that may hold anything but zeroes.
    pub(super) fn ever_backed(&self) -> impl Iterator<Item = usize> {
        let ever = |page: &usize| self.states[*page].load(Ordering::Relaxed) != NEVER;
        (0..self.states.len()).filter(ever)
    }

    pub(super) fn occupied_bytes(&self) -> u64 {
        let is_backed = |state: &&AtomicU8| state.load(Ordering::Relaxed) == BACKED;
        self.states.iter().filter(is_backed).count() as u64 * PAGE_BYTES
    }

    /// Takes over the state of `other`, if either has changed since the last time.
    pub(super) fn copy_from(&self, other: &Self) {
        let version = other.version.load(Ordering::Relaxed);
        if self.version.swap(version, Ordering::Relaxed) == version {
            return;
        }
        for (to, from) in self.states.iter().zip(&other.states) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.len.store(other.len_bytes(), Ordering::Relaxed);
    }

    pub(super) fn hash(&self) -> u128 {
        let mut mixer = Mixer::default();
        mixer.add(self.len_bytes());
        for states in self.states.chunks(8) {
            let packed = states
                .iter()
                .fold(0, |packed, state| packed << 8 | u64::from(state.load(Ordering::Relaxed)));
            mixer.add(packed);
        }
        mixer.finish()
    }
}

/// Which calls of [`Medium::back`](crate::Medium::back) fail with
/// [`StorageFull`](io::ErrorKind::StorageFull), or which syncs, counted from zero from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackFault {
    /// None.
    #[default]
    Never,
    /// Only this one.
    Once(u64),
    /// This one and all that follow.
    From(u64),
}

/// Counts calls and lets the chosen ones fail.
#[derive(Debug)]
pub(super) struct Faults {
    fault: BackFault,
    kind: io::ErrorKind,
    calls: u64,
}

impl Faults {
    /// Calls that fail with an error of this kind.
    pub(super) const fn new(kind: io::ErrorKind) -> Self {
        Self { fault: BackFault::Never, kind, calls: 0 }
    }

    pub(super) const fn set(&mut self, fault: BackFault) {
        (self.fault, self.calls) = (fault, 0);
    }

    pub(super) const fn calls(&self) -> u64 {
        self.calls
    }

    pub(super) fn next(&mut self) -> io::Result<()> {
        let call = self.calls;
        self.calls += 1;
        match self.fault {
            BackFault::Once(n) if n == call => Err(self.kind.into()),
            BackFault::From(n) if n <= call => Err(self.kind.into()),
            _ => Ok(()),
        }
    }
}
