//! Bins: the runs of pages that an arena has for itself, by size.
//!
//! A run is found by its size as the best fit, and by its ends for coalescing, each in a few steps however many there are: an
//! arena uses them at every allocation of a large block of a size that it has not freed just before, where the ordered set
//! of `free` took a fifth of the whole operation. What that has for its time, an order by place, matters for the heap as a
//! whole: here the run that came last is used first among those of one size. Volatile.

use rustc_hash::FxHashMap;

use crate::layout::geometry::PageRange;

/// Bins: the `n`-th one has the runs of `n + 1` pages, the last one those of more as well.
const BINS: usize = 256;

/// Bins that a word of the map stands for.
const WORD_BINS: usize = u64::BITS as usize;

/// No run.
const NONE: u32 = u32::MAX;

/// Runs of pages, no two of which touch.
#[derive(Debug)]
pub(super) struct Bins {
    /// Volatile: the first run of each bin.
    first: [u32; BINS],
    /// Volatile: which bins have one.
    map: [u64; BINS / WORD_BINS],
    /// Volatile: as many as there ever were at once.
    runs: Vec<Run>,
    /// Volatile: the first of `runs` that is vacant.
    vacant: u32,
    /// Volatile: by the first and by the last page of each run, the run.
    ends: FxHashMap<u32, u32>,
}

/// A run, or a vacancy.
#[derive(Debug, Clone, Copy)]
struct Run {
    range: PageRange,
    /// The run in front of it in its bin.
    previous: u32,
    /// The run behind it, or another vacancy.
    next: u32,
}

impl Bins {
    /// Bins without runs.
    pub(super) fn new() -> Self {
        Self {
            first: [NONE; BINS],
            map: [0; BINS / WORD_BINS],
            runs: Vec::new(),
            vacant: NONE,
            ends: FxHashMap::default(),
        }
    }

    /// Takes `pages` pages out of the smallest run that has them.
    pub(super) fn take(&mut self, pages: u32) -> Option<PageRange> {
        let run = self.best_fit(pages)?;
        let range = self.remove(run);
        let rest = range.without_first(pages);
        if rest.pages > 0 {
            self.add(rest);
        }
        Some(range.first(pages))
    }

    /// Adds `range`, no page of which is in a run, and joins it with the runs on both sides.
    pub(super) fn insert(&mut self, range: PageRange) {
        let mut joined = range;
        if let Some(last) = range.start.0.checked_sub(1)
            && let Some(&before) = self.ends.get(&last)
        {
            let before = self.remove(before);
            joined = PageRange::new(before.start, before.pages + joined.pages);
        }
        let behind = u32::try_from(range.end()).ok().and_then(|start| self.ends.get(&start));
        if let Some(&behind) = behind {
            joined.pages += self.remove(behind).pages;
        }
        self.add(joined);
    }

    /// All runs, smaller ones first.
    pub(super) fn iter(&self) -> impl Iterator<Item = PageRange> {
        self.first.iter().flat_map(|&first| self.list(first)).map(|(_, range)| range)
    }

    /// Forgets all runs.
    pub(super) fn clear(&mut self) {
        self.first.fill(NONE);
        self.map.fill(0);
        self.runs.clear();
        self.vacant = NONE;
        self.ends.clear();
    }

    /// Volatile memory of its tables, in bytes.
    pub(super) fn dram_bytes(&self) -> u64 {
        let ends = self.ends.capacity() * size_of::<(u32, u32)>();
        (self.runs.capacity() * size_of::<Run>() + ends) as u64
    }

    fn best_fit(&self, pages: u32) -> Option<u32> {
        let bin = self.first_used(bin_of(pages))?;
        if bin < BINS - 1 {
            return Some(self.first[bin]);
        }
        let fits = |(_, range): &(u32, PageRange)| range.pages >= pages;
        let best = self.list(self.first[bin]).filter(fits).min_by_key(|(_, range)| range.pages);
        best.map(|(run, _)| run)
    }

    /// The first bin from `bin` on that has a run.
    fn first_used(&self, bin: usize) -> Option<usize> {
        let word = bin / WORD_BINS;
        let here = self.map[word] & (u64::MAX << (bin % WORD_BINS));
        let behind = self.map[word + 1..].iter().copied();
        let mut words = (word..).zip(std::iter::once(here).chain(behind));
        let (word, bits) = words.find(|(_, bits)| *bits != 0)?;
        Some(word * WORD_BINS + bits.trailing_zeros() as usize)
    }

    /// The runs from `first` on in its bin.
    fn list(&self, first: u32) -> impl Iterator<Item = (u32, PageRange)> {
        let at = |run: u32| self.runs.get(run as usize).map(|found| (run, found));
        let list = std::iter::successors(at(first), move |(_, found)| at(found.next));
        list.map(|(run, found)| (run, found.range))
    }

