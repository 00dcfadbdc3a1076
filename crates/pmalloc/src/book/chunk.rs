//! Chunks on media: where they stand, how one is made, and the links that chain them.
//!
//! A chunk is a header line and lines of two entries. The log's root links the first chunk, every chunk's
//! `next` word the one behind it. Everything here is persistent; the mirrors are in [`super::log`].

use pmalloc_persist::{LINE_BYTES, Medium, Offset, Span, Word};

use super::LogId;
use crate::{
    Error, Result,
    layout::{
        book::{CHUNK_MAGIC, ChunkHeader, ENTRY_BYTES, EntryWords, LogEntry},
        geometry::Geometry,
        sealed::{checksum, seal, unseal},
    },
};

/// Largest sequence number that a chunk may begin with: more entries than are ever written, and so far
/// from the end of the type that adding to a number read from media can't overflow.
const BASE_MAX: u64 = 1 << 62;

/// Entries that share a line.
const ENTRIES_PER_LINE: u64 = LINE_BYTES / ENTRY_BYTES;

/// Index of a chunk in the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChunkIndex(pub(super) u32);

/// The word that names a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// The root of a log.
    Root(LogId),
    /// The `next` word of a chunk.
    After(ChunkIndex),
}

/// The book's place on media, cut into chunks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    span: Span,
    chunk_bytes: u64,
}

impl Area {
    /// The chunks of a heap of this geometry.
    pub(super) fn of(geometry: &Geometry) -> Self {
        Self { span: geometry.book_span(), chunk_bytes: geometry.chunk_bytes }
    }

    /// Chunks that fit.
    pub(super) fn chunks(self) -> u32 {
        u32::try_from(self.span.len / self.chunk_bytes).expect("a heap has fewer than 2^32 chunks")
    }

    /// Lines of entries in a chunk.
    fn lines(self) -> u64 {
        self.chunk_bytes / LINE_BYTES - 1
    }

    /// Entries in a chunk.
    pub(super) fn entries(self) -> u64 {
        self.lines() * ENTRIES_PER_LINE
    }

    /// The bytes of a chunk.
    pub(super) fn span_of(self, index: ChunkIndex) -> Span {
        Span::new(self.span.start + u64::from(index.0) * self.chunk_bytes, self.chunk_bytes)
    }

    /// The place of the `nth` entry of a chunk: successive entries stand in different lines, so that an
    /// append does not flush the line that the append before it has just flushed.
    pub(super) fn place(self, index: ChunkIndex, nth: u64) -> Offset<EntryWords> {
        debug_assert!(nth < self.entries());
        let line = self.span_of(index).start + (1 + nth % self.lines()) * LINE_BYTES;
        Offset::new(line + nth / self.lines() * ENTRY_BYTES)
    }

    /// Whether the medium reserves the whole book; everything below relies on it.
    pub(super) fn lies_in<M: Medium>(self, m: &M) -> bool {
        self.span.end() <= m.region().len()
    }

    /// Gives the chunks from `first` up to `last` memory.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`] if the file system has no room; the chunks are then as free as before.
    pub(super) fn back<M: Medium>(self, m: &M, first: ChunkIndex, last: ChunkIndex) -> Result<()> {
        let start = self.span_of(first).start;
        m.back(Span::new(start, self.span_of(last).end() - start))
            .map_err(Error::backing("backing a chunk of the bookkeeping log"))
    }

