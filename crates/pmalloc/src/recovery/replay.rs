//! Redoes the operations that were in flight: allocations, then frees, then the rings are wiped.

use std::collections::BTreeMap;

use pmalloc_persist::{Medium, Offset, PAGE_BYTES, Span, Word};

use super::{
    GIVING,
    state::{self, StateImage},
};
use crate::{
    book::{Append, Book, Extent, Held, LogId, Request},
    error::{Error, Result},
    lane::{self, EPOCHS_IN_FLIGHT, LaneImage},
    layout::{
        book::ExtentKind,
        geometry::{Geometry, Page, PageRange},
        lane::{Op, Record},
        root::RootEntry,
        slot::SlotWord,
        state::{Clean, EPOCH_MAX, Policy},
    },
    slab::{Descriptor, LiveBit},
};

/// What replay found and left behind.
#[derive(Debug)]
pub(super) struct Replayed {
    /// The bookkeeping logs, whole.
    pub(super) book: Book,
    /// The allocated extents, in address order.
    pub(super) held: Vec<Held>,
    /// The lanes, their rings zeroed.
    pub(super) lanes: Vec<LaneImage>,
    /// The durable epoch.
    pub(super) durable: u64,
    /// Records that were redone.
    pub(super) records: u64,
    /// Places that interrupted appends had torn.
    pub(super) torn: u64,
}

/// Redoes the operations in flight.
pub(super) fn replay<M: Medium>(
    m: &M,
    geometry: &Geometry,
    state: &StateImage,
) -> Result<Replayed> {
    let left = state.left();
    let (book, held) = Book::replay(m, geometry)?;
    let torn = book.stats().torn;
    if left.is_closed
        && let Some(offset) = book.first_torn(m)
    {
        // Recovery empties what a crash tore, so in a heap that was closed nothing is torn.
        return Err(Error::corrupted(offset, "an entry does not match its checksum"));
    }
    let mut replay = Replay::new(m, geometry, &book, held, state)?;
    let lanes = lane::replay(m, geometry, left)?;
    let records: Vec<(LogId, Record)> = lanes
        .iter()
        .flat_map(|lane| {
            let log = LogId(lane.index % geometry.logs);
            lane.live.iter().map(move |record| (log, *record))
        })
        .collect();
    replay.check_all(&records)?;
    if !left.is_closed {
        write_back(m, geometry, &book, &lanes)?;
    }
    let applied = replay.apply_all(&records);
    // CRASH: until here the records are live and are redone from the start. The fence makes every effect
    // durable before the first word of a ring is zeroed.
    m.fence();
    let held = replay.finish();
    applied?;
    let durable = end_epochs(m, state)?;
    lane::zero_rings(m, geometry, &lanes)?;
    // CRASH: rings hold no live record that is still needed; the next open zeroes what is left.
    m.fence();
    let durable = restart_epochs(m, state.clean, durable)?;
    mend_torn(m, geometry, &book)?;
    Ok(Replayed { book, held, lanes, durable, records: records.len() as u64, torn })
}

/// Moves the durable epoch past every epoch that a record may have, under the policy Batched, and returns it.
///
/// Whatever was found: a record that is torn has an epoch, too. And before the rings are zeroed: an allocation whose record
/// was left beside the zeros of its free would be live again (rule 6).
fn end_epochs<M: Medium>(m: &M, state: &StateImage) -> Result<u64> {
    if state.policy == Policy::Eager {
        return Ok(state.durable);
    }
    let durable = (state.durable + EPOCHS_IN_FLIGHT).min(EPOCH_MAX);
    // CRASH: the effects of all records are durable: see the caller.
    state::set_durable_epoch(m, durable)?;
    Ok(durable)
}

/// Lets the epochs start again when half of them are used up, and returns the durable one.
fn restart_epochs<M: Medium>(m: &M, was: Clean, durable: u64) -> Result<u64> {
    if durable <= EPOCH_MAX / 2 {
        return Ok(durable);
    }
    if m.needs_sync()
        // The zeros of the rings must not be written behind the number that they allow.
        && let Err(error) = m.sync()
    {
        state::set_unsynced(m, was)?;
        return Err(Error::io("beginning the epochs again")(error));
    }
    // CRASH: the rings are durably zero: no record has an epoch.
    state::set_durable_epoch(m, 0)?;
    Ok(0)
}

