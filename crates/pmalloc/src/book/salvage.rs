//! What is left of the logs of a damaged heap, and logs written anew from it.
//!
//! Every entry that was ever written says what its log did at that number, so entries are put in order by number, not by
//! where they were found. A log whose chain is broken is completed from the chunks of it that no link reaches. An extent
//! that only those name may have been freed by an entry that is gone: it comes back if nobody else has its pages, and the
//! report says so.

use std::collections::{BTreeMap, BTreeSet};

use pmalloc_persist::Medium;

use super::{
    Book, Extent, Held, LogId,
    chunk::{Area, ChunkIndex, Link},
};
use crate::{
    error::{Error, Findings, Result},
    layout::{
        book::{ENTRY_OP_LAST, EntryOp, LogEntry},
        geometry::{Geometry, Page, PageRange},
        state::Clean,
    },
};

/// Chunks without a header behind which none is looked for: they are handed out from the front.
const GAP_CHUNKS: u32 = 64;

/// Extents without overlap, by their first page.
#[derive(Debug, Default)]
pub(crate) struct HeldExtents(BTreeMap<Page, Held>);

impl HeldExtents {
    /// Adds an extent, unless it overlaps one that is there; says whether it did.
    pub(crate) fn add(&mut self, held: Held) -> bool {
        let range = held.extent.range;
        let free = !self.overlaps(range);
        if free {
            self.0.insert(range.start, held);
        }
        free
    }

    /// Whether a page of `range` is in an extent.
    pub(crate) fn overlaps(&self, range: PageRange) -> bool {
        self.last_before(range.end()).is_some_and(|held| held.end() > u64::from(range.start.0))
    }

    /// Removes the extents that `keep` refuses.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Held) -> bool) {
        self.0.retain(|_, held| keep(held));
    }

    /// All extents, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.0.values()
    }

    /// The range of the last extent that starts before page `end`.
    fn last_before(&self, end: u64) -> Option<PageRange> {
        let behind = Page(u32::try_from(end).unwrap_or(u32::MAX));
        self.0.range(..behind).next_back().map(|(_, held)| held.extent.range)
    }

    /// Adds an extent, in place of those that it overlaps.
    fn replace(&mut self, held: Held) {
        let range = held.extent.range;
        while let Some(older) = self.last_before(range.end())
            && older.end() > u64::from(range.start.0)
        {
            self.0.remove(&older.start);
        }
        self.0.insert(range.start, held);
    }
}

impl Book {
    /// The extents that the logs of a damaged heap name, none beyond page `grown_pages`.
    pub(crate) fn salvage<M: Medium>(
        m: &M,
        geometry: &Geometry,
        (grown_pages, clean): (u64, Clean),
        findings: &mut Findings,
    ) -> HeldExtents {
        let linked = BTreeSet::new();
        let mut reader = Reader { m, area: Area::of(geometry), clean, linked, findings };
        let mut logs: Vec<_> = (0..geometry.logs).map(|log| reader.chain(LogId(log))).collect();
        let broken = logs.iter_mut().filter(|log| !log.is_whole);
        broken.for_each(|log| reader.add_unlinked(log));
        let mut named = Vec::new();
        logs.iter().for_each(|log| reader.history(log, grown_pages, &mut named));
        // Stable: of one trust, the logs in the order of their numbers.
        named.sort_by_key(|(trust, _)| *trust);
        let mut all = HeldExtents::default();
        for (trust, held) in named {
            let offset = geometry.page_offset(held.extent.range.start);
            if !all.add(held) {
                findings.lost(offset, "two logs name the same pages: one is not believed");
            } else if trust == Trust::Unlinked {
                findings.repaired(offset, "an extent that no log reaches: it may have been freed");
            }
        }
        all
    }

    /// Sees that no entry, linked or not, names an operation that this program does not know.
    ///
    /// # Errors
    ///
    /// [`Error::Version`].
    pub(crate) fn require_known<M: Medium>(m: &M, geometry: &Geometry) -> Result<()> {
        let area = Area::of(geometry);
        for index in made_chunks(m, area) {
            for nth in 0..area.entries() {
                let place = area.place(index, nth);
                require_known(area.load(m, place), place.bytes())?;
            }
        }
        Ok(())
    }

    /// Writes logs that hold `extents` and nothing else, over what is there.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`] if the file system has no room, [`Error::OutOfMemory`] if the book has none.
    ///
    /// # Crash consistency
    ///
    /// None: nobody may open the heap before this is done and durable.
    pub(crate) fn rewrite<M: Medium>(
        m: &M,
        geometry: &Geometry,
        extents: &HeldExtents,
    ) -> Result<()> {
        let area = Area::of(geometry);
        // Numbers start again, so no chunk of before may ever be found again.
        for index in made_chunks(m, area) {
            area.unmake(m, index);
        }
        Self::format(m, geometry);
        // CRASH: see above.
        m.fence();
        let book = Self::new(geometry);
        for held in extents.iter() {
            let append = book.reserve_alloc(m, held.log, held.extent)?;
            book.write(m, &append);
            book.commit(append);
        }
        // CRASH: see above.
        m.fence();
        Ok(())
    }
}

