//! Eager: effects and mark are durable before an operation returns (rule 18).

use super::{A, AB, B, INNER, S0, S1, X, Y, alloc, data, free, node, publish};
use crate::{
    layout::Blocks,
    scenario::{Between, Op, Scenario},
};

pub(super) fn scenarios() -> Vec<Scenario> {
    [small(), large()].concat()
}

fn small() -> Vec<Scenario> {
    let eager = Scenario::eager;
    vec![
        eager(
            "Eager: alloc, free",
            "one thread allocates, another frees, and again behind a crash",
            vec![vec![alloc(S0, A)], vec![free(S0)]],
        )
        .then(vec![vec![alloc(S0, A)], vec![free(S0)]]),
        eager(
            "Eager: reuse",
            "a block is freed and allocated by another thread",
            vec![vec![alloc(S0, A), free(S0)], vec![alloc(S1, A), free(S1)]],
        ),
        eager(
            "Eager: wrap",
            "a lane's ring and marks are used more than once",
            vec![vec![alloc(S0, A), free(S0), alloc(S0, A), free(S0), alloc(S0, A)]],
        )
        .then(vec![vec![free(S0), alloc(S1, A), free(S1)]])
        .between(Between::CrashOrClose),
        eager(
            "Eager: replace",
            "groups that wrap around the ring",
            vec![vec![alloc(S0, A), Op::Replace(S0, B), Op::Replace(S0, A), free(S0)]],
        )
        .then(vec![vec![alloc(S0, B), Op::Replace(S0, A)]])
        .between(Between::CrashOrClose),
        eager(
            "Eager: node reused",
            "a node is freed and its memory becomes a user's data",
            vec![
                vec![node(S0), alloc(INNER, A), free(INNER), free(S0)],
                vec![alloc(S1, X), Op::Write(S1)],
            ],
        ),
        eager(
            "Eager: node morphs",
            "a node and its inner block go in one group, its memory gets other bounds",
            vec![
                vec![publish([S0, INNER], [X, A]), Op::FreeBoth(S0)],
                vec![alloc(S1, Y), Op::Write(S1)],
            ],
        )
        .then(vec![vec![free(S1), node(S0)]])
        .long(),
        eager(
            "Eager: swap, free",
            "two blocks are exchanged while another thread frees one",
            vec![vec![alloc(S0, A), alloc(S1, B), Op::Swap(S0, S1)], vec![free(S1)]],
        )
        .then(vec![vec![Op::Swap(S0, S1)], vec![free(S0)]])
        .long(),
    ]
}

fn large() -> Vec<Scenario> {
    let eager = Scenario::eager;
    vec![
        eager(
            "Eager: large",
            "allocated by one thread, freed by the other, two logs",
            vec![vec![alloc(S0, A)], vec![free(S0), alloc(S1, A)]],
        )
        .then(vec![vec![free(S1)], vec![data(S0, A)]])
        .book(AB, 2, 2, 10),
        eager(
            "Eager: large, three times",
            "one extent is allocated again and again; a like entry proves nothing",
            vec![vec![alloc(S0, A), free(S0), alloc(S0, A)]],
        )
        .then(vec![vec![free(S0)]])
        .book(AB, 1, 1, 14),
        eager(
            "Eager: large, replace",
            "groups of entries, torn, and the log goes on behind them",
            vec![vec![alloc(S0, A), Op::Replace(S0, B)]],
        )
        .then(vec![vec![Op::Replace(S0, A)]])
        .book(AB, 1, 1, 14),
        eager(
            "Eager: mixed",
            "a small and a large block, two logs, both threads",
            vec![vec![publish([S0, S1], [A, B]), free(S0)], vec![free(S1), alloc(S1, AB)]],
        )
        .book(A, 2, 2, 10),
        eager(
            "Eager: a log grows",
            "entries fill a chunk, in recovery, too",
            vec![vec![alloc(S0, A), free(S0), alloc(S0, A)], vec![alloc(S1, B)]],
        )
        .book(Blocks::ALL, 1, 7, 2),
    ]
}
