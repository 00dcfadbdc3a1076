//! Appending: reserve, write, and, behind the caller's fence, commit.

use core::{cell::Cell, time::Duration};

use pmalloc_persist::{
    Medium, Offset,
    sync::{MutexGuard, Ordering, lock, thread},
};

use super::{
    Book, Extent, LogId,
    chunk::ChunkIndex,
    gc::Outlook,
    log::{Hold, Log, Position},
};
use crate::{
    Error, Result,
    layout::{
        book::{EntryOp, EntryWords, LogEntry},
        geometry::Page,
    },
};

/// An entry on its way: its place and its sequence number are taken.
///
/// Ends in [`Book::commit`] or [`Book::cancel`]. Dropping one is harmless to the media, but keeps its log from
/// being copied in this run: right only where the book is given up, too, as by a recovery that fails.
/// Debug builds report one that is dropped before it was even written.
#[must_use = "an append is written, fenced and committed, or cancelled"]
#[derive(Debug)]
pub(crate) struct Append {
    pub(super) log: LogId,
    pub(super) place: Offset<EntryWords>,
    pub(super) entry: LogEntry,
    pub(super) extent: Extent,
    /// Whether words of the entry may be on media.
    written: Cell<bool>,
    /// Whether the append ended.
    ended: bool,
}

impl Append {
    /// Where the entry stands, in bytes: it lies in one line.
    #[inline]
    pub(crate) fn place(&self) -> u64 {
        self.place.bytes()
    }
}

impl Drop for Append {
    fn drop(&mut self) {
        debug_assert!(
            self.ended || self.written.get() || thread::panicking(),
            "an append was dropped, neither written nor cancelled"
        );
    }
}

/// What a place in a log is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    /// The allocation of an extent in a log.
    Alloc(LogId, Extent),
    /// The free of the extent from a page on, which a log holds.
    Free(LogId, Page),
}

/// How often an append looks whether others have landed before it calls the book full: an append in flight
/// keeps its log from being copied, and its thread may have lost the processor.
const WAIT_ROUNDS: u32 = 200;

/// How long an append waits between two looks.
const WAIT: Duration = Duration::from_micros(500);

/// What a place is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// An allocation: it leaves chunks enough for the frees of everything that is held.
    Alloc,
    /// A free.
    Free,
}

impl Book {
    /// Takes a place in `log` for the allocation of `extent`. From here on nothing can fail.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`] if the book is full, also after collecting, or others keep appends in flight for
    /// long; [`Error::NoSpace`] if the file system
    /// is. Nothing changed then.
    #[inline]
    pub(crate) fn reserve_alloc<M: Medium>(
        &self,
        m: &M,
        log: LogId,
        extent: Extent,
    ) -> Result<Append> {
        let mut mirror = self.room(m, lock(self.log(log)), Want::Alloc)?;
        self.hold(&mut mirror);
        Ok(self.take(m, &mut mirror, EntryOp::Alloc(extent.kind), extent))
    }

    /// Takes a place in `log` for the free of the extent from `start` on, and says which extent that is.
    /// From here on nothing can fail, and a second free of the extent finds none.
    ///
    /// # Errors
    ///
    /// As [`Self::reserve_alloc`], and [`Error::NotLive`] if the log holds no extent there, or somebody is freeing it.
    #[inline]
    pub(crate) fn reserve_free<M: Medium>(
        &self,
        m: &M,
        log: LogId,
        start: Page,
    ) -> Result<(Append, Extent)> {
        let mirror = lock(self.log(log));
        if !mirror.holds_firmly(start) {
            return Err(self.not_live(start));
        }
        let mut mirror = self.room(m, mirror, Want::Free)?;
        // Making room may have let go of the lock.
        let Some(live) = mirror.live.get_mut(&start).filter(|live| live.hold == Hold::Firm) else {
            return Err(self.not_live(start));
        };
        live.hold = Hold::Freeing;
        let extent = live.extent;
        Ok((self.take(m, &mut mirror, EntryOp::Free, extent), extent))
    }

