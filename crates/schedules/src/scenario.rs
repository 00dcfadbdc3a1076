//! What the threads do: a few operations each, on slots that they share.

use pmalloc::TestGeometry;

use crate::rounds::ROUNDS;

/// The root array that every scenario starts with.
pub const SLOTS: &str = "slots";

/// Slots in it, and in every other array that a scenario makes.
pub const SLOT_COUNT: u64 = 8;

/// A root of bytes in which every scenario has slots and versioned cells. It is as large as [`SLOTS`], and needs no slab of
/// its own.
pub const BOX: &str = "box";

/// Bytes of [`BOX`].
pub const BOX_BYTES: usize = 64;

/// Slots at the start of [`BOX`], before the cells.
pub const BOX_SLOTS: u64 = 2;

/// Cells in [`BOX`].
pub const CELLS: usize = 2;

/// Bytes of a block that is an extent of its own.
pub const LARGE: usize = 20_000;

/// Bytes of a block of which a slab holds a few.
pub const MEDIUM: usize = 3_500;

/// Bytes of a block of which a session keeps one.
pub const WIDE: usize = 9_000;

/// Bytes of a block of which a slab holds many.
pub const SMALL: usize = 72;

/// A slot: of which root, and which of it.
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
    /// Free what the slot owns, and allocate so many bytes with contents that name the operation, at once.
    Replace(Place, usize),
    /// Move what the first slot owns to the second.
    Move(Place, Place),
    /// Exchange what two slots own.
    Swap(Place, Place),
    /// Set a cell.
    Set(usize, u64),
    /// Pin the heap, and set a cell at the start of the block that the slot owns, if it owns one that is not freed meanwhile.
    SetInside(Place, u64),
    /// Do all of this at once.
    Publish(&'static [Act]),
    /// Reserve so many bytes, and give them back: unwritten, as each word that is never flushed is one more that a crash may
    /// keep or not.
    Reserve(usize),
    /// Pin the heap, read the slot, wait so many steps, and see that what was read is unchanged.
    Read(Place, usize),
    /// Find or create a root array.
    Root(&'static str),
    /// Give free memory back to the file system.
    Trim,
    /// Synchronize.
    Sync,
    /// Allocate the typed block of this number, which names the operation.
    MakeNode(usize),
    /// Replace it.
    ReplaceNode(usize),
    /// Free it, if the slot in it is empty.
    FreeNode(usize),
    /// Pin the heap, and fill the slot in the typed block, if there is one that is not freed meanwhile.
    FillInside(usize, usize),
    /// Likewise free what the slot of the typed block owns.
    FreeInside(usize),
}

/// One action of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Allocate so many bytes with contents that name operation and action.
    Fill(Place, usize),
    /// Free what the slot owns.
    Free(Place),
    /// Move what the first slot owns to the second.
    Move(Place, Place),
    /// Exchange what two slots own.
    Swap(Place, Place),
    /// Set a cell.
    Set(usize, u64),
}

