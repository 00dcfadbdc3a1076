//! Slabs that are made and given back, over pages that large blocks use, too.

use super::{A, AB, B, S0, S1, Y, alloc, data, free};
use crate::scenario::{Between, Op, Scenario};

pub(super) fn scenarios() -> Vec<Scenario> {
    let create = Op::CreateSlab;
    let give = Op::ReturnSlab;
    let batched = Scenario::batched;
    vec![
        batched(
            "slab",
            "a slab is made, and used by another thread in the same epoch",
            vec![vec![create, alloc(S0, AB)], vec![alloc(S1, AB)]],
        )
        .slab(),
        batched(
            "slab after large",
            "a slab is made where a large block was freed",
            vec![vec![alloc(S0, Y), free(S0)], vec![create, data(S1, A)]],
        )
        .slab(),
        batched(
            "slab given back",
            "a slab is emptied and given back, a large block takes its pages",
            vec![vec![create, alloc(S0, A), free(S0)], vec![give, data(S1, Y)]],
        )
        .slab(),
        batched(
            "slab, again",
            "a slab is made and used; the next run goes on with it, perhaps empty",
            vec![vec![create, alloc(S0, A)]],
        )
        .then(vec![vec![free(S0), give, alloc(S1, Y)], vec![alloc(S1, B)]])
        .between(Between::CrashOrClose)
        .rounds(1, 1)
        .slab(),
        batched(
            "slab and large",
            "unflushed entries of large blocks stand before and behind a slab's",
            vec![vec![alloc(S0, super::X), free(S0)], vec![create, alloc(S1, A)]],
        )
        .slab()
        .book(Y.and(crate::layout::Block::X), 1, 3, 3),
        batched(
            "slab, copied",
            "the log is copied while a slab is made and used",
            vec![vec![create, alloc(S0, A)], vec![Op::Copy(0)]],
        )
        .slab()
        .book(Y, 1, 3, 3),
        batched(
            "slab, two synchronizers",
            "a slab is made where a large block was freed; two threads synchronize in turn",
            vec![vec![alloc(S0, Y), free(S0)], vec![create, alloc(S1, A)]],
        )
        .slab()
        .two_synchronizers()
        .long(),
        Scenario::eager(
            "Eager: slab",
            "a slab is made where a large block was freed, and given back",
            vec![vec![alloc(S0, Y), free(S0)], vec![create, data(S1, A), free(S1), give]],
        )
        .slab()
        .book(Y, 1, 1, 14),
    ]
}
