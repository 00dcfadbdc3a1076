//! How many free pages may keep their memory, and when it is time to look.
//!
//! Giving memory back and getting it again costs system calls and page faults, so a program that frees much and soon
//! allocates as much again should keep it; one that has shrunk for good should not. The pages in use lately tell them
//! apart: used and free pages together may have as much memory as the largest number that was in use over the last
//! one or two *windows*, and a sixteenth more. A window ends when the time that the user chose is over, and before that
//! after so many operations, of any size.
//!
//! A program whose use goes up and down over more operations than a window has is noticed by what it asks for again: the
//! windows become longer then, so that only time ends them at last.
//!
//! Volatile.

use std::time::Duration;

use pmalloc_persist::sync::{AtomicBool, AtomicU64, Ordering};

/// How long a window lasts unless the user says otherwise: what jemalloc gives free pages.
pub(crate) const KEEP_DEFAULT: Duration = Duration::from_secs(10);

/// Operations per window at first: so many that a program whose use goes up and down meets its peak again before it is
/// forgotten. How much fewer cost is in `docs/benchmarks.md`.
pub(super) const WINDOW_OPERATIONS: u64 = 256 << 10;

/// Windows become twice as long where more than one part in this many of what was given back is wanted again.
const REGRET_PARTS: u64 = 4;

/// Memory beyond the recent peak: one part in this many of it, for what fragmentation makes unusable.
const SLACK_PARTS: u32 = 16;

/// Free pages that may always keep their memory: 1 MiB.
pub(super) const FLOOR_PAGES: u32 = 256;

/// The most pages that were in use lately.
#[derive(Debug)]
pub(super) struct RecentPeak {
    /// How long a window lasts: zero keeps nothing, and [`Duration::MAX`] for ever.
    keep: Duration,
    /// Operations in a window.
    window_operations: u64,
    /// When the present window began.
    began: Moment,
    /// Peak of the present window, and of the one before.
    peaks: [u32; 2],
    /// Pages that were given back in the present window, and in the one before.
    given: [u64; 2],
    /// Pages without memory that were asked for in the present window.
    wanted: u64,
}

/// A point in the life of a heap: the operations so far, and the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Moment {
    pub(super) operations: u64,
    pub(super) time: Duration,
}

impl RecentPeak {
    /// No page in use yet, and windows of `keep`.
    pub(super) fn new(keep: Duration) -> Self {
        Self {
            keep,
            window_operations: WINDOW_OPERATIONS,
            began: Moment::default(),
            peaks: [0; 2],
            given: [0; 2],
            wanted: 0,
        }
    }

    /// Begins the first window `now`, with windows of `keep` from then on.
    pub(super) fn begin(&mut self, keep: Duration, now: Moment) {
        (self.keep, self.began) = (keep, now);
    }

    /// Whether nothing is kept: free pages lose their memory at once.
    pub(super) fn keeps_nothing(&self) -> bool {
        self.keep.is_zero()
    }

    /// Notes that `used` pages are in use, more than just before, of which `bare` had no memory.
    pub(super) fn rise(&mut self, used: u32, bare: u32) {
        self.peaks[0] = self.peaks[0].max(used);
        self.wanted += u64::from(bare);
    }

    /// Notes that `pages` pages gave their memory back.
    pub(super) fn gave(&mut self, pages: u32) {
        self.given[0] += u64::from(pages);
    }

    /// Whether the present window is over `now`.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        self.windows_over(now).is_some()
    }

    /// Ends the windows that are over `now`, when `used` pages are in use; says whether there were any.
    pub(super) fn pass(&mut self, now: Moment, used: u32) -> bool {
        let Some(ended) = self.windows_over(now) else { return false };
        let before = if ended == Ended::One { self.peaks[0] } else { used };
        self.regret();
        self.peaks = [used, before];
        self.began = now;
        true
    }

    /// Forgets what was in use before: `used` pages are.
    pub(super) fn forget(&mut self, used: u32) {
        if self.keep != Duration::MAX {
            self.peaks = [used; 2];
        }
    }

    /// How many free pages may have memory while `used` pages are in use.
    pub(super) fn bound(&self, used: u32) -> u32 {
        if self.keeps_nothing() {
            return 0;
        }
        let peak = self.peaks[0].max(self.peaks[1]);
        (peak - used).saturating_add(peak / SLACK_PARTS).max(FLOOR_PAGES)
    }

    /// When the present window ends at the latest.
    fn end(&self) -> Moment {
        if self.keep == Duration::MAX {
            return Moment { operations: u64::MAX, time: Duration::MAX };
        }
        Moment {
            operations: self.began.operations.saturating_add(self.window_operations),
            time: self.began.time.saturating_add(self.keep),
        }
    }

    fn windows_over(&self, now: Moment) -> Option<Ended> {
        let end = self.end();
        if now.time < end.time && now.operations < end.operations {
            None
        } else if now.time >= end.time.saturating_add(self.keep) {
            Some(Ended::Both)
        } else {
            Some(Ended::One)
        }
    }

    /// Makes the windows longer if much of what was given back is wanted again, and starts to count anew.
    fn regret(&mut self) {
        let given = self.given[0] + self.given[1];
        if given > 0 && self.wanted > given / REGRET_PARTS {
            self.window_operations = self.window_operations.saturating_mul(2);
        }
        self.given = [0, self.given[0]];
        self.wanted = 0;
    }
}

/// How many windows are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The present one.
    One,
    /// Nothing looked for so long that the next one is over as well.
    Both,
}

