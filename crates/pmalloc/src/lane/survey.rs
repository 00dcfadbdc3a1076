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
        state::Policy,
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
pub(crate) fn in_flight<M: Medium>(m: &M, geometry: &Geometry, left: Left) -> Result<InFlight> {
    let mut found = InFlight::default();
    for image in replay(m, geometry, left)? {
        found.decided += image.operations();
        // A lane records one operation after the other: at most one of them was not decided, and under Eager it is the only
        // one in flight.
        let may_be_undecided = image.live.is_empty() || left.policy == Policy::Batched;
        if may_be_undecided && left_a_part(m, geometry, &image, left)? {
            found.undecided += 1;
        }
    }
    Ok(found)
}

/// Whether a lane holds a part of an operation that was not decided.
fn left_a_part<M: Medium>(
    m: &M,
    geometry: &Geometry,
    image: &LaneImage,
    left: Left,
) -> Result<bool> {
    let ring = ring_offset(geometry.lane_span(image.index).start);
    let (above, _) = left.numbers_in_flight(image.newest_mark);
    let mut in_flight = 0;
    for place in 0..geometry.ring_places {
        let at = place_offset(ring, geometry.ring_places, place);
        let words: &RecordWords = m.at(Offset::new(at))?;
        let words =
            [&words.block, &words.slot, &words.number, &words.version].map(|word| m.load(word));
        // Other records are whole: their place is written again only when they are retired, or their epoch is durable.
        if words.iter().any(|word| Tag::bits_in(*word) != Tag::bits_in(words[0])) {
            return Ok(true);
        }
        in_flight += usize::from(Record::number_in(words[2]) > above);
    }
    Ok(in_flight > image.live.len())
}
