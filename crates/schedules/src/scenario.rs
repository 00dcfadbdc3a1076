//! What the threads do: a few operations each, on slots that they share.

use pmalloc::TestGeometry;

/// The root array that every scenario starts with.
pub const SLOTS: &str = "slots";

/// Slots in it, and in every other array that a scenario makes.
pub const SLOT_COUNT: u64 = 8;

/// Bytes of a block that is an extent of its own.
pub const LARGE: usize = 20_000;

/// Bytes of a block of which a slab holds a few.
pub const MEDIUM: usize = 3_500;

/// Bytes of a block of which a slab holds many.
pub const SMALL: usize = 72;

/// A slot: of which root array, and which of it.
pub type Place = (&'static str, usize);

/// One operation of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Allocate so many bytes, uninitialised.
    Alloc(Place, usize),
    /// Allocate so many bytes with contents that name the operation.
    Fill(Place, usize),
    /// Free what the slot owns.
    Free(Place),
    /// Pin the heap, read the slot, wait so many steps, and see that what was read is unchanged.
    Read(Place, usize),
    /// Find or create a root array.
    Root(&'static str),
    /// Give free memory back to the file system.
    Trim,
    /// Synchronize.
    Sync,
}

/// Threads over one heap.
#[derive(Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// Sizes of the heap.
    pub geometry: TestGeometry,
    /// Lanes that exist already; further ones are made when a thread needs one.
    pub lanes_made: usize,
    /// What one thread does before, in a heap that is closed and reopened then.
    pub setup: &'static [Op],
    /// What each thread does.
    pub threads: &'static [&'static [Op]],
}

/// Two arenas, a lane for each thread.
const ROOMY: TestGeometry = TestGeometry {
    capacity_bytes: 256 << 10,
    slab_bytes: 16 << 10,
    ring_places: 8,
    lanes: 4,
    chunk_bytes: 256,
    logs: 2,
    roots: 8,
    stripes: 3,
};

/// All threads share one arena and its log.
const ONE_ARENA: TestGeometry = TestGeometry { logs: 1, ..ROOMY };

/// One lane to claim, the others share the last; a ring wraps after four records.
const SHARED_LANE: TestGeometry = TestGeometry { lanes: 2, ring_places: 4, ..ROOMY };

/// One lane for all.
const ONLY_SHARED_LANE: TestGeometry = TestGeometry { lanes: 1, ring_places: 4, ..ROOMY };

/// Four slabs' worth of pages.
const TIGHT: TestGeometry = TestGeometry { capacity_bytes: 80 << 10, ..ROOMY };

const A: Place = (SLOTS, 0);
const B: Place = (SLOTS, 1);
const C: Place = (SLOTS, 2);
const D: Place = (SLOTS, 3);
const E: Place = (SLOTS, 4);

