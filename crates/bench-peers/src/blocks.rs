//! What was allocated from a rival, by the number of the slot that it belongs to. Volatile.

use std::ptr::NonNull;

use crate::Library;

/// The owner of a rival's blocks: one for each slot at most.
///
/// The caller publishes the addresses where it likes; what is freed is what this table owns, so that nothing that
/// is read back from a file is ever trusted to be a block.
#[derive(Debug)]
pub struct Blocks<'l> {
    library: &'l Library,
    owned: Vec<Option<NonNull<u8>>>,
}

impl<'l> Blocks<'l> {
    /// Room for a block in each of `slots` slots.
    #[must_use]
    pub fn new(library: &'l Library, slots: usize) -> Self {
        Self { library, owned: vec![None; slots] }
    }

    /// Allocates `size_bytes` for the empty slot `at`, and returns the address.
    ///
    /// # Panics
    ///
    /// If the slot has a block or does not exist, or there is no memory.
    #[inline]
    pub fn allocate(&mut self, at: usize, size_bytes: usize) -> u64 {
        assert!(self.owned[at].is_none(), "slot {at} has a block");
        let block = self.library.allocate(size_bytes).expect("the rival has memory");
        self.owned[at] = Some(block);
        address(block)
    }

    /// As [`allocate`](Self::allocate), with `value` in every byte.
    ///
    /// # Panics
    ///
    /// As [`allocate`](Self::allocate).
    #[inline]
    pub fn allocate_filled(&mut self, at: usize, size_bytes: usize, value: u8) -> u64 {
        let allocated = self.allocate(at, size_bytes);
        let block = self.owned[at].expect("it was allocated a moment ago");
        // SAFETY: the block has `size_bytes` bytes, and nobody else has it.
        unsafe { block.write_bytes(value, size_bytes) };
        allocated
    }

    /// Frees the block of the slot `at`, and returns the address that it had.
    ///
    /// # Panics
    ///
    /// If the slot has no block or does not exist.
    #[inline]
    pub fn free(&mut self, at: usize) -> u64 {
        let block = self.owned[at].take().expect("the slot has a block");
        // SAFETY:
        // 1. the table's blocks are of its library;
        // 2. it left the table just now, and the table hands out no pointers.
        unsafe { self.library.free(block) };
        address(block)
    }

    /// Takes the block of the slot `at` out of the table.
    ///
    /// # Panics
    ///
    /// If the slot has no block or does not exist.
    #[inline]
    pub fn give(&mut self, at: usize) -> Block<'l> {
        let place = self.owned[at].take().expect("the slot has a block");
        Block { library: self.library, place }
    }
}

/// A block that left its table.
///
/// It is freed by whoever has it last.
#[derive(Debug)]
pub struct Block<'l> {
    library: &'l Library,
    place: NonNull<u8>,
}

impl Block<'_> {
    /// The address that the block was given out with.
    #[inline]
    #[must_use]
    pub fn address(&self) -> u64 {
        address(self.place)
    }
}

impl Drop for Block<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY:
        // 1. the block came from a table, whose blocks are of its library;
        // 2. it is freed when it goes, and hands out no pointers.
        unsafe { self.library.free(self.place) }
    }
}

// SAFETY: C's `free` takes a block from any thread, and nobody else has this one.
unsafe impl Send for Block<'_> {}

// SAFETY: C's `malloc` and `free` may be called from any thread, and nobody else has the blocks.
unsafe impl Send for Blocks<'_> {}

impl Drop for Blocks<'_> {
    fn drop(&mut self) {
        for at in 0..self.owned.len() {
            if self.owned[at].is_some() {
                self.free(at);
            }
        }
    }
}

#[inline]
fn address(block: NonNull<u8>) -> u64 {
    block.addr().get() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Peer;

    /// Two slots of every rival that is installed; one always is.
    fn for_each_rival(test: impl Fn(Blocks<'_>)) {
        let loaded: Vec<Library> = Peer::ALL.iter().filter_map(|peer| peer.load().ok()).collect();
        assert!(!loaded.is_empty(), "the tests run on glibc");
        for library in &loaded {
            test(Blocks::new(library, 2));
        }
    }

    #[test]
    fn blocks_are_distinct_and_freed_one_by_one() {
        for_each_rival(|mut blocks| {
            let (first, second) = (blocks.allocate(0, 64), blocks.allocate_filled(1, 64, 7));
            assert!(first.abs_diff(second) >= 64, "{first:#x} and {second:#x} overlap");
            assert_eq!(blocks.free(0), first);
            blocks.allocate(0, 1 << 20);
            assert_eq!(blocks.free(1), second);
        });
    }

    #[test]
    fn a_block_that_was_given_away_is_freed_by_another_thread() {
        for_each_rival(|mut blocks| {
            let first = blocks.allocate(0, 64);
            let given = blocks.give(0);
            assert_eq!(given.address(), first);
            blocks.allocate(0, 64);
            std::thread::scope(|scope| {
                scope.spawn(move || drop(given));
            });
        });
    }

    #[test]
    #[should_panic(expected = "the slot has a block")]
    fn nothing_is_given_away_and_freed() {
        for_each_rival(|mut blocks| {
            blocks.allocate(0, 64);
            drop(blocks.give(0));
            blocks.free(0);
        });
    }

    #[test]
    #[should_panic(expected = "the slot has a block")]
    fn nothing_is_freed_twice() {
        for_each_rival(|mut blocks| {
            blocks.allocate(0, 64);
            blocks.free(0);
            blocks.free(0);
        });
    }

    #[test]
    #[should_panic(expected = "slot 1 has a block")]
    fn a_full_slot_is_not_overwritten() {
        for_each_rival(|mut blocks| {
            blocks.allocate(1, 64);
            blocks.allocate(1, 64);
        });
    }
}
