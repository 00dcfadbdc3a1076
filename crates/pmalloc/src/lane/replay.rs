//! What recovery reads from a lane, and how it wipes the rings afterwards.

use pmalloc_persist::{LINE_BYTES, Medium, Offset, Span, Word};

use super::{
    directory_value, directory_word, header_checksum,
    ring::{marks_offset, place_offset, ring_offset},
};
use crate::{
    error::{Error, Result},
    layout::{
        geometry::Geometry,
        lane::{
            LANE_MAGIC, LaneHeader, MARK_LINES, MarkLine, NUMBER_MAX, RECORD_BYTES, Record,
            RecordWords, Tag,
        },
        sealed::unseal,
    },
};

/// What a made lane holds.
#[derive(Debug)]
pub(crate) struct LaneImage {
    /// Index in the directory.
    pub(crate) index: u32,
    /// Newest retired operation number, zero if there is none.
    pub(crate) newest_mark: u64,
    /// The records of the operation in flight, in group order; empty if there was none.
    pub(crate) live: Vec<Record>,
    /// Where a record in flight stands that can't be one: the heap was closed.
    pub(crate) stray: Option<u64>,
}

/// Whether operations may have been in flight when the heap was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// The heap was not closed.
    Open,
    /// The heap was closed: every record is retired, and one that says otherwise is damaged.
    Closed,
}

/// Reads every made lane.
///
/// # Errors
///
/// [`Error::Corrupted`] for anything that no crash can leave behind.
pub(crate) fn replay<M: Medium>(m: &M, geometry: &Geometry, left: Left) -> Result<Vec<LaneImage>> {
    let mut images = Vec::new();
    for index in 0..geometry.lanes {
        let at = directory_word(geometry, index);
        match m.load(m.at(at)?) {
            0 => {}
            word if word == directory_value(geometry, index) => {
                images.push(replay_lane(m, geometry, left, index)?);
            }
            _ => return Err(Error::corrupted(at.bytes(), "a lane directory word is damaged")),
        }
    }
    Ok(images)
}

pub(super) fn replay_lane<M: Medium>(
    m: &M,
    geometry: &Geometry,
    left: Left,
    index: u32,
) -> Result<LaneImage> {
    let span = geometry.lane_span(index);
    // CRASH: a copy's file has more memory; no byte of it has changed.
    m.ensure(&[span]).map_err(Error::backing("giving a lane memory"))?;
    let start = span.start;
    let header: &LaneHeader = m.at(Offset::new(start))?;
    let valid = m.load(&header.magic) == LANE_MAGIC
        && m.load(&header.index) == u64::from(index)
        && m.load(&header.checksum) == header_checksum(m, header, start);
    if !valid {
        return Err(Error::corrupted(start, "a lane header is damaged"));
    }
    let newest_mark = newest_mark(m, start)?;
    let (live, stray) = match left {
        Left::Open => (live_group(m, geometry, start, newest_mark)?, None),
        Left::Closed => (Vec::new(), stray_record(m, geometry, start, newest_mark)?),
    };
    Ok(LaneImage { index, newest_mark, live, stray })
}

fn newest_mark<M: Medium>(m: &M, lane: u64) -> Result<u64> {
    let mut newest = 0;
    for residue in 0..MARK_LINES {
        let at = Offset::<MarkLine>::new(marks_offset(lane) + residue * LINE_BYTES);
        let word = m.load(&m.at(at)?.mark);
        if word == 0 {
            continue;
        }
        match unseal(word) {
            Some(number) if number <= NUMBER_MAX && number % MARK_LINES == residue => {
                newest = newest.max(number);
            }
            _ => return Err(Error::corrupted(at.bytes(), "a lane mark is damaged")),
        }
    }
    Ok(newest)
}

/// The records of the one operation that is recorded and not retired, if its group is whole.
///
/// A lane writes the next record only when the mark of the one before is durable, so an operation in flight
/// has the number after the newest mark.
fn live_group<M: Medium>(
    m: &M,
    geometry: &Geometry,
    lane: u64,
    newest: u64,
) -> Result<Vec<Record>> {
    let mut group = Vec::new();
    for place in 0..geometry.ring_places {
        let at = place_offset(ring_offset(lane), geometry.ring_places, place);
        match record_above(m, at, newest)? {
            Some(record) if record.number > newest + 1 => {
                return Err(Error::corrupted(at, "a record is newer than its lane"));
            }
            record => group.extend(record),
        }
    }
    group.sort_by_key(|record| record.index);
    let whole = group.iter().enumerate().all(|(at, record)| {
        usize::from(record.index) == at && usize::from(record.count) == group.len()
    });
    // A group with a torn member was not decided: none of it happened.
    if !whole {
        group.clear();
    }
    Ok(group)
}

