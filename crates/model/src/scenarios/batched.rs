//! Batched, small blocks: effects are bits, stored at once and flushed by the synchronizer (rule 19).

use super::{A, AB, B, INNER, S0, S1, S3, X, Y, alloc, data, free, node, publish};
use crate::{
    layout::{Block, Domain},
    scenario::{Between, Op, Order, Scenario},
};

const WORD8: &[Domain] = &[Domain::Word8];

pub(super) fn scenarios() -> Vec<Scenario> {
    [two_threads(), nodes(), groups(), second_runs(), synchronizers()].concat()
}

fn two_threads() -> Vec<Scenario> {
    let batched = Scenario::batched;
    vec![
        batched(
            "alloc, free",
            "one thread allocates into a slot, another frees it",
            vec![vec![alloc(S0, A)], vec![free(S0)]],
        ),
        batched(
            "both alloc",
            "two threads allocate into one slot",
            vec![vec![alloc(S0, AB)], vec![alloc(S0, AB)]],
        )
        .rounds(1, 0),
        batched(
            "reuse",
            "a block is freed and allocated by another thread",
            vec![vec![alloc(S0, A), free(S0)], vec![alloc(S1, AB)]],
        ),
        batched(
            "reuse, looking first",
            "as `reuse`, but threads mark behind the look",
            vec![vec![alloc(S0, A), free(S0)], vec![alloc(S1, AB)]],
        )
        .order(Order::LookFirst),
        batched(
            "reuse, slot lock",
            "as `reuse`, without membarrier: the slot's lock is the barrier",
            vec![vec![alloc(S0, A), free(S0)], vec![alloc(S1, AB)]],
        )
        .slot_lock(),
        batched(
            "contents",
            "contents, freed and allocated anew into the same slot by another thread",
            vec![vec![data(S0, AB)], vec![free(S0), data(S0, AB)]],
        )
        .long(),
        batched(
            "wrap",
            "a lane's ring is used twice",
            vec![vec![alloc(S0, AB), free(S0), alloc(S0, AB), free(S0), data(S0, AB)]],
        )
        .rounds(3, 0),
        batched(
            "overrun",
            "a full ring, whose first record is all that there is of an operation",
            vec![vec![alloc(S0, A), alloc(S1, B), free(S1)]],
        )
        .ring(2),
        batched(
            "killed",
            "as `reuse`, and the process is killed before power is lost",
            vec![vec![alloc(S0, A), free(S0)], vec![alloc(S1, AB)]],
        )
        .rounds(1, 0)
        .killed(),
        batched(
            "hand-over",
            "a lane goes to another thread with live records",
            vec![vec![data(S0, A), Op::Write(S0), Op::Handover, free(S0), data(S1, A)]],
        ),
        batched(
            "three threads",
            "a thread allocates, another frees, a third allocates",
            vec![vec![alloc(S0, A)], vec![free(S0)], vec![alloc(S1, AB)]],
        )
        .rounds(1, 0)
        .long(),
    ]
}

fn nodes() -> Vec<Scenario> {
    let batched = Scenario::batched;
    vec![
        batched(
            "node",
            "a slot inside a block, its block allocated and freed by another thread",
            vec![vec![node(S0)], vec![alloc(INNER, A), free(INNER)]],
        ),
        batched(
            "node reused",
            "a node is freed and its memory becomes a user's data",
            vec![
                vec![node(S0), alloc(INNER, A), free(INNER), free(S0)],
                vec![alloc(S1, X), Op::Write(S1)],
            ],
        )
        .long(),
        batched(
            "node morphs",
            "a node and its inner block go in one group, its memory gets other bounds",
            vec![
                vec![publish([S0, INNER], [X, A]), Op::FreeBoth(S0)],
                vec![alloc(S1, Y), Op::Write(S1)],
            ],
        ),
        batched(
            "moved out",
            "a block moves out of a node, which is freed",
            vec![
                vec![node(S0), alloc(INNER, A), Op::Move(INNER, S1), free(S0)],
                vec![data(S3, X.and(Block::Y))],
            ],
        )
        .long(),
    ]
}

fn groups() -> Vec<Scenario> {
    let batched = Scenario::batched;
    vec![
        batched(
            "move, free",
            "a block moves while another thread frees either slot",
            vec![vec![alloc(S0, A), Op::Move(S0, S1)], vec![free(S1), free(S0)]],
        )
        .long(),
        batched(
            "replace, free",
            "a block is replaced while another thread frees",
            vec![vec![alloc(S0, A), Op::Replace(S0, AB)], vec![free(S0)]],
        ),
        batched(
            "swap, free",
            "two blocks are exchanged while another thread frees one",
            vec![vec![alloc(S0, A), alloc(S1, B), Op::Swap(S0, S1)], vec![free(S1)]],
        )
        .long(),
        batched(
            "publish, free",
            "two blocks are published while another thread frees both",
            vec![vec![publish([S0, S1], [A, B])], vec![free(S0), free(S1)]],
        ),
    ]
}

fn second_runs() -> Vec<Scenario> {
    let batched = Scenario::batched;
    vec![
        batched(
            "again: alloc, free",
            "a second run behind every crash and every close",
            vec![vec![alloc(S0, A), free(S0)]],
        )
        .then(vec![vec![alloc(S1, AB), free(S1)]])
        .between(Between::CrashOrClose)
        .rounds(1, 2)
        .ring(2),
        batched(
            "again: two lanes",
            "lanes with torn and stale records are used again",
            vec![vec![alloc(S0, A)], vec![alloc(S1, B)]],
        )
        .then(vec![vec![free(S0), alloc(S3, AB)], vec![free(S1)]])
        .rounds(1, 1)
        .ring(2)
        .long(),
        batched(
            "again: replace",
            "groups in rings that were torn",
            vec![vec![alloc(S0, A), Op::Replace(S0, B)]],
        )
        .then(vec![vec![Op::Replace(S0, AB), alloc(S1, AB)]])
        .between(Between::CrashOrClose)
        .rounds(2, 1)
        .ring(2),
        batched(
            "policy: to Eager",
            "records of Batched are no records of Eager",
            vec![vec![alloc(S0, A), free(S0)]],
        )
        .then(vec![vec![alloc(S1, AB), free(S1)]])
        .between(Between::SwitchPolicy)
        .rounds(2, 0),
        Scenario::eager(
            "policy: to Batched",
            "records of Eager are no records of Batched",
            vec![vec![alloc(S0, A)]],
        )
        .then(vec![vec![free(S0), alloc(S1, AB)]])
        .between(Between::SwitchPolicy)
        .rounds(0, 1),
    ]
}

fn synchronizers() -> Vec<Scenario> {
    let batched = Scenario::batched;
    vec![
        batched(
            "two synchronizers",
            "two threads synchronize in turn",
            vec![vec![alloc(S0, A), free(S0)], vec![alloc(S1, AB)]],
        )
        .two_synchronizers(),
        batched(
            "two synchronizers, large",
            "two threads synchronize in turn over two logs",
            vec![vec![alloc(S0, A), free(S0)], vec![alloc(S1, A)]],
        )
        .book(AB, 2, 2, 8)
        .two_synchronizers(),
        batched(
            "two synchronizers, again",
            "two threads synchronize in turn, in both runs",
            vec![vec![alloc(S0, A), free(S0), alloc(S0, AB)]],
        )
        .then(vec![vec![free(S0), alloc(S1, AB)]])
        .rounds(3, 2)
        .ring(2)
        .two_synchronizers()
        .only(WORD8)
        .long(),
    ]
}
