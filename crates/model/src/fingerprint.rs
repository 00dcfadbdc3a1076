//! 128 bits that stand for a state: two states with one fingerprint are taken for one.

use std::hash::{Hash, Hasher};

/// The fingerprint of `value`.
pub(crate) fn fingerprint(value: &impl Hash) -> u128 {
    let mut mixer = Mixer(1, 2);
    value.hash(&mut mixer);
    mixer.whole()
}

/// Two independent multiplicative hashes.
struct Mixer(u64, u64);

impl Mixer {
    fn mix(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 29;
        self.1 = (self.1.rotate_left(23) ^ value).wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.1 ^= self.1 >> 32;
    }

    fn whole(&self) -> u128 {
        u128::from(self.0) << 64 | u128::from(self.1)
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word) ^ (chunk.len() as u64) << 56);
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value) | 1 << 32);
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value) | 1 << 33);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64 | 1 << 34);
    }

    fn write_isize(&mut self, value: isize) {
        self.mix(value.cast_unsigned() as u64 | 1 << 35);
    }
}
