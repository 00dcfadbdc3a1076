//! How the operations in flight were left: for a report, before recovery wipes the rings.
//!
//! Recovery itself does not ask: a record that is not whole means nothing to it. So it may wipe the rings in any order,
//! and after a crash in that nothing tells a record that was never whole from one that is no longer.

use pmalloc_persist::{Medium, Offset};

use super::{
    replay::{LaneImage, Left, replay},
    ring::{place_offset, ring_offset},
};
use crate::{
    error::Result,
    layout::{
        geometry::Geometry,
        lane::{Record, RecordWords, Tag},
    },
};

/// Operations in flight, by what becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct InFlight {
    /// Operations whose records are whole: they are redone.
    pub(crate) decided: u64,
    /// Operations that left torn records, or a part of their records: they did not happen, or a recovery that was cut off
    /// had completed them.
    pub(crate) undecided: u64,
}

/// The operations in flight of a heap that was not closed.
///
/// # Errors
///
/// As for [`replay`].
pub(crate) fn in_flight<M: Medium>(m: &M, geometry: &Geometry) -> Result<InFlight> {
    let mut found = InFlight::default();
    for image in replay(m, geometry, Left::Open)? {
        if !image.live.is_empty() {
            found.decided += 1;
        } else if left_a_part(m, geometry, &image)? {
            found.undecided += 1;
        }
    }
    Ok(found)
}

/// Whether a lane without a whole operation in flight holds a part of one.
fn left_a_part<M: Medium>(m: &M, geometry: &Geometry, image: &LaneImage) -> Result<bool> {
    let ring = ring_offset(geometry.lane_span(image.index).start);
    for place in 0..geometry.ring_places {
        let at = place_offset(ring, geometry.ring_places, place);
        let words: &RecordWords = m.at(Offset::new(at))?;
        let words =
            [&words.block, &words.slot, &words.number, &words.version].map(|word| m.load(word));
        // Retired records are whole: their place is written again only when their mark is durable.
        let is_torn = words.iter().any(|word| Tag::bits_in(*word) != Tag::bits_in(words[0]));
        if is_torn || image.newest_mark < Record::number_in(words[2]) {
            return Ok(true);
        }
    }
    Ok(false)
}
