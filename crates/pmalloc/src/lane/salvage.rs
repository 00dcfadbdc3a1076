//! Lanes of a damaged heap: what can't be read is made anew, so that the others' operations can be redone.

use pmalloc_persist::{LINE_BYTES, Medium, Offset};

use super::{
    directory_value, directory_word, make,
    replay::{Left, replay_lane},
    ring::marks_offset,
};
use crate::{
    error::{Error, Findings, Result},
    layout::{
        geometry::Geometry,
        lane::{MARK_LINES, MarkLine, NUMBER_MAX},
        sealed::{seal, unseal},
    },
};

/// Makes every lane readable. A lane that is damaged loses the operation that was in flight in it, if there was one.
///
/// # Errors
///
/// [`Error::NoSpace`] if a lane has no memory and can't get any.
///
/// # Crash consistency
///
/// None: nobody may open the heap before this is done and durable.
pub(crate) fn salvage<M: Medium>(
    m: &M,
    geometry: &Geometry,
    left: Left,
    findings: &mut Findings,
) -> Result<()> {
    for index in 0..geometry.lanes {
        let at = directory_word(geometry, index);
        let word = m.load(m.at(at)?);
        if word == 0 {
            continue;
        }
        if word != directory_value(geometry, index) {
            findings.lost(at.bytes(), "a lane directory word is damaged");
            reset(m, geometry, index)?;
            continue;
        }
        match replay_lane(m, geometry, left, index) {
            Ok(_) => {}
            Err(Error::Corrupted { offset, what }) => {
                findings.lost(offset, what);
                reset(m, geometry, index)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes every lane anew, without an operation in flight.
///
/// # Errors
///
/// As for [`salvage`].
pub(crate) fn reset_all<M: Medium>(m: &M, geometry: &Geometry) -> Result<()> {
    for index in 0..geometry.lanes {
        if m.load(m.at(directory_word(geometry, index))?) != 0 {
            reset(m, geometry, index)?;
        }
    }
    Ok(())
}

/// Makes one lane anew. Its numbers go on above the marks that can be read: the ring is empty, so no record has one.
fn reset<M: Medium>(m: &M, geometry: &Geometry, index: u32) -> Result<()> {
    let marks = marks_offset(geometry.lane_span(index).start);
    let line = |residue: u64| m.at(Offset::<MarkLine>::new(marks + residue * LINE_BYTES));
    let mut newest = 0;
    for residue in 0..MARK_LINES {
        let number = unseal(m.load(&line(residue)?.mark));
        newest = newest.max(number.filter(|number| *number <= NUMBER_MAX).unwrap_or(0));
    }
    make(m, geometry, index)?;
    if newest > 0 {
        let mark = &line(newest % MARK_LINES)?.mark;
        // CRASH: nobody opens the heap yet.
        m.store(mark, seal(newest));
        m.flush_of(mark);
        m.fence();
    }
    Ok(())
}