/// Makes durable what replay has read.
///
/// A process that was killed between a store and its fence leaves words that are in the cache and not on media. What is
/// redone from them, and what is recorded behind them, would lose its ground with the power: the record of an effect, the
/// mark before a record's number, the link to a chunk or the directory word of a lane that goes on being used.
///
/// Slots and live bits need no such care: those that may not be durable are those of live records, and are flushed when
/// they are redone.
fn write_back<M: Medium>(
    m: &M,
    geometry: &Geometry,
    book: &Book,
    lanes: &[LaneImage],
) -> Result<()> {
    // CRASH: nothing was stored: the heap is as it was found.
    m.flush_of(state::page(m)?);
    book.write_back(m);
    lane::write_back(m, geometry, lanes);
    m.fence();
    Ok(())
}

/// Copies the logs if a crash left torn entries in them, and empties those that stay, so that in a heap that was
/// closed an entry that does not match its checksum is damage and not a trace of a crash.
fn mend_torn<M: Medium>(m: &M, geometry: &Geometry, book: &Book) -> Result<()> {
    if book.stats().torn == 0 {
        return Ok(());
    }
    for log in 0..geometry.logs {
        match book.compact(m, LogId(log)) {
            // Without room for a copy the holes stay; they are skipped by every replay.
            Ok(_) | Err(Error::OutOfMemory { .. } | Error::NoSpace { .. } | Error::Io { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if book.stats().torn > 0 {
        book.scrub_torn(m);
        // CRASH: a torn place that is not empty yet is emptied by the next open.
        m.fence();
    }
    Ok(())
}

/// The state of a replay: the extents as the logs and the records redone so far have them.
struct Replay<'a, M> {
    m: &'a M,
    geometry: &'a Geometry,
    book: &'a Book,
    /// By first page.
    held: BTreeMap<Page, Held>,
    grown_pages: u64,
    /// Entries of the root table that have a slot.
    roots_used: u64,
    /// The extents that records in flight allocate or free, and their blocks, in address order: a group may name slots
    /// inside them.
    in_flight: Vec<(PageRange, u64)>,
    /// Allocations that the logs lack, by first page.
    allocs: BTreeMap<Page, Request>,
    /// Frees that they lack.
    frees: Vec<Request>,
    appends: Vec<Append>,
}

impl<'a, M: Medium> Replay<'a, M> {
    fn new(
        m: &'a M,
        geometry: &'a Geometry,
        book: &'a Book,
        held: Vec<Held>,
        state: &StateImage,
    ) -> Result<Self> {
        let held: BTreeMap<Page, Held> =
            held.into_iter().map(|held| (held.extent.range.start, held)).collect();
        let grown_pages = u64::from(state.grown_pages);
        let mut end = 0;
        for held in held.values() {
            let range = held.extent.range;
            if u64::from(range.start.0) < end || range.end() > grown_pages {
                let offset = geometry.page_offset(range.start);
                return Err(Error::corrupted(offset, "extents overlap or lie outside the heap"));
            }
            end = range.end();
        }
        Ok(Self {
            m,
            geometry,
            book,
            held,
            grown_pages,
            roots_used: u64::from(state.roots_used),
            in_flight: Vec::new(),
            allocs: BTreeMap::new(),
            frees: Vec::new(),
            appends: Vec::new(),
        })
    }

    /// Checks that all records name blocks and slots that can exist, before any of them changes anything.
    fn check_all(&mut self, records: &[(LogId, Record)]) -> Result<()> {
        let mut in_flight = Vec::new();
        for (_, record) in records.iter().filter(|(_, record)| record.op.is_large()) {
            in_flight.push((self.range_of(record)?, record.block, record.op.is_alloc()));
        }
        in_flight.sort_by_key(|(range, _, is_alloc)| (range.start, *is_alloc));
        // The pages of an operation are nobody else's until it is retired or its epoch is durable: of two epochs there may
        // be the allocation of an extent, and its free.
        let collide = |pair: &&[(PageRange, u64, bool)]| {
            let [(one, _, is_alloc), (other, _, is_other_alloc)] = [pair[0], pair[1]];
            one.end() > u64::from(other.start.0) && (one != other || is_alloc == is_other_alloc)
        };
        if let Some(pair) = in_flight.windows(2).find(collide) {
            return Err(Error::corrupted(pair[1].1, "two records in flight name one extent"));
        }
        self.in_flight = in_flight.into_iter().map(|(range, block, _)| (range, block)).collect();
        self.in_flight.dedup();
        self.ensure_in_use()?;
        records.iter().try_for_each(|(_, record)| self.check(record))
    }

    /// Sees that all extents and the descriptors of slabs have memory, before any of them is touched.
    fn ensure_in_use(&self) -> Result<()> {
        let held = || self.held.values().map(|held| held.extent);
        let slabs = held().filter(|extent| extent.kind == ExtentKind::Slab);
        let mut spans: Vec<Span> =
            slabs.map(|extent| self.geometry.descriptor_of(extent.range).to_pages()).collect();
        spans.extend(held().map(|extent| self.geometry.span_of(extent.range)));
        let in_flight = self.in_flight.iter();
        spans.extend(in_flight.map(|(range, _)| self.geometry.span_of(*range)));
        spans.sort_unstable_by_key(|span| span.start);
        spans.dedup_by(|next, last| {
            let joins = next.start <= last.end();
            if joins {
                last.len = last.len.max(next.end() - last.start);
            }
            joins
        });
        // CRASH: more of the file has memory; no byte of it has changed.
        self.m.ensure(&spans).map_err(Error::backing(GIVING))
    }

    /// Redoes allocations, then frees.
    fn apply_all(&mut self, records: &[(LogId, Record)]) -> Result<()> {
        for (log, record) in records.iter().filter(|(_, record)| record.op.is_alloc()) {
            self.apply(*log, record)?;
        }
        for (log, record) in records.iter().filter(|(_, record)| !record.op.is_alloc()) {
            self.apply(*log, record)?;
        }
        self.append_all()
    }

    /// Writes the entries that are missing.
    fn append_all(&mut self) -> Result<()> {
        let requests = self.allocs.values().chain(&self.frees).copied();
        self.book.reserve_all(self.m, requests, &mut self.appends)?;
        self.appends.iter().for_each(|append| self.book.write(self.m, append));
        Ok(())
    }

    /// Checks that `record` names a block and a slot that can exist.
    fn check(&self, record: &Record) -> Result<()> {
        self.slot(record)?;
        match record.op {
            Op::AllocSmall | Op::FreeSmall => self.live_bit(record).map(drop),
            Op::AllocLarge(tag) => self.check_extent(record, tag),
            Op::FreeLarge => self.extent_of(record).map(drop),
            Op::Fill => self.check_block(record),
            Op::Empty | Op::Set(_) => Ok(()),
        }
    }

    /// Checks that a slot can own the block of `record`, which is neither allocated nor freed by it.
    fn check_block(&self, record: &Record) -> Result<()> {
        let is_large = |range: PageRange| self.geometry.page_offset(range.start) == record.block;
        if self.in_flight.iter().any(|(range, _)| is_large(*range)) {
            return Ok(());
        }
        match self.held_around(record.block) {
            Some(held) if held.extent.kind == ExtentKind::Large && is_large(held.extent.range) => {
                Ok(())
            }
            _ => self.live_bit(record).map(drop),
        }
    }

    fn apply(&mut self, log: LogId, record: &Record) -> Result<()> {
        match record.op {
            Op::AllocSmall => {
                self.live_bit(record)?.set(self.m);
            }
            Op::FreeSmall => {
                self.live_bit(record)?.clear(self.m);
            }
            Op::AllocLarge(tag) => self.alloc_extent(log, record, tag)?,
            Op::FreeLarge => self.free_extent(record)?,
            Op::Fill | Op::Empty | Op::Set(_) => {}
        }
        self.redo_slot(record)
    }

    /// Stores the slot or cell again unless a newer version is there (rule 7).
    fn redo_slot(&self, record: &Record) -> Result<()> {
        let Some(word) = self.slot(record)? else { return Ok(()) };
        let is_newer = |bits| SlotWord::from_bits(bits).version().is_newer_than(record.version);
        if self.m.classify(word, is_newer) {
            return Ok(());
        }
        // CRASH: the record is durable; the next recovery stores the same word.
        self.m.store(word, record.word());
        self.m.flush_of(word);
        Ok(())
    }

    fn alloc_extent(&mut self, log: LogId, record: &Record, tag: u8) -> Result<()> {
        let range = self.range_of(record)?;
        if self.held.contains_key(&range.start) {
            return Ok(());
        }
        let extent = Extent { range, kind: ExtentKind::Large, tag };
        self.allocs.insert(range.start, Request::Alloc(log, extent));
        self.held.insert(range.start, Held { extent, log });
        Ok(())
    }

    fn free_extent(&mut self, record: &Record) -> Result<()> {
        let range = self.range_of(record)?;
        let Some(held) = self.held.remove(&range.start) else { return Ok(()) };
        // Where the logs lack the allocation, too, neither entry would say anything.
        if self.allocs.remove(&range.start).is_none() {
            self.frees.push(Request::Free(held.log, range.start));
        }
        Ok(())
    }

    /// Counts the appended entries, which the caller's fence made durable.
    fn finish(self) -> Vec<Held> {
        for append in self.appends {
            self.book.commit(append);
        }
        self.held.into_values().collect()
    }

    /// The slot or cell of a record, `None` if it lay in a large block that is free by now: another thread freed the block,
    /// which does not wait for its cells, nor for slots that its type does not tell of.
    fn slot(&self, record: &Record) -> Result<Option<&'a Word>> {
        let in_root_table = {
            let table = self.geometry.root_span();
            let entry = size_of::<RootEntry>() as u64;
            table.start <= record.slot
                && record.slot < table.start + self.roots_used * entry
                && (record.slot - table.start) % entry
                    == std::mem::offset_of!(RootEntry, slot) as u64
        };
        // The root table has slots, and no cell.
        let is_cell = matches!(record.op, Op::Set(_));
        let exists = in_root_table && !is_cell
            || self.held_around(record.slot).is_some()
            || self.is_in_flight(record.slot);
        if exists {
            Ok(Some(self.m.at(Offset::new(record.slot))?))
        } else if self.geometry.page_at(record.slot).is_some() && record.slot.is_multiple_of(8) {
            Ok(None)
        } else {
            Err(Error::corrupted(record.slot, "a record names a slot that can't exist"))
        }
    }

    /// Whether byte `offset` lies in an extent that a record in flight allocates or frees.
    fn is_in_flight(&self, offset: u64) -> bool {
        let Some(page) = self.geometry.page_at(offset) else { return false };
        let behind = self.in_flight.partition_point(|(range, _)| range.start <= page);
        let before = behind.checked_sub(1).map(|at| self.in_flight[at].0);
        before.is_some_and(|range| u64::from(page.0) < range.end())
    }

    /// The extent that contains byte `offset`.
    fn held_around(&self, offset: u64) -> Option<&Held> {
        let page = self.geometry.page_at(offset)?;
        let (_, held) = self.held.range(..=page).next_back()?;
        (u64::from(page.0) < held.extent.range.end()).then_some(held)
    }

    fn live_bit(&self, record: &Record) -> Result<LiveBit> {
        let damaged = || Error::corrupted(record.block, "a record names a block that can't exist");
        let held = self.held_around(record.block).ok_or_else(damaged)?;
        if held.extent.kind != ExtentKind::Slab {
            return Err(damaged());
        }
        let slab = Descriptor::open(self.m, self.geometry, held.extent.range)?;
        let block = slab.block_at(record.block).ok_or_else(damaged)?;
        Ok(slab.live_bit(block))
    }

    /// The pages that a record of a large block names.
    fn range_of(&self, record: &Record) -> Result<PageRange> {
        let page = self.geometry.page_at(record.block).ok_or_else(|| no_extent(record))?;
        let range = PageRange::new(page, record.pages);
        let valid = record.block.is_multiple_of(PAGE_BYTES)
            && record.pages > 0
            && range.end() <= self.grown_pages;
        if valid { Ok(range) } else { Err(no_extent(record)) }
    }

    /// A large block being allocated is an extent as logged, or pages that no extent touches.
    fn check_extent(&self, record: &Record, tag: u8) -> Result<()> {
        let range = self.range_of(record)?;
        let last = Page(u32::try_from(range.end() - 1).map_err(|_| no_extent(record))?);
        match self.held.range(..=last).next_back() {
            Some((_, held)) if held.extent.range == range => match self.extent_of(record)? {
                Some(held) if held.extent.tag == tag => Ok(()),
                _ => Err(no_extent(record)),
            },
            Some((_, held)) if held.extent.range.end() > u64::from(range.start.0) => {
                Err(no_extent(record))
            }
            _ => Ok(()),
        }
    }

    /// A large block being freed is a large extent as logged, or gone from the log.
    fn extent_of(&self, record: &Record) -> Result<Option<&Held>> {
        let range = self.range_of(record)?;
        match self.held.get(&range.start) {
            None => Ok(None),
            Some(held) if held.extent.range == range && held.extent.kind == ExtentKind::Large => {
                Ok(Some(held))
            }
            Some(_) => Err(no_extent(record)),
        }
    }
}

/// The error of a record whose extent no crash can leave.
fn no_extent(record: &Record) -> Error {
    Error::corrupted(record.block, "a record names an extent that can't exist")
}
