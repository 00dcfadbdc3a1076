//! Scenarios of the policy Batched: rounds of its synchronizer come between operations, and between a free and the next
//! use of the memory. Under the policy Eager they are scenarios like others.

use pmalloc::TestGeometry;

use crate::scenario::{
    A, Act, B, C, D, E, GROUPS, LARGE, MEDIUM, ONE_ARENA,
    Op::{Alloc, Fill, Free, Move, Publish, Read, Replace, Set, Swap, Sync, Trim},
    P, ROOMY, SMALL, Scenario, TIGHT,
};

/// A lane's third record makes its thread run a round.
const SHORT_RINGS: TestGeometry = TestGeometry { ring_places: 4, ..ROOMY };

/// The same with one arena: who frees and who allocates have one queue.
const SHORT_RINGS_ONE_ARENA: TestGeometry = TestGeometry { ring_places: 4, ..ONE_ARENA };

/// The scenarios.
pub(crate) const ROUNDS: &[Scenario] = &[
    Scenario {
        name: "rounds-of-threads",
        geometry: SHORT_RINGS,
        lanes_made: 3,
        setup: &[Fill(A, SMALL), Fill(B, SMALL)],
        threads: &[
            &[Free(A), Fill(A, SMALL), Free(A), Fill(A, SMALL), Free(B), Fill(A, SMALL)],
            &[Free(B), Fill(B, SMALL), Free(A), Fill(C, SMALL), Free(C), Fill(D, SMALL)],
        ],
    },
    Scenario {
        name: "rounds-of-threads-one-arena",
        geometry: SHORT_RINGS_ONE_ARENA,
        lanes_made: 3,
        setup: &[Fill(A, MEDIUM), Fill(B, MEDIUM)],
        threads: &[
            &[Free(A), Fill(C, MEDIUM), Free(C), Fill(A, MEDIUM), Free(A)],
            &[Free(B), Fill(D, MEDIUM), Free(D), Fill(E, MEDIUM), Fill(B, MEDIUM)],
        ],
    },
    Scenario {
        name: "rounds-of-another",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[Fill(A, SMALL)],
        threads: &[
            &[Free(A), Fill(A, SMALL), Fill(B, SMALL)],
            &[Sync, Sync, Sync],
            &[Fill(C, SMALL), Free(A), Free(C)],
        ],
    },
    Scenario {
        name: "rounds-at-once",
        geometry: SHORT_RINGS,
        lanes_made: 3,
        setup: &[Fill(A, SMALL)],
        threads: &[
            &[Sync, Free(A), Sync, Fill(A, SMALL)],
            &[Fill(B, SMALL), Sync, Free(B), Sync],
            &[Sync, Fill(C, SMALL), Sync],
        ],
    },
    Scenario {
        name: "guards-across-rounds",
        geometry: SHORT_RINGS_ONE_ARENA,
        lanes_made: 3,
        setup: &[Fill(A, SMALL), Fill(B, SMALL)],
        threads: &[
            &[Read(A, 60), Read(B, 30)],
            &[Free(A), Sync, Fill(C, SMALL), Free(C), Sync, Fill(D, SMALL), Fill(E, SMALL)],
            &[Sync, Free(B), Sync, Read(A, 10)],
        ],
    },
    Scenario {
        name: "guards-across-rounds-tight",
        geometry: TestGeometry { ring_places: 4, ..TIGHT },
        lanes_made: 3,
        setup: &[Fill(A, LARGE), Fill(B, MEDIUM)],
        threads: &[
            &[Read(A, 60), Read(A, 30)],
            &[Free(A), Sync, Fill(A, LARGE), Free(A), Fill(C, MEDIUM)],
            &[Sync, Sync, Fill(D, LARGE)],
        ],
    },
    Scenario {
        name: "large-across-rounds",
        geometry: TestGeometry { ring_places: 4, ..TIGHT },
        lanes_made: 3,
        setup: &[Fill(A, LARGE)],
        threads: &[
            &[Free(A), Fill(A, LARGE), Free(A), Fill(A, LARGE), Free(A)],
            &[Sync, Alloc(B, LARGE), Free(B), Sync, Alloc(B, MEDIUM)],
        ],
    },
    Scenario {
        name: "remote-frees-across-rounds",
        geometry: SHORT_RINGS,
        lanes_made: 3,
        setup: &[],
        threads: &[
            &[Fill(A, MEDIUM), Free(B), Fill(A, MEDIUM), Free(B), Fill(C, MEDIUM), Sync],
            &[Fill(B, MEDIUM), Free(A), Fill(B, MEDIUM), Free(A), Fill(D, MEDIUM), Sync],
        ],
    },
    Scenario {
        name: "shared-lane-is-full",
        geometry: TestGeometry { lanes: 1, ..SHORT_RINGS },
        lanes_made: 0,
        setup: &[Fill(A, SMALL)],
        threads: &[
            &[Free(A), Fill(A, SMALL), Free(A)],
            &[Fill(B, SMALL), Free(B), Fill(B, SMALL)],
            &[Fill(C, SMALL), Sync, Free(C)],
        ],
    },
    Scenario {
        name: "lane-handed-over",
        geometry: TestGeometry { lanes: 3, ..SHORT_RINGS },
        lanes_made: 1,
        setup: &[Fill(A, SMALL), Fill(B, SMALL)],
        threads: &[
            &[Free(A), Fill(C, SMALL)],
            &[Free(B), Fill(A, SMALL)],
            &[Fill(D, SMALL), Free(D), Fill(B, SMALL), Sync],
        ],
    },
    Scenario {
        name: "slab-in-limbo",
        geometry: TIGHT,
        lanes_made: 3,
        setup: &[Fill(A, MEDIUM), Fill(B, MEDIUM)],
        threads: &[&[Free(A), Trim, Fill(A, LARGE), Trim], &[Free(B), Sync, Trim, Fill(B, SMALL)]],
    },
    Scenario {
        name: "groups-across-rounds",
        geometry: GROUPS,
        lanes_made: 3,
        setup: &[Fill(A, SMALL), Fill(B, SMALL)],
        threads: &[
            &[Publish(&[Act::Free(A), Act::Fill(A, SMALL), Act::Set(0, 1)]), Replace(A, MEDIUM)],
            &[Sync, Swap(A, B), Sync, Publish(&[Act::Free(B), Act::Move(A, P), Act::Set(1, 2)])],
            &[Set(0, 3), Move(B, C), Free(A)],
        ],
    },
    Scenario {
        name: "groups-in-a-short-ring",
        geometry: TestGeometry { lanes: 2, ..ROOMY },
        lanes_made: 0,
        setup: &[Fill(A, SMALL), Fill(B, LARGE)],
        threads: &[
            &[Swap(A, B), Replace(A, LARGE), Swap(B, C), Move(C, A)],
            &[Replace(B, SMALL), Move(B, D), Sync, Swap(D, A)],
        ],
    },
];
