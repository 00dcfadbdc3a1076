//! How many free pages may keep their memory.
//!
//! Giving memory back and getting it again costs system calls and page faults, so a program that frees much and soon
//! allocates as much again should keep it; one that has shrunk for good should not. The pages in use lately tell them
//! apart: used and free pages together may have as much memory as the largest number that was in use over the last
//! one or two windows of releases, and a sixteenth more.
//!
//! Volatile.

/// Releases per window: so many that a program whose use goes up and down meets its peak again before it is forgotten. How
/// much fewer cost is in `docs/benchmarks.md`.
pub(super) const WINDOW_RELEASES: u32 = 64 << 10;

/// Memory beyond the recent peak: one part in this many of it, for what fragmentation makes unusable.
const SLACK_PARTS: u32 = 16;

/// Free pages that may always keep their memory: 1 MiB.
pub(super) const FLOOR_PAGES: u32 = 256;

/// The most pages that were in use lately.
#[derive(Debug, Default)]
pub(super) struct RecentPeak {
    /// Peak of the present window, and of the one before.
    peaks: [u32; 2],
    /// Releases in the present window.
    releases: u32,
}

impl RecentPeak {
    /// Notes that `used` pages are in use, more than just before.
    pub(super) fn rise(&mut self, used: u32) {
        self.peaks[0] = self.peaks[0].max(used);
    }

    /// Notes `releases` releases that left `used` pages in use; says whether they ended a window.
    pub(super) fn fall(&mut self, used: u32, releases: u32) -> Window {
        self.releases += releases;
        if self.releases < WINDOW_RELEASES {
            return Window::GoesOn;
        }
        *self = Self { peaks: [used, self.peaks[0]], releases: 0 };
        Window::Ended
    }

    /// How many free pages may have memory while `used` pages are in use.
    pub(super) fn bound(&self, used: u32) -> u32 {
        let peak = self.peaks[0].max(self.peaks[1]);
        (peak - used).saturating_add(peak / SLACK_PARTS).max(FLOOR_PAGES)
    }
}

/// What releases did to the present window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Window {
    /// There is room for more.
    GoesOn,
    /// It was the last one.
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound_after_release(peak: &mut RecentPeak, used: u32) -> u32 {
        peak.fall(used, 1);
        peak.bound(used)
    }

    #[test]
    fn what_was_in_use_lately_may_stay_and_a_sixteenth_more() {
        let mut peak = RecentPeak::default();
        peak.rise(8000);
        let bounds = [0, 4000, 8000].map(|used| bound_after_release(&mut peak, used));
        assert_eq!(bounds, [8500, 4500, 500]);
    }

    #[test]
    fn a_peak_is_forgotten_after_two_windows() {
        let mut peak = RecentPeak::default();
        peak.rise(8000);
        let releases = 0..=2 * WINDOW_RELEASES;
        let bounds: Vec<u32> = releases.map(|_| bound_after_release(&mut peak, 100)).collect();
        assert_eq!(bounds[0], 8400);
        assert_eq!(bounds[bounds.len() - 2], FLOOR_PAGES);
        let kept = bounds.iter().filter(|bound| **bound > FLOOR_PAGES).count();
        assert!(kept >= WINDOW_RELEASES as usize, "{kept} releases");
    }

    #[test]
    fn releases_that_are_noted_together_end_a_window_as_single_ones_do() {
        let mut peak = RecentPeak::default();
        assert_eq!(peak.fall(0, WINDOW_RELEASES - 1), Window::GoesOn);
        assert_eq!(peak.fall(0, 1), Window::Ended);
        assert_eq!(peak.fall(0, WINDOW_RELEASES + 1), Window::Ended);
    }
}
