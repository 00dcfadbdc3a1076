//! Samples, and what is said of them: medians with their range or their confidence interval. Volatile.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How sure an interval is to contain the true median.
const CONFIDENCE: f64 = 0.95;

/// One measured quantity: a sample per round.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds the sample of a round.
    pub fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The quotients of the samples of each round.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(sample, other)| sample / other).collect())
    }

    /// Median, minimum and maximum.
    ///
    /// # Panics
    ///
    /// If there is no sample.
    #[must_use]
    pub fn spread(&self) -> Spread {
        let sorted = self.sorted();
        Spread { median: median(&sorted), min: sorted[0], max: sorted[sorted.len() - 1] }
    }

    /// The median and its confidence interval.
    ///
    /// The interval lies between two samples, so that nothing is assumed of how they are distributed: it is the
    /// narrowest pair, as far from the least sample as from the greatest, that contains the true median in 95 of 100
    /// cases. Fewer than six samples have no such pair; the interval is their range then.
    ///
    /// # Panics
    ///
    /// If there is no sample.
    #[must_use]
    pub fn estimate(&self) -> Estimate {
        let sorted = self.sorted();
        let outside = samples_outside(sorted.len());
        let (lo, hi) = (sorted[outside], sorted[sorted.len() - 1 - outside]);
        Estimate { value: median(&sorted), lo, hi }
    }

    fn sorted(&self) -> Vec<f64> {
        assert!(!self.is_empty(), "a quantity without a sample has no median");
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

/// The middle one of `sorted`, or the mean of the two in the middle.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// How many of `count` sorted samples lie outside of the median's interval, on each side.
///
/// The true median lies below the sample of rank `k + 1` if at most `k` samples fell below it, and each falls below
/// it with probability one half.
fn samples_outside(count: usize) -> usize {
    let mut probability = 0.5_f64.powi(i32::try_from(count).expect("few rounds"));
    let (mut below, mut outside) = (0.0, 0);
    for rank in 0..count / 2 {
        below += probability;
        if 2.0 * below > 1.0 - CONFIDENCE {
            break;
        }
        outside = rank;
        probability *= as_f64(count - rank) / as_f64(rank + 1);
    }
    outside
}

/// The nearest floating-point number: figures need no more than its 53 bits.
#[expect(clippy::cast_precision_loss, reason = "a figure, not a count")]
pub(crate) fn as_f64(count: usize) -> f64 {
    count as f64
}

/// Median, minimum and maximum; prints as `1.23 (1.13 to 1.28)` with the precision asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least sample.
    pub min: f64,
    /// The greatest sample.
    pub max: f64,
}

/// A median and its confidence interval; prints as `1.23 (1.13 to 1.28)` with the precision asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The median.
    pub value: f64,
    /// Low end of the interval.
    pub lo: f64,
    /// High end of the interval.
    pub hi: f64,
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_range(f, self.median, self.min, self.max)
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_range(f, self.value, self.lo, self.hi)
    }
}

fn write_range(f: &mut fmt::Formatter<'_>, middle: f64, low: f64, high: f64) -> fmt::Result {
    let digits = f.precision().unwrap_or(2);
    f.pad_integral(true, "", &format!("{middle:.digits$} ({low:.digits$} to {high:.digits$})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: impl IntoIterator<Item = u32>) -> Samples {
        values.into_iter().map(f64::from).collect()
    }

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(samples([5, 1, 3]).spread(), Spread { median: 3.0, min: 1.0, max: 5.0 });
        assert_eq!(samples([4, 1, 2, 9]).spread(), Spread { median: 3.0, min: 1.0, max: 9.0 });
        assert_eq!(samples([7]).estimate(), Estimate { value: 7.0, lo: 7.0, hi: 7.0 });
    }

    /// The ranks are those of the tables of the sign test at 5 %, two-sided.
    #[test]
    fn the_interval_leaves_out_as_many_samples_as_the_sign_test_allows() {
        for (count, outside) in
            [(1, 0), (2, 0), (5, 0), (6, 0), (7, 0), (8, 0), (9, 1), (11, 1), (12, 2), (25, 7)]
        {
            assert_eq!(samples_outside(count), outside, "{count} samples");
        }
        let estimate = samples(1..=9).estimate();
        assert_eq!(estimate, Estimate { value: 5.0, lo: 2.0, hi: 8.0 });
        let estimate = samples(1..=12).estimate();
        assert_eq!(estimate, Estimate { value: 6.5, lo: 3.0, hi: 10.0 });
    }

    #[test]
    fn one_outlier_among_nine_is_outside() {
        let estimate = samples([1, 1, 1, 1, 1, 1, 1, 1, 1000]).estimate();
        assert_eq!(estimate, Estimate { value: 1.0, lo: 1.0, hi: 1.0 });
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let ratio = samples([2, 30, 400]).over(&samples([1, 10, 100]));
        assert_eq!(ratio, samples([2, 3, 4]));
    }

    #[test]
    fn a_range_prints_with_its_middle() {
        let spread = Spread { median: 1.0, min: 0.5, max: 2.25 };
        assert_eq!(format!("{spread:.1}"), "1.0 (0.5 to 2.2)");
        assert_eq!(format!("{spread:>20}|"), " 1.00 (0.50 to 2.25)|");
    }

    #[test]
    #[should_panic(expected = "without a sample")]
    fn nothing_is_said_of_nothing() {
        let _ = Samples::default().spread();
    }
}
