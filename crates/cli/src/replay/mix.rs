//! Which operations of a replay are of the publish family: a function of seed, thread and position. Volatile.

use fastrand::Rng;

use super::content::mix;

/// How many operations are of the publish family, and the seed that chooses which and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mix {
    /// So many in a hundred.
    pub(crate) percent: u8,
    /// The seed.
    pub(crate) seed: u64,
}

impl Mix {
    /// Whether there are such operations at all.
    pub(crate) const fn is_off(self) -> bool {
        self.percent == 0
    }

    /// The dice for the operation of `thread` that begins at `position`, if it is one of the family.
    pub(super) fn dice(self, thread: u16, position: u64) -> Option<Rng> {
        if self.is_off() {
            return None;
        }
        let place = mix((u64::from(thread) << 48) ^ position);
        let mut dice = Rng::with_seed(mix(self.seed ^ place));
        (dice.u8(0..100) < self.percent).then_some(dice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_the_one_asked_for_and_the_choice_the_seed_s() {
        let chosen =
            |mix: Mix| (0..10_000).filter(|at| mix.dice(3, *at).is_some()).collect::<Vec<_>>();
        for percent in [0, 30, 100] {
            let of_seed = |seed| chosen(Mix { percent, seed });
            let share = of_seed(1).len().abs_diff(usize::from(percent) * 100);
            assert!(share < 300, "{percent}: {share} off");
            assert_eq!(of_seed(1), of_seed(1));
            assert_eq!(of_seed(1) != of_seed(2), percent == 30);
        }
    }
}