    /// Zeroes the body of a chunk that has memory and writes its header, without `next`. Nothing is
    /// durable before the caller flushed [`Self::span_of`] the chunk and fenced, and only then may
    /// anything link it.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupted`] if the chunk lies behind the heap's end.
    pub(super) fn make<M: Medium>(
        self,
        m: &M,
        index: ChunkIndex,
        log: LogId,
        base: u64,
    ) -> Result<()> {
        let span = self.span_of(index);
        let words = m.region().array::<Word>(Offset::new(span.start), span.len / 8)?;
        for word in &words[size_of::<ChunkHeader>() / 8..] {
            m.store(word, 0);
        }
        let content = header_content(log, base);
        let header = self.header(m, index);
        m.store(&header.magic, content[0]);
        m.store(&header.log, content[1]);
        m.store(&header.base, content[2]);
        for word in &header.reserved {
            m.store(word, 0);
        }
        m.store(&header.checksum, checksum(&content, span.start));
        m.store(&header.next, 0);
        Ok(())
    }

    /// Whether something that may be a chunk stands there.
    pub(super) fn is_made<M: Medium>(self, m: &M, index: ChunkIndex) -> bool {
        m.load(&self.header(m, index).magic) == CHUNK_MAGIC
    }

    /// Makes a chunk one that was never made. The caller fences.
    pub(super) fn unmake<M: Medium>(self, m: &M, index: ChunkIndex) {
        let header = self.header(m, index);
        // CRASH: no log may link the chunk any more.
        m.store(&header.magic, 0);
        m.flush_of(header);
    }

    /// The sequence number of the first entry of a chunk that a log links.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupted`] if there is no chunk of that log.
    pub(super) fn base<M: Medium>(self, m: &M, index: ChunkIndex, log: LogId) -> Result<u64> {
        let span = self.span_of(index);
        if span.end() > m.len() {
            return Err(Error::corrupted(span.start, "a linked chunk lies behind the file's end"));
        }
        let header = self.header(m, index);
        let base = m.load(&header.base);
        let sum = m.load(&header.checksum);
        if m.load(&header.magic) != CHUNK_MAGIC
            || m.load(&header.log) != u64::from(log.0)
            || header.reserved.iter().any(|word| m.load(word) != 0)
            || sum != checksum(&header_content(log, base), span.start)
        {
            return Err(Error::corrupted(span.start, "a linked chunk has no header of its log"));
        }
        if base > BASE_MAX {
            return Err(Error::corrupted(span.start, "a chunk's sequence numbers overflow"));
        }
        Ok(base)
    }

    /// The chunk that `link` names.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupted`] if the word is torn or names no chunk.
    pub(super) fn follow<M: Medium>(self, m: &M, link: Link) -> Result<Option<ChunkIndex>> {
        let word = self.link(m, link);
        let bits = m.load(word);
        let last = match link {
            // A root is written when the heap is created, so a root never written is damage ...
            Link::Root(_) => seal(0),
            // ... while zero is what a chunk without a successor holds.
            Link::After(_) => 0,
        };
        if bits == last {
            return Ok(None);
        }
        unseal(bits)
            .and_then(|value| u32::try_from(value).ok())
            .and_then(|value| value.checked_sub(1))
            .filter(|&index| index < self.chunks())
            .map(|index| Some(ChunkIndex(index)))
            .ok_or_else(|| {
                Error::corrupted(m.region().span_of(word).start, "a link names no chunk")
            })
    }

    /// Makes `link` name a chunk, durably.
    ///
    /// # Crash consistency
    ///
    /// One word: after a crash inside, `link` names what it named before or `target`. All that is
    /// reachable through `target` must be durable before.
    pub(super) fn set_link<M: Medium>(self, m: &M, link: Link, target: ChunkIndex) {
        let word = self.link(m, link);
        // CRASH: before the fence recovery finds the old chain or the new one; behind it the new one.
        m.store(word, seal(u64::from(target.0) + 1));
        m.flush_of(word);
        m.fence();
    }

    /// Makes `link`, in a chunk that nothing links yet, name a chunk. The caller flushes and fences.
    pub(super) fn prepare_link<M: Medium>(self, m: &M, link: Link, target: ChunkIndex) {
        m.store(self.link(m, link), seal(u64::from(target.0) + 1));
    }

