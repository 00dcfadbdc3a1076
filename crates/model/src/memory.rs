//! Memory behind caches: what is stored, what is durable, and all that a crash may leave.
//!
//! A *line* keeps the order of its stores: of those not yet durable any prefix survives a crash. Lines have
//! no order among each other. A flush remembers how many of a line's stores stood before it; the fence of the
//! same agent makes that prefix durable. Nothing else is promised, and any store may be durable earlier.

use std::hash::{Hash, Hasher};

use crate::layout::{Layout, Word};

/// The contents of all words, as a crash or a recovery leaves them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Image(Vec<u32>);

impl Image {
    pub(crate) fn new(words: usize) -> Self {
        Self(vec![0; words])
    }

    pub(crate) fn get(&self, word: Word) -> u32 {
        self.0[word.index()]
    }

    pub(crate) fn set(&mut self, word: Word, value: u32) {
        self.0[word.index()] = value;
    }
}

/// A store that may not be durable yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Pending {
    line: u8,
    pub(crate) word: Word,
    pub(crate) value: u32,
}

/// A flush whose fence is still to come: how many of a line's pending stores it caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Flush {
    line: u8,
    stores: u8,
}

/// Memory as threads see it, and as media have it.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    cache: Image,
    media: Image,
    /// Sorted by line; within a line in the order of the stores.
    pending: Vec<Pending>,
    /// By agent; sorted by line.
    flushes: Vec<Vec<Flush>>,
}

/// The cache follows from media and pending stores.
impl Hash for Memory {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.media.hash(state);
        self.pending.hash(state);
        self.flushes.hash(state);
    }
}

impl Memory {
    /// Memory in which all of `image` is durable, used by `agents` threads and synchronizers.
    pub(crate) fn new(image: &Image, agents: usize) -> Self {
        Self {
            cache: image.clone(),
            media: image.clone(),
            pending: Vec::new(),
            flushes: vec![Vec::new(); agents],
        }
    }

    pub(crate) fn load(&self, word: Word) -> u32 {
        self.cache.get(word)
    }

    /// What all threads see.
    pub(crate) fn cache(&self) -> &Image {
        &self.cache
    }

    /// Whether all that was stored is durable.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// What decides which images a crash may leave.
    pub(crate) fn crash_state(&self) -> (&Image, &[Pending]) {
        (&self.media, &self.pending)
    }

    pub(crate) fn store(&mut self, layout: &Layout, word: Word, value: u32) {
        self.cache.set(word, value);
        let line = layout.line_of(word);
        let place = self.pending.partition_point(|store| store.line <= line);
        self.pending.insert(place, Pending { line, word, value });
    }

    /// Flushes the line of `word`.
    pub(crate) fn flush(&mut self, layout: &Layout, agent: usize, word: Word) {
        let line = layout.line_of(word);
        let count = self.pending.iter().filter(|store| store.line == line).count();
        let stores = u8::try_from(count).expect("a line has few pending stores");
        if stores == 0 {
            return;
        }
        let flushes = &mut self.flushes[agent];
        match flushes.binary_search_by_key(&line, |flush| flush.line) {
            Ok(found) => flushes[found].stores = flushes[found].stores.max(stores),
            Err(place) => flushes.insert(place, Flush { line, stores }),
        }
    }

    /// Forgets what `agent` flushed, as if it had not.
    pub(crate) fn forget_flushes(&mut self, agent: usize) {
        self.flushes[agent].clear();
    }

    /// Makes durable what `agent` flushed.
    pub(crate) fn fence(&mut self, agent: usize) {
        for flush in std::mem::take(&mut self.flushes[agent]) {
            self.settle(flush);
        }
    }

    fn settle(&mut self, flush: Flush) {
        let mut left = flush.stores;
        let media = &mut self.media;
        self.pending.retain(|store| {
            let settles = store.line == flush.line && left > 0;
            if settles {
                media.set(store.word, store.value);
                left -= 1;
            }
            !settles
        });
        for flushes in &mut self.flushes {
            for other in flushes.iter_mut().filter(|other| other.line == flush.line) {
                other.stores = other.stores.saturating_sub(flush.stores);
            }
            flushes.retain(|other| other.stores > 0);
        }
    }

    /// Hands every image that a crash may leave now to `visit`, until it fails.
    pub(crate) fn images<E>(
        &self,
        mut visit: impl FnMut(&Image, &Survivors<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let lines: Vec<&[Pending]> = self.pending.chunk_by(|a, b| a.line == b.line).collect();
        let mut kept = vec![0; lines.len()];
        loop {
            let mut image = self.media.clone();
            for (line, &kept) in lines.iter().zip(&kept) {
                line[..kept].iter().for_each(|store| image.set(store.word, store.value));
            }
            visit(&image, &Survivors { lines: &lines, kept: &kept })?;
            if !count_up(&mut kept, &lines) {
                return Ok(());
            }
        }
    }
}

/// The next choice of prefixes, or `false` behind the last one.
fn count_up(kept: &mut [usize], lines: &[&[Pending]]) -> bool {
    for (kept, line) in kept.iter_mut().zip(lines) {
        *kept += 1;
        if *kept <= line.len() {
            return true;
        }
        *kept = 0;
    }
    false
}

/// Which pending stores an image has.
#[derive(Debug)]
pub(crate) struct Survivors<'a> {
    lines: &'a [&'a [Pending]],
    kept: &'a [usize],
}

impl Survivors<'_> {
    /// One word for each pending store: `+` if the crash kept it, `-` if not.
    pub(crate) fn describe(&self, layout: &Layout) -> String {
        let mut words = Vec::new();
        for (line, &kept) in self.lines.iter().zip(self.kept) {
            for (nth, store) in line.iter().enumerate() {
                let sign = if nth < kept { '+' } else { '-' };
                words.push(format!("{sign}{}={:#x}", layout.name_of(store.word), store.value));
            }
        }
        if words.is_empty() { "nothing was pending".to_owned() } else { words.join(" ") }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::layout::{Domain, Shape, Slot};

    fn images(memory: &Memory) -> BTreeSet<Vec<u32>> {
        let mut found = BTreeSet::new();
        let done: Result<(), ()> = memory.images(|image, _| {
            found.insert(image.0.clone());
            Ok(())
        });
        assert_eq!(done, Ok(()));
        found
    }

    #[test]
    fn a_line_keeps_a_prefix_and_words_of_their_own_keep_any_subset() {
        for (domain, count) in [(Domain::Line64, 3), (Domain::Word8, 4)] {
            let layout = Layout::new(Shape::small(), domain);
            let mut memory = Memory::new(&Image::new(layout.words()), 1);
            let [first, second] = layout.record(0, 0);
            memory.store(&layout, first, 1);
            memory.store(&layout, second, 2);
            assert_eq!(images(&memory).len(), count);
        }
    }

    #[test]
    fn a_fence_keeps_what_its_own_agent_flushed_and_nothing_stored_later() {
        let layout = Layout::new(Shape::small(), Domain::Word8);
        let slot = layout.slot(Slot::S0);
        let mut memory = Memory::new(&Image::new(layout.words()), 2);
        memory.store(&layout, slot, 1);
        memory.flush(&layout, 0, slot);
        memory.store(&layout, slot, 2);
        memory.fence(1);
        assert_eq!(images(&memory).len(), 3, "another agent's fence promises nothing");
        memory.fence(0);
        let left: Vec<u32> = images(&memory).iter().map(|image| image[slot.index()]).collect();
        assert_eq!(left, [1, 2]);
    }
}
