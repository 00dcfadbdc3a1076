//! What one unit may hold after a crash: the distinct contents that its stores can have left.
//!
//! Contents are compared word by word, whatever stores led to them: a line of which a zero may have been
//! written over a zero has one content, and two histories with the same contents are one crash. Only words that
//! were stored to are listed: the others of a unit are what they were.

use super::{
    memory::{Memory, WordAt},
    mix::{Mixer, mix_word},
    model::{Store, UnitAt},
    report::{Fate, StoreFate},
};
use crate::PAGE_BYTES;

/// Words of the largest unit, a page.
const WORDS_MAX: usize = 512;
const _: () = assert!(WORDS_MAX as u64 * 8 == PAGE_BYTES, "a page of words");

/// A unit whose contents the crash left open.
#[derive(Debug)]
pub(super) struct Undecided {
    pub(super) unit: UnitAt,
    /// Those stored to, ascending.
    words: Vec<WordAt>,
    stores: Vec<Store>,
    /// The values of the words in each content, one content after the other. Distinct; the first is the oldest.
    values: Vec<u64>,
    /// What each content says of each store.
    fates: Vec<Fate>,
    content_count: usize,
    newest: usize,
    /// Indices of the contents that agree with what was read since the boot, ascending. A word in which
    /// they are all alike, but for the words written, is in memory.
    left: Vec<usize>,
    /// Words that were stored to since the boot: what is read of them is in memory.
    written: Bits,
    /// Words that a store since the boot has made durable: what survives of them is in memory.
    durable: Bits,
}

/// A set of the words of a unit, by their index among those listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Bits([u64; WORDS_MAX / 64]);

impl Bits {
    fn has(&self, index: usize) -> bool {
        self.0[index / 64] & 1 << (index % 64) != 0
    }

