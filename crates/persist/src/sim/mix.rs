//! Hashing and pseudo-random numbers: small, deterministic, and the same on every machine.

/// A bijection of 64-bit numbers in which every input bit changes about half of the output bits
/// (the finaliser of Steele, Lea and Flood's `SplitMix64`, OOPSLA 2014).
pub(super) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Hash of `value` at `place`; zero contents hash to zero, so that untouched memory costs nothing.
pub(super) fn mix_word(place: u64, value: u64) -> u128 {
    if value == 0 {
        return 0;
    }
    let high = mix(value ^ mix(place));
    let low = mix(high ^ value.rotate_left(32));
    (u128::from(high) << 64) | u128::from(low)
}

/// A running hash over a sequence of numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mixer(u128);

impl Mixer {
    pub(super) fn add(&mut self, value: u64) {
        let [low, high] = [self.0 & u128::from(u64::MAX), self.0 >> 64]
            .map(|half| u64::try_from(half).expect("half of the bits"));
        let high = mix(high ^ value);
        let low = mix(low.rotate_left(17) ^ high ^ value);
        self.0 = (u128::from(high) << 64) | u128::from(low);
    }

    pub(super) const fn finish(self) -> u128 {
        self.0
    }
}
