//! The contents of a simulated medium: what the program sees, what the simulator knows of, what is durable.
//!
//! *Live* is the memory that the program reads and writes. *Shadow* is the same as far as the simulator was
//! told. *Base* is what is durable for certain. A post-crash medium also remembers which words its run
//! changed, so that the next run starts from the same image at the price of those words only.

use std::sync::Arc;

use super::mix::mix_word;
use crate::{Anon, LINE_BYTES, Medium, Offset, PAGE_BYTES, Region, Span, Word};

const WORD_BYTES: u64 = size_of::<Word>() as u64;

/// Index of an aligned 8-byte word in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WordAt(pub(super) usize);

impl WordAt {
    pub(super) fn of(offset: u64) -> Self {
        Self(to_index(offset / WORD_BYTES))
    }

    pub(super) const fn bytes(self) -> u64 {
        self.0 as u64 * WORD_BYTES
    }

    pub(super) fn line(self) -> usize {
        to_index(self.bytes() / LINE_BYTES)
    }

    /// The words that `span` touches, in ascending order.
    pub(super) fn all_in(span: Span) -> impl Iterator<Item = Self> + Clone {
        let first = to_index(span.start / WORD_BYTES);
        let end = if span.is_empty() { first } else { to_index(span.end().div_ceil(WORD_BYTES)) };
        (first..end).map(Self)
    }
}

/// Turns a count or an offset inside the address space into an index.
pub(super) fn to_index(value: u64) -> usize {
    usize::try_from(value).expect("the target has 64-bit addresses")
}

/// A set of words that can be walked and emptied in time proportional to its size.
#[derive(Debug)]
struct WordSet {
    bits: Vec<u64>,
    list: Vec<WordAt>,
}

impl WordSet {
    fn new(word_count: usize) -> Self {
        Self { bits: vec![0; word_count.div_ceil(64)], list: Vec::new() }
    }

    /// Adds `word`; tells whether it is new.
    fn insert(&mut self, word: WordAt) -> bool {
        let (cell, bit) = (&mut self.bits[word.0 / 64], 1_u64 << (word.0 % 64));
        let new = *cell & bit == 0;
        if new {
            *cell |= bit;
            self.list.push(word);
        }
        new
    }

    fn take(&mut self) -> Vec<WordAt> {
        let list = std::mem::take(&mut self.list);
        for word in &list {
            self.bits[word.0 / 64] = 0;
        }
        list
    }

    /// Gives the buffer of a list that was taken back, so that the next one needs no allocation.
    fn recycle(&mut self, mut list: Vec<WordAt>) {
        list.clear();
        if self.list.is_empty() {
            self.list = list;
        }
    }
}

/// The words that a run changed, with their contents at its start.
#[derive(Debug)]
struct Undo {
    seen: WordSet,
    values: Vec<u64>,
}

/// Live, shadow and base contents.
#[derive(Debug)]
pub(super) struct Memory {
    live: Arc<Anon>,
    shadow: Vec<u64>,
    base: Vec<u64>,
    /// Sum of the hashes of all base words: the order of changes doesn't matter.
    hash: u128,
    undo: Option<Undo>,
    /// Base words that changed since the post-crash medium made from this one was last brought up to date;
    /// `None` before there is one.
    changed: Option<WordSet>,
}

impl Memory {
    pub(super) fn new(live: Arc<Anon>) -> Self {
        let count = to_index(live.region().len() / WORD_BYTES);
        Self {
            live,
            shadow: vec![0; count],
            base: vec![0; count],
            hash: 0,
            undo: None,
            changed: None,
        }
    }

    /// Starts to remember what changes, so that [`Memory::rewind`] can take it back.
    pub(super) fn keep_undo(&mut self) {
        self.undo = Some(Undo { seen: WordSet::new(self.base.len()), values: Vec::new() });
    }

    /// Makes all later changes final.
    pub(super) fn drop_undo(&mut self) {
        self.undo = None;
    }

    pub(super) fn live(&self, word: WordAt) -> &Word {
        word_of(self.live.region(), word)
    }

    pub(super) fn shadow(&self, word: WordAt) -> u64 {
        self.shadow[word.0]
    }

