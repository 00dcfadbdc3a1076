//! The check over a slab's live bits in a heap that was closed.
//!
//! A live bit changes in place, one at a time, so while a heap is open nothing tells a damaged bit from a right one; and one
//! that reads as clear gives its block away, under the slot that owns it. When a heap is closed its bits stand still: the
//! close writes a checksum of each bitmap, and the next open compares. It counts only while the clean flag says that the
//! heap is closed, which no longer holds when the first bit changes.
//! One flipped bit is told from every other damage, and can be flipped back.

use pmalloc_persist::{Medium, Word};

use super::{
    descriptor::{BITMAP_WORDS_MAX, Descriptor},
    inventory::Inventory,
};
use crate::{
    error::Result,
    layout::sealed::{Flip, undo_flip},
};

/// What is wrong with live bits and their checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Nothing: they match.
    Nothing,
    /// One bit was, in the bitmap or in the checksum, and is right again.
    OneBit,
    /// More than can be told.
    More,
}

impl Descriptor {
    /// Whether the live bits are those that the last close found.
    pub(crate) fn bits_are_those_of_the_close<M: Medium>(&self, m: &M) -> Result<bool> {
        Ok(m.load(self.bits_check(m)?) == self.bits_check_now(m)?)
    }

    /// Writes the check over the live bits of a heap that is being closed, and flushes it, without fencing.
    ///
    /// It is flushed also where it was there already: a close that died with its process may have left it in the cache.
    pub(crate) fn seal_bits<M: Medium>(&self, m: &M) -> Result<()> {
        let check = self.bits_check(m)?;
        // CRASH: it counts only when the heap is closed, and the caller fences before it says so.
        m.store(check, self.bits_check_now(m)?);
        m.flush_of(check);
        Ok(())
    }

    /// Flips the one bit back that is wrong, if it is one; flushes it without fencing.
    ///
    /// # Crash consistency
    ///
    /// None: nobody may open the heap before this is done and durable.
    pub(crate) fn mend_bit<M: Medium>(&self, m: &M) -> Result<Wrong> {
        let bits = self.bitmap(m)?;
        let mut words = [0; BITMAP_WORDS_MAX];
        let words = &mut words[..bits.len()];
        words.iter_mut().zip(bits).for_each(|(word, bits)| *word = m.load(bits));
        let found = m.load(self.bits_check(m)?);
        match undo_flip(words, found, |words| self.bits_check_of(words)) {
            Flip::None => return Ok(Wrong::Nothing),
            Flip::InCheck => self.seal_bits(m)?,
            Flip::InWord(at) => Self::set_word(m, &bits[at], words[at]),
            Flip::More => return Ok(Wrong::More),
        }
        Ok(Wrong::OneBit)
    }

    /// Marks every block as live, so that none is given away; flushes that, without fencing.
    ///
    /// # Crash consistency
    ///
    /// As [`mend_bit`](Self::mend_bit).
    pub(crate) fn take_all_as_live<M: Medium>(&self, m: &M) -> Result<()> {
        for (place, blocks) in self.bitmap(m)?.iter().zip(Inventory::empty(*self).free_words()) {
            Self::set_word(m, place, *blocks);
        }
        Ok(())
    }

    fn set_word<M: Medium>(m: &M, place: &Word, value: u64) {
        // CRASH: nobody opens the heap yet.
        m.store(place, value);
        m.flush_of(place);
    }
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use pmalloc_persist::{Anon, Span};

    use super::*;
    use crate::{
        layout::geometry::{Page, PageRange},
        size_class::SizeClass,
        slab::Kind,
        tests::small_geometry,
    };

    /// A slab of four pages with every third block live, and its check.
    fn slab() -> (Anon, Descriptor) {
        let geometry = small_geometry();
        let m = Anon::new(geometry.heap_bytes());
        m.back(Span::new(0, geometry.data_span().start)).expect("room");
        let kind = Kind { class: SizeClass::from_block_bytes(64).expect("a class"), tag: 0 };
        let place = (&geometry.data_map(), geometry.stripes);
        let slab = Descriptor::new(place, PageRange::new(Page(4), 4), kind);
        slab.create(&m).expect("inside");
        for block in (0..slab.blocks()).step_by(3) {
            slab.live_bit(block).set(&m);
        }
        slab.seal_bits(&m).expect("inside");
        (m, slab)
    }

    fn words(m: &Anon, slab: &Descriptor) -> Vec<u64> {
        let bits = slab.bitmap(m).expect("inside").iter();
        bits.chain([slab.bits_check(m).expect("inside")]).map(|word| m.load(word)).collect()
    }

    fn flip(m: &Anon, slab: &Descriptor, bit: usize) {
        let bits = slab.bitmap(m).expect("inside");
        let word = bits.get(bit / 64).unwrap_or_else(|| slab.bits_check(m).expect("inside"));
        m.store(word, m.load(word) ^ 1 << (bit % 64));
    }

    #[test]
    fn every_single_flip_is_noticed_and_undone() {
        let (m, slab) = slab();
        let before = words(&m, &slab);
        assert_eq!(slab.mend_bit(&m).expect("inside"), Wrong::Nothing);
        for bit in 0..before.len() * 64 {
            flip(&m, &slab, bit);
            assert!(!slab.bits_are_those_of_the_close(&m).expect("inside"), "bit {bit}");
            assert_eq!(slab.mend_bit(&m).expect("inside"), Wrong::OneBit, "bit {bit}");
            assert_eq!(words(&m, &slab), before, "bit {bit}");
        }
    }

    #[test]
    fn two_flips_are_never_taken_for_one_and_give_no_block_away() {
        let (m, slab) = slab();
        let before = words(&m, &slab);
        let bits = before.len() * 64;
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..500 {
            let (one, other) = (random.usize(..bits), random.usize(..bits));
            if one == other {
                continue;
            }
            flip(&m, &slab, one);
            flip(&m, &slab, other);
            assert_eq!(slab.mend_bit(&m).expect("inside"), Wrong::More, "{one}, {other}");
            slab.take_all_as_live(&m).expect("inside");
            assert_eq!(slab.live_blocks(&m), u64::from(slab.blocks()));
            assert_eq!(Inventory::empty(slab).free_count(), slab.blocks());
            for (word, value) in slab.bitmap(&m).expect("inside").iter().zip(&before) {
                m.store(word, *value);
            }
            slab.seal_bits(&m).expect("inside");
        }
    }
}