    /// Adds `range`, which touches no run.
    fn add(&mut self, range: PageRange) {
        let bin = bin_of(range.pages);
        let next = self.first[bin];
        let run = self.place(Run { range, previous: NONE, next });
        if let Some(next) = self.runs.get_mut(next as usize) {
            next.previous = run;
        }
        self.first[bin] = run;
        self.map[bin / WORD_BINS] |= 1 << (bin % WORD_BINS);
        for end in ends(range) {
            self.ends.insert(end, run);
        }
    }

    /// Takes a run out.
    fn remove(&mut self, run: u32) -> PageRange {
        let Run { range, previous, next } = self.runs[run as usize];
        if let Some(next) = self.runs.get_mut(next as usize) {
            next.previous = previous;
        }
        match self.runs.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => self.begin_bin(bin_of(range.pages), next),
        }
        self.runs[run as usize].next = self.vacant;
        self.vacant = run;
        for end in ends(range) {
            self.ends.remove(&end);
        }
        range
    }

    fn begin_bin(&mut self, bin: usize, first: u32) {
        self.first[bin] = first;
        if first == NONE {
            self.map[bin / WORD_BINS] &= !(1 << (bin % WORD_BINS));
        }
    }

    /// Finds a place for `run`.
    fn place(&mut self, run: Run) -> u32 {
        let place = self.vacant;
        if let Some(vacancy) = self.runs.get_mut(place as usize) {
            self.vacant = vacancy.next;
            *vacancy = run;
            return place;
        }
        self.runs.push(run);
        u32::try_from(self.runs.len() - 1).expect("fewer runs than pages")
    }
}

/// The bin of runs of `pages` pages.
#[inline]
fn bin_of(pages: u32) -> usize {
    (pages as usize).min(BINS) - 1
}

/// The first and the last page of `range`.
#[inline]
fn ends(range: PageRange) -> [u32; 2] {
    [range.start.0, range.start.0 + (range.pages - 1)]
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::layout::geometry::Page;

    /// The naive model: runs, those that came last at the end.
    #[derive(Default)]
    struct Model {
        runs: Vec<PageRange>,
    }

    impl Model {
        fn take(&mut self, pages: u32) -> Option<PageRange> {
            let fits = |(_, range): &(usize, &PageRange)| range.pages >= pages;
            let best = |(_, range): &(usize, &PageRange)| range.pages;
            let newest_first = self.runs.iter().enumerate().rev();
            let (nth, _) = newest_first.filter(fits).min_by_key(best)?;
            let run = self.runs.remove(nth);
            let rest = run.without_first(pages);
            self.runs.extend((rest.pages > 0).then_some(rest));
            Some(run.first(pages))
        }

        fn insert(&mut self, mut range: PageRange) {
            while let Some(nth) = self.runs.iter().position(|run| touch(*run, range)) {
                let run = self.runs.remove(nth);
                let start = run.start.min(range.start);
                range = PageRange::new(start, run.pages + range.pages);
            }
            self.runs.push(range);
        }

        /// In the order of the bins.
        fn all(&self) -> Vec<PageRange> {
            let mut all: Vec<PageRange> = self.runs.iter().rev().copied().collect();
            all.sort_by_key(|range| bin_of(range.pages));
            all
        }
    }

    fn touch(one: PageRange, other: PageRange) -> bool {
        one.end() == u64::from(other.start.0) || other.end() == u64::from(one.start.0)
    }

    #[test]
    fn bins_do_as_the_naive_model() {
        for seed in 0..8 {
            println!("seed {seed}");
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut bins, mut model) = (Bins::new(), Model::default());
            // Those of the highest numbers among them.
            let mut out: Vec<PageRange> =
                (0..40).map(|nth| nth * 700).map(|at| PageRange::new(Page(at), 700)).collect();
            out.push(PageRange::new(Page(u32::MAX - 300), 300));
            for _ in 0..20_000 {
                if random.bool() && !out.is_empty() {
                    let range = out.swap_remove(random.usize(..out.len()));
                    bins.insert(range);
                    model.insert(range);
                } else {
                    let most = [8, 64, 256, 700][random.usize(..4)];
                    let pages = random.u32(1..=most);
                    let taken = bins.take(pages);
                    assert_eq!(taken, model.take(pages), "{pages} pages");
                    out.extend(taken);
                }
                assert_eq!(bins.iter().collect::<Vec<_>>(), model.all());
            }
            assert!(bins.runs.len() < 2_000, "vacancies are used again");
            bins.clear();
            assert_eq!((bins.iter().count(), bins.take(1)), (0, None));
        }
    }
}
