//! Threadtest, of the Hoard allocator's authors, with the parameters of the paper: each thread allocates its share of
//! 100 000 blocks of 64 bytes, then frees them all, again and again.

use super::{
    benchmark::{Bench, names},
    pairs::{Contents, Pairs, Sizes},
};
use crate::{
    alloc::{Slots, Spacing},
    cell::{Outcome, Scale},
    context::Context,
    measure::{Effort, Empty, measure},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Threadtest;

/// Blocks of all threads together.
const BLOCKS: usize = 100_000;
/// The same, where no figure is wanted.
const BLOCKS_QUICK: usize = 4_000;
/// Bytes of a block.
const BLOCK_BYTES: usize = 64;
/// Timed passes of a round.
const PASSES: [usize; 3] = [1, 2, 5];

impl Bench for Threadtest {
    fn name(&self) -> &'static str {
        "threadtest"
    }

    fn about(&self) -> &'static str {
        "100 000 blocks of 64 bytes over the number of threads, all allocated and then all freed"
    }

    fn variants(&self, _: Scale) -> Vec<String> {
        names(&["packed", "own-line"])
    }

    fn run(&self, context: &Context<'_>) -> Outcome {
        let cell = context.cell;
        let blocks = cell.scale.choose(BLOCKS_QUICK, BLOCKS, BLOCKS);
        let spacing = if cell.variant == "packed" { Spacing::Packed } else { Spacing::OwnLine };
        let workload = Pairs {
            slots: Slots { count: blocks.div_ceil(cell.threads), spacing },
            repeats: 1,
            sizes: Sizes::Fixed(BLOCK_BYTES),
            contents: Contents::None,
        };
        measure(context, &workload, Effort::of(cell.scale, PASSES), &Empty)
    }
}
