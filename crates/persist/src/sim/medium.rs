//! The simulator as a [`Medium`]: what each access means in the model.

use core::{panic::Location, sync::atomic::Ordering, time::Duration};
use std::io;

use super::{
    Sim,
    memory::WordAt,
    model::{Domain, Site},
    mutate::SiteKind,
    report::PointKind,
    state::masked_words,
};
use crate::{
    Claim, ClaimError, Medium, PAGE_BYTES, Region, Span, Word,
    process::ProcessId,
    sync::thread::{self, ThreadId},
};

fn current_thread() -> ThreadId {
    thread::current().id()
}

fn killed() -> io::Error {
    io::Error::other("the process was killed")
}

impl Sim {
    fn place_of(&self, word: &Word) -> WordAt {
        let place = core::ptr::from_ref(word).cast::<u8>();
        let at = self.inner.live.region().offset_of(place);
        WordAt::of(at.expect("the word lies in this medium"))
    }

    /// Makes sure that live memory shows what `word` holds.
    fn resolve(&self, word: WordAt) {
        if self.is_hot(word) {
            self.lock().decide_word(word);
        }
    }

    /// Announces an access to `word` and makes sure that live memory shows what it holds.
    fn access(&self, word: &Word, what: &str, site: Site) -> WordAt {
        let at = self.place_of(word);
        self.step(site);
        self.touch_word(at, what, site);
        self.resolve(at);
        at
    }

    /// Replaces the content of `word` by what `change` makes of it, as one store.
    fn update(&self, word: &Word, site: Site, change: impl Fn(u64) -> Option<u64>) -> u64 {
        if !self.goes_on(site) {
            return word.get();
        }
        let at = self.access(word, "an update", site);
        let (old, is_changed) = {
            let mut state = self.lock();
            let old = word.get();
            let new = change(old);
            if let Some(new) = new {
                state.store(current_thread, at, new, site);
            }
            (old, new.is_some())
        };
        if is_changed {
            self.stored_one(site);
        }
        old
    }

    /// Where every store is durable at once, each leaves an image of its own.
    fn stored_one(&self, site: Site) {
        if self.inner.domain == Domain::Eadr {
            self.reach(PointKind::Store, site);
            while self.lock().enqueue_due() {
                self.reach(PointKind::Store, site);
            }
        }
    }

    /// Decides the words of which `span` covers a part, without losing what plain stores already wrote to it.
    fn decide_under(&self, span: Span) {
        let parts =
            masked_words(span).filter(|&(word, mask)| mask != u64::MAX && self.is_hot(word));
        for (word, mask) in parts {
            let mut state = self.lock();
            let written = state.memory.live(word).get();
            state.memory.live(word).set(state.memory.shadow(word));
            state.decide_word(word);
            let live = state.memory.live(word);
            live.set(written & mask | live.get() & !mask);
        }
    }

    fn punch_page(&self, page: usize, site: Site) {
        let page_bytes = Span::new(page as u64 * PAGE_BYTES, PAGE_BYTES);
        let changed: Vec<WordAt> = {
            let state = self.lock();
            let changes =
                |word: &WordAt| state.image.is_open(*word) || state.memory.live(*word).get() != 0;
            WordAt::all_in(page_bytes).filter(changes).collect()
        };
        for word in changed {
            self.lock().store(current_thread, word, 0, site);
            self.stored_one(site);
        }
        self.inner.pages.punch(page);
        // Also where the file is not synchronized: the file system may free the blocks at any time.
        self.inner.sure_pages.punch(page);
    }

    /// Makes the pages of `span`, or everything, durable.
    fn synchronize(&self, span: Option<Span>, site: Site) -> io::Result<()> {
        if !self.goes_on(site) {
            return Err(killed());
        }
        self.step(site);
        let is_left_out = {
            let mut state = self.lock();
            if self.inner.domain.is_page_cache() {
                state.sites.note(SiteKind::Sync, site);
            }
            state.mutations.hits(SiteKind::Sync, site)
        };
        if is_left_out {
            return Ok(());
        }
        if !self.lock().pending.is_empty() {
            self.reach(PointKind::Sync, site);
        }
        let mut state = self.lock();
        state.syncs.next().inspect_err(|_| state.pending.give_up())?;
        state.sync(span);
        match span {
            Some(span) => self.inner.sure_pages.sync_span(&self.inner.pages, span),
            None => self.inner.sure_pages.copy_from(&self.inner.pages),
        }
        Ok(())
    }
}

// SAFETY:
// 1. and 2. the live memory is there as long as a handle; the length is that of the backed pages, which are noted, and only
//    grow;
// 3. accesses reach the live words. A killed process stores nothing and is refused as a forked child is;
// 4. undecided words get their value under the lock, before they are read, and are closed then;
// 5. every claim is granted: a heap that was killed, or that is recovered again as after a kill, is still there when the
//    next one is opened. Who opens it sees to it that the first lends nothing any more.
unsafe impl Medium for Sim {
    fn region(&self) -> &Region {
        self.inner.live.region()
    }

    fn len(&self) -> u64 {
        self.inner.pages.len_bytes()
    }

    #[track_caller]
    fn load(&self, word: &Word) -> u64 {
        self.access(word, "a load", Location::caller());
        word.get()
    }