impl Op {
    /// What the operation `id` writes into new blocks: the identities of contents and their bytes.
    #[must_use]
    pub fn writes(self, id: u64) -> Vec<(u64, usize)> {
        match self {
            Self::Fill(_, bytes) | Self::Replace(_, bytes) | Self::FillInside(_, bytes) => {
                vec![(id, bytes)]
            }
            Self::Publish(acts) => {
                let write = |(nth, act): (usize, &Act)| match act {
                    Act::Fill(_, bytes) => Some((content_of(id, nth), *bytes)),
                    _ => None,
                };
                acts.iter().enumerate().filter_map(write).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The identity of the contents that the `nth` action of the publish `id` writes.
#[must_use]
pub const fn content_of(id: u64, nth: usize) -> u64 {
    id + 256 * (nth as u64 + 1)
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
pub(crate) const ROOMY: TestGeometry = TestGeometry {
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
pub(crate) const ONE_ARENA: TestGeometry = TestGeometry { logs: 1, ..ROOMY };

/// One lane to claim, the others share the last; a ring wraps after four records.
const SHARED_LANE: TestGeometry = TestGeometry { lanes: 2, ring_places: 4, ..ROOMY };

/// One lane for all.
const ONLY_SHARED_LANE: TestGeometry = TestGeometry { lanes: 1, ring_places: 4, ..ROOMY };

/// Two arenas, and rings that have room for groups of four.
pub(crate) const GROUPS: TestGeometry = TestGeometry { ring_places: 16, ..ROOMY };

/// The same with one arena.
const GROUPS_ONE_ARENA: TestGeometry = TestGeometry { logs: 1, ..GROUPS };

/// Four slabs' worth of pages.
pub(crate) const TIGHT: TestGeometry = TestGeometry { capacity_bytes: 80 << 10, ..ROOMY };

pub(crate) const A: Place = (SLOTS, 0);
pub(crate) const B: Place = (SLOTS, 1);
pub(crate) const C: Place = (SLOTS, 2);
pub(crate) const D: Place = (SLOTS, 3);
pub(crate) const E: Place = (SLOTS, 4);

/// Slots in a block that is no array.
pub(crate) const P: Place = (BOX, 0);
const Q: Place = (BOX, 1);

use Op::{
    Alloc, Fill, FillInside, Free, FreeInside, FreeNode, MakeNode, Move, Publish, Read, Replace,
    ReplaceNode, Reserve, Root, Set, SetInside, Swap, Sync, Trim,
};

/// Allocates a large block and frees it, eight times: the log is collected meanwhile.
const fn churn(place: Place) -> [Op; 16] {
    let (a, f) = (Alloc(place, LARGE), Free(place));
    [a, f, a, f, a, f, a, f, a, f, a, f, a, f, a, f]
}

/// All scenarios.
#[must_use]
pub fn all() -> impl ExactSizeIterator<Item = &'static Scenario> {
    let count = SCENARIOS.len() + ROUNDS.len();
    (0..count).map(|nth| SCENARIOS.get(nth).unwrap_or_else(|| &ROUNDS[nth - SCENARIOS.len()]))
}

/// Those that any heap may trip over.
const SCENARIOS: &[Scenario] = &[
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
        name: "one-at-hand-one-arena",
        geometry: ONE_ARENA,
        lanes_made: 3,
        setup: &[],
        threads: &[
            &[Alloc(A, WIDE), Free(A), Alloc(A, WIDE)],
            &[Alloc(B, WIDE), Free(B), Alloc(B, WIDE)],
        ],
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
        name: "read-of-what-is-replaced",
        geometry: GROUPS,
        lanes_made: 3,
        setup: &[Fill(A, SMALL)],
        threads: &[&[Read(A, 1), Read(A, 1)], &[Replace(A, SMALL), Replace(A, MEDIUM)]],
    },
    Scenario {
        name: "cell-in-a-freed-block",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[Alloc(A, LARGE)],
        threads: &[&[SetInside(A, 1)], &[Free(A), Alloc(B, LARGE)]],
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
        threads: &[&[Alloc(A, LARGE), Free(A), Alloc(A, LARGE)], &churn(B)],
    },
    Scenario {
        name: "log-collection-two-logs",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[Alloc(D, LARGE)],
        threads: &[&churn(A), &churn(B)],
    },
    Scenario {
        name: "typed-parent-freed",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[MakeNode(0)],
        threads: &[&[FreeNode(0), MakeNode(0)], &[FillInside(0, SMALL), FreeInside(0)]],
    },
    Scenario {
        name: "typed-parent-freed-one-arena",
        geometry: ONE_ARENA,
        lanes_made: 3,
        setup: &[MakeNode(0), MakeNode(1)],
        threads: &[&[FreeNode(0), FreeNode(1)], &[FillInside(1, SMALL), FillInside(0, SMALL)]],
    },
    Scenario {
        name: "typed-parent-replaced",
        geometry: GROUPS,
        lanes_made: 3,
        setup: &[MakeNode(0)],
        threads: &[&[FreeNode(0)], &[ReplaceNode(0)], &[FillInside(0, SMALL)]],
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
    Scenario {
        name: "replace",
        geometry: ONE_ARENA,
        lanes_made: 3,
        setup: &[Fill(A, SMALL)],
        threads: &[&[Replace(A, SMALL), Free(A)], &[Replace(A, LARGE), Fill(A, SMALL)]],
    },
    Scenario {
        name: "replaced-by-one-used-by-the-other",
        geometry: ONE_ARENA,
        lanes_made: 3,
        setup: &[Fill(A, MEDIUM), Fill(B, MEDIUM)],
        threads: &[&[Replace(A, SMALL)], &[Fill(C, MEDIUM), Replace(B, MEDIUM), Fill(D, MEDIUM)]],
    },
    Scenario {
        name: "swaps-in-a-ring",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[Fill(A, SMALL), Fill(B, SMALL)],
        threads: &[&[Swap(A, B), Free(B)], &[Swap(B, C), Fill(B, SMALL)], &[Swap(C, A)]],
    },
    Scenario {
        name: "moves-and-frees",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[Fill(A, SMALL)],
        threads: &[&[Move(A, B), Fill(A, SMALL)], &[Free(A), Move(B, A), Free(B)]],
    },
    Scenario {
        name: "slots-in-a-block",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[Fill(A, SMALL), Fill(P, SMALL)],
        threads: &[&[Move(A, Q), Free(P), Fill(A, SMALL)], &[Swap(P, B), Replace(Q, SMALL)]],
    },
    Scenario {
        name: "cells",
        geometry: ROOMY,
        lanes_made: 3,
        setup: &[],
        threads: &[
            &[Publish(&[Act::Set(0, 1), Act::Set(1, 1)]), Set(0, 2)],
            &[Publish(&[Act::Set(1, 3), Act::Set(0, 3)]), Set(1, 4)],
        ],
    },
    Scenario {
        name: "publish",
        geometry: GROUPS,
        lanes_made: 3,
        setup: &[Fill(A, SMALL), Fill(B, SMALL)],
        threads: &[
            &[Publish(&[Act::Free(A), Act::Fill(A, SMALL), Act::Fill(C, SMALL), Act::Set(0, 1)])],
            &[Swap(A, B), Publish(&[Act::Set(0, 2), Act::Free(B), Act::Move(A, P)])],
            &[Free(A), Fill(A, SMALL)],
        ],
    },
    Scenario {
        name: "published-by-one-used-by-the-other",
        geometry: GROUPS_ONE_ARENA,
        lanes_made: 3,
        setup: &[Fill(A, MEDIUM), Fill(B, MEDIUM)],
        threads: &[
            &[Publish(&[Act::Free(A), Act::Free(B)])],
            &[Fill(C, MEDIUM), Fill(D, MEDIUM), Fill(E, MEDIUM)],
        ],
    },
    Scenario {
        name: "publish-large",
        geometry: GROUPS_ONE_ARENA,
        lanes_made: 3,
        setup: &[Alloc(A, LARGE)],
        threads: &[
            &[Publish(&[Act::Free(A), Act::Fill(A, LARGE)]), Free(A)],
            &[Alloc(B, LARGE), Publish(&[Act::Free(B), Act::Swap(A, P)])],
        ],
    },
    Scenario {
        name: "publish-shared-lane",
        geometry: TestGeometry { lanes: 1, ..GROUPS },
        lanes_made: 0,
        setup: &[Fill(A, SMALL)],
        threads: &[
            &[Publish(&[Act::Move(A, B), Act::Fill(A, SMALL), Act::Set(1, 5)])],
            &[Replace(A, SMALL), Publish(&[Act::Swap(A, C), Act::Set(1, 6)])],
        ],
    },
    Scenario {
        name: "reserve",
        geometry: TIGHT,
        lanes_made: 3,
        setup: &[Fill(A, LARGE)],
        threads: &[
            &[Reserve(LARGE), Free(A), Fill(A, MEDIUM)],
            &[Fill(B, MEDIUM), Reserve(MEDIUM), Replace(A, LARGE)],
        ],
    },
];

/// The scenario called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Scenario> {
    all().find(|scenario| scenario.name == name)
}
