//! Everything of a simulated medium that its lock guards.

use std::{io, sync::Arc};

use super::{
    Sim,
    boot::{Decision, Image, Plan, number},
    engine::Hook,
    memory::{Memory, WordAt},
    model::{Domain, Pending, Site, Store, UnitAt},
    mutate::{Delayed, Mutations, SiteKind, SiteTable},
    pages::{Faults, Pages},
    report::Crash,
    undecided::Undecided,
};
use crate::{Line, Span, sync::thread::ThreadId};

/// The model's state and the state of the present run.
#[derive(Debug)]
pub(super) struct State {
    pub(super) domain: Domain,
    pub(super) memory: Memory,
    pub(super) pending: Pending,
    pub(super) image: Image,
    pub(super) delayed: Delayed,
    /// Stores that were delayed and are next to be logged: where each store is durable at once, there is a
    /// crash point before.
    due: Vec<Store>,
    pub(super) mutations: Mutations,
    pub(super) sites: SiteTable,
    pub(super) backs: Faults,
    pub(super) syncs: Faults,
    pub(super) hook: Option<Hook>,
    pub(super) run: Run,
    pub(super) violations: Vec<String>,
    /// Words that were found written at a flush, without a call of `stored` before.
    pub(super) untold_words: u64,
    /// The post-crash medium that explorations of this one use, kept because bringing it up to date is
    /// cheaper than making it.
    pub(super) child: Child,
    seq: u64,
}

/// A post-crash medium in waiting.
#[derive(Debug, Default)]
pub(super) struct Child {
    pub(super) sim: Option<Sim>,
    /// Which child the list of changed words refers to.
    pub(super) token: u64,
    /// How often one was borrowed.
    pub(super) loans: u64,
}

/// What belongs to one run of the check on a post-crash medium.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The crash that this medium booted from, and the medium that crashed.
    pub(super) origin: Option<(Crash, Sim)>,
    /// Crash points reached in this run.
    pub(super) points: u64,
    /// Points reached with fewer decisions belong to an earlier run, which had the same ones.
    pub(super) fresh_from: usize,
    /// The check has declared recovery finished.
    pub(super) recovered: bool,
    /// The pages as the crash left them.
    pub(super) pages_at_boot: Option<Arc<Pages>>,
}

impl State {
    pub(super) fn new(domain: Domain, memory: Memory, image: Image, unit_count: usize) -> Self {
        Self {
            domain,
            memory,
            pending: Pending::new(unit_count),
            image,
            delayed: Delayed::default(),
            due: Vec::new(),
            mutations: Mutations::default(),
            sites: SiteTable::default(),
            backs: Faults::new(io::ErrorKind::StorageFull),
            syncs: Faults::new(io::ErrorKind::Other),
            hook: None,
            run: Run::default(),
            violations: Vec::new(),
            untold_words: 0,
            child: Child::default(),
            seq: 0,
        }
    }

    /// Decides what `word` holds, if a crash left that open.
    pub(super) fn decide_word(&mut self, word: WordAt) {
        self.image.decide_word(&mut self.memory, word);
    }

    /// Decides in which of the classes that `class` puts values in the value of `word` is, if a crash left
    /// that open; returns a value of that class.
    pub(super) fn classify<C: PartialEq>(
        &mut self,
        word: WordAt,
        class: impl Fn(u64) -> C,
    ) -> Option<u64> {
        let mut known = Vec::new();
        let mut class_of = |value| number(&mut known, class(value));
        self.image.decide(&mut self.memory, word, &mut class_of)
    }

    /// Writes `value` to live memory and logs it as a store.
    pub(super) fn store(
        &mut self,
        thread: impl Fn() -> ThreadId,
        word: WordAt,
        value: u64,
        site: Site,
    ) {
        self.memory.live(word).set(value);
        self.log(thread, word, value, site);
    }

    /// Logs a store that live memory already shows.
    pub(super) fn log(
        &mut self,
        thread: impl Fn() -> ThreadId,
        word: WordAt,
        value: u64,
        site: Site,
    ) {
        self.sites.note(SiteKind::Store, site);
        self.image.write(word);
        self.memory.log(word, value);
        let store = Store { word, value, seq: 0, site };
        if self.mutations.is_empty() && self.delayed.is_empty() {
            return self.enqueue(store);
        }
        let thread = thread();
        match self.delayed.release(thread) {
            Some(earlier) => {
                self.enqueue(store);
                self.due.push(earlier);
                if self.domain != Domain::Eadr {
                    self.enqueue_due();
                }
            }
            None if self.mutations.hits(SiteKind::Store, site) => self.delayed.hold(thread, store),
            None => self.enqueue(store),
        }
    }