use Op::{Alloc, Fill, Free, Read, Root, Sync, Trim};

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "alloc",
        geometry: ROOMY,
        lanes_made: 0,
        setup: &[],
        threads: &[&[Alloc(A, SMALL), Fill(B, SMALL)], &[Fill(C, SMALL), Alloc(D, SMALL)]],
    },
    Scenario {
        name: "alloc-free",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[Fill(A, SMALL), Fill(B, SMALL)],
        threads: &[&[Free(A), Fill(A, SMALL)], &[Free(B), Alloc(C, SMALL)]],
    },
    Scenario {
        name: "free-of-the-other",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[],
        threads: &[&[Fill(A, SMALL), Free(B)], &[Fill(B, SMALL), Free(A)]],
    },
    Scenario {
        name: "free-of-the-other-one-arena",
        geometry: ONE_ARENA,
        lanes_made: 3,
        setup: &[Fill(A, SMALL)],
        threads: &[&[Free(A), Fill(B, SMALL), Free(C)], &[Fill(C, SMALL), Free(B), Fill(A, SMALL)]],
    },
    Scenario {
        name: "same-slot-fill",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[],
        threads: &[&[Fill(A, SMALL), Free(A)], &[Fill(A, SMALL), Fill(B, SMALL)]],
    },
    Scenario {
        name: "same-slot-free",
        geometry: ONE_ARENA,
        lanes_made: 3,
        setup: &[Fill(A, SMALL)],
        threads: &[&[Free(A), Fill(A, SMALL)], &[Free(A), Fill(B, SMALL)]],
    },
    Scenario {
        name: "same-slot-large",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[Fill(A, LARGE)],
        threads: &[&[Free(A), Fill(A, LARGE)], &[Free(A), Fill(A, SMALL)]],
    },
    Scenario {
        name: "refill",
        geometry: ONE_ARENA,
        lanes_made: 3,
        setup: &[],
        threads: &[&[Fill(A, MEDIUM), Alloc(B, MEDIUM)], &[Fill(C, MEDIUM), Alloc(D, MEDIUM)]],
    },
    Scenario {
        name: "refill-two-arenas",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[Fill(A, MEDIUM), Fill(B, MEDIUM)],
        threads: &[&[Free(A), Alloc(C, SMALL)], &[Free(B), Fill(D, MEDIUM)]],
    },
    Scenario {
        name: "slab-comes-and-goes",
        geometry: ONE_ARENA,
        lanes_made: 3,
        setup: &[Fill(A, MEDIUM), Fill(B, MEDIUM)],
        threads: &[&[Free(A), Trim, Fill(A, LARGE)], &[Free(B), Fill(B, MEDIUM)]],
    },
    Scenario {
        name: "tight",
        geometry: TIGHT,
        lanes_made: 3,
        setup: &[Fill(A, LARGE), Fill(B, MEDIUM)],
        threads: &[
            &[Free(A), Fill(C, MEDIUM), Free(C)],
            &[Fill(D, LARGE), Free(B), Fill(D, LARGE)],
        ],
    },
    Scenario {
        name: "freed-by-one-used-by-the-other",
        geometry: ONE_ARENA,
        lanes_made: 3,
        setup: &[Fill(A, MEDIUM), Fill(B, MEDIUM)],
        threads: &[&[Free(A)], &[Fill(C, MEDIUM), Fill(D, MEDIUM), Fill(E, MEDIUM)]],
    },
    Scenario {
        name: "freed-by-one-used-by-the-other-arena",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[Fill(A, SMALL), Fill(B, SMALL)],
        threads: &[&[Free(A)], &[Free(B)], &[Fill(C, SMALL), Fill(D, SMALL), Fill(E, SMALL)]],
    },
    Scenario {
        name: "large-freed-by-one-used-by-the-other",
        geometry: TIGHT,
        lanes_made: 3,
        setup: &[Fill(A, LARGE), Fill(B, LARGE)],
        threads: &[&[Free(A)], &[Fill(C, LARGE), Fill(D, LARGE)]],
    },
    Scenario {
        name: "shared-lane",
        geometry: SHARED_LANE,
        lanes_made: 0,
        setup: &[Fill(A, SMALL)],
        threads: &[&[Free(A), Fill(B, SMALL)], &[Fill(C, SMALL), Free(C)], &[Alloc(D, SMALL)]],
    },
    Scenario {
        name: "only-shared-lane",
        geometry: ONLY_SHARED_LANE,
        lanes_made: 0,
        setup: &[Fill(A, SMALL)],
        threads: &[&[Free(A), Fill(B, SMALL), Free(B)], &[Fill(C, SMALL), Fill(A, SMALL), Free(C)]],
    },
    Scenario {
        name: "read",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[Fill(A, SMALL)],
        threads: &[&[Read(A, 20), Read(B, 0)], &[Free(A), Fill(B, SMALL)]],
    },
    Scenario {
        name: "guards",
        geometry: ONE_ARENA,
        lanes_made: 3,
        setup: &[Fill(A, SMALL), Fill(B, SMALL)],
        threads: &[
            &[Read(A, 25), Read(B, 25)],
            &[Free(A), Fill(A, SMALL), Free(B), Fill(B, SMALL)],
            &[Read(B, 5), Read(A, 10), Read(A, 1)],
        ],
    },
    Scenario {
        name: "guards-large",
        geometry: TIGHT,
        lanes_made: 3,
        setup: &[Fill(A, LARGE), Fill(B, MEDIUM)],
        threads: &[
            &[Read(A, 30), Read(B, 10)],
            &[Free(A), Fill(A, LARGE), Free(B)],
            &[Read(A, 5), Fill(C, MEDIUM)],
        ],
    },
    Scenario {
        name: "large",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[],
        threads: &[&[Fill(A, LARGE), Free(A)], &[Alloc(B, LARGE), Free(B)]],
    },
    Scenario {
        name: "large-one-log",
        geometry: ONE_ARENA,
        lanes_made: 3,
        setup: &[Alloc(C, LARGE), Alloc(D, LARGE)],
        threads: &[&[Free(C), Alloc(A, LARGE)], &[Alloc(B, LARGE), Free(D)]],
    },
    Scenario {
        name: "large-free-of-the-other",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[Alloc(A, LARGE)],
        threads: &[&[Alloc(B, LARGE), Free(A)], &[Free(B), Alloc(C, LARGE)]],
    },
    Scenario {
        name: "log-collection",
        geometry: ONE_ARENA,
        lanes_made: 3,
        setup: &[Alloc(D, LARGE)],
        threads: &[
            &[
                Alloc(A, LARGE),
                Free(A),
                Alloc(A, LARGE),
                Free(A),
                Alloc(A, LARGE),
                Free(A),
                Alloc(A, LARGE),
                Free(A),
                Alloc(A, LARGE),
            ],
            &[
                Alloc(B, LARGE),
                Free(B),
                Alloc(B, LARGE),
                Free(B),
                Free(D),
                Alloc(B, LARGE),
                Free(B),
                Alloc(B, LARGE),
                Free(B),
            ],
        ],
    },
    Scenario {
        name: "log-collection-during-an-append",
        geometry: ONE_ARENA,
        lanes_made: 3,
        setup: &[],
        threads: &[
            &[Alloc(A, LARGE), Free(A), Alloc(A, LARGE)],
            &[
                Alloc(B, LARGE),
                Free(B),
                Alloc(B, LARGE),
                Free(B),
                Alloc(B, LARGE),
                Free(B),
                Alloc(B, LARGE),
                Free(B),
                Alloc(B, LARGE),
                Free(B),
                Alloc(B, LARGE),
                Free(B),
                Alloc(B, LARGE),
                Free(B),
                Alloc(B, LARGE),
                Free(B),
            ],
        ],
    },
    Scenario {
        name: "roots",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[],
        threads: &[
            &[Root("ones"), Fill(("ones", 0), SMALL)],
            &[Root("twos"), Fill(("twos", 0), SMALL)],
        ],
    },
    Scenario {
        name: "same-root",
        geometry: ROOMY,
        lanes_made: 0,
        setup: &[],
        threads: &[
            &[Root("both"), Fill(("both", 0), SMALL)],
            &[Root("both"), Fill(("both", 0), SMALL)],
        ],
    },
    Scenario {
        name: "thread-exit",
        geometry: ONE_ARENA,
        lanes_made: 1,
        setup: &[Fill(A, SMALL)],
        threads: &[&[Fill(B, SMALL)], &[Free(A), Fill(A, SMALL), Fill(C, SMALL)]],
    },
    Scenario {
        name: "thread-exit-tight",
        geometry: TestGeometry { lanes: 2, ..TIGHT },
        lanes_made: 1,
        setup: &[Fill(A, MEDIUM)],
        threads: &[&[Free(A)], &[Fill(B, MEDIUM)], &[Fill(C, LARGE), Fill(D, MEDIUM)]],
    },
    Scenario {
        name: "sync",
        geometry: ROOMY,
        lanes_made: 1,
        setup: &[Fill(A, SMALL)],
        threads: &[&[Sync, Fill(B, SMALL)], &[Free(A), Sync]],
    },
];

/// The scenario called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}
