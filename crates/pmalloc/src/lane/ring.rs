//! A lane: record, then retire.

use pmalloc_persist::{LINE_BYTES, Medium, Offset, Span, Word, sync::Arc};

use super::{board::Board, window::Window};
use crate::{
    error::{Error, Result},
    layout::{
        geometry::Geometry,
        lane::{
            GROUP_MAX, LaneHeader, MARK_LINES, MarkLine, NUMBER_MAX, Op, RECORD_BYTES, Record,
            RecordWords, Tag,
        },
        sealed::seal,
        slot::Version,
    },
};

/// A record before it has a number and a place in a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draft {
    /// What is done.
    pub(crate) op: Op,
    /// Byte offset of the block.
    pub(crate) block: u64,
    /// Pages of a large block, zero for a small one.
    pub(crate) pages: u32,
    /// Byte offset of the slot.
    pub(crate) slot: u64,
    /// The version that the slot gets.
    pub(crate) version: Version,
}

impl Draft {
    /// The bits that the slot or cell gets.
    #[inline]
    pub(crate) fn word(&self) -> u64 {
        self.op.word(self.block, self.version)
    }
}

/// The volatile cursor of a lane; whoever holds it is the lane's only writer.
#[derive(Debug)]
pub(crate) struct Lane {
    #[cfg(test)]
    index: u32,
    /// First byte of the mark array.
    marks: u64,
    /// First byte of the ring.
    ring: u64,
    /// Places of the ring.
    places: u32,
    /// Place of the next record.
    place: u32,
    /// Tag of the next record.
    tag: Tag,
    /// Number of the next operation, under the policy Eager.
    number: u64,
    /// Records that may not be durable, under the policy Batched.
    window: Window,
    /// Lines that were noted so far.
    noted: u64,
    /// What a synchronizer sees of the lane.
    board: Arc<Board>,
}

impl Lane {
    /// The cursor of lane `index`, whose ring is zero and whose newest mark is `newest_mark`.
    pub(super) fn new(
        geometry: &Geometry,
        index: u32,
        newest_mark: u64,
        board: Arc<Board>,
    ) -> Self {
        let span = geometry.lane_span(index);
        Self {
            #[cfg(test)]
            index,
            marks: marks_offset(span.start),
            ring: ring_offset(span.start),
            places: geometry.ring_places,
            place: 0,
            tag: Tag::of_count(0),
            number: newest_mark + 1,
            window: Window::new(geometry.ring_places),
            noted: 0,
            board,
        }
    }

    /// Index in the directory.
    #[cfg(test)]
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Sees to it that the next operation has a number, under the policy Eager.
    #[inline]
    pub(crate) fn renew_if_used_up<M: Medium>(&mut self, m: &M) {
        if self.number > NUMBER_MAX {
            self.renew(m);
        }
    }

    /// Begins again with the first number.
    ///
    /// # Crash consistency
    ///
    /// Every record is retired. The ring is durably zero before the first mark is: no mark that is missing then makes a
    /// record live.
    #[cold]
    fn renew<M: Medium>(&mut self, m: &M) {
        let zero = |start: u64, len: u64| {
            let span = Span::new(start, len);
            let words = m.region().array::<Word>(Offset::new(start), len / 8);
            for word in words.expect("a lane lies inside its heap") {
                // CRASH: see above.
                m.store(word, 0);
            }
            m.persist(span);
        };
        zero(self.ring, u64::from(self.places) * RECORD_BYTES);
        zero(self.marks, MARK_LINES * LINE_BYTES);
        (self.place, self.tag, self.number) = (0, Tag::of_count(0), 1);
    }

    /// Sets the number of the next operation.
    #[cfg(test)]
    pub(crate) fn set_number(&mut self, number: u64) {
        self.number = number;
    }

    /// Whether more than half of the ring holds records that may not be durable, where `durable` tells the durable epoch.
    #[inline]
    pub(crate) fn is_half_full(&mut self, durable: impl FnOnce() -> u64) -> bool {
        self.window.is_half_full(durable)
    }

    /// Whether `records` more find places that may be written.
    #[inline(always)]
    pub(crate) fn has_room(&mut self, durable: impl FnOnce() -> u64, records: usize) -> bool {
        self.window.has_room(durable, records)
    }

    /// Marks the lane, under the policy Batched: an operation goes in. It looks at the epoch only then, and nothing keeps it
    /// from [leaving](Self::leave): no wait, no error, no code of the user's.
    #[inline(always)]
    pub(crate) fn enter(&self) {
        self.board.enter();
    }

    /// Notes a line that is to be flushed: all that the operation stores in it was stored.
    #[inline(always)]
    pub(crate) fn note(&mut self, line: u64) {
        self.board.note(self.noted, line);
        self.noted += 1;
    }

    /// Unmarks the lane: the operation has stored its effects, all in the lines that it has noted.
    #[inline(always)]
    pub(crate) fn leave(&self) {
        self.board.leave(self.noted);
    }

    /// The most records that one operation may have: a quarter of the ring, and at most [`GROUP_MAX`].
    fn group_max(&self) -> usize {
        (self.places / 4).min(GROUP_MAX) as usize
    }

    /// Sees that the lane takes an operation of `records` records.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`].
    #[inline]
    pub(crate) fn check_group(&self, records: usize) -> Result<()> {
        // Every lane takes one: most operations have no more, and their number is known to the compiler.
        if records == 1 || records <= self.group_max() { Ok(()) } else { Err(self.too_many()) }
    }

