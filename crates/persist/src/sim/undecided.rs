//! What one unit may hold after a crash: the distinct contents that its stores can have left.
//!
//! Contents are compared word by word, whatever stores led to them: a line of which a zero may have been
//! written over a zero has one content, and two histories with the same contents are one crash.

use super::{
    memory::{Memory, WordAt},
    mix::{Mixer, mix_word},
    model::{Domain, Store, UNIT_WORDS, UnitAt},
    report::{Fate, StoreFate},
};

/// The values of a unit's words; those that the unit does not have are zero.
type Values = [u64; UNIT_WORDS];

/// One content of a unit, and what it says of each store.
#[derive(Debug, Clone)]
struct Content {
    values: Values,
    fates: Vec<Fate>,
}

/// A unit whose contents the crash left open.
#[derive(Debug)]
pub(super) struct Undecided {
    pub(super) unit: UnitAt,
    domain: Domain,
    stores: Vec<Store>,
    /// Distinct; the first is the oldest.
    contents: Vec<Content>,
    newest: usize,
    /// Indices of the contents that agree with what was read since the boot, ascending. A word in which
    /// they are all alike, but for the words written, is in memory.
    left: Vec<usize>,
    /// Words that were stored to since the boot, a bit for each: what is read of them is in memory.
    written: u8,
    /// Words that a store since the boot has made durable: what survives of them is in memory.
    durable: u8,
}

impl Undecided {
    /// The contents of `unit` after a crash of a medium with `memory`: those `before` the stores that may or
    /// may not have become durable, each followed by any prefix of them. `before` is what an earlier crash
    /// left open, if it did.
    pub(super) fn after_crash(
        (domain, unit): (Domain, UnitAt),
        memory: &Memory,
        before: Option<&Self>,
        stores: &[Store],
    ) -> Self {
        let mut after = Self {
            unit,
            domain,
            stores: before.map(|before| before.stores.clone()).unwrap_or_default(),
            contents: Vec::new(),
            newest: 0,
            left: Vec::new(),
            written: 0,
            durable: 0,
        };
        after.stores.extend_from_slice(stores);
        match before {
            Some(before) => before.left(memory).for_each(|content| after.follow(content, stores)),
            None => {
                let fates = Vec::new();
                after.follow(Content { values: base(domain, unit, memory), fates }, stores);
            }
        }
        after.left = (0..after.contents.len()).collect();
        after
    }

    /// Whether the crash left no choice; memory then holds the only content.
    pub(super) fn is_decided(&self) -> bool {
        self.contents.len() == 1
    }

    /// What the contents add to the hash of a memory, which counts the unit as decided.
    pub(super) fn hash(&self, memory: &Memory) -> u128 {
        let counted = base(self.domain, self.unit, memory);
        let words = self.domain.words_of(self.unit);
        let counted = words.zip(counted).map(|(word, value)| mix_word(word.0 as u64, value));
        let mut distinct: Vec<Values> =
            self.contents.iter().map(|content| content.values).collect();
        distinct.sort_unstable();
        let mut mixer = Mixer::default();
        mixer.add(self.unit.0 as u64);
        distinct.iter().flatten().for_each(|&value| mixer.add(value));
        counted.fold(mixer.finish(), u128::wrapping_sub)
    }

    /// How many contents there were at the boot.
    pub(super) fn content_count(&self) -> usize {
        self.contents.len()
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
        self.left.len() == self.contents.len() && self.written == 0
    }

    /// Makes every content possible again.
    pub(super) fn reset(&mut self) {
        self.left.clear();
        self.left.extend(0..self.contents.len());
        (self.written, self.durable) = (0, 0);
    }

    /// Whether `word` may still hold different values.
    pub(super) fn is_open(&self, word: WordAt) -> bool {
        self.written & self.bit(word) == 0 && self.agreed(self.domain.index_of(word)).is_none()
    }

    /// Whether what `word` holds is not for the crash to say: the run has stored to it.
    pub(super) fn is_written(&self, word: WordAt) -> bool {
        self.written & self.bit(word) != 0
    }

    /// Notes that the run has stored to `word`.
    pub(super) fn set_written(&mut self, word: WordAt) {
        self.written |= self.bit(word);
    }

    /// Notes that such a store is durable.
    pub(super) fn set_durable(&mut self, word: WordAt) {
        self.durable |= self.bit(word);
    }

    /// The value of `word` in each content that is left.
    pub(super) fn values(&self, word: WordAt) -> impl Iterator<Item = u64> {
        let index = self.domain.index_of(word);
        self.left.iter().map(move |&content| self.contents[content].values[index])
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
        for (index, word) in self.domain.words_of(self.unit).enumerate() {
            let bit = self.bit(word);
            match self.agreed(index) {
                Some(value) if self.written & bit == 0 => memory.adopt(word, value),
                Some(value) if self.durable & bit == 0 => memory.guarantee(word, value),
                _ => {}
            }
        }
    }

    /// What became of the stores, as far as what was read tells.
    pub(super) fn fates(&self) -> Vec<StoreFate> {
        let fate = |index: usize| {
            let fates = self.left.iter().map(|&content| self.contents[content].fates[index]);
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

    /// What is left, together with what the run has made durable.
    fn left(&self, memory: &Memory) -> impl Iterator<Item = Content> {
        let durable = base(self.domain, self.unit, memory);
        self.left.iter().map(move |&content| {
            let mut content = self.contents[content].clone();
            for (index, value) in durable.into_iter().enumerate() {
                if self.durable & 1 << index != 0 {
                    content.values[index] = value;
                }
            }
            content
        })
    }

    /// Adds `content` followed by every prefix of `stores`.
    fn follow(&mut self, content: Content, stores: &[Store]) {
        let Content { mut values, mut fates } = content;
        let earlier = fates.len();
        fates.resize(earlier + stores.len(), Fate::Lost);
        self.add(Content { values, fates: fates.clone() });
        for (index, store) in stores.iter().enumerate() {
            values[self.domain.index_of(store.word)] = store.value;
            fates[earlier + index] = Fate::Kept;
            self.add(Content { values, fates: fates.clone() });
        }
    }

    fn add(&mut self, content: Content) {
        let known = self.contents.iter().position(|known| known.values == content.values);
        match known {
            Some(index) => {
                let fates = &mut self.contents[index].fates;
                fates.iter_mut().zip(content.fates).for_each(|(a, b)| *a = common(*a, b));
            }
            None => self.contents.push(content),
        }
        self.newest = known.unwrap_or(self.contents.len() - 1);
    }

    /// The value of the word at `index` if it is the same in all contents that are left.
    fn agreed(&self, index: usize) -> Option<u64> {
        let mut values = self.left.iter().map(|&content| self.contents[content].values[index]);
        let first = values.next().expect("at least one content is left");
        values.all(|value| value == first).then_some(first)
    }

    fn bit(&self, word: WordAt) -> u8 {
        1 << self.domain.index_of(word)
    }
}

/// The fate of a store of which two contents tell.
fn common(one: Fate, other: Fate) -> Fate {
    if one == other { one } else { Fate::Open }
}

/// The durable contents of `unit`.
fn base(domain: Domain, unit: UnitAt, memory: &Memory) -> Values {
    let mut values = [0; UNIT_WORDS];
    for (value, word) in values.iter_mut().zip(domain.words_of(unit)) {
        *value = memory.base(word);
    }
    values
}
