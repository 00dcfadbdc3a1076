//! Small operations with few blocks live, so that caches hold all metadata: what an operation costs at its best.

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
pub(super) struct Small;

/// Live blocks of a thread.
const LIVE: usize = 10_000;
/// The same, where no figure is wanted.
const LIVE_QUICK: usize = 1_000;
/// Bytes of a block.
const BLOCK_BYTES: usize = 64;
/// Timed passes of a round.
const PASSES: [usize; 3] = [1, 5, 10];

impl Bench for Small {
    fn name(&self) -> &'static str {
        "small"
    }

    fn about(&self) -> &'static str {
        "10 000 blocks of 64 bytes for each thread, all allocated and then all freed"
    }

    fn variants(&self, _: Scale) -> Vec<String> {
        names(&["own-line", "packed", "contents"])
    }

    fn run(&self, context: &Context<'_>) -> Outcome {
        let cell = context.cell;
        let (spacing, contents) = match &*cell.variant {
            "packed" => (Spacing::Packed, Contents::None),
            "contents" => (Spacing::OwnLine, Contents::Filled),
            _ => (Spacing::OwnLine, Contents::None),
        };
        let workload = Pairs {
            slots: Slots { count: cell.scale.choose(LIVE_QUICK, LIVE, LIVE), spacing },
            repeats: 1,
            sizes: Sizes::Fixed(BLOCK_BYTES),
            contents,
        };
        measure(context, &workload, Effort::of(cell.scale, PASSES), &Empty)
    }
}
