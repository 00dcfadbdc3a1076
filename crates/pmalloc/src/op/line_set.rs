//! A set of lines: what a round has flushed, so that it flushes each line once.

/// Places of a set at first.
const PLACES_MIN: usize = 1024;

/// Bits of a place for the line number: a heap has at most 2^38 lines.
const LINE_BITS: u32 = 40;

/// Line numbers, by open addressing; emptied between rounds, and as large as the largest round needs.
#[derive(Debug, Default)]
pub(super) struct LineSet {
    /// A line number, and above it the round that put it there: what another round has left counts as empty. At most half of
    /// them are in use.
    places: Vec<u64>,
    /// The present round; no place is of round zero.
    round: u64,
    len: usize,
}

impl LineSet {
    /// Adds a line, and says whether it was not there.
    #[inline]
    pub(super) fn insert(&mut self, line: u64) -> bool {
        if self.len * 2 >= self.places.len() {
            self.grow();
        }
        let mask = self.places.len() - 1;
        let wanted = self.round << LINE_BITS | line;
        let mut at = hash(line) & mask;
        loop {
            let found = self.places[at];
            if found == wanted {
                return false;
            }
            if found >> LINE_BITS != self.round {
                self.places[at] = wanted;
                self.len += 1;
                return true;
            }
            at = (at + 1) & mask;
        }
    }

    /// Empties the set.
    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.round += 1;
        if self.round >> (u64::BITS - LINE_BITS) != 0 {
            self.places.fill(0);
            self.round = 1;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let old = std::mem::take(&mut self.places);
        let round = self.round;
        self.places = vec![0; (old.len() * 2).max(PLACES_MIN)];
        (self.round, self.len) = (round.max(1), 0);
        for place in old.into_iter().filter(|place| round != 0 && place >> LINE_BITS == round) {
            self.insert(place & ((1 << LINE_BITS) - 1));
        }
    }
}

/// Multiplicative hashing (Knuth, volume 3, section 6.4), of which the high bits are the good ones.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "32 bits")]
fn hash(line: u64) -> usize {
    (line.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_line_is_new_once_in_each_round() {
        let mut set = LineSet::default();
        for round in 0..3 {
            let mut known = HashSet::new();
            let mut lines = (0..5000_u64).map(|nth| nth * nth % 3001);
            assert!(lines.all(|line| set.insert(line) == known.insert(line)), "{round}");
            set.clear();
        }
        assert!(set.insert(0) && !set.insert(0));
        // Rounds start again.
        set.round = (1 << (u64::BITS - LINE_BITS)) - 1;
        set.clear();
        assert_eq!(set.round, 1);
        assert!(set.insert(0) && !set.insert(0));
    }
}