    /// Logs the plain stores that the program made to `line` without saying so.
    pub(super) fn absorb(&mut self, thread: impl Fn() -> ThreadId + Copy, line: Line, site: Site) {
        for word in WordAt::all_in(line.span()) {
            if self.memory.live(word).get() == self.memory.shadow(word) {
                continue;
            }
            self.untold_words += 1;
            self.decide_word(word);
            let value = self.memory.live(word).get();
            self.log(thread, word, value, site);
        }
    }

    /// Starts the write-back of `line`; in a page cache a flush does nothing.
    pub(super) fn flush(&mut self, thread: ThreadId, line: Line) {
        if self.domain.is_page_cache() {
            return;
        }
        for unit in self.domain.units_of(line) {
            self.pending.flush(thread, unit);
        }
    }

    /// Makes durable what `thread` flushed.
    pub(super) fn fence(&mut self, thread: ThreadId) {
        let (memory, image) = (&mut self.memory, &mut self.image);
        self.pending.fence(thread, |store| {
            memory.guarantee(store.word, store.value);
            image.guarantee(store.word);
        });
    }

    /// Makes the pages of `span` durable, or everything.
    pub(super) fn sync(&mut self, span: Option<Span>) {
        let units: Option<Vec<UnitAt>> =
            span.map(|span| self.domain.units_in(span.to_pages()).collect());
        let (memory, image) = (&mut self.memory, &mut self.image);
        self.pending.sync(units.as_deref(), |store| {
            memory.guarantee(store.word, store.value);
            image.guarantee(store.word);
        });
    }

    /// The units that a crash now would leave undecided.
    pub(super) fn after_crash(&self) -> impl Iterator<Item = Undecided> {
        let pending = self.pending.iter().map(|fifo| (fifo.unit, &fifo.stores[..]));
        let open = self.image.open().map(|open| (open.unit, &[][..]));
        let open = open.filter(|(unit, _)| !self.pending.has(*unit));
        let after = pending.chain(open).map(|(unit, stores)| {
            let before = self.image.open_at(unit);
            Undecided::after_crash(unit, &self.memory, before, stores)
        });
        after.filter(|undecided| !undecided.is_decided())
    }

    /// Hash of the set of images that a crash now could leave.
    pub(super) fn fingerprint(&self, pages: &Pages) -> u128 {
        let decided = self.memory.hash().wrapping_add(pages.hash());
        let open = self.after_crash().map(|undecided| undecided.hash(&self.memory));
        open.fold(decided, u128::wrapping_add)
    }

    /// Starts a run: the medium is as the crash left it.
    pub(super) fn begin(&mut self, script: Vec<Decision>, plan: Plan, fresh_from: usize) {
        self.memory.rewind();
        self.pending.clear();
        self.delayed.clear();
        self.due.clear();
        self.image.begin(script, plan);
        self.run.points = 0;
        self.run.fresh_from = fresh_from;
        self.run.recovered = false;
    }

    /// Logs a delayed store whose time has come; false if there is none.
    pub(super) fn enqueue_due(&mut self) -> bool {
        let Some(store) = self.due.pop() else { return false };
        self.enqueue(store);
        true
    }

    fn enqueue(&mut self, mut store: Store) {
        self.seq += 1;
        store.seq = self.seq;
        if self.domain == Domain::Eadr {
            self.memory.guarantee(store.word, store.value);
        } else {
            self.pending.push(self.domain.unit_of(store.word), store);
        }
    }
}

/// The words of `span`, and for each which of its bits lie inside the span.
pub(super) fn masked_words(span: Span) -> impl Iterator<Item = (WordAt, u64)> + Clone {
    WordAt::all_in(span).map(move |word| {
        let skip = span.start.saturating_sub(word.bytes()).min(8);
        let keep = (span.end() - word.bytes()).min(8);
        let below = |bytes: u64| if bytes == 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 };
        (word, below(keep) & !below(skip))
    })
}