    /// Takes places for all `requests`, in their order, or none, and adds them to `appends`, which is empty.
    ///
    /// # Errors
    ///
    /// As [`Self::reserve_alloc`] and [`Self::reserve_free`].
    pub(crate) fn reserve_all<M: Medium>(
        &self,
        m: &M,
        requests: impl Iterator<Item = Request> + Clone,
        appends: &mut Vec<Append>,
    ) -> Result<()> {
        match self.try_reserve_all(m, requests.clone(), appends) {
            // The first ones, in flight, may have kept a log from being copied that has no room for the others.
            Err(Error::OutOfMemory { .. }) if requests.clone().nth(1).is_some() => {
                self.collect_all(m);
                self.try_reserve_all(m, requests, appends)
            }
            result => result,
        }
    }

    fn try_reserve_all<M: Medium>(
        &self,
        m: &M,
        requests: impl Iterator<Item = Request>,
        appends: &mut Vec<Append>,
    ) -> Result<()> {
        for request in requests {
            match self.reserve(m, request) {
                Ok(append) => appends.push(append),
                Err(error) => {
                    appends.drain(..).for_each(|append| self.cancel(append));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn reserve<M: Medium>(&self, m: &M, request: Request) -> Result<Append> {
        match request {
            Request::Alloc(log, extent) => self.reserve_alloc(m, log, extent),
            Request::Free(log, start) => self.reserve_free(m, log, start).map(|(append, _)| append),
        }
    }

    fn not_live(&self, start: Page) -> Error {
        Error::NotLive { offset: self.geometry.page_offset(start) }
    }

    /// Stores the entry and flushes its line; needs no lock.
    ///
    /// # Crash consistency
    ///
    /// Before the caller's fence any of the words may be on media: the entry is there, or the place is
    /// empty, or it is torn and stays a hole for ever. Behind the fence the entry is there.
    #[inline]
    pub(crate) fn write<M: Medium>(&self, m: &M, append: &Append) {
        self.store(m, append);
        self.area.flush_entry(m, append.place);
    }

    /// Stores the entry, for a caller that flushes its line.
    ///
    /// # Crash consistency
    ///
    /// As [`Self::write`].
    #[inline]
    pub(crate) fn store<M: Medium>(&self, m: &M, append: &Append) {
        append.written.set(true);
        debug_assert_eq!(
            self.area.load(m, append.place),
            [0; 4],
            "a place is written once, until its chunk is made anew"
        );
        // CRASH: as above; the checksum, stored last, covers the other words, so a torn entry is none.
        self.area.store(m, append.place, &append.entry);
    }

    /// Counts an entry that was written and then fenced.
    ///
    /// # Panics
    ///
    /// If the entry was not written, or allocates a start that the log holds already.
    #[inline]
    pub(crate) fn commit(&self, mut append: Append) {
        assert!(append.written.get(), "an entry is committed only when it was written");
        append.ended = true;
        let mut log = lock(self.log(append.log));
        let chunk = log.land(append.entry.sequence);
        match append.entry.op {
            EntryOp::Alloc(_) => {
                chunk.live += 1;
                let first = log.enter(append.entry.sequence, append.extent);
                assert!(first, "{:?} is allocated twice", append.extent);
            }
            EntryOp::Free => {
                let base = chunk.base;
                log.count_free(base, append.extent.range.start);
                self.let_go(&mut log);
            }
        }
    }

    /// Gives an append up. Its place stays empty; an extent that was to be freed may be freed again.
    ///
    /// # Panics
    ///
    /// If the entry was written: what is on media can't be taken back.
    pub(crate) fn cancel(&self, mut append: Append) {
        assert!(!append.written.get(), "an entry that was written can't be cancelled");
        append.ended = true;
        let mut log = lock(self.log(append.log));
        log.land(append.entry.sequence);
        match append.entry.op {
            EntryOp::Alloc(_) => self.let_go(&mut log),
            EntryOp::Free => {
                let live = log.live.get_mut(&append.extent.range.start);
                live.expect("an extent is held until its free counts").hold = Hold::Firm;
            }
        }
    }

    /// Counts an extent that `log` holds or is about to.
    #[inline]
    pub(super) fn hold(&self, log: &mut Log) {
        if log.is_copy_full() {
            log.copy_chunks += 1;
            // Relaxed: as in `make_room`.
            self.copies.fetch_add(1, Ordering::Relaxed);
        }
        log.held += 1;
    }

    /// Counts an extent less.
    #[inline]
    fn let_go(&self, log: &mut Log) {
        log.held -= 1;
        if log.has_copy_chunk_too_many() {
            log.copy_chunks -= 1;
            // Relaxed: as in `make_room`.
            self.copies.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes the next place of a log that has room.
    #[inline]
    fn take<M: Medium>(&self, m: &M, log: &mut Log, op: EntryOp, extent: Extent) -> Append {
        let Position { chunk, nth, sequence } = log.take();
        let place = self.area.place(chunk, nth);
        self.area.prefetch_entry(m, place);
        let entry = LogEntry {
            op,
            start_page: extent.range.start.0,
            pages: extent.range.pages,
            tag: extent.tag,
            sequence,
        };
        Append { log: log.id, place, entry, extent, written: Cell::new(false), ended: false }
    }

    /// Collects if that is due, and sees to it that the log has room for one entry. May let go of the lock
    /// in between.
    #[inline]
    fn room<'a, M: Medium>(
        &'a self,
        m: &M,
        mut log: MutexGuard<'a, Log>,
        want: Want,
    ) -> Result<MutexGuard<'a, Log>> {
        self.collect_if_due(m, &mut log);
        if self.make_room(m, &mut log, want)? {
            return Ok(log);
        }
        let id = log.id;
        drop(log);
        self.room_by_collecting(m, id, want)
    }

    /// Collects all logs until one has room, or nothing helps.
    #[cold]
    fn room_by_collecting<M: Medium>(
        &self,
        m: &M,
        id: LogId,
        want: Want,
    ) -> Result<MutexGuard<'_, Log>> {
        for _ in 0..WAIT_ROUNDS {
            let outlook = self.collect_all(m);
            let mut log = lock(self.log(id));
            if self.make_room(m, &mut log, want)? {
                return Ok(log);
            }
            drop(log);
            if outlook == Outlook::Full {
                break;
            }
            // Whoever needs room waits here, so no further appends get into flight. The rounds are bounded
            // because the append waited for may be the caller's own.
            thread::sleep(WAIT);
        }
        Err(self.full())
    }

    /// Sees to it that the log has room for one entry, and says whether it has.
    ///
    /// The collectors need as many free chunks as the live entries of a log fill. A free leaves them that many.
    /// An allocation leaves two more than the live entries of all logs fill, whether it takes a chunk or not: one for the
    /// next free, one for other threads that look at the same time. So frees of all that is held find room,
    /// and a full book is never full for ever.
    #[inline]
    fn make_room<M: Medium>(&self, m: &M, log: &mut Log, want: Want) -> Result<bool> {
        let spare = match want {
            // Relaxed: a count that other threads change at any time; it orders nothing.
            Want::Alloc => self.copies.load(Ordering::Relaxed) + u32::from(log.is_copy_full()) + 2,
            Want::Free if log.has_room() => 0,
            Want::Free => self.chunks_for(log.live.len() as u64),
        };
        if !log.has_room() {
            return self.extend(m, log, spare);
        }
        Ok(self.pool.free() >= spare)
    }

    /// Appends a chunk to the log if that leaves `spare` free ones, and says whether it did.
    #[cold]
    fn extend<M: Medium>(&self, m: &M, log: &mut Log, spare: u32) -> Result<bool> {
        let Some(index) = self.pool.take(spare) else { return Ok(false) };
        self.made(self.make(m, index, log.id, log.next), &[index])?;
        // CRASH: before this fence the chunk is any mixture, and nothing links it; behind it, it is an empty
        // chunk. The link is durable before the first entry is written: appends of other threads to this
        // chunk fence only their own lines.
        m.flush(self.area.span_of(index));
        m.fence();
        self.area.set_link(m, log.end(), index);
        log.extend(index);
        Ok(true)
    }

    /// Gives `chunks` back if making one of them failed.
    pub(super) fn made(&self, result: Result<()>, chunks: &[ChunkIndex]) -> Result<()> {
        if result.is_err() {
            self.pool.give(chunks.iter().copied());
        }
        result
    }

    /// The error of a book without a free chunk.
    pub(super) fn full(&self) -> Error {
        Error::OutOfMemory {
            requested_bytes: self.geometry.chunk_bytes,
            capacity_bytes: self.geometry.capacity_bytes,
        }
    }
}
