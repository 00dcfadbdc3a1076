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
        state::Policy,
    },
};

/// Epochs whose records may be in flight: the present one, and the one before until it is durable.
pub(crate) const EPOCHS_IN_FLIGHT: u64 = 2;

/// What a made lane holds.
#[derive(Debug)]
pub(crate) struct LaneImage {
    /// Index in the directory.
    pub(crate) index: u32,
    /// Newest retired operation number, zero if there is none.
    pub(crate) newest_mark: u64,
    /// The records of the operations in flight, those of each in group order; empty if there was none.
    pub(crate) live: Vec<Record>,
    /// Where a record in flight stands that can't be one: the heap was closed.
    pub(crate) stray: Option<u64>,
}

impl LaneImage {
    /// Operations in flight that were decided.
    pub(crate) fn operations(&self) -> u64 {
        self.live.iter().filter(|record| record.index == 0).count() as u64
    }
}

/// How the heap was left, as far as it says which records are those of operations in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left {
    /// Whether the heap was closed: then no operation is in flight, and a record that says otherwise is damaged.
    pub(crate) is_closed: bool,
    /// The policy that wrote the records.
    pub(crate) policy: Policy,
    /// The durable epoch.
    pub(crate) durable: u64,
}

impl Left {
    /// The numbers of operations in flight, of a lane with this newest mark: above the first, and up to the second.
    ///
    /// Under Eager a lane writes the next record only when the mark of the one before is durable. Under Batched an epoch
    /// begins only when the one before the last is durable.
    pub(super) fn numbers_in_flight(&self, newest_mark: u64) -> (u64, u64) {
        match self.policy {
            Policy::Eager => (newest_mark, newest_mark + 1),
            Policy::Batched => (self.durable, self.durable + EPOCHS_IN_FLIGHT),
        }
    }
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
    let (above, up_to) = left.numbers_in_flight(newest_mark);
    let (live, stray) = if left.is_closed {
        (Vec::new(), stray_record(m, geometry, start, above)?)
    } else {
        (live_records(m, geometry, start, (above, up_to))?, None)
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

/// The records of the operations in flight, as far as their groups are whole: a group with a torn member was not decided,
/// and none of it happened.
fn live_records<M: Medium>(
    m: &M,
    geometry: &Geometry,
    lane: u64,
    (above, up_to): (u64, u64),
) -> Result<Vec<Record>> {
    let mut found = Vec::new();
    for place in 0..geometry.ring_places {
        let at = place_offset(ring_offset(lane), geometry.ring_places, place);
        let record = record_above(m, at, above)?;
        if record.is_some_and(|(record, _)| record.number > up_to) {
            return Err(Error::corrupted(at, "a record is newer than its lane"));
        }
        found.push(record);
    }
    let first = |place: &usize| found[*place].is_some_and(|(record, _)| record.index == 0);
    let groups = (0..found.len()).filter(first).filter_map(|place| whole_group(&found, place));
    Ok(groups.flatten().collect())
}

/// The records of the group that begins at `place` of a ring, if all of them are there: at places, and with tags, that
/// follow each other, and with one number.
fn whole_group(found: &[Option<(Record, Tag)>], place: usize) -> Option<Vec<Record>> {
    let (first, mut tag) = found[place]?;
    let mut group = Vec::with_capacity(first.count.into());
    for index in 0..first.count {
        let (record, its_tag) = found[(place + usize::from(index)) % found.len()]?;
        let belongs = record.number == first.number
            && (record.index, record.count) == (index, first.count)
            && its_tag == tag;
        if !belongs {
            return None;
        }
        group.push(record);
        tag = tag.next();
    }
    Some(group)
}

/// The place of the first record that is not retired.
fn stray_record<M: Medium>(
    m: &M,
    geometry: &Geometry,
    lane: u64,
    above: u64,
) -> Result<Option<u64>> {
    for place in 0..geometry.ring_places {
        let at = place_offset(ring_offset(lane), geometry.ring_places, place);
        if record_above(m, at, above)?.is_some() {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// The record at byte `at`, if it is whole and its number is above `above`, and its tag.
///
/// What is not above, retired or wiped, is not looked at: it is all the same. Nor is what follows a word with another
/// tag than the number's. So the crash explorer need not tell apart what means nothing.
fn record_above<M: Medium>(m: &M, at: u64, above: u64) -> Result<Option<(Record, Tag)>> {
    let words: &RecordWords = m.at(Offset::new(at))?;
    if !m.classify(&words.number, |word| Record::number_in(word) > above) {
        return Ok(None);
    }
    let tag = Tag::bits_in(m.load(&words.number));
    let others = [&words.block, &words.slot, &words.version];
    if others.iter().any(|word| m.classify(word, |word| Tag::bits_in(word) != tag)) {
        return Ok(None);
    }
    let words = [&words.block, &words.slot, &words.number, &words.version];
    Ok(Record::decode(words.map(|word| m.load(word))))
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
    use pmalloc_persist::{
        sim::{Domain, Sim, SimOptions},
        sync::Arc,
    };

    use super::*;
    use crate::{
        lane::{
            board::Board,
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
        let left = Left { is_closed: false, policy: Policy::Eager, durable: 0 };
        let draft =
            Draft { op: Op::FreeSmall, block: 64, pages: 0, slot: 8, version: Version::default() };
        let board = Arc::new(Board::new(geometry.ring_places));
        Lane::new(&geometry, 0, 0, board).record(&sim, &[draft]);
        sim.fence();
        let images = replay(&sim, &geometry, left).expect("intact");
        assert_eq!(images[0].live.len(), 1);
        // The process dies between the stores and the fence: the next one finds zeros, in the cache.
        zero_rings(&sim, &geometry, &images).expect("a lane that was replayed");
        let images = replay(&sim, &geometry, left).expect("intact");
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
