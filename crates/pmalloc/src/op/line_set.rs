//! A set of lines: what a round has flushed, so that it flushes each line once.

/// Places of a set at first.
const PLACES_MIN: usize = 1024;

/// Line numbers, by open addressing; emptied between rounds, and as large as the largest round needs.
#[derive(Debug, Default)]
pub(super) struct LineSet {
    /// Line number plus one, or zero. At most half of them are in use.
    places: Vec<u64>,
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
        let mut at = hash(line) & mask;
        loop {
            match self.places[at] {
                0 => {
                    self.places[at] = line + 1;
                    self.len += 1;
                    return true;
                }
                found if found == line + 1 => return false,
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// Empties the set.
    pub(super) fn clear(&mut self) {
        self.places.fill(0);
        self.len = 0;
    }

    #[cold]
    fn grow(&mut self) {
        let larger = vec![0; (self.places.len() * 2).max(PLACES_MIN)];
        let old = std::mem::replace(&mut self.places, larger);
        self.len = 0;
        old.into_iter().filter(|place| *place != 0).for_each(|place| {
            self.insert(place - 1);
        });
    }
}

/// Multiplicative hashing (Knuth, volume 3, section 6.4), of which the high bits are the good ones.
#[inline]
fn hash(line: u64) -> usize {
    (line.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_line_is_new_once() {
        let mut set = LineSet::default();
        for _ in 0..2 {
            let mut known = HashSet::new();
            let lines = (0..5000_u64).map(|nth| nth * nth % 3001);
            assert!(lines.into_iter().all(|line| set.insert(line) == known.insert(line)));
            set.clear();
        }
        assert!(set.insert(0) && !set.insert(0));
    }
}