    #[cold]
    fn too_many(&self) -> Error {
        let what = "changes in one publish (a move and a swap are two each)";
        Error::Limit { what, limit: self.group_max() as u64 }
    }

    /// Writes and flushes the records of the next operation, without fencing: it exists once all of them are durable.
    ///
    /// The caller fences, makes the effects durable and then calls [`Lane::retire`]; nothing in between may
    /// fail.
    ///
    /// # Panics
    ///
    /// If there are more than [`Lane::check_group`] allows.
    #[track_caller]
    #[inline(always)]
    pub(crate) fn record<M: Medium>(&mut self, m: &M, drafts: &[Draft]) {
        self.write_all(m, drafts, self.number);
        m.prefetch(&self.mark(m).mark);
    }

    /// As [`Lane::record`], stamped with `epoch`, at places that the caller has found free.
    #[track_caller]
    #[inline(always)]
    pub(crate) fn record_in<M: Medium>(&mut self, m: &M, drafts: &[Draft], epoch: u64) {
        self.window.add(epoch, drafts.len() as u64);
        self.write_all(m, drafts, epoch);
    }

    #[track_caller]
    #[inline(always)]
    fn write_all<M: Medium>(&mut self, m: &M, drafts: &[Draft], number: u64) {
        match drafts {
            [draft] => self.write(m, draft, number, 0, 1),
            drafts => self.write_group(m, drafts, number),
        }
    }

    #[track_caller]
    #[inline(never)]
    fn write_group<M: Medium>(&mut self, m: &M, drafts: &[Draft], number: u64) {
        let count = u8::try_from(drafts.len()).expect("a group is at most 128 records");
        for (index, draft) in (0..).zip(drafts) {
            // CRASH: recovery takes a group only if all its records are there.
            self.write(m, draft, number, index, count);
        }
    }

    #[track_caller]
    #[inline(always)]
    fn write<M: Medium>(&mut self, m: &M, draft: &Draft, number: u64, index: u8, count: u8) {
        let Draft { op, block, pages, slot, version } = *draft;
        let record = Record { op, block, slot, version, number, index, count, pages };
        let at = Offset::<RecordWords>::new(place_offset(self.ring, self.places, self.place));
        let words = m.at(at).expect("a lane lies inside its heap");
        let [w0, w1, w2, w3] = record.encode(self.tag);
        m.store(&words.block, w0);
        m.store(&words.slot, w1);
        m.store(&words.number, w2);
        m.store(&words.version, w3);
        // CRASH: the place held zeros or a record with another tag, which is retired or of a durable epoch. While any word of this record is
        // missing, the tags differ and no record is there: the operation did not happen. Once all four are
        // durable, recovery finishes the operation.
        // A record lies in one line, which is that of its first word.
        m.flush_of(&words.block);
        self.place = if self.place + 1 == self.places { 0 } else { self.place + 1 };
        self.tag = self.tag.next();
        // Which was flushed when its place, or the other one of its line, was written last.
        let next = Offset::<RecordWords>::new(place_offset(self.ring, self.places, self.place));
        m.prefetch(&m.at(next).expect("a lane lies inside its heap").block);
    }

    /// Writes and flushes the mark of the operation recorded last, without fencing.
    ///
    /// The effects of the operation must be durable: a crash before the mark is durable replays it, a crash
    /// after that does not.
    #[track_caller]
    #[inline]
    pub(crate) fn retire<M: Medium>(&mut self, m: &M) {
        let line = self.mark(m);
        m.store(&line.mark, seal(self.number));
        // CRASH: one atomic store. Without it recovery redoes effects that are durable already, which changes
        // nothing; the slot is still locked and the freed memory not reused, so nothing newer is undone.
        m.flush_of(line);
        self.number += 1;
    }

    /// The line of the mark of the operation recorded last.
    #[inline]
    fn mark<'m, M: Medium>(&self, m: &'m M) -> &'m MarkLine {
        let line = self.marks + self.number % MARK_LINES * LINE_BYTES;
        m.at(Offset::new(line)).expect("a lane lies inside its heap")
    }
}

/// First byte of the mark array of the lane at byte `lane`.
pub(super) fn marks_offset(lane: u64) -> u64 {
    lane + size_of::<LaneHeader>() as u64
}

/// First byte of the ring of the lane at byte `lane`.
pub(super) fn ring_offset(lane: u64) -> u64 {
    marks_offset(lane) + MARK_LINES * LINE_BYTES
}

/// Byte of `place`: successive places lie in different lines, and a line's second half comes half a ring
/// after its first, so that no line is flushed again within a few flushes (mechanism R1).
#[inline]
pub(super) fn place_offset(ring: u64, places: u32, place: u32) -> u64 {
    let lines = places / 2;
    let (half, line) = if place < lines { (0, place) } else { (1, place - lines) };
    ring + u64::from(line) * LINE_BYTES + half * RECORD_BYTES
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn places_cover_the_ring_once_and_alternate_lines() {
        let offsets: Vec<u64> = (0..512).map(|place| place_offset(0, 512, place)).collect();
        let distinct: HashSet<&u64> = offsets.iter().collect();
        assert_eq!(distinct.len(), 512);
        assert_eq!(offsets.iter().max(), Some(&(512 * 32 - 32)));
        for window in offsets.windows(200) {
            let lines: HashSet<u64> = window.iter().map(|offset| offset / LINE_BYTES).collect();
            assert_eq!(lines.len(), 200);
        }
    }
}