    pub(super) fn base(&self, word: WordAt) -> u64 {
        self.base[word.0]
    }

    /// Hash of the base contents.
    pub(super) const fn hash(&self) -> u128 {
        self.hash
    }

    /// Notes that `word` now holds `value` as far as the program can see.
    pub(super) fn log(&mut self, word: WordAt, value: u64) {
        self.remember(word);
        self.shadow[word.0] = value;
    }

    /// Makes `value` the durable content of `word`.
    pub(super) fn guarantee(&mut self, word: WordAt, value: u64) {
        let old = self.base[word.0];
        if old == value {
            return;
        }
        self.remember(word);
        self.write_base(word, old, value);
    }

    /// Fixes what a crash left in `word`. Bytes that the program has already overwritten by plain stores
    /// stay.
    pub(super) fn adopt(&mut self, word: WordAt, value: u64) {
        let old = self.shadow[word.0];
        if old == value && self.base[word.0] == value {
            return;
        }
        self.remember(word);
        self.write_base(word, self.base[word.0], value);
        self.shadow[word.0] = value;
        let live = self.live(word);
        if live.get() == old {
            live.set(value);
        }
    }

    /// Takes everything back that changed since [`Memory::keep_undo`] or the last rewind.
    pub(super) fn rewind(&mut self) {
        let Some(mut undo) = self.undo.take() else { return };
        let words = undo.seen.take();
        for (&word, &value) in words.iter().zip(&undo.values) {
            self.plant(word, value);
        }
        undo.values.clear();
        undo.seen.recycle(words);
        self.undo = Some(undo);
    }

    /// Copies the base contents of `source`, all or what changed since the last time.
    pub(super) fn copy_base(&mut self, source: &mut Self, pages: impl Iterator<Item = usize>) {
        if let Some(changed) = &mut source.changed {
            let words = changed.take();
            for &word in &words {
                self.plant(word, source.base[word.0]);
            }
            changed.recycle(words);
            return;
        }
        source.changed = Some(WordSet::new(source.base.len()));
        self.copy_all(source, pages);
    }

    /// Copies all base contents of `source`; `pages` are those that were ever backed.
    pub(super) fn copy_all(&mut self, source: &Self, pages: impl Iterator<Item = usize>) {
        let words_per_page = to_index(PAGE_BYTES / WORD_BYTES);
        for page in pages {
            for word in page * words_per_page..(page + 1) * words_per_page {
                self.plant(WordAt(word), source.base[word]);
            }
        }
    }

    /// Forgets which words changed: the next copy takes everything.
    pub(super) fn forget_changes(&mut self) {
        self.changed = None;
    }

    /// Brings live memory back to what the simulator knows of; returns the first word that was written
    /// without the simulator being told.
    pub(super) fn scrub(&mut self) -> Option<WordAt> {
        let mut first = None;
        for word in (0..self.base.len()).map(WordAt) {
            if self.live(word).get() != self.shadow[word.0] {
                self.live(word).set(self.shadow[word.0]);
                first = first.or(Some(word));
            }
        }
        first
    }

    fn plant(&mut self, word: WordAt, value: u64) {
        self.write_base(word, self.base[word.0], value);
        self.shadow[word.0] = value;
        self.live(word).set(value);
    }

    fn write_base(&mut self, word: WordAt, old: u64, value: u64) {
        if old == value {
            return;
        }
        self.hash = self
            .hash
            .wrapping_sub(mix_word(word.0 as u64, old))
            .wrapping_add(mix_word(word.0 as u64, value));
        self.base[word.0] = value;
        if let Some(changed) = &mut self.changed {
            changed.insert(word);
        }
    }

    fn remember(&mut self, word: WordAt) {
        let Some(undo) = &mut self.undo else { return };
        if undo.seen.insert(word) {
            // At the start of a run live, shadow and base agree, and this is the first change.
            undo.values.push(self.shadow[word.0]);
        }
    }
}

/// The word at index `word` of `region`.
pub(super) fn word_of(region: &Region, word: WordAt) -> &Word {
    region.at(Offset::new(word.bytes())).expect("a word index lies inside the region")
}