/// Tells without a lock whether it is time to look.
///
/// All orderings are relaxed: who sees an old value looks a little later, and what is looked at has a lock.
#[derive(Debug, Default)]
pub(super) struct Pace {
    operations: AtomicU64,
    /// When the present window ends.
    end_operations: AtomicU64,
    end_ns: AtomicU64,
    /// Whether more free pages have memory than may.
    is_behind: AtomicBool,
}

impl Pace {
    /// Counts `operations`; returns the moment that is `time`.
    pub(super) fn count(&self, operations: u64, time: Duration) -> Moment {
        let before = self.operations.fetch_add(operations, Ordering::Relaxed);
        Moment { operations: before + operations, time }
    }

    /// Whether there may be something to do: a window is over, or work was left.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        self.is_behind.load(Ordering::Relaxed)
            || now.operations >= self.end_operations.load(Ordering::Relaxed)
            || nanoseconds(now.time) >= self.end_ns.load(Ordering::Relaxed)
    }

    /// Waits for the end of the present window of `peak`.
    pub(super) fn wait_for(&self, peak: &RecentPeak) {
        let end = peak.end();
        self.end_operations.store(end.operations, Ordering::Relaxed);
        self.end_ns.store(nanoseconds(end.time), Ordering::Relaxed);
    }

    /// Notes whether more free pages have memory than may.
    pub(super) fn set_behind(&self, is_behind: bool) {
        self.is_behind.store(is_behind, Ordering::Relaxed);
    }

    /// Whether more free pages have memory than may.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }
}

/// Time that a clock never shows is the largest number.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY_LOOKED: Duration = Duration::from_secs(25);

    fn after(operations: u64) -> Moment {
        Moment { operations, time: Duration::ZERO }
    }

    fn at(time: Duration) -> Moment {
        Moment { operations: 0, time }
    }

    fn peak_of(used: u32, keep: Duration) -> RecentPeak {
        let mut peak = RecentPeak::new(keep);
        peak.rise(used, 0);
        peak
    }

    #[test]
    fn what_was_in_use_lately_may_stay_and_a_sixteenth_more() {
        let peak = peak_of(8000, KEEP_DEFAULT);
        assert_eq!([0, 4000, 8000].map(|used| peak.bound(used)), [8500, 4500, 500]);
    }

    #[test]
    fn a_peak_is_forgotten_after_two_windows_of_operations() {
        let mut peak = peak_of(8000, KEEP_DEFAULT);
        assert!(!peak.pass(after(WINDOW_OPERATIONS - 1), 100));
        assert!(peak.pass(after(WINDOW_OPERATIONS), 100));
        assert_eq!(peak.bound(100), 8400);
        assert!(!peak.pass(after(2 * WINDOW_OPERATIONS - 1), 100));
        assert!(peak.pass(after(2 * WINDOW_OPERATIONS), 100));
        assert_eq!(peak.bound(100), FLOOR_PAGES);
    }

    #[test]
    fn a_peak_is_forgotten_after_two_windows_of_time() {
        let mut peak = peak_of(8000, KEEP_DEFAULT);
        assert!(!peak.pass(at(KEEP_DEFAULT - Duration::from_nanos(1)), 100));
        assert!(peak.pass(at(KEEP_DEFAULT), 100));
        assert_eq!(peak.bound(100), 8400);
        assert!(peak.pass(at(2 * KEEP_DEFAULT), 100));
        assert_eq!(peak.bound(100), FLOOR_PAGES);
        // Nobody looked for more than two windows.
        let mut peak = peak_of(8000, KEEP_DEFAULT);
        assert!(peak.pass(at(NOBODY_LOOKED), 100));
        assert_eq!(peak.bound(100), FLOOR_PAGES);
    }

    #[test]
    fn nothing_is_kept_or_all_for_ever() {
        let mut nothing = peak_of(8000, Duration::ZERO);
        assert_eq!(nothing.bound(100), 0);
        assert!(nothing.pass(Moment::default(), 100));
        let mut all = peak_of(8000, Duration::MAX);
        assert!(!all.pass(Moment { operations: u64::MAX - 1, time: Duration::MAX / 2 }, 100));
        all.forget(100);
        assert_eq!(all.bound(100), 8400);
    }

    #[test]
    fn windows_become_longer_where_what_was_given_back_is_wanted_again() {
        let mut peak = peak_of(8000, KEEP_DEFAULT);
        peak.gave(1000);
        peak.rise(8000, 250);
        assert!(peak.pass(after(WINDOW_OPERATIONS), 100));
        assert!(peak.pass(after(2 * WINDOW_OPERATIONS), 100), "a quarter is little");
        peak.gave(1000);
        assert!(peak.pass(after(3 * WINDOW_OPERATIONS), 100));
        peak.rise(8000, 251);
        assert!(peak.pass(after(4 * WINDOW_OPERATIONS), 100));
        assert!(!peak.pass(after(6 * WINDOW_OPERATIONS - 1), 100));
        assert!(peak.pass(after(6 * WINDOW_OPERATIONS), 100));
    }

    #[test]
    fn a_pace_is_due_when_its_window_ends_and_while_work_is_left() {
        let (pace, peak) = (Pace::default(), peak_of(8000, KEEP_DEFAULT));
        pace.wait_for(&peak);
        assert!(!pace.is_due(pace.count(WINDOW_OPERATIONS - 1, Duration::ZERO)));
        assert!(pace.is_due(pace.count(0, KEEP_DEFAULT)));
        assert!(pace.is_due(pace.count(1, Duration::ZERO)));
        pace.wait_for(&RecentPeak::new(Duration::MAX));
        assert!(!pace.is_due(pace.count(1, KEEP_DEFAULT)));
        pace.set_behind(true);
        assert!(pace.is_due(pace.count(1, KEEP_DEFAULT)));
    }
}
