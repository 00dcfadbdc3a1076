//! The persistency model: per unit a FIFO of stores that may or may not have become durable.
//!
//! The unit is the line, the word in a harsher domain, or the page of a page cache. The durable contents of a unit are
//! its base and any prefix of its FIFO. A flush captures the prefix at its own time, a fence of the same thread makes
//! what was captured part of the base. In a page cache neither does anything: a sync makes all of it part of the base.

use core::panic::Location;
use std::collections::HashMap;

use super::memory::{WordAt, to_index};
use crate::{LINE_BYTES, Line, PAGE_BYTES, Span, sync::thread::ThreadId};

/// Where in the source a store, flush or fence was made.
pub(super) type Site = &'static Location<'static>;

/// What a power failure preserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Domain {
    /// Cache lines are lost unless flushed and fenced; stores to one line become durable in order.
    Line64,
    /// Harsher than any hardware: as `Line64`, but every aligned 8-byte word on its own, in any order.
    /// Torn lines.
    Word8,
    /// Caches are durable: every store survives as soon as it is made. This is also what `kill -9` leaves.
    Eadr,
    /// A file in the page cache of a disk. The kernel writes any page back at any time, whole, as it is at some moment;
    /// flush and fence mean nothing, [`sync`](crate::Medium::sync) is the only barrier. What the file system notes, which
    /// pages have memory and how long the file is, reaches the disk at any time as well.
    Page4096,
    /// Harsher: the same, but a power failure tears pages: of each line any version is on the disk. Sectors, blocks
    /// smaller than a page, a page that is stored to while the disk reads it.
    PageTorn,
}

/// Bytes of a word.
const WORD_BYTES: u64 = 8;

/// Index of a unit: a word, a line or a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct UnitAt(pub(super) usize);

impl Domain {
    /// Whether the medium is a file in a page cache, where only a [`sync`](crate::Medium::sync) makes anything durable.
    #[must_use]
    pub fn is_page_cache(self) -> bool {
        matches!(self, Self::Page4096 | Self::PageTorn)
    }

    /// The unit that holds `word`.
    pub(super) fn unit_of(self, word: WordAt) -> UnitAt {
        UnitAt(word.0 / self.unit_words())
    }

    /// The units of `line`.
    pub(super) fn units_of(self, line: Line) -> impl Iterator<Item = UnitAt> {
        self.units_in(line.span())
    }

    /// The units that `span` touches.
    pub(super) fn units_in(self, span: Span) -> impl Iterator<Item = UnitAt> {
        let bytes = self.unit_words() as u64 * WORD_BYTES;
        let end = if span.is_empty() { span.start } else { span.end() };
        (to_index(span.start / bytes)..to_index(end.div_ceil(bytes))).map(UnitAt)
    }

    /// Units in a region of `word_count` words.
    pub(super) fn unit_count(self, word_count: usize) -> usize {
        self.unit_of(WordAt(word_count)).0 + 1
    }

    fn unit_words(self) -> usize {
        let bytes = match self {
            Self::Line64 | Self::PageTorn => LINE_BYTES,
            Self::Word8 | Self::Eadr => WORD_BYTES,
            Self::Page4096 => PAGE_BYTES,
        };
        to_index(bytes / WORD_BYTES)
    }
}

/// One 8-byte store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Store {
    pub(super) word: WordAt,
    pub(super) value: u64,
    /// Position among all stores of the medium.
    pub(super) seq: u64,
    pub(super) site: Site,
}

/// The stores to one unit that may or may not be durable, oldest first; never empty.
#[derive(Debug)]
pub(super) struct Fifo {
    pub(super) unit: UnitAt,
    pub(super) stores: Vec<Store>,
    /// A sync failed since the last store. The kernel takes such a page for clean: no later sync writes it, unless it is
    /// stored to again.
    is_given_up: bool,
}

/// All units with stores that may or may not be durable, and what each thread has flushed since its fence.
#[derive(Debug)]
pub(super) struct Pending {
    fifos: Vec<Fifo>,
    /// Per unit: index into `fifos` plus one, or zero.
    slot_of: Vec<usize>,
    spare: Vec<Vec<Store>>,
    captured: HashMap<ThreadId, Vec<Capture>>,
}

/// A flush: all stores to `unit` up to `seq` are durable after the next fence of the thread.
#[derive(Debug, Clone, Copy)]
struct Capture {
    unit: UnitAt,
    seq: u64,
}

