//! Shbench: blocks of many sizes, most of them small, of which most live short and some long.

use super::benchmark::{Bench, names};
use crate::{
    alloc::{Slots, Spacing, Worker},
    cell::{Outcome, Scale},
    context::Context,
    measure::{Effort, Empty, measure},
    relay::Workload,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Shbench;

/// Blocks that a pass allocates.
const BLOCKS: usize = 100_000;
/// The same, where no figure is wanted.
const BLOCKS_QUICK: usize = 10_000;
/// Least bytes of a block.
const LEAST_BYTES: usize = 64;
/// How many more the largest one has.
const MORE_BYTES: usize = 936;
/// How long blocks live: until so many others of their kind are allocated. Of ten blocks so many are of each kind.
const LIVES: [(usize, usize); 3] = [(8, 6), (512, 3), (4096, 1)];
/// Timed passes of a round.
const PASSES: [usize; 3] = [1, 1, 3];

impl Bench for Shbench {
    fn name(&self) -> &'static str {
        "shbench"
    }

    fn about(&self) -> &'static str {
        "blocks of 64 to 1 000 bytes, most of them small, that live for 8, 512 or 4 096 others"
    }

    fn variants(&self, scale: Scale) -> Vec<String> {
        names(scale.choose(&["packed"][..], &["packed", "own-line"], &["packed", "own-line"]))
    }

    fn run(&self, context: &Context<'_>) -> Outcome {
        let cell = context.cell;
        let spacing = if cell.variant == "packed" { Spacing::Packed } else { Spacing::OwnLine };
        let workload = Mixed { spacing, blocks: cell.scale.choose(BLOCKS_QUICK, BLOCKS, BLOCKS) };
        measure(context, &workload, Effort::of(cell.scale, PASSES), &Empty)
    }
}

/// Blocks that are allocated into the places of three rings, one for each length of a life, and freed when their place
/// comes again.
struct Mixed {
    spacing: Spacing,
    blocks: usize,
}

/// What is allocated next: where, and how much.
#[derive(Debug, Clone, Copy)]
struct Step {
    slot: usize,
    size_bytes: usize,
}

/// The steps of a pass, drawn before anything is timed, and which slots are full.
struct Schedule {
    steps: Vec<Step>,
    is_full: Vec<bool>,
}

impl Mixed {
    fn places() -> usize {
        LIVES.iter().map(|(places, _)| places).sum()
    }
}

/// A number of a block's bytes: half of them are below 181, as the cube of a random number is small.
fn size_bytes(rng: &mut fastrand::Rng) -> usize {
    let cube = rng.f64().powi(3);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 936")]
    #[expect(clippy::cast_precision_loss, reason = "936")]
    let more = (cube * MORE_BYTES as f64) as usize;
    LEAST_BYTES + more
}

/// The ring of the next block.
fn ring(rng: &mut fastrand::Rng) -> usize {
    let mut tenth = rng.usize(0..10);
    let is_it = |&(_, tenths): &(usize, usize)| {
        let found = tenth < tenths;
        tenth = tenth.wrapping_sub(tenths);
        found
    };
    LIVES.iter().position(is_it).expect("the tenths are ten")
}

impl Workload for Mixed {
    type State = Schedule;

    fn slots(&self) -> Slots {
        Slots { count: Self::places(), spacing: self.spacing }
    }

    fn state(&self, _: usize, mut rng: fastrand::Rng) -> Schedule {
        let mut next = [0; LIVES.len()];
        let step = |_| {
            let ring = ring(&mut rng);
            let place = next[ring] % LIVES[ring].0;
            next[ring] += 1;
            let before: usize = LIVES[..ring].iter().map(|(places, _)| places).sum();
            Step { slot: before + place, size_bytes: size_bytes(&mut rng) }
        };
        let steps = (0..self.blocks).map(step).collect();
        Schedule { steps, is_full: vec![false; Self::places()] }
    }

    type Shared<T: Send> = ();

    fn shared<T: Send>(&self, _: usize) {}

    fn pass<W: Worker>(&self, worker: &mut W, schedule: &mut Schedule, (): &()) -> u64 {
        for &Step { slot, size_bytes } in &schedule.steps {
            if schedule.is_full[slot] {
                worker.free(slot);
            }
            worker.alloc(slot, size_bytes);
            schedule.is_full[slot] = true;
        }
        for (slot, is_full) in schedule.is_full.iter_mut().enumerate() {
            if *is_full {
                worker.free(slot);
                *is_full = false;
            }
        }
        (2 * schedule.steps.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_blocks_are_small_and_none_is_out_of_bounds() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut sizes: Vec<usize> = (0..10_001).map(|_| size_bytes(&mut rng)).collect();
        sizes.sort_unstable();
        assert!(sizes[0] >= LEAST_BYTES && sizes[10_000] < LEAST_BYTES + MORE_BYTES);
        assert!((165..200).contains(&sizes[5_000]), "{}", sizes[5_000]);
    }

    #[test]
    fn lives_are_as_frequent_as_they_shall_be() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut counts = [0_usize; LIVES.len()];
        (0..10_000).for_each(|_| counts[ring(&mut rng)] += 1);
        for (count, (_, tenths)) in counts.into_iter().zip(LIVES) {
            assert!(count.abs_diff(tenths * 1_000) < 300, "{counts:?}");
        }
    }
}
