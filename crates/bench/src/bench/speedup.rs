//! What more threads bring: wall-clock speed-up over one thread, beside that of a bare ring.
//!
//! The *bare ring* is what no allocator that records its operations can do without: each thread stores a record of 32
//! bytes, flushes its line and fences, over 64 lines of its own in the same file. One thread and many are measured in
//! turn, in one process. The machine has to be idle: what others take from a processor is missing in the wall clock.

use super::{
    benchmark::{Bench, names},
    pairs::{Contents, Pairs, Sizes},
};
use crate::{
    alloc::{Slots, Spacing, Subject},
    cell::{Outcome, Scale},
    context::Context,
    measure::{Effort, measure_speedup},
};

/// See the module.
#[derive(Debug)]
pub(super) struct SpeedupOfThreads;

/// Small blocks that a thread has at once.
const SMALL_LIVE: usize = 2_000;
/// Large blocks that a thread has at once.
const LARGE_LIVE: usize = 16;
/// Bytes of a small block.
const SMALL_BYTES: usize = 64;
/// Blocks that a pass allocates, and frees.
const BLOCKS: usize = 50_000;
/// The same, where no figure is wanted.
const BLOCKS_QUICK: usize = 2_000;
/// Timed passes of a round.
const PASSES: [usize; 3] = [1, 2, 5];

impl Bench for SpeedupOfThreads {
    fn name(&self) -> &'static str {
        "speedup"
    }

    fn about(&self) -> &'static str {
        "throughput of many threads over that of one, small and large blocks, beside that of a bare ring"
    }

    fn variants(&self, _: Scale) -> Vec<String> {
        names(&["small", "packed", "large"])
    }

    fn fits(&self, subject: Subject, threads: usize) -> bool {
        threads > 1 && subject != Subject::Bare
    }

    fn run(&self, context: &Context<'_>) -> Outcome {
        let cell = context.cell;
        let (live, sizes) = match &*cell.variant {
            "large" => (LARGE_LIVE, Sizes::Large),
            _ => (SMALL_LIVE, Sizes::Fixed(SMALL_BYTES)),
        };
        let spacing = if cell.variant == "packed" { Spacing::Packed } else { Spacing::OwnLine };
        let blocks = cell.scale.choose(BLOCKS_QUICK, BLOCKS, BLOCKS);
        let workload = Pairs {
            slots: Slots { count: live, spacing },
            repeats: blocks.div_ceil(live),
            sizes,
            contents: Contents::None,
        };
        measure_speedup(context, &workload, Effort::of(cell.scale, PASSES))
    }
}
