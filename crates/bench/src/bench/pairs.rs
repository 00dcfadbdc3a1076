//! The workload that most benchmarks share: allocate so many blocks, then free them all. Volatile.

use crate::{
    alloc::{Slots, Worker},
    relay::Workload,
};

/// Sizes of blocks, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sizes {
    /// All of one size.
    Fixed(usize),
    /// Uniform between 32 and 512 KiB.
    Large,
}

/// Whether blocks are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// They are handed out as they were.
    None,
    /// Every byte of them.
    Filled,
}

/// Allocations into all slots, and then frees of all of them, in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pairs {
    /// A thread's slots; so many blocks are live between the two halves.
    pub(super) slots: Slots,
    /// How often a pass does it.
    pub(super) repeats: usize,
    /// Sizes of the blocks.
    pub(super) sizes: Sizes,
    /// Whether they are written.
    pub(super) contents: Contents,
}

impl Sizes {
    fn draw(self, rng: &mut fastrand::Rng) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Large => large_bytes(rng),
        }
    }
}

/// Bytes of a large block: a whole number of KiB between 32 and 512.
pub(super) fn large_bytes(rng: &mut fastrand::Rng) -> usize {
    rng.usize(32..=512) << 10
}

impl Workload for Pairs {
    /// The sizes of the blocks, drawn before anything is timed.
    type State = Vec<usize>;

    fn slots(&self) -> Slots {
        self.slots
    }

    fn state(&self, _: usize, mut rng: fastrand::Rng) -> Vec<usize> {
        (0..self.slots.count).map(|_| self.sizes.draw(&mut rng)).collect()
    }

    type Shared<T: Send> = ();

    fn shared<T: Send>(&self, _: usize) {}

    fn pass<W: Worker>(&self, worker: &mut W, sizes: &mut Vec<usize>, (): &()) -> u64 {
        for _ in 0..self.repeats {
            for (at, &bytes) in sizes.iter().enumerate() {
                match self.contents {
                    Contents::None => worker.alloc(at, bytes),
                    Contents::Filled => worker.alloc_filled(at, bytes),
                }
            }
            (0..sizes.len()).for_each(|at| worker.free(at));
        }
        (self.repeats * sizes.len() * 2) as u64
    }
}
