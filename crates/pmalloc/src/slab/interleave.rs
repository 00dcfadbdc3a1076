//! Which bit of a slab's bitmap belongs to which block.
//!
//! Consecutive blocks have their bits in consecutive *stripes*, a line each, so that a thread that allocates
//! block after block does not flush the same line again at once (mechanism R1). With `S` stripes, a group of
//! `S` lines holds `S * 512` blocks:
//!
//! ```text
//! line(b) = b / (S * 512) * S + b mod S        bit(b) = b mod (S * 512) / S
//! ```

use pmalloc_persist::LINE_BYTES;

use crate::{layout::geometry::STRIPES_MAX, size_class::SLAB_PAGES_MAX};

/// Bits of a bitmap line.
#[allow(clippy::cast_possible_truncation, reason = "a line is 64 bytes")]
pub(crate) const LINE_BITS: u32 = LINE_BYTES as u32 * 8;

/// The largest divisor of a number of stripes, the first index, that is at most the second index.
const FITTING: [[u8; SLAB_PAGES_MAX as usize + 1]; STRIPES_MAX as usize + 1] = {
    let mut table = [[1; SLAB_PAGES_MAX as usize + 1]; STRIPES_MAX as usize + 1];
    let mut stripes = 1;
    while stripes < table.len() {
        let mut lines = 1;
        while lines < table[stripes].len() {
            let fits = stripes.is_multiple_of(lines);
            #[allow(clippy::cast_possible_truncation, reason = "at most 15")]
            let best = if fits { lines as u8 } else { table[stripes][lines - 1] };
            table[stripes][lines] = best;
            lines += 1;
        }
        stripes += 1;
    }
    table
};

/// A bit of a bitmap, counted over all its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BitIndex(pub(crate) u32);

/// The map between the blocks of one slab and the bits of its bitmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interleave {
    stripes: u8,
}

impl Interleave {
    /// The map of a slab of `slab_pages` pages in a heap with `stripes` stripes.
    ///
    /// A slab has a descriptor line per page, one of them its header: a small slab has fewer stripes. Their number
    /// divides that of the heap, so that two blocks in one stripe of a large slab are in one stripe of every slab: the
    /// banks of the thread caches rely on it.
    #[inline]
    pub(crate) fn new(stripes: u32, slab_pages: u32) -> Self {
        assert!(slab_pages >= 2, "a slab has a header line and a bitmap line");
        if stripes < slab_pages {
            #[allow(clippy::cast_possible_truncation, reason = "fewer than a slab's pages")]
            return Self { stripes: stripes as u8 };
        }
        Self { stripes: FITTING[stripes as usize][slab_pages as usize - 1] }
    }

    /// The maps of slabs of every size, by their pages.
    pub(crate) fn all(stripes: u32) -> [Self; SLAB_PAGES_MAX as usize + 1] {
        // No slab is smaller than two pages.
        std::array::from_fn(|pages| Self::new(stripes, u32::try_from(pages.max(2)).expect("few")))
    }

    /// Stripes that a slab of this map has.
    #[inline]
    pub(crate) fn stripes(self) -> u32 {
        u32::from(self.stripes)
    }

    /// Lines that the bits of `blocks` blocks occupy.
    pub(crate) fn lines(self, blocks: u32) -> u32 {
        blocks.div_ceil(self.stripes() * LINE_BITS) * self.stripes()
    }

    /// The bit of `block`.
    #[inline(always)]
    pub(crate) fn bit_of(self, block: u32) -> BitIndex {
        let group_blocks = self.stripes() * LINE_BITS;
        // Nearly every slab has one group: a comparison is cheaper than two divisions.
        let (group, within) = if block < group_blocks {
            (0, block)
        } else {
            (block / group_blocks, block % group_blocks)
        };
        let line = group * self.stripes() + within % self.stripes();
        BitIndex(line * LINE_BITS + within / self.stripes())
    }

    /// The block of `bit`.
    pub(crate) fn block_of(self, bit: BitIndex) -> u32 {
        let (line, within) = (bit.0 / LINE_BITS, bit.0 % LINE_BITS);
        let (group, stripe) = (line / self.stripes(), line % self.stripes());
        (group * LINE_BITS + within) * self.stripes() + stripe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slab_and_stripe_count_maps_blocks_to_bits_one_to_one() {
        for slab_pages in 2..=16 {
            for stripes in 1..=15 {
                let map = Interleave::new(stripes, slab_pages);
                let blocks = slab_pages * 256;
                assert!(map.lines(blocks) < slab_pages, "{slab_pages} pages, {stripes} stripes");
                let mut seen = vec![false; (slab_pages * LINE_BITS) as usize];
                for block in 0..blocks {
                    let bit = map.bit_of(block);
                    assert!(bit.0 < map.lines(blocks) * LINE_BITS);
                    assert!(!std::mem::replace(&mut seen[bit.0 as usize], true));
                    assert_eq!(map.block_of(bit), block);
                }
            }
        }
    }

    #[test]
    fn consecutive_blocks_have_their_bits_in_different_lines() {
        let map = Interleave::new(6, 16);
        for first in 0..4000 {
            let lines: std::collections::HashSet<u32> =
                (first..first + 6).map(|block| map.bit_of(block).0 / LINE_BITS).collect();
            assert!(lines.len() >= 5, "at block {first}: a group boundary may repeat one line");
        }
    }
}
