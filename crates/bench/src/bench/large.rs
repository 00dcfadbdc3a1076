//! Large operations: blocks of 32 to 512 KiB, which are extents with an entry in the bookkeeping log.

use super::{
    benchmark::{Bench, base_bytes, names},
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
pub(super) struct Large;

/// Live blocks of a thread.
const LIVE: usize = 64;
/// How often a pass allocates and frees them.
const REPEATS: usize = 100;
/// The same, where no figure is wanted.
const REPEATS_QUICK: usize = 5;
/// Timed passes of a round.
const PASSES: [usize; 3] = [1, 5, 10];

impl Bench for Large {
    fn name(&self) -> &'static str {
        "large"
    }

    fn about(&self) -> &'static str {
        "64 blocks of 32 to 512 KiB for each thread, all allocated and then all freed, and never touched"
    }

    fn variants(&self, _: Scale) -> Vec<String> {
        names(&["own-line"])
    }

    fn need_bytes(&self, _: &str, threads: usize) -> u64 {
        // 17 MiB of each thread, as much again of freed blocks that keep their memory for a while, and gaps between them.
        base_bytes(threads) + threads as u64 * (64 << 20)
    }

    fn run(&self, context: &Context<'_>) -> Outcome {
        let cell = context.cell;
        let workload = Pairs {
            slots: Slots { count: LIVE, spacing: Spacing::OwnLine },
            repeats: cell.scale.choose(REPEATS_QUICK, REPEATS, REPEATS),
            sizes: Sizes::Large,
            contents: Contents::None,
        };
        measure(context, &workload, Effort::of(cell.scale, PASSES), &Empty)
    }
}