/// The place of the first record that is not retired.
fn stray_record<M: Medium>(
    m: &M,
    geometry: &Geometry,
    lane: u64,
    newest: u64,
) -> Result<Option<u64>> {
    for place in 0..geometry.ring_places {
        let at = place_offset(ring_offset(lane), geometry.ring_places, place);
        if record_above(m, at, newest)?.is_some() {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// The record at byte `at`, if it is whole and its number is above `newest`.
///
/// What is not above, retired or wiped, is not looked at: it is all the same. Nor is what follows a word with another
/// tag than the number's. So the crash explorer need not tell apart what means nothing.
fn record_above<M: Medium>(m: &M, at: u64, newest: u64) -> Result<Option<Record>> {
    let words: &RecordWords = m.at(Offset::new(at))?;
    if !m.classify(&words.number, |word| Record::number_in(word) > newest) {
        return Ok(None);
    }
    let tag = Tag::bits_in(m.load(&words.number));
    let others = [&words.block, &words.slot, &words.version];
    if others.iter().any(|word| m.classify(word, |word| Tag::bits_in(word) != tag)) {
        return Ok(None);
    }
    let words = [&words.block, &words.slot, &words.number, &words.version];
    Ok(Record::decode(words.map(|word| m.load(word))).map(|(record, _)| record))
}

/// Flushes all that [`replay`] reads, without fencing.
pub(crate) fn write_back<M: Medium>(m: &M, geometry: &Geometry, images: &[LaneImage]) {
    m.flush(geometry.directory_span());
    for image in images {
        let lane = geometry.lane_span(image.index).start;
        let end = ring_offset(lane) + u64::from(geometry.ring_places) * RECORD_BYTES;
        m.flush(Span::new(lane, end - lane));
    }
}

/// Zeroes the rings of the lanes in `images` and flushes them, without fencing.
///
/// Words that read as zero are written and flushed as well: an open that died with its process may have zeroed them in
/// the cache only.
///
/// # Errors
///
/// None for lanes that [`replay`] accepted.
///
/// # Crash consistency
///
/// The effects of all live records are durable before this runs. A partly zeroed ring holds retired records
/// and, until its words are gone, the live ones, which are redone to no effect.
pub(crate) fn zero_rings<M: Medium>(
    m: &M,
    geometry: &Geometry,
    images: &[LaneImage],
) -> Result<()> {
    for image in images {
        let ring = ring_offset(geometry.lane_span(image.index).start);
        let span = Span::new(ring, u64::from(geometry.ring_places) * RECORD_BYTES);
        for word in m.region().array::<Word>(Offset::new(span.start), span.len / 8)? {
            // CRASH: any subset of the words may be zero: see above.
            m.store(word, 0);
        }
        m.flush(span);
    }
    Ok(())
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use pmalloc_persist::sim::{Domain, Sim, SimOptions};

    use super::*;
    use crate::{
        lane::{
            make,
            ring::{Draft, Lane},
        },
        layout::{lane::Op, slot::Version},
        tests::small_geometry,
    };

    fn ring(sim: &Sim, geometry: &Geometry) -> [u64; 32] {
        let start = ring_offset(geometry.lane_span(0).start);
        let words: &[Word; 32] = sim.at(Offset::new(start)).expect("the lane is in bounds");
        words.each_ref().map(|word| sim.load(word))
    }

    #[test]
    fn a_wipe_is_durable_although_one_before_it_died_with_its_process() {
        let geometry = small_geometry();
        let sim = Sim::new(SimOptions { len_bytes: geometry.heap_bytes(), domain: Domain::Line64 });
        sim.back(Span::new(0, geometry.data_span().start)).expect("room");
        make(&sim, &geometry, 0).expect("room");
        let draft =
            Draft { op: Op::FreeSmall, block: 64, pages: 0, slot: 8, version: Version::default() };
        Lane::new(&geometry, 0, 0).record(&sim, &[draft]);
        sim.fence();
        let images = replay(&sim, &geometry, Left::Open).expect("intact");
        assert_eq!(images[0].live.len(), 1);
        // The process dies between the stores and the fence: the next one finds zeros, in the cache.
        zero_rings(&sim, &geometry, &images).expect("a lane that was replayed");
        let images = replay(&sim, &geometry, Left::Open).expect("intact");
        assert_eq!(images[0].live, []);
        assert_ne!(ring(&sim.crash_state().oldest(), &geometry), [0; 32]);
        std::thread::scope(|scope| {
            let process = || {
                zero_rings(&sim, &geometry, &images).expect("a lane that was replayed");
                sim.fence();
            };
            scope.spawn(process).join().expect("no panic");
        });
        assert_eq!(ring(&sim.crash_state().oldest(), &geometry), [0; 32]);
    }
}
