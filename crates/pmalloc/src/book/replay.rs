//! Replay: from the media alone to the extents held, and to the mirrors as they would be.
//!
//! What a crash can leave, and what it can't:
//!
//! | found | verdict |
//! |---|---|
//! | words that are no entry, one of them zero | an append in flight was torn: a hole, and the log goes on behind it |
//! | words that are no entry, none of them zero | impossible: the place was zero, and what is torn lacks a word |
//! | an empty place before a used one | its append was cancelled, or in flight and lost: a hole |
//! | a free of a start not held | its allocation's chunk was collected: no effect |
//! | a free of a held start, other page count | impossible: a free is written only for an extent held, and allocating the start again waits until the free is durable |
//! | an allocation of a held start, in this log or another, or an overlap | impossible, for the same reason: an extent is handed out again only when its free is durable, and that entry outlives the allocation it ends |
//! | an entry with another place's sequence number | impossible: a chunk is durably zero before it is linked, and each place is written once |
//! | a chunk linked twice, with another log's header, or numbered below its predecessor | impossible: links change by one word, to chunks that were durable before |
//!
//! What is impossible is [`Error::Corrupted`], with its place. Time and memory are bounded by the chunks
//! linked, each of which must exist and be linked once.

use pmalloc_persist::{Medium, sync::lock};

use super::{
    Book, Extent, Held,
    chunk::{ChunkIndex, Link},
    log::Log,
    salvage::require_known,
};
use crate::{
    Error, Result,
    layout::{
        book::{EntryOp, LogEntry},
        geometry::{Geometry, Page, PageRange},
    },
};

impl Book {
    /// Reads the book of a heap: the extents it holds, in ascending order. The caller checks them against
    /// the grown length of the data area.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupted`] if the book is in a state that no crash leaves, [`Error::Version`] if a program that knows more
    /// wrote it.
    pub(crate) fn replay<M: Medium>(m: &M, geometry: &Geometry) -> Result<(Self, Vec<Held>)> {
        let book = Self::new(geometry);
        if !book.area.lies_in(m) {
            let start = geometry.book_span().start;
            return Err(Error::corrupted(start, "the book reaches behind the heap's end"));
        }
        for log in &book.logs {
            let mut log = lock(log);
            book.replay_log(m, &mut log)?;
            (0..log.live.len()).for_each(|_| book.hold(&mut log));
        }
        let held = book.held()?;
        Ok((book, held))
    }

    /// Flushes all that [`Book::replay`] reads, without fencing.
    pub(crate) fn write_back<M: Medium>(&self, m: &M) {
        for log in &self.logs {
            let log = lock(log);
            self.area.flush_root(m, log.id);
            for chunk in log.chunks.iter() {
                m.flush(self.area.span_of(chunk.index));
            }
        }
    }

    /// Follows the chain of one log.
    fn replay_log<M: Medium>(&self, m: &M, log: &mut Log) -> Result<()> {
        let mut link = Link::Root(log.id);
        let mut base_min = 0;
        while let Some(index) = self.area.follow(m, link)? {
            let span = self.area.span_of(index);
            let start = span.start;
            // CRASH: a copy's file has more memory; no byte of it has changed.
            m.ensure(&[span]).map_err(Error::backing("giving the bookkeeping log memory"))?;
            if !self.pool.take_exact(index) {
                return Err(Error::corrupted(start, "a chunk is linked twice"));
            }
            let base = self.area.base(m, index, log.id)?;
            if base < base_min {
                return Err(Error::corrupted(start, "a chunk's sequence numbers fall back"));
            }
            base_min = base + self.area.entries();
            log.begin(base, index);
            self.replay_chunk(m, log, base, index)?;
            link = Link::After(index);
        }
        log.frees = 0;
        Ok(())
    }

    /// Applies the entries of one chunk, the newest of the log so far.
    fn replay_chunk<M: Medium>(
        &self,
        m: &M,
        log: &mut Log,
        base: u64,
        index: ChunkIndex,
    ) -> Result<()> {
        for nth in 0..self.area.entries() {
            let place = self.area.place(index, nth);
            let words = self.area.load(m, place);
            if words == [0; 4] {
                continue;
            }
            // Behind the last word that is not zero, not behind the last entry: what is left of a torn one
            // must never mix with a new one.
            log.next = base + nth + 1;
            require_known(words, place.bytes())?;
            match LogEntry::decode(words, place.bytes()) {
                None if words.contains(&0) => log.chunks.holding_mut(base).torn += 1,
                None => {
                    let what = "an entry does not match its checksum";
                    return Err(Error::corrupted(place.bytes(), what));
                }
                Some(entry) if entry.sequence == base + nth => {
                    self.apply(log, &entry)
                        .map_err(|what| Error::corrupted(place.bytes(), what))?;
                }
                Some(_) => {
                    let what = "an entry has the sequence number of another place";
                    return Err(Error::corrupted(place.bytes(), what));
                }
            }
        }
        Ok(())
    }

    /// Applies one entry, or says what is wrong with it.
    fn apply(&self, log: &mut Log, entry: &LogEntry) -> Result<(), &'static str> {
        let range = PageRange::new(Page(entry.start_page), entry.pages);
        if range.pages == 0 || range.end() > self.geometry.data_pages() {
            return Err("an entry names pages outside the data area");
        }
        match entry.op {
            EntryOp::Alloc(kind) => {
                let extent = Extent { range, kind, tag: entry.tag };
                log.chunks.holding_mut(entry.sequence).live += 1;
                if !log.enter(entry.sequence, extent) {
                    return Err("an extent is allocated twice without a free between");
                }
            }
            EntryOp::Free => match log.live.get(&range.start) {
                Some(live) if live.extent.range == range => {
                    let base = log.chunks.holding(entry.sequence).base;
                    log.count_free(base, range.start);
                }
                Some(_) => return Err("an extent is freed with another length"),
                None => {}
            },
        }
        Ok(())
    }

    /// The extents of all logs, ascending and without overlap.
    fn held(&self) -> Result<Vec<Held>> {
        let mut all = Vec::new();
        for log in &self.logs {
            let log = lock(log);
            all.extend(log.live.values().map(|live| {
                let (chunk, nth) = log.place_of(live.sequence);
                (Held { extent: live.extent, log: log.id }, self.area.place(chunk, nth))
            }));
        }
        all.sort_by_key(|(held, _)| held.extent.range.start);
        for pair in all.windows(2) {
            let (before, behind) = (pair[0].0.extent.range, pair[1].0.extent.range);
            if before.end() > u64::from(behind.start.0) {
                return Err(Error::corrupted(pair[1].1.bytes(), "two allocated extents overlap"));
            }
        }
        Ok(all.into_iter().map(|(held, _)| held).collect())
    }
}
