//! Scenarios that nobody thought of: drawn at random, explored exhaustively.

use fastrand::Rng;

use super::{A, AB, B, INNER, S0, S1, S3, X, Y, alloc, data, free, node, publish};
use crate::{
    layout::{Block, Blocks},
    scenario::{Between, Op, Order, Programs, Scenario},
};

/// Operations of each thread, in the first run and in the second.
const LENGTHS: &[[[usize; 2]; 2]] =
    &[[[2, 2], [0, 0]], [[3, 1], [0, 0]], [[3, 2], [0, 0]], [[2, 1], [1, 1]], [[2, 0], [1, 1]]];

/// What the blocks of a scenario are.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Small,
    Large,
    Slab,
}

/// Draws a scenario.
pub(crate) fn random(rng: &mut Rng) -> Scenario {
    let kind = pick(rng, &[Kind::Small, Kind::Large, Kind::Large, Kind::Slab]);
    let logs = if matches!(kind, Kind::Large) { rng.usize(1..=2) } else { 1 };
    let [first, second] = pick(rng, LENGTHS);
    let programs = draw(rng, kind, logs, first);
    let then = draw(rng, kind, logs, second);
    let scenario = if rng.u8(..4) == 0 {
        Scenario::eager("random", "", programs)
    } else {
        let rounds = rng.u8(1..=2);
        Scenario::batched("random", "", programs).rounds(rounds, 1)
    };
    let scenario = if second == [0, 0] { scenario } else { scenario.then(then) };
    let scenario = match kind {
        Kind::Small => {
            scenario.order(pick(rng, &[Order::MarkFirst, Order::MarkFirst, Order::LookFirst]))
        }
        Kind::Large => {
            let large = pick(rng, &[AB, AB, A, Blocks::ALL]);
            let [chunks, entries] = pick(rng, &[[3, 10], [3, 10], [8, 3]]);
            scenario.book(large, logs, chunks, entries)
        }
        Kind::Slab => scenario.slab().book(pick(rng, &[Y, Y.and(Block::X)]), 1, 3, 10),
    };
    let scenario = scenario.between(pick(rng, &[Between::Crash, Between::CrashOrClose]));
    if rng.u8(..4) == 0 { scenario.two_synchronizers() } else { scenario }
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

/// Two programs. The first begins with something that others can work on.
fn draw(rng: &mut Rng, kind: Kind, logs: usize, lengths: [usize; 2]) -> Programs {
    let mut programs: Programs =
        lengths.iter().map(|&length| (0..length).map(|_| op(rng, kind, logs)).collect()).collect();
    let begins = match kind {
        Kind::Slab => [Op::CreateSlab, Op::CreateSlab, alloc(S0, Y)],
        _ => [alloc(S0, A), node(S0), publish([S0, INNER], [X, A])],
    };
    if let Some(first) = programs[0].first_mut() {
        *first = pick(rng, &begins);
    }
    programs
}

fn op(rng: &mut Rng, kind: Kind, logs: usize) -> Op {
    let slot = pick(rng, &[S0, S0, S1, S3]);
    let other = pick(rng, &[S1, S3].map(|other| if other == slot { S0 } else { other }));
    let log = u8::try_from(rng.usize(..logs)).expect("there are few logs");
    match (kind, rng.u8(..16)) {
        (Kind::Small, 0) => node(slot),
        (Kind::Small, 1) => alloc(INNER, AB),
        (Kind::Small, 2) => free(INNER),
        (Kind::Small, 3) => Op::FreeBoth(slot),
        (Kind::Slab, 0 | 1) => Op::CreateSlab,
        (Kind::Slab, 2 | 3) => Op::ReturnSlab,
        (Kind::Large, 0 | 1) | (Kind::Slab, 4) => Op::Copy(log),
        (Kind::Large, 2 | 3) => Op::Unlink(log),
        (_, 4) => Op::Write(slot),
        (_, 5..=7) => free(slot),
        (_, 8) => Op::Move(slot, other),
        (_, 9) => Op::Swap(slot, other),
        (_, 10) => Op::Replace(slot, from(rng)),
        (_, 11) => publish([slot, other], [A, B]),
        (_, 12) => data(slot, from(rng)),
        _ => alloc(slot, from(rng)),
    }
}

fn from(rng: &mut Rng) -> Blocks {
    pick(rng, &[A, AB, AB, B, X, Y])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Slot;

    #[test]
    fn no_operation_names_a_slot_twice_and_equal_seeds_draw_equal_scenarios() {
        for seed in 0..2000 {
            let scenario = random(&mut Rng::with_seed(seed));
            let again = random(&mut Rng::with_seed(seed));
            assert_eq!(scenario.programs, again.programs);
            for op in scenario.programs.iter().chain(&scenario.second).flatten() {
                let pair: Option<[Slot; 2]> = match *op {
                    Op::Move(a, b) | Op::Swap(a, b) | Op::Publish([a, b], _) => Some([a, b]),
                    _ => None,
                };
                assert!(pair.is_none_or(|[a, b]| a != b), "seed {seed}: {op:?}");
            }
        }
    }
}
