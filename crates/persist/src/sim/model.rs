//! The persistency model: per unit a FIFO of stores that may or may not have become durable.
//!
//! The unit is the line, or the word in the harsher domain. The durable contents of a unit are its base and
//! any prefix of its FIFO. A flush captures the prefix at its own time, a fence of the same thread makes what
//! was captured part of the base.

use core::panic::Location;
use std::collections::HashMap;

use super::memory::WordAt;
use crate::{Line, sync::thread::ThreadId};

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
}

/// Words of the largest unit, a line.
pub(super) const UNIT_WORDS: usize = 8;

/// Index of a unit: a line or a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct UnitAt(pub(super) usize);

impl Domain {
    /// The unit that holds `word`.
    pub(super) fn unit_of(self, word: WordAt) -> UnitAt {
        match self {
            Self::Line64 => UnitAt(word.line()),
            Self::Word8 | Self::Eadr => UnitAt(word.0),
        }
    }

    /// The words of `unit`.
    pub(super) fn words_of(self, unit: UnitAt) -> impl Iterator<Item = WordAt> {
        let count = if self == Self::Line64 { UNIT_WORDS } else { 1 };
        (unit.0 * count..(unit.0 + 1) * count).map(WordAt)
    }

    /// Which word of its unit `word` is.
    pub(super) fn index_of(self, word: WordAt) -> usize {
        if self == Self::Line64 { word.0 % UNIT_WORDS } else { 0 }
    }

    /// The units of `line`.
    pub(super) fn units_of(self, line: Line) -> impl Iterator<Item = UnitAt> {
        let first = WordAt::of(line.span().start);
        let count = if self == Self::Line64 { 1 } else { WordAt::all_in(line.span()).count() };
        let first = self.unit_of(first).0;
        (first..first + count).map(UnitAt)
    }

    /// Units in a region of `word_count` words.
    pub(super) fn unit_count(self, word_count: usize) -> usize {
        self.unit_of(WordAt(word_count)).0 + 1
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
            self.fifos.push(Fifo { unit, stores: self.spare.pop().unwrap_or_default() });
            self.slot_of[unit.0] = self.fifos.len();
        }
        self.fifos[self.slot_of[unit.0] - 1].stores.push(store);
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

    /// Makes every store durable.
    pub(super) fn release_all(&mut self, mut durable: impl FnMut(&Store)) {
        for fifo in &self.fifos {
            fifo.stores.iter().for_each(&mut durable);
        }
        self.clear();
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        for Fifo { unit, mut stores } in self.fifos.drain(..) {
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
        let Fifo { unit, stores } = self.fifos.swap_remove(slot);
        self.slot_of[unit.0] = 0;
        self.spare.push(stores);
        if let Some(moved) = self.fifos.get(slot) {
            self.slot_of[moved.unit.0] = slot + 1;
        }
    }
}
