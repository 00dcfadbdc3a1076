//! Batched, large blocks: entries stored at once and flushed by the synchronizer, chunks, and collection.

use super::{A, AB, B, S0, S1, X, alloc, data, free, publish};
use crate::{
    layout::{Blocks, Domain},
    scenario::{Between, Op, Scenario},
};

const WORD8: &[Domain] = &[Domain::Word8];

pub(super) fn scenarios() -> Vec<Scenario> {
    [entries(), chunks(), copies(), unlinking()].concat()
}

fn entries() -> Vec<Scenario> {
    let batched = Scenario::batched;
    vec![
        batched(
            "large: alloc, free",
            "one thread allocates, the other frees; two logs",
            vec![vec![alloc(S0, A)], vec![free(S0), alloc(S1, A)]],
        )
        .book(AB, 2, 2, 10),
        batched(
            "large: again and again",
            "one extent is allocated in each epoch; a like entry proves nothing",
            vec![vec![alloc(S0, A), free(S0), alloc(S0, A)]],
        )
        .then(vec![vec![free(S0), alloc(S1, AB)]])
        .between(Between::CrashOrClose)
        .book(AB, 1, 1, 14),
        batched(
            "large: replace",
            "groups of entries, lost or torn, and the log goes on behind them",
            vec![vec![alloc(S0, A), Op::Replace(S0, B)]],
        )
        .then(vec![vec![Op::Replace(S0, A)]])
        .book(AB, 1, 1, 14),
        batched(
            "large: killed",
            "the process is killed before power is lost, with entries in caches",
            vec![vec![alloc(S0, A), free(S0)], vec![alloc(S1, B)]],
        )
        .rounds(1, 0)
        .book(AB, 1, 1, 12)
        .killed(),
        batched(
            "large: mixed",
            "a small and a large block in a group, two logs",
            vec![vec![publish([S0, S1], [A, B])], vec![free(S1), data(S1, AB)]],
        )
        .book(A, 2, 2, 10)
        .long(),
    ]
}

fn chunks() -> Vec<Scenario> {
    let batched = Scenario::batched;
    vec![
        batched(
            "chunks",
            "entries fill a chunk, in recovery, too; unflushed ones before flushed ones",
            vec![vec![alloc(S0, A), free(S0)], vec![alloc(S1, B)]],
        )
        .book(AB, 1, 7, 2),
        batched(
            "chunks, again",
            "a log goes on behind lost entries, with chunks that were used before",
            vec![vec![alloc(S0, A), alloc(S1, B), free(S0)]],
        )
        .then(vec![vec![free(S1), alloc(S1, A)]])
        .rounds(1, 1)
        .book(AB, 1, 8, 2)
        .only(WORD8),
    ]
}

fn copies() -> Vec<Scenario> {
    let batched = Scenario::batched;
    let copy = Op::Copy(0);
    vec![
        batched(
            "copy",
            "a log is copied while another thread allocates and frees",
            vec![vec![alloc(S0, A), free(S0)], vec![copy]],
        )
        .book(AB, 1, 3, 4),
        batched(
            "copy twice",
            "old chunks are used for the next copy",
            vec![vec![alloc(S0, A)], vec![copy, copy, free(S0)]],
        )
        .book(AB, 1, 2, 4),
        batched(
            "copy, then chunks",
            "a copied log goes on, over chunks that it gave back",
            vec![vec![alloc(S0, A), free(S0), alloc(S1, B)], vec![copy]],
        )
        .book(AB, 1, 7, 2),
        batched(
            "copy, again",
            "what a copy says holds in the next run",
            vec![vec![alloc(S0, A), copy, free(S0)]],
        )
        .then(vec![vec![alloc(S1, A)], vec![copy]])
        .rounds(2, 1)
        .book(AB, 1, 3, 4),
        batched(
            "copy, killed",
            "the process is killed while a log is copied, and power is lost in the recovery",
            vec![vec![alloc(S0, A), free(S0)], vec![copy]],
        )
        .rounds(1, 0)
        .book(AB, 1, 3, 6)
        .killed(),
        batched(
            "copy, two logs",
            "a free goes to the log that holds the extent, which is being copied",
            vec![vec![alloc(S0, A), alloc(S1, B)], vec![free(S0), copy]],
        )
        .book(AB, 2, 4, 4)
        .long(),
        batched(
            "copy, two synchronizers",
            "a log is copied while two threads synchronize in turn",
            vec![vec![alloc(S0, A), free(S0)], vec![copy]],
        )
        .book(AB, 1, 3, 4)
        .two_synchronizers()
        .long(),
        Scenario::eager(
            "Eager: copy",
            "a log is copied while another thread allocates and frees",
            vec![vec![alloc(S0, A), free(S0)], vec![copy, copy]],
        )
        .book(AB, 1, 3, 4),
    ]
}

fn unlinking() -> Vec<Scenario> {
    let batched = Scenario::batched;
    let unlink = Op::Unlink(0);
    vec![
        batched(
            "unlink",
            "chunks are unlinked whose entries are not flushed",
            vec![vec![alloc(S0, A), alloc(S1, B), free(S0)], vec![unlink]],
        )
        .rounds(1, 0)
        .book(AB, 1, 7, 2),
        batched(
            "unlink twice",
            "chunks are unlinked whose entries are not flushed, and whose frees others need",
            vec![vec![alloc(S0, A), alloc(S1, B), free(S0), free(S1)], vec![unlink, unlink]],
        )
        .rounds(1, 0)
        .ring(4)
        .book(AB, 1, 7, 2)
        .long(),
        batched(
            "unlink, needed",
            "a free outlives the allocation that it ends",
            vec![vec![alloc(S0, A), alloc(S1, B), free(S0), alloc(S0, X), free(S0), unlink]],
        )
        .rounds(2, 0)
        .book(Blocks::ALL, 1, 8, 2)
        .only(WORD8),
        batched(
            "unlink, reuse",
            "an unlinked chunk becomes the end of the log",
            vec![vec![alloc(S0, A), free(S0), alloc(S0, B), unlink, free(S0), alloc(S1, AB)]],
        )
        .rounds(2, 0)
        .ring(4)
        .book(AB, 1, 8, 2)
        .long(),
        batched(
            "unlink, again",
            "what is left of a log holds in the next run",
            vec![vec![alloc(S0, A), alloc(S1, B), free(S0), unlink]],
        )
        .then(vec![vec![free(S1), alloc(S0, A)]])
        .rounds(1, 1)
        .book(AB, 1, 7, 2)
        .only(WORD8)
        .long(),
        Scenario::eager(
            "Eager: unlink, two logs",
            "an unlinked chunk becomes the end of another log",
            vec![vec![alloc(S0, A), free(S0), unlink], vec![alloc(S1, B), free(S1)]],
        )
        .book(AB, 2, 8, 1),
        Scenario::eager(
            "Eager: unlink",
            "chunks are unlinked while another thread allocates and frees",
            vec![vec![alloc(S0, A), alloc(S1, B), free(S0)], vec![unlink, free(S1), unlink]],
        )
        .book(AB, 1, 7, 2)
        .long(),
    ]
}
