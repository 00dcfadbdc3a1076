//! The volatile side of a slab: which of its blocks are free and in no cache.

use pmalloc_persist::Medium;

use super::{
    descriptor::Descriptor,
    interleave::{BitIndex, LINE_BITS},
};
use crate::{
    error::{Error, Result},
    layout::state::Clean,
};

/// The free blocks of one slab, a bit each, in the order of the bitmap on media.
#[derive(Debug)]
pub(crate) struct Inventory {
    descriptor: Descriptor,
    /// Volatile: set = free and in no cache.
    free: Box<[u64]>,
    free_count: u32,
}

const LINE_WORDS: usize = (LINE_BITS / 64) as usize;

impl Inventory {
    /// The inventory of a new slab: every block is free.
    pub(crate) fn empty(descriptor: Descriptor) -> Self {
        let blocks = descriptor.blocks();
        let interleave = descriptor.interleave();
        let lines = interleave.lines(blocks) as usize;
        let mut free = vec![0_u64; lines * LINE_WORDS].into_boxed_slice();
        for block in 0..blocks {
            let bit = interleave.bit_of(block).0;
            free[bit as usize / 64] |= 1 << (bit % 64);
        }
        Self { descriptor, free, free_count: blocks }
    }

    /// The inventory of a slab as its bitmap says, in a heap that was left `clean` or not.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupted`] if a bit is set that belongs to no block, or if one changed since the heap was closed.
    pub(crate) fn read<M: Medium>(m: &M, descriptor: Descriptor, clean: Clean) -> Result<Self> {
        if clean == Clean::Closed && !descriptor.bits_are_those_of_the_close(m)? {
            let offset = descriptor.bitmap_offset();
            return Err(Error::corrupted(offset, "a bitmap does not match its checksum"));
        }
        let mut inventory = Self::empty(descriptor);
        for (free, word) in inventory.free.iter_mut().zip(descriptor.bitmap(m)?) {
            let live = m.load(word);
            if live & !*free != 0 {
                let offset = m.region().span_of(word).start;
                return Err(Error::corrupted(offset, "a bitmap marks a block that does not exist"));
            }
            *free &= !live;
        }
        inventory.free_count = inventory.free.iter().map(|word| word.count_ones()).sum();
        Ok(inventory)
    }

    /// Clears bits that belong to no block, durably; says whether there were any.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupted`] if the bitmap leaves the heap.
    pub(crate) fn clear_strays<M: Medium>(m: &M, descriptor: Descriptor) -> Result<bool> {
        let mut found = false;
        for (blocks, word) in Self::empty(descriptor).free.iter().zip(descriptor.bitmap(m)?) {
            if m.load(word) & !blocks != 0 {
                found = true;
                // CRASH: the bits mean nothing, however many of them are gone.
                m.fetch_and(word, *blocks);
                m.flush_of(word);
            }
        }
        m.fence();
        Ok(found)
    }

    /// The bits of the blocks that are here, in the order of the bitmap.
    pub(super) fn free_words(&self) -> &[u64] {
        &self.free
    }

    /// The slab's descriptor.
    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Blocks that are free and in no cache.
    pub(crate) fn free_count(&self) -> u32 {
        self.free_count
    }

    /// Whether every block is here.
    pub(crate) fn is_whole(&self) -> bool {
        self.free_count == self.descriptor.blocks()
    }

    /// Whether a block that is free here is live on media.
    pub(crate) fn contradicts<M: Medium>(&self, m: &M) -> bool {
        let words = self.descriptor.bitmap(m).expect("a descriptor lies inside its heap");
        self.free.iter().zip(words).any(|(free, word)| free & m.load(word) != 0)
    }

    /// Volatile memory of this inventory, in bytes.
    pub(crate) fn dram_bytes(&self) -> u64 {
        (size_of::<Self>() + size_of_val(&*self.free)) as u64
    }

    /// Takes up to `want` blocks out, in turn from each line of the bitmap, and hands them to `take`.
    pub(crate) fn take(&mut self, want: u32, mut take: impl FnMut(u32)) -> u32 {
        let lines = self.free.len() / LINE_WORDS;
        let mut taken = 0;
        let mut line = 0;
        while taken < want && self.free_count > 0 {
            if let Some(bit) = self.pop_from_line(line) {
                take(self.descriptor.interleave().block_of(bit));
                taken += 1;
            }
            line = if line + 1 == lines { 0 } else { line + 1 };
        }
        taken
    }

    #[inline(always)]
    fn pop_from_line(&mut self, line: usize) -> Option<BitIndex> {
        let first = line * LINE_WORDS;
        let words: &mut [u64; LINE_WORDS] =
            self.free[first..].first_chunk_mut().expect("a line is whole");
        let at = words.iter().position(|word| *word != 0)?;
        let bit = words[at].trailing_zeros();
        words[at] &= words[at] - 1;
        self.free_count -= 1;
        #[allow(clippy::cast_possible_truncation, reason = "a bitmap has few words")]
        let word = (first + at) as u32;
        Some(BitIndex(word * 64 + bit))
    }

    /// Takes `block` back.
    ///
    /// # Panics
    ///
    /// If it is here already: the same block was in two hands.
    pub(crate) fn put(&mut self, block: u32) {
        let bit = self.descriptor.interleave().bit_of(block).0;
        let word = &mut self.free[bit as usize / 64];
        assert!(*word & 1 << (bit % 64) == 0, "a block came back twice");
        *word |= 1 << (bit % 64);
        self.free_count += 1;
    }
}
