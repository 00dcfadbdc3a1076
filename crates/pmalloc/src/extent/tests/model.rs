//! The naive model of the free space: it looks through all pages for every answer.

use super::{LOGS, range};
use crate::{
    extent::{
        GROWTH_MIN_PAGES, GROWTH_PARTS, REST_MAX_PAGES, REST_PARTS, decay::FLOOR_PAGES,
        front::Front,
    },
    layout::geometry::{Page, PageRange},
};

/// The naive model: a flag per grown page, and what is at hand as it came.
#[derive(Default)]
pub(super) struct Model {
    /// Pages that are in no free run: those at hand are.
    pub(super) used: Vec<bool>,
    /// Live ranges, and their arenas.
    pub(super) live: Vec<(usize, PageRange)>,
    /// Per arena, what it gave back, oldest first.
    pub(super) at_hand: [Vec<PageRange>; LOGS],
    /// Per arena, its runs, those that came last at the end.
    pub(super) own: [Vec<PageRange>; LOGS],
    pub(super) capacity: usize,
    /// Most pages in use or at hand since the last open or wait.
    pub(super) peak: usize,
    /// Whether free pages may have memory of which nobody knows.
    pub(super) has_unknown: bool,
}

impl Model {
    /// Every maximal run of free pages.
    pub(super) fn runs(&self) -> Vec<PageRange> {
        let mut runs = Vec::new();
        let mut start = 0;
        for page in 0..=self.used.len() {
            if self.used.get(page).copied().unwrap_or(true) {
                if page > start {
                    runs.push((start, page - start));
                }
                start = page + 1;
            }
        }
        let narrow = |n: usize| u32::try_from(n).expect("few pages");
        runs.into_iter().map(|(start, pages)| range(narrow(start), narrow(pages))).collect()
    }

    /// Where a request must go, growing the model if need be; `None` if there is no room. `has_memory` says whether a range
    /// is known to have some.
    pub(super) fn place(
        &mut self,
        log: usize,
        pages: u32,
        has_memory: impl Fn(PageRange) -> bool,
    ) -> Option<Page> {
        let at_hand = &mut self.at_hand[log];
        if let Some(newest) = at_hand.iter().rposition(|range| range.pages == pages) {
            return Some(at_hand.remove(newest).start);
        }
        if Front::splits_for(pages)
            && let Some(start) = self.place_in_own(log, pages)
        {
            return Some(start);
        }
        let run = self.place_in_runs(pages)?;
        let rest = (self.used.len() / REST_PARTS as usize).min(REST_MAX_PAGES as usize);
        let generous = run.first(pages + u32::try_from(rest).expect("few pages"));
        if Front::splits_for(pages) && has_memory(generous) && generous.pages > pages {
            let rest = generous.without_first(pages);
            self.set(rest, true);
            self.add_to_own(log, rest);
        }
        Some(run.start)
    }

    fn place_in_own(&mut self, log: usize, pages: u32) -> Option<Page> {
        let all = self.own[log].iter().chain(&self.at_hand[log]);
        if all.map(|range| range.pages).sum::<u32>() < pages {
            return None;
        }
        let own = |model: &mut Self| {
            let runs = model.own[log].iter().enumerate().rev();
            let fitting = runs.filter(|(_, run)| run.pages >= pages);
            let (nth, _) = fitting.min_by_key(|(_, run)| run.pages)?;
            let run = model.own[log].remove(nth);
            let rest = run.without_first(pages);
            model.own[log].extend((rest.pages > 0).then_some(rest));
            Some(run.start)
        };
        own(self).or_else(|| {
            let mut at_hand = std::mem::take(&mut self.at_hand[log]);
            at_hand.reverse();
            at_hand.sort_by_key(|range| range.pages);
            at_hand.into_iter().for_each(|range| self.add_to_own(log, range));
            own(self)
        })
    }

    fn add_to_own(&mut self, log: usize, mut range: PageRange) {
        let own = &mut self.own[log];
        let touches = |run: &PageRange, range: PageRange| {
            run.end() == u64::from(range.start.0) || range.end() == u64::from(run.start.0)
        };
        while let Some(nth) = own.iter().position(|run| touches(run, range)) {
            let run = own.remove(nth);
            range = PageRange::new(run.start.min(range.start), run.pages + range.pages);
        }
        own.push(range);
    }

    /// The run that a request must be cut out of, growing the model if need be.
    fn place_in_runs(&mut self, pages: u32) -> Option<PageRange> {
        if let Some(run) = self.best_fit(pages) {
            return Some(run);
        }
        self.empty_hands();
        if let Some(run) = self.best_fit(pages) {
            return Some(run);
        }
        let grown = self.used.len();
        let tail =
            self.runs().last().filter(|run| run.end() == grown as u64).map_or(0, |r| r.pages);
        let needed = (pages - tail) as usize;
        if grown + needed > self.capacity {
            return None;
        }
        let step = (grown / GROWTH_PARTS as usize).max(GROWTH_MIN_PAGES as usize);
        self.used.resize((grown + needed.max(step)).min(self.capacity), false);
        Some(*self.runs().last().expect("just grown"))
    }

    fn best_fit(&self, pages: u32) -> Option<PageRange> {
        let fits = |run: &PageRange| run.pages >= pages;
        let best = |run: &PageRange| (run.pages, run.start);
        self.runs().into_iter().filter(fits).min_by_key(best)
    }

    pub(super) fn empty_hands(&mut self) {
        let at_hand = std::mem::take(&mut self.at_hand).into_iter().flatten();
        for range in at_hand.chain(std::mem::take(&mut self.own).into_iter().flatten()) {
            self.set(range, false);
        }
    }

    pub(super) fn all_at_hand(&self) -> impl Iterator<Item = &PageRange> {
        self.at_hand.iter().chain(&self.own).flatten()
    }

    pub(super) fn pages_at_hand(&self) -> usize {
        self.all_at_hand().map(|range| range.pages as usize).sum()
    }

    pub(super) fn set(&mut self, range: PageRange, used: bool) {
        let start = range.start.0 as usize;
        self.used[start..start + range.pages as usize].fill(used);
    }

    pub(super) fn used_pages(&self) -> usize {
        self.used.iter().filter(|&&used| used).count()
    }

    /// Free pages that may have memory, as long as no window of releases ended.
    pub(super) fn decay_bound(&self) -> usize {
        let freed_since_peak = self.peak - self.used_pages();
        (freed_since_peak + self.peak / 16).max(FLOOR_PAGES as usize)
    }
}