    fn insert(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Undecided {
    /// The contents of `unit` after a crash of a medium with `memory`: those `before` the stores that may or
    /// may not have become durable, each followed by any prefix of them. `before` is what an earlier crash
    /// left open, if it did.
    pub(super) fn after_crash(
        unit: UnitAt,
        memory: &Memory,
        before: Option<&Self>,
        stores: &[Store],
    ) -> Self {
        let mut words: Vec<WordAt> = stores.iter().map(|store| store.word).collect();
        let mut all_stores = Vec::new();
        if let Some(before) = before {
            words.extend_from_slice(&before.words);
            all_stores.clone_from(&before.stores);
        }
        words.sort_unstable();
        words.dedup();
        all_stores.extend_from_slice(stores);
        let mut after = Self {
            unit,
            words,
            stores: all_stores,
            values: Vec::new(),
            fates: Vec::new(),
            content_count: 0,
            newest: 0,
            left: Vec::new(),
            written: Bits::default(),
            durable: Bits::default(),
        };
        let places: Vec<usize> =
            stores.iter().map(|store| after.place(store.word).expect("it is listed")).collect();
        let base: Vec<u64> = after.words.iter().map(|&word| memory.base(word)).collect();
        match before {
            Some(before) => {
                for &content in &before.left {
                    let values = after.values_before(&base, before, content);
                    after.follow(values, before.fates_of(content), (stores, &places));
                }
            }
            None => after.follow(base, &[], (stores, &places)),
        }
        after.left = (0..after.content_count).collect();
        after
    }

    /// The values of this unit's words in a content of an earlier crash, together with what the run has made durable.
    fn values_before(&self, base: &[u64], before: &Self, content: usize) -> Vec<u64> {
        let value = |(word, base): (&WordAt, &u64)| match before.place(*word) {
            Some(index) if !before.durable.has(index) => before.value(content, index),
            _ => *base,
        };
        self.words.iter().zip(base).map(value).collect()
    }

    /// Whether the crash left no choice; memory then holds the only content.
    pub(super) fn is_decided(&self) -> bool {
        self.content_count == 1
    }

    /// The words that contents may differ in, ascending.
    pub(super) fn words(&self) -> &[WordAt] {
        &self.words
    }

    /// What the contents add to the hash of a memory, which counts the unit as decided.
    pub(super) fn hash(&self, memory: &Memory) -> u128 {
        // A word that is in memory says nothing, whether it was stored to or not.
        let differs = |index: &usize| {
            let base = memory.base(self.words[*index]);
            (0..self.content_count).any(|content| self.value(content, *index) != base)
        };
        let indices: Vec<usize> = (0..self.words.len()).filter(differs).collect();
        let counted = indices.iter().map(|&index| self.words[index]);
        let counted = counted.map(|word| mix_word(word.0 as u64, memory.base(word)));
        let values = |content| indices.iter().map(move |&index| (content, index));
        let mut distinct: Vec<Vec<u64>> = (0..self.content_count)
            .map(|content| values(content).map(|(content, at)| self.value(content, at)).collect())
            .collect();
        distinct.sort_unstable();
        let mut mixer = Mixer::default();
        mixer.add(self.unit.0 as u64);
        indices.iter().for_each(|&index| mixer.add(self.words[index].0 as u64));
        distinct.iter().flatten().for_each(|&value| mixer.add(value));
        counted.fold(mixer.finish(), u128::wrapping_sub)
    }

    /// How many contents there were at the boot.
    pub(super) fn content_count(&self) -> usize {
        self.content_count
    }

    /// The index of the content in which the most stores became durable.
    pub(super) fn newest(&self) -> usize {
        self.newest
    }

    /// How many contents are left.
    pub(super) fn left_count(&self) -> usize {
        self.left.len()
    }

    /// Whether the run has neither told contents apart nor changed them.
    pub(super) fn is_untouched(&self) -> bool {
        self.left.len() == self.content_count && self.written.is_empty()
    }

    /// Makes every content possible again.
    pub(super) fn reset(&mut self) {
        self.left.clear();
        self.left.extend(0..self.content_count);
        (self.written, self.durable) = (Bits::default(), Bits::default());
    }

    /// Whether `word` may still hold different values.
    pub(super) fn is_open(&self, word: WordAt) -> bool {
        self.place(word).is_some_and(|at| !self.written.has(at) && self.agreed(at).is_none())
    }

    /// Whether what `word` holds is not for the crash to say: nothing was in flight to it, or the run has stored to it.
    pub(super) fn is_in_memory(&self, word: WordAt) -> bool {
        self.place(word).is_none_or(|at| self.written.has(at))
    }

    /// Notes that the run has stored to `word`.
    pub(super) fn set_written(&mut self, word: WordAt) {
        if let Some(at) = self.place(word) {
            self.written.insert(at);
        }
    }

    /// Notes that such a store is durable.
    pub(super) fn set_durable(&mut self, word: WordAt) {
        if let Some(at) = self.place(word) {
            self.durable.insert(at);
        }
    }

    /// The value of `word`, which was stored to, in each content that is left.
    pub(super) fn values(&self, word: WordAt) -> impl Iterator<Item = u64> {
        let index = self.place(word).expect("a word that was stored to");
        self.left.iter().map(move |&content| self.value(content, index))
    }

    /// Where among the contents that are left `content` is.
    pub(super) fn position(&self, content: usize) -> Option<usize> {
        self.left.binary_search(&content).ok()
    }

    /// Keeps of the contents that are left those for which `keep`, called for each in turn, is true.
    pub(super) fn narrow(&mut self, mut keep: impl FnMut() -> bool) {
        self.left.retain(|_| keep());
    }

    /// Writes to `memory` every word in which all contents that are left are alike.
    pub(super) fn adopt(&self, memory: &mut Memory) {
        for (index, &word) in self.words.iter().enumerate() {
            match self.agreed(index) {
                Some(value) if !self.written.has(index) => memory.adopt(word, value),
                Some(value) if !self.durable.has(index) => memory.guarantee(word, value),
                _ => {}
            }
        }
    }

    /// What became of the stores, as far as what was read tells.
    pub(super) fn fates(&self) -> Vec<StoreFate> {
        let fate = |index: usize| {
            let fates = self.left.iter().map(|&content| self.fates_of(content)[index]);
            fates.reduce(common).expect("at least one content is left")
        };
        let tell = |(index, store): (usize, &Store)| StoreFate {
            at: store.word.bytes(),
            value: store.value,
            site: store.site,
            fate: fate(index),
        };
        self.stores.iter().enumerate().map(tell).collect()
    }

    /// Adds a content of `values` followed by every prefix of `stores`, each to the word at its place.
    fn follow(
        &mut self,
        mut values: Vec<u64>,
        earlier: &[Fate],
        (stores, places): (&[Store], &[usize]),
    ) {
        let mut fates = earlier.to_vec();
        fates.resize(earlier.len() + stores.len(), Fate::Lost);
        self.add(&values, &fates);
        for (index, (store, &place)) in stores.iter().zip(places).enumerate() {
            values[place] = store.value;
            fates[earlier.len() + index] = Fate::Kept;
            self.add(&values, &fates);
        }
    }

    fn add(&mut self, values: &[u64], fates: &[Fate]) {
        let (width, known) = (self.words.len(), self.content_count);
        let is_known = |content: &usize| self.values[content * width..][..width] == *values;
        // Most often the last one: a store of what was there.
        match (0..known).rev().find(is_known) {
            Some(index) => {
                let stores = fates.len();
                let known = &mut self.fates[index * stores..][..stores];
                known.iter_mut().zip(fates).for_each(|(a, b)| *a = common(*a, *b));
                self.newest = index;
            }
            None => {
                self.values.extend_from_slice(values);
                self.fates.extend_from_slice(fates);
                self.content_count += 1;
                self.newest = known;
            }
        }
    }

    /// The value of the word at `index` if it is the same in all contents that are left.
    fn agreed(&self, index: usize) -> Option<u64> {
        let mut values = self.left.iter().map(|&content| self.value(content, index));
        let first = values.next().expect("at least one content is left");
        values.all(|value| value == first).then_some(first)
    }

    fn value(&self, content: usize, index: usize) -> u64 {
        self.values[content * self.words.len() + index]
    }

    fn fates_of(&self, content: usize) -> &[Fate] {
        &self.fates[content * self.stores.len()..][..self.stores.len()]
    }

    /// Where among the words that are listed `word` is.
    fn place(&self, word: WordAt) -> Option<usize> {
        self.words.binary_search(&word).ok()
    }
}

/// The fate of a store of which two contents tell.
fn common(one: Fate, other: Fate) -> Fate {
    if one == other { one } else { Fate::Open }
}
