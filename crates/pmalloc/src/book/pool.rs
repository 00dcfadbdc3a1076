//! The chunks that no log links. Volatile: rebuilt by following the links.

use std::collections::BTreeMap;

use pmalloc_persist::sync::{AtomicU32, Mutex, Ordering, lock};

use super::chunk::ChunkIndex;

/// Free chunks, shared by all logs.
#[derive(Debug)]
pub(super) struct Pool {
    runs: Mutex<Runs>,
    /// Volatile: chunks in all runs, to be read without the lock. Relaxed: it guards nothing.
    free: AtomicU32,
}

/// Maximal runs of free chunks: a huge book that is almost empty costs one run.
#[derive(Debug)]
struct Runs {
    /// Volatile: first index of each run to the index behind its last.
    runs: BTreeMap<u32, u32>,
    /// Volatile: chunks in all runs.
    free: u32,
}

impl Pool {
    /// A pool of `chunks` free chunks.
    pub(super) fn new(chunks: u32) -> Self {
        let runs = Runs { runs: BTreeMap::from([(0, chunks)]), free: chunks };
        Self { runs: Mutex::new(runs), free: AtomicU32::new(chunks) }
    }

    /// Free chunks, as of lately.
    pub(super) fn free(&self) -> u32 {
        self.free.load(Ordering::Relaxed)
    }

    /// Takes the lowest free chunk, unless that leaves fewer than `spare`: low chunks first keep the
    /// book's memory together.
    pub(super) fn take(&self, spare: u32) -> Option<ChunkIndex> {
        self.take_many(1, spare)?.pop()
    }

    /// Takes the `count` lowest free chunks, or none if that leaves fewer than `spare`.
    pub(super) fn take_many(&self, count: u32, spare: u32) -> Option<Vec<ChunkIndex>> {
        self.with(|runs| {
            let is_enough = runs.free.checked_sub(count).is_some_and(|left| left >= spare);
            is_enough.then(|| (0..count).map(|_| runs.take_lowest()).collect())
        })
    }

    /// Takes a certain chunk, and says whether it was free.
    pub(super) fn take_exact(&self, index: ChunkIndex) -> bool {
        self.with(|runs| runs.take_exact(index))
    }

    /// Gives chunks back.
    pub(super) fn give(&self, chunks: impl IntoIterator<Item = ChunkIndex>) {
        self.with(|runs| chunks.into_iter().for_each(|index| runs.give(index)));
    }

    fn with<R>(&self, change: impl FnOnce(&mut Runs) -> R) -> R {
        let mut runs = lock(&self.runs);
        let outcome = change(&mut runs);
        self.free.store(runs.free, Ordering::Relaxed);
        outcome
    }
}

impl Runs {
    fn take_lowest(&mut self) -> ChunkIndex {
        let (&start, _) = self.runs.first_key_value().expect("there are enough free chunks");
        let taken = self.take_exact(ChunkIndex(start));
        debug_assert!(taken, "the first chunk of a run is free");
        ChunkIndex(start)
    }

    fn take_exact(&mut self, index: ChunkIndex) -> bool {
        let Some((&start, &end)) = self.runs.range(..=index.0).next_back() else { return false };
        if end <= index.0 {
            return false;
        }
        self.runs.remove(&start);
        if start < index.0 {
            self.runs.insert(start, index.0);
        }
        if index.0 + 1 < end {
            self.runs.insert(index.0 + 1, end);
        }
        self.free -= 1;
        true
    }

    fn give(&mut self, index: ChunkIndex) {
        let (mut start, mut end) = (index.0, index.0 + 1);
        if let Some((&before, &before_end)) = self.runs.range(..=start).next_back() {
            assert!(before_end <= start, "chunk {start} is given back twice");
            if before_end == start {
                start = before;
            }
        }
        if let Some(behind) = self.runs.remove(&end) {
            end = behind;
        }
        self.runs.insert(start, end);
        self.free += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(steps in proptest::collection::vec((0..3_u8, 0..16_u32), 0..200)) {
            let pool = Pool::new(16);
            let mut model: BTreeSet<u32> = (0..16).collect();
            for (what, index) in steps {
                match what {
                    0 => {
                        let lowest = model.iter().next().copied().filter(|_| model.len() > 2);
                        prop_assert_eq!(pool.take(2).map(|chunk| chunk.0), lowest);
                        lowest.map(|index| model.remove(&index));
                    }
                    1 => prop_assert_eq!(pool.take_exact(ChunkIndex(index)), model.remove(&index)),
                    _ => {
                        if model.insert(index) {
                            pool.give([ChunkIndex(index)]);
                        }
                    }
                }
                prop_assert_eq!(pool.free() as usize, model.len());
                prop_assert!(lock(&pool.runs).runs.len() <= 8);
            }
        }
    }
}
