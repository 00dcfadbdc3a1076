//! What a block contains: a function of its id and of the place of each byte.
//!
//! Any mixture (bytes of another block, of a shifted one, zeroes, a torn write) differs from it with
//! near certainty in the first wrong word. Volatile.

use crate::trace::BlockId;

/// Added from word to word: odd, so that the words of a block never repeat.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

const WORD_BYTES: usize = size_of::<u64>();

/// The content of one block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pattern {
    first: u64,
}

/// The first place where bytes are not the pattern's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Byte index in the block.
    pub(crate) at: usize,
}

impl Pattern {
    /// The content of `block`.
    pub(crate) fn of(block: BlockId) -> Self {
        Self { first: mix(u64::from(block.get()) + 1) }
    }

    /// Writes the whole of `bytes`.
    pub(crate) fn fill(self, bytes: &mut [u8]) {
        let mut word = self.first;
        let mut words = bytes.chunks_exact_mut(WORD_BYTES);
        for place in words.by_ref() {
            place.copy_from_slice(&word.to_le_bytes());
            word = word.wrapping_add(STEP);
        }
        let rest = words.into_remainder();
        rest.copy_from_slice(&word.to_le_bytes()[..rest.len()]);
    }

    /// Compares the whole of `bytes`.
    pub(crate) fn verify(self, bytes: &[u8]) -> Result<(), Mismatch> {
        let mut word = self.first;
        let mut difference = 0;
        let words = bytes.chunks_exact(WORD_BYTES);
        let rest = words.remainder();
        for place in words {
            let found = u64::from_le_bytes(place.try_into().expect("chunks of that size"));
            difference |= found ^ word;
            word = word.wrapping_add(STEP);
        }
        if difference == 0 && rest == &word.to_le_bytes()[..rest.len()] {
            return Ok(());
        }
        Err(self.first_mismatch(bytes))
    }

    /// Compares the whole content of `block`, of which `bytes` were found, with what was put there.
    pub(crate) fn whole(
        block: BlockId,
        bytes: Option<&[u8]>,
        size_bytes: u64,
    ) -> Result<(), String> {
        let Some(bytes) = bytes else {
            return Err(format!("{block} is gone: its slot is empty"));
        };
        let size = usize::try_from(size_bytes).unwrap_or(usize::MAX);
        let Some(content) = bytes.get(..size) else {
            return Err(format!("{block} has {} of its {size_bytes} bytes", bytes.len()));
        };
        Self::of(block).verify(content).map_err(|mismatch| {
            format!("byte {} of the {size_bytes} of {block} is not what was put there", mismatch.at)
        })
    }

    #[cold]
    fn first_mismatch(self, bytes: &[u8]) -> Mismatch {
        let mut expected = vec![0; bytes.len()];
        self.fill(&mut expected);
        let at = expected.iter().zip(bytes).position(|(expected, found)| expected != found);
        Mismatch { at: at.expect("some byte differs") }
    }
}

/// Spreads the bits of `value` over the whole word (the finalizer of `SplitMix64`).
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_is_found_at_every_length() {
        let pattern = Pattern::of(BlockId::new(7));
        for len in 1..40 {
            let mut bytes = vec![0; len];
            pattern.fill(&mut bytes);
            assert_eq!(pattern.verify(&bytes), Ok(()));
            for at in 0..len {
                bytes[at] ^= 0x10;
                assert_eq!(pattern.verify(&bytes), Err(Mismatch { at }));
                bytes[at] ^= 0x10;
            }
        }
    }

    #[test]
    fn another_block_and_a_shifted_one_differ_at_once() {
        let mut bytes = [0; 64];
        Pattern::of(BlockId::new(1)).fill(&mut bytes);
        assert!(Pattern::of(BlockId::new(2)).verify(&bytes[..16]).is_err());
        assert!(Pattern::of(BlockId::new(1)).verify(&bytes[8..]).is_err());
    }
}