    #[track_caller]
    fn classify<C: PartialEq>(&self, word: &Word, class: impl Fn(u64) -> C) -> C {
        let site = Location::caller();
        let at = self.place_of(word);
        self.step(site);
        self.touch_word(at, "a load", site);
        let decided = if self.is_hot(at) { self.lock().classify(at, &class) } else { None };
        class(decided.unwrap_or_else(|| word.get()))
    }

    #[track_caller]
    fn store(&self, word: &Word, value: u64) {
        let site = Location::caller();
        if !self.goes_on(site) {
            return;
        }
        let at = self.place_of(word);
        self.step(site);
        self.touch_word(at, "a store", site);
        self.lock().store(current_thread, at, value, site);
        self.stored_one(site);
    }

    #[track_caller]
    fn compare_exchange(&self, word: &Word, current: u64, new: u64) -> Result<u64, u64> {
        let found = self.update(word, Location::caller(), |old| (old == current).then_some(new));
        if found == current { Ok(found) } else { Err(found) }
    }

    #[track_caller]
    fn fetch_or(&self, word: &Word, bits: u64) -> u64 {
        self.update(word, Location::caller(), |old| Some(old | bits))
    }

    #[track_caller]
    fn fetch_and(&self, word: &Word, bits: u64) -> u64 {
        self.update(word, Location::caller(), |old| Some(old & bits))
    }

    #[track_caller]
    fn flush(&self, span: Span) {
        let site = Location::caller();
        if !self.goes_on(site) {
            return;
        }
        self.step(site);
        self.touch(span, "a flush", site);
        let mut state = self.lock();
        state.sites.note(SiteKind::Flush, site);
        if state.mutations.hits(SiteKind::Flush, site) {
            return;
        }
        let thread = current_thread();
        for line in span.lines() {
            state.absorb(|| thread, line, site);
            state.flush(thread, line);
        }
    }

    #[track_caller]
    fn fence(&self) {
        let site = Location::caller();
        if !self.goes_on(site) {
            return;
        }
        self.step(site);
        let thread = current_thread();
        let is_effective = {
            let mut state = self.lock();
            state.sites.note(SiteKind::Fence, site);
            if state.mutations.hits(SiteKind::Fence, site) {
                return;
            }
            state.pending.is_fence_effective(thread)
        };
        if is_effective {
            self.reach(PointKind::Fence, site);
        }
        self.lock().fence(thread);
    }

    #[track_caller]
    fn stored(&self, span: Span) {
        let site = Location::caller();
        self.step(site);
        self.touch(span, "plain stores", site);
        self.decide_under(span);
        for word in WordAt::all_in(span) {
            let mut state = self.lock();
            let value = state.memory.live(word).get();
            if value != state.memory.shadow(word) || state.image.is_open(word) {
                state.log(current_thread, word, value, site);
                drop(state);
                self.stored_one(site);
            }
        }
    }

    #[track_caller]
    fn settle(&self, span: Span) {
        let site = Location::caller();
        self.step(site);
        self.touch(span, "plain loads", site);
        WordAt::all_in(span).for_each(|word| self.resolve(word));
    }

    #[track_caller]
    fn back(&self, span: Span) -> io::Result<()> {
        let site = Location::caller();
        if !self.goes_on(site) {
            return Err(killed());
        }
        self.step(site);
        self.lock().backs.next()?;
        if span.end() > self.region().len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.inner.pages.first_unbacked(span).is_some() {
            // The set of images is not a subset of the later ones: the pages differ.
            self.reach(PointKind::Back, site);
            self.inner.pages.back(span);
        }
        Ok(())
    }

    /// A step only where a page lacks memory.
    #[track_caller]
    fn ensure(&self, spans: &[Span]) -> io::Result<()> {
        let lacks = |span: &&Span| self.inner.pages.first_unbacked(**span).is_some();
        spans.iter().filter(lacks).try_for_each(|span| self.back(*span))
    }

    #[track_caller]
    fn punch(&self, span: Span) -> io::Result<()> {
        let site = Location::caller();
        if !self.goes_on(site) {
            return Err(killed());
        }
        self.step(site);
        let pages = self.inner.pages.backed_inside(span);
        if !pages.is_empty() {
            self.reach(PointKind::Punch, site);
        }
        for page in pages {
            self.punch_page(page, site);
        }
        Ok(())
    }

    #[track_caller]
    fn sync(&self) -> io::Result<()> {
        self.synchronize(None, Location::caller())
    }

    #[track_caller]
    fn sync_span(&self, span: Span) -> io::Result<()> {
        self.synchronize(Some(span), Location::caller())
    }

    fn needs_sync(&self) -> bool {
        self.inner.domain.is_page_cache()
    }

    fn occupied_bytes(&self) -> io::Result<u64> {
        Ok(self.inner.pages.occupied_bytes())
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.inner.clock_ns.load(Ordering::Relaxed))
    }

    fn forked(&self) -> bool {
        self.process.is_killed()
    }

    fn boot(&self) -> io::Result<u128> {
        Ok(self.inner.boot.load(Ordering::Relaxed).into())
    }

    fn claim(&self) -> Result<Claim, ClaimError> {
        Ok(Claim::new())
    }

    fn process(&self) -> io::Result<ProcessId> {
        Ok(ProcessId { pid: self.process.number + 1, start_time: 0 })
    }
}
