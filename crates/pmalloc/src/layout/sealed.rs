//! Checks that tell a written word or structure from a torn or flipped one.

/// Bits of a sealed word that carry its value.
pub(crate) const SEALED_BITS: u32 = 48;

/// Makes the check of zero non-zero, so that a word never written is not a valid zero.
const SALT: u64 = 0x5ea1;

/// Packs a value of at most 48 bits with its 16-bit check.
///
/// The check is the exclusive or of the value's three 16-bit parts: every single flipped bit, in the value
/// or in the check, is detected, at the cost of three shifts on the hot path.
#[inline]
pub(crate) const fn seal(value: u64) -> u64 {
    debug_assert!(value >> SEALED_BITS == 0);
    value | (check(value) << SEALED_BITS)
}

/// The value of a sealed word, or `None` if its check does not match.
#[inline]
pub(crate) const fn unseal(word: u64) -> Option<u64> {
    let value = word & ((1 << SEALED_BITS) - 1);
    if word >> SEALED_BITS == check(value) { Some(value) } else { None }
}

const fn check(value: u64) -> u64 {
    (value ^ (value >> 16) ^ (value >> 32) ^ SALT) & 0xffff
}

/// CRC-32C of a sequence of words, salted with the place where they stand, so that a structure copied to
/// another place is not valid there.
#[inline]
pub(crate) fn checksum(words: &[u64], place: u64) -> u64 {
    // One call per line of input: the words of an entry are too few to call for each.
    let (mut sum, mut line, mut len) = (0, [0; 64], 0);
    for word in core::iter::once(place).chain(words.iter().copied()) {
        if len == line.len() {
            sum = crc32c::crc32c_append(sum, &line);
            len = 0;
        }
        line[len..len + 8].copy_from_slice(&word.to_le_bytes());
        len += 8;
    }
    let sum = crc32c::crc32c_append(sum, &line[..len]);
    u64::from(sum)
}

/// As [`checksum`], for three words.
#[inline]
pub(crate) fn checksum_of_three([a, b, c]: [u64; 3], place: u64) -> u64 {
    u64::from(crc32c::crc32c([place, a, b, c].map(u64::to_le_bytes).as_flattened()))
}

/// What is wrong with words and their check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flip {
    /// Nothing: they match.
    None,
    /// One bit of the check: the words are right.
    InCheck,
    /// One bit of the word at this index, which was flipped back.
    InWord(usize),
    /// More than can be told.
    More,
}

/// Finds the one bit that is wrong in `words` or in `found`, their check as [`checksum`] makes it, and flips that of a word
/// back. `check` computes it.
///
/// Words and checksum make a codeword whose Hamming distance is at least four, up to 2^31 bits (Castagnoli, Braeuer and
/// Herrmann 1993): one flipped bit is told from every other damage of up to two.
pub(crate) fn undo_flip(words: &mut [u64], found: u64, check: impl Fn(&[u64]) -> u64) -> Flip {
    match (found ^ check(words)).count_ones() {
        0 => return Flip::None,
        1 => return Flip::InCheck,
        _ => {}
    }
    for at in 0..words.len() {
        for bit in 0..u64::BITS {
            words[at] ^= 1 << bit;
            if check(words) == found {
                return Flip::InWord(at);
            }
            words[at] ^= 1 << bit;
        }
    }
    Flip::More
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_of_three_words_is_that_of_the_words() {
        let words = [1, u64::MAX, 7 << 40];
        assert_eq!(checksum_of_three(words, 4096), checksum(&words, 4096));
    }

    #[test]
    fn every_single_bit_flip_of_a_sealed_word_is_detected() {
        for value in [0, 1, 0xffff, 0x1_0000, 0xdead_beef_cafe, (1 << SEALED_BITS) - 1] {
            let word = seal(value);
            assert_eq!(unseal(word), Some(value));
            for bit in 0..64 {
                assert_eq!(unseal(word ^ (1 << bit)), None, "value {value:#x}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_word_never_written_is_not_sealed() {
        assert_eq!(unseal(0), None);
    }
}