    /// Makes every root of the first `logs` logs name no chunk. The caller fences.
    pub(super) fn clear_roots<M: Medium>(self, m: &M, logs: u32) {
        for log in 0..logs {
            let word = self.link(m, Link::Root(LogId(log)));
            m.store(word, seal(0));
            m.flush_of(word);
        }
    }

    /// Flushes the root of `log`.
    pub(super) fn flush_root<M: Medium>(self, m: &M, log: LogId) {
        m.flush_of(self.link(m, Link::Root(log)));
    }

    /// Stores an entry, its checksum last; the caller flushes.
    pub(super) fn store<M: Medium>(self, m: &M, place: Offset<EntryWords>, entry: &LogEntry) {
        let words = entry.encode(place.bytes());
        let at = self.entry(m, place);
        m.store(&at.extent, words[0]);
        m.store(&at.what, words[1]);
        m.store(&at.sequence, words[2]);
        m.store(&at.checksum, words[3]);
    }

    /// Makes a place empty and flushes it.
    pub(super) fn clear<M: Medium>(self, m: &M, place: Offset<EntryWords>) {
        let at = self.entry(m, place);
        for word in [&at.extent, &at.what, &at.sequence, &at.checksum] {
            m.store(word, 0);
        }
        m.flush_of(at);
    }

    /// Loads the words of an entry.
    pub(super) fn load<M: Medium>(self, m: &M, place: Offset<EntryWords>) -> [u64; 4] {
        let at = self.entry(m, place);
        [m.load(&at.extent), m.load(&at.what), m.load(&at.sequence), m.load(&at.checksum)]
    }

    /// Tells that an entry is soon stored.
    #[inline]
    pub(super) fn prefetch_entry<M: Medium>(self, m: &M, place: Offset<EntryWords>) {
        m.prefetch(&self.entry(m, place).extent);
    }

    /// Starts writing back the line of an entry.
    pub(super) fn flush_entry<M: Medium>(self, m: &M, place: Offset<EntryWords>) {
        m.flush_of(self.entry(m, place));
    }

    fn entry<M: Medium>(self, m: &M, place: Offset<EntryWords>) -> &EntryWords {
        m.at(place).expect("the book lies in the region: checked when it was opened")
    }

    fn header<M: Medium>(self, m: &M, index: ChunkIndex) -> &ChunkHeader {
        m.at(Offset::new(self.span_of(index).start))
            .expect("the book lies in the region: checked when it was opened")
    }

    fn link<M: Medium>(self, m: &M, link: Link) -> &Word {
        match link {
            Link::After(index) => &self.header(m, index).next,
            Link::Root(log) => {
                let root = Geometry::log_roots().nth(u64::from(log.0));
                let root = root.expect("the roots share one page");
                &m.at(root).expect("the roots lie in the region, before the book").first
            }
        }
    }
}

/// The words of a header that its checksum covers.
fn header_content(log: LogId, base: u64) -> [u64; 6] {
    [CHUNK_MAGIC, u64::from(log.0), base, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::tests::small_geometry;

    #[test]
    fn places_fill_the_chunk_and_successive_ones_never_share_a_line() {
        for chunk_bytes in [256, 512, 4096] {
            let area = Area::of(&Geometry { chunk_bytes, ..small_geometry() });
            let index = ChunkIndex(3);
            let places: Vec<u64> =
                (0..area.entries()).map(|nth| area.place(index, nth).bytes()).collect();
            let all: BTreeSet<u64> = places.iter().copied().collect();
            assert_eq!(all.len() as u64 * ENTRY_BYTES, chunk_bytes - LINE_BYTES);
            assert!(all.iter().all(|&place| {
                area.span_of(index).contains(Span::new(place, ENTRY_BYTES))
                    && place >= area.span_of(index).start + LINE_BYTES
            }));
            assert!(places.windows(2).all(|pair| pair[0] / LINE_BYTES != pair[1] / LINE_BYTES));
        }
    }
}