impl Pending {
    pub(super) fn new(unit_count: usize) -> Self {
        Self {
            fifos: Vec::new(),
            slot_of: vec![0; unit_count],
            spare: Vec::new(),
            captured: HashMap::new(),
        }
    }

    pub(super) fn push(&mut self, unit: UnitAt, store: Store) {
        if self.slot_of[unit.0] == 0 {
            let stores = self.spare.pop().unwrap_or_default();
            self.fifos.push(Fifo { unit, stores, is_given_up: false });
            self.slot_of[unit.0] = self.fifos.len();
        }
        let fifo = &mut self.fifos[self.slot_of[unit.0] - 1];
        fifo.stores.push(store);
        fifo.is_given_up = false;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Fifo> {
        self.fifos.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fifos.is_empty()
    }

    /// Whether a store to `unit` may or may not be durable.
    pub(super) fn has(&self, unit: UnitAt) -> bool {
        self.slot_of[unit.0] != 0
    }

    /// Captures what `unit` holds now for the next fence of `thread`.
    pub(super) fn flush(&mut self, thread: ThreadId, unit: UnitAt) {
        let Some(seq) = self.fifo(unit).and_then(|fifo| fifo.stores.last()).map(|last| last.seq)
        else {
            return;
        };
        self.captured.entry(thread).or_default().push(Capture { unit, seq });
    }

    /// Nobody fences any more what was flushed.
    pub(super) fn forget_flushes(&mut self) {
        self.captured.clear();
    }

    /// Whether a fence of `thread` would make any store durable that is not yet.
    pub(super) fn is_fence_effective(&self, thread: ThreadId) -> bool {
        let Some(captures) = self.captured.get(&thread) else { return false };
        captures.iter().any(|capture| {
            let first = self.fifo(capture.unit).and_then(|fifo| fifo.stores.first());
            first.is_some_and(|first| first.seq <= capture.seq)
        })
    }

    /// Makes durable what `thread` flushed; tells each such store to `durable`.
    pub(super) fn fence(&mut self, thread: ThreadId, mut durable: impl FnMut(&Store)) {
        let Some(mut captures) = self.captured.remove(&thread) else { return };
        for capture in &captures {
            self.release(*capture, &mut durable);
        }
        captures.clear();
        self.captured.insert(thread, captures);
    }

    /// Makes every store to one of `units` durable, or to any unit; but not those that were given up.
    pub(super) fn sync(&mut self, units: Option<&[UnitAt]>, mut durable: impl FnMut(&Store)) {
        let slot_of = |unit: &UnitAt| self.slot_of[unit.0].checked_sub(1);
        let mut slots: Vec<usize> = match units {
            Some(units) => units.iter().filter_map(slot_of).collect(),
            None => (0..self.fifos.len()).collect(),
        };
        // From the end: what removing one moves is not looked at any more.
        slots.sort_unstable();
        for slot in slots.into_iter().rev() {
            if !self.fifos[slot].is_given_up {
                self.fifos[slot].stores.drain(..).for_each(|store| durable(&store));
                self.remove(slot);
            }
        }
    }

    /// A sync has failed: which stores are durable is not known, and no later sync tells.
    pub(super) fn give_up(&mut self) {
        self.fifos.iter_mut().for_each(|fifo| fifo.is_given_up = true);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        for Fifo { unit, mut stores, .. } in self.fifos.drain(..) {
            self.slot_of[unit.0] = 0;
            stores.clear();
            self.spare.push(stores);
        }
        for captures in self.captured.values_mut() {
            captures.clear();
        }
    }

    fn fifo(&self, unit: UnitAt) -> Option<&Fifo> {
        self.slot_of[unit.0].checked_sub(1).map(|slot| &self.fifos[slot])
    }

    fn release(&mut self, capture: Capture, durable: &mut impl FnMut(&Store)) {
        let Some(slot) = self.slot_of[capture.unit.0].checked_sub(1) else { return };
        let stores = &mut self.fifos[slot].stores;
        let count = stores.partition_point(|store| store.seq <= capture.seq);
        stores.drain(..count).for_each(|store| durable(&store));
        if stores.is_empty() {
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: usize) {
        let Fifo { unit, stores, .. } = self.fifos.swap_remove(slot);
        self.slot_of[unit.0] = 0;
        self.spare.push(stores);
        if let Some(moved) = self.fifos.get(slot) {
            self.slot_of[moved.unit.0] = slot + 1;
        }
    }
}
