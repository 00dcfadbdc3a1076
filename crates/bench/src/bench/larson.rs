//! Larson's benchmark of a server: each thread replaces random blocks of an array, and hands the array to another thread.
//!
//! In the original a thread ends and the next one takes over. Here the threads go on and the arrays go round, so that
//! what is measured is not the making of threads; blocks are freed by other threads than allocated them all the same. One
//! thread keeps its array.

use super::{
    benchmark::{Bench, base_bytes, names},
    pairs::large_bytes,
};
use crate::{
    alloc::{Slots, Spacing, Worker},
    cell::{Outcome, Scale},
    context::Context,
    measure::{Effort, Empty, measure},
    relay::Workload,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Larson;

/// Small blocks of an array, and how many are replaced before it is handed on.
const SMALL: (usize, usize) = (1_000, 10_000);
/// The same of large blocks.
const LARGE: (usize, usize) = (256, 1_000);
/// The same of both where no figure is wanted.
const QUICK: (usize, usize) = (100, 500);
/// Hands that an array goes through in a pass.
const GENERATIONS: usize = 4;
/// Timed passes of a round.
const PASSES: [usize; 3] = [1, 2, 5];

impl Bench for Larson {
    fn name(&self) -> &'static str {
        "larson"
    }

    fn about(&self) -> &'static str {
        "threads replace random blocks of 64 to 256 bytes, or 32 to 512 KiB, in arrays that they hand to each other"
    }

    fn variants(&self, _: Scale) -> Vec<String> {
        names(&["small", "large"])
    }

    fn need_bytes(&self, variant: &str, threads: usize) -> u64 {
        // 68 MiB of each thread, as much again of freed blocks that keep their memory for a while, and gaps between them.
        let large_bytes = if variant == "large" { threads as u64 * (224 << 20) } else { 0 };
        base_bytes(threads) + large_bytes
    }

    fn run(&self, context: &Context<'_>) -> Outcome {
        let cell = context.cell;
        let (sizes, (blocks, replaces)) = match &*cell.variant {
            "large" => (Sizes::Large, cell.scale.choose(QUICK, LARGE, LARGE)),
            _ => (Sizes::Small, cell.scale.choose(QUICK, SMALL, SMALL)),
        };
        let workload = Replaces { sizes, blocks, replaces };
        measure(context, &workload, Effort::of(cell.scale, PASSES), &Empty)
    }
}

/// Sizes of blocks.
#[derive(Debug, Clone, Copy)]
enum Sizes {
    /// 64 to 256 bytes.
    Small,
    /// 32 to 512 KiB.
    Large,
}

impl Sizes {
    #[inline]
    fn draw(self, rng: &mut fastrand::Rng) -> usize {
        match self {
            Self::Small => rng.usize(64..=256),
            Self::Large => large_bytes(rng),
        }
    }
}

/// Random blocks of a full array are replaced.
struct Replaces {
    sizes: Sizes,
    blocks: usize,
    replaces: usize,
}

/// What is drawn from, and whether the array was filled.
struct Draws {
    rng: fastrand::Rng,
    is_full: bool,
}

impl Workload for Replaces {
    type State = Draws;

    fn slots(&self) -> Slots {
        // An array of pointers, as a program has it.
        Slots { count: self.blocks, spacing: Spacing::Packed }
    }

    fn state(&self, _: usize, rng: fastrand::Rng) -> Draws {
        Draws { rng, is_full: false }
    }

    type Shared<T: Send> = ();

    fn shared<T: Send>(&self, _: usize) {}

    fn generations(&self) -> usize {
        GENERATIONS
    }

    fn pass<W: Worker>(&self, worker: &mut W, state: &mut Draws, (): &()) -> u64 {
        let Draws { rng, is_full } = state;
        let mut operations = 0;
        // By the pass that warms up.
        if !*is_full {
            (0..self.blocks).for_each(|at| worker.alloc(at, self.sizes.draw(rng)));
            *is_full = true;
            operations += self.blocks;
        }
        for _ in 0..self.replaces {
            let at = rng.usize(0..self.blocks);
            worker.free(at);
            worker.alloc(at, self.sizes.draw(rng));
        }
        (operations + 2 * self.replaces) as u64
    }
}
