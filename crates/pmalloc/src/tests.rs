//! What the unit tests of several modules share, and tests of the whole heap that need to know its layout.

#[cfg(not(shuttle))]
#[path = "../tests/common/mod.rs"]
pub(crate) mod common;
#[cfg(not(shuttle))]
mod forged;
#[cfg(not(any(shuttle, miri)))]
mod in_short;
#[cfg(not(any(shuttle, miri)))]
mod refusals;
#[cfg(not(shuttle))]
mod sealed;
#[cfg(not(any(shuttle, miri)))]
mod sparse;

use crate::layout::geometry::Geometry;

/// A geometry in which a full ring, chunk or slab is a few operations away.
pub(crate) fn small_geometry() -> Geometry {
    Geometry {
        capacity_bytes: 256 << 10,
        slab_bytes: 16 << 10,
        ring_places: 8,
        lanes: 2,
        chunk_bytes: 256,
        logs: 2,
        roots: 8,
        stripes: 3,
    }
}
