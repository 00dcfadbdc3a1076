//! How many free pages may keep their memory.
//!
//! Giving memory back and getting it again costs system calls and page faults, so a program that frees much and soon
//! allocates as much again should keep it; one that has shrunk for good should not. The pages in use lately tell them
//! apart: used and free pages together may have as much memory as the largest number that was in use over the last
//! one or two windows of releases, and a sixteenth more.
//!
//! Volatile.

/// Releases per window.
const WINDOW_RELEASES: u32 = 4096;

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

    /// Notes a release that leaves `used` pages in use, and returns how many free pages may have memory.
    pub(super) fn fall(&mut self, used: u32) -> u32 {
        self.releases += 1;
        if self.releases == WINDOW_RELEASES {
            *self = Self { peaks: [used, self.peaks[0]], releases: 0 };
        }
        let peak = self.peaks[0].max(self.peaks[1]);
        (peak - used).saturating_add(peak / SLACK_PARTS).max(FLOOR_PAGES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_use_lately_may_stay_and_a_sixteenth_more() {
        let mut peak = RecentPeak::default();
        peak.rise(8000);
        assert_eq!(peak.fall(0), 8500);
        assert_eq!(peak.fall(4000), 4500);
        assert_eq!(peak.fall(8000), 500);
    }

    #[test]
    fn a_peak_is_forgotten_after_two_windows() {
        let mut peak = RecentPeak::default();
        peak.rise(8000);
        let bounds: Vec<u32> = (0..=2 * WINDOW_RELEASES).map(|_| peak.fall(100)).collect();
        assert_eq!(bounds[0], 8400);
        assert_eq!(bounds[bounds.len() - 2], FLOOR_PAGES);
        let kept = bounds.iter().filter(|bound| **bound > FLOOR_PAGES).count();
        assert!(kept >= WINDOW_RELEASES as usize, "{kept} releases");
    }
}