/// Refuses the sealed words at byte `place` if this program does not know their operation.
pub(super) fn require_known(words: [u64; 4], place: u64) -> Result<()> {
    let unknown = |op| Err(Error::unknown("log entries of operation", op, ENTRY_OP_LAST));
    LogEntry::unknown_op(words, place).map_or(Ok(()), unknown)
}

/// How far an extent is to be believed, most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trust {
    /// Its log is whole.
    Whole,
    /// Its log lacks entries, one of which may have freed it.
    Broken,
    /// Likewise, and the entry that allocated it stands in a chunk that may have been given up long ago.
    Unlinked,
}

/// What is left of a log.
struct Remains {
    log: LogId,
    /// Entries by their number, and whether a link leads to them.
    entries: BTreeMap<u64, (LogEntry, Reached)>,
    /// Whether the chain was read to its end, and every entry in it.
    is_whole: bool,
}

/// How a chunk was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    ByLink,
    BySearch,
}

struct Reader<'a, M> {
    m: &'a M,
    area: Area,
    clean: Clean,
    linked: BTreeSet<ChunkIndex>,
    findings: &'a mut Findings,
}

impl<M: Medium> Reader<'_, M> {
    /// The entries of the chunks that `log` links.
    fn chain(&mut self, log: LogId) -> Remains {
        let mut remains = Remains { log, entries: BTreeMap::new(), is_whole: true };
        let mut link = Link::Root(log);
        loop {
            match self.next_chunk(link, log) {
                Ok(None) => return remains,
                Ok(Some((index, base))) => {
                    self.read(index, base, Reached::ByLink, &mut remains);
                    link = Link::After(index);
                }
                Err(error) => {
                    if let Error::Corrupted { offset, what } = error {
                        self.findings.lost(offset, what);
                    }
                    remains.is_whole = false;
                    return remains;
                }
            }
        }
    }

    /// The chunk that `link` names, and the number of its first entry.
    fn next_chunk(&mut self, link: Link, log: LogId) -> Result<Option<(ChunkIndex, u64)>> {
        let Some(index) = self.area.follow(self.m, link)? else { return Ok(None) };
        let base = self.area.base(self.m, index, log)?;
        if !self.linked.insert(index) {
            let start = self.area.span_of(index).start;
            return Err(Error::corrupted(start, "a chunk is linked twice"));
        }
        Ok(Some((index, base)))
    }

    /// Adds the entries of chunks of the log that no link reaches.
    fn add_unlinked(&mut self, remains: &mut Remains) {
        for index in made_chunks(self.m, self.area) {
            if self.linked.contains(&index) {
                continue;
            }
            if let Ok(base) = self.area.base(self.m, index, remains.log) {
                self.read(index, base, Reached::BySearch, remains);
            }
        }
    }

    /// Reads the entries of one chunk.
    fn read(&mut self, index: ChunkIndex, base: u64, reached: Reached, remains: &mut Remains) {
        for nth in 0..self.area.entries() {
            let place = self.area.place(index, nth);
            let words = self.area.load(self.m, place);
            match LogEntry::decode(words, place.bytes()) {
                Some(entry) if entry.sequence == base + nth => {
                    remains.entries.entry(entry.sequence).or_insert((entry, reached));
                }
                None if words == [0; 4] => {}
                // What an interrupted append leaves: a word is missing. In a heap that was closed there is none.
                None if words.contains(&0) && self.clean != Clean::Closed => {}
                _ => {
                    remains.is_whole = false;
                    let what = "an entry of the bookkeeping log can't be read";
                    self.findings.lost(place.bytes(), what);
                }
            }
        }
    }

    /// Adds to `named` what a log holds after all of its entries.
    fn history(&mut self, remains: &Remains, grown_pages: u64, named: &mut Vec<(Trust, Held)>) {
        let mut extents = HeldExtents::default();
        let mut unlinked = BTreeSet::new();
        for (entry, reached) in remains.entries.values() {
            let range = PageRange::new(Page(entry.start_page), entry.pages);
            match entry.op {
                EntryOp::Alloc(_) if range.pages == 0 || range.end() > grown_pages => {
                    let root = Geometry::log_roots().bytes();
                    self.findings.lost(root, "an extent lies beyond the end of the heap");
                }
                // What it overlaps was freed before, by an entry that is gone.
                EntryOp::Alloc(kind) => {
                    let extent = Extent { range, kind, tag: entry.tag };
                    extents.replace(Held { extent, log: remains.log });
                    match reached {
                        Reached::ByLink => unlinked.remove(&range.start),
                        Reached::BySearch => unlinked.insert(range.start),
                    };
                }
                EntryOp::Free => drop(extents.0.remove(&range.start)),
            }
        }
        named.extend(extents.0.into_values().map(|held| {
            let trust = match remains.is_whole {
                true => Trust::Whole,
                false if unlinked.contains(&held.extent.range.start) => Trust::Unlinked,
                false => Trust::Broken,
            };
            (trust, held)
        }));
    }
}

/// Chunks that look made, whether a log links them or not.
fn made_chunks<M: Medium>(m: &M, area: Area) -> Vec<ChunkIndex> {
    let mut made = Vec::new();
    let mut gap = 0;
    for index in (0..area.chunks()).map(ChunkIndex) {
        if area.span_of(index).end() > m.len() || gap == GAP_CHUNKS {
            break;
        }
        gap += 1;
        if area.is_made(m, index) {
            made.push(index);
            gap = 0;
        }
    }
    made
}
