//! Collecting: chunks without a needed entry are unlinked (fast), the live entries of a sparse log are
//! copied to a fresh chain (slow).
//!
//! Both run under the log's lock, inside the reservation of a place, where failing is still allowed. The
//! fast collector leaves alone chunks with an append in flight; the slow one waits until the log has none.

use pmalloc_persist::{Medium, sync::lock};

use super::{
    Book, LogId,
    chain::Chunk,
    chunk::{ChunkIndex, Link},
    log::Log,
};
use crate::{
    Result,
    layout::book::{EntryOp, LogEntry},
};

/// Places of a log per live entry from which on its empty chunks are unlinked.
const FAST_RATIO: u64 = 2;

/// Places of a log per live entry from which on, if unlinking did not help, the live ones are copied.
const SLOW_RATIO: u64 = 10;

/// What a forced copy came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compacted {
    /// The log consists of its live entries.
    Done,
    /// An append is in flight: nothing was done.
    Busy,
}

/// What can be hoped for when the book is full, also after collecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// Nothing.
    Full,
    /// A log will be copied when no append of it is in flight.
    Busy,
}

impl Book {
    /// Copies the live entries of `log` to a fresh chain, which has no holes. Recovery ends with it where
    /// replay found torn places.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) if the book has too few free chunks,
    /// [`Error::NoSpace`](crate::Error::NoSpace) if the file system is full. The log is then as before.
    pub(crate) fn compact<M: Medium>(&self, m: &M, log: LogId) -> Result<Compacted> {
        let mut log = lock(self.log(log));
        if log.in_flight > 0 {
            return Ok(Compacted::Busy);
        }
        if !log.chunks.is_empty() {
            self.collect_slow(m, &mut log)?;
        }
        Ok(Compacted::Done)
    }

    /// Collects a log whose frees since the last time make it worth a look.
    #[inline]
    pub(super) fn collect_if_due<M: Medium>(&self, m: &M, log: &mut Log) {
        // As many frees as a chunk has entries, and as the log has chunks: the walk over the chunks is
        // paid for by the frees since the last one.
        if log.copy_due || log.frees >= self.area.entries().max(log.chunks.len() as u64) {
            self.collect_due(m, log);
        }
    }

    #[cold]
    fn collect_due<M: Medium>(&self, m: &M, log: &mut Log) {
        if log.frees >= self.area.entries().max(log.chunks.len() as u64) {
            log.frees = 0;
            if self.places_per_live(log) >= FAST_RATIO {
                self.collect_fast(m, log);
            }
            log.copy_due = self.places_per_live(log) >= SLOW_RATIO && self.copying_helps(log);
        }
        if log.copy_due && log.in_flight == 0 {
            log.copy_due = false;
            // Without memory for the copy the log stays as it is, longer but intact; the next frees bring
            // the next attempt.
            drop(self.collect_slow(m, log));
        }
    }

    /// Collects every log, because the book is full. Says whether more can be had when appends have landed.
    pub(super) fn collect_all<M: Medium>(&self, m: &M) -> Outlook {
        let mut outlook = Outlook::Full;
        for log in &self.logs {
            let mut log = lock(log);
            self.collect_fast(m, &mut log);
            if !self.copying_helps(&log) && !self.copying_makes_room(&log) {
                continue;
            }
            if log.in_flight > 0 {
                outlook = Outlook::Busy;
            } else {
                // A log that can't be copied keeps its chunks: the caller finds the book full.
                drop(self.collect_slow(m, &mut log));
            }
        }
        outlook
    }

    /// Unlinks every chunk that nothing needs, from the oldest on: a chunk gone may free the next ones of
    /// being needed. The last chunk stays, for its sequence numbers.
    pub(super) fn collect_fast<M: Medium>(&self, m: &M, log: &mut Log) {
        let mut link = Link::Root(log.id);
        let mut nth = 0;
        let mut unlinked = 0;
        while let (Some(chunk), Some(next)) = (log.chunks.get(nth), log.chunks.get(nth + 1)) {
            if !chunk.is_garbage() {
                link = Link::After(chunk.index);
                nth += 1;
                continue;
            }
            // CRASH: before the fence in here recovery finds the chunk or does not, and the same extents
            // either way. Behind it the chunk's allocations are gone for good, so that the free entries in
            // later chunks that they needed may go, too; no sooner.
            self.area.set_link(m, link, next.index);
            let index = log.unlink(nth);
            self.pool.give([index]);
            unlinked += 1;
        }
        log.fast_gc += u64::from(unlinked > 0);
    }

    /// Copies the live entries of a log, in which nothing is in flight, to a fresh chain.
    pub(super) fn collect_slow<M: Medium>(&self, m: &M, log: &mut Log) -> Result<()> {
        assert_eq!(log.in_flight, 0, "an append in flight would be lost");
        let count = self.chunks_for(log.live.len() as u64);
        let fresh = self.pool.take_many(count, 0).ok_or_else(|| self.full())?;
        self.made(self.copy(m, log, &fresh), &fresh)?;
        // CRASH: before this fence the fresh chain is any mixture, and nothing links it. Then one word
        // decides: recovery finds all of the old chain or all of the fresh one, and both say the same.
        m.fence();
        self.area.set_link(m, Link::Root(log.id), fresh[0]);
        // The old chain is gone for good: its chunks may be made anew.
        self.adopt(log, &fresh);
        log.slow_gc += 1;
        Ok(())
    }

    /// Writes and flushes a chain of `fresh` chunks with the live entries of `log`, numbered above all
    /// that were ever used: the newest number never falls back, not even when nothing is live.
    fn copy<M: Medium>(&self, m: &M, log: &Log, fresh: &[ChunkIndex]) -> Result<()> {
        let mut base = log.next;
        for &index in fresh {
            self.make(m, index, log.id, base)?;
            base += self.area.entries();
        }
        for pair in fresh.windows(2) {
            self.area.prepare_link(m, Link::After(pair[0]), pair[1]);
        }
        for (sequence, live) in (log.next..).zip(log.live.values()) {
            let (index, nth) = self.nth_of(fresh, sequence - log.next);
            let entry = LogEntry {
                op: EntryOp::Alloc(live.extent.kind),
                start_page: live.extent.range.start.0,
                pages: live.extent.range.pages,
                tag: live.extent.tag,
                sequence,
            };
            self.area.store(m, self.area.place(index, nth), &entry);
        }
        fresh.iter().for_each(|&index| m.flush(self.area.span_of(index)));
        Ok(())
    }

    /// Lets the mirror follow the root to the chain that `copy` wrote, and recycles the old one.
    fn adopt(&self, log: &mut Log, fresh: &[ChunkIndex]) {
        let old = core::mem::take(&mut log.chunks);
        let first = log.next;
        for (nth, &index) in (0..).zip(fresh) {
            log.chunks.push(Chunk::new(index, first + nth * self.area.entries()));
        }
        // In the order in which `copy` wrote them: nothing has changed the map since.
        for (sequence, live) in (first..).zip(log.live.values_mut()) {
            live.sequence = sequence;
            log.chunks.holding_mut(sequence).live += 1;
        }
        log.next = first + log.live.len() as u64;
        log.copy_due = false;
        log.frees = 0;
        self.pool.give(old.iter().map(|chunk| chunk.index));
    }

    /// Chunks that `entries` entries fill; at least one, which keeps the sequence numbers.
    pub(super) fn chunks_for(&self, entries: u64) -> u32 {
        let chunks = entries.div_ceil(self.area.entries()).max(1);
        u32::try_from(chunks).expect("there are fewer extents than pages")
    }

    fn nth_of(&self, fresh: &[ChunkIndex], nth: u64) -> (ChunkIndex, u64) {
        let chunk = usize::try_from(nth / self.area.entries()).expect("fits: it indexes memory");
        (fresh[chunk], nth % self.area.entries())
    }

    fn places_per_live(&self, log: &Log) -> u64 {
        log.chunks.len() as u64 * self.area.entries() / (log.live.len() as u64).max(1)
    }

    /// Whether a copy that fills as many chunks would have a place left, and the log has none.
    fn copying_makes_room(&self, log: &Log) -> bool {
        !log.has_room() && (log.live.len() as u64) < log.chunks.len() as u64 * self.area.entries()
    }

    /// Whether a copy would take fewer chunks.
    fn copying_helps(&self, log: &Log) -> bool {
        log.chunks.len() as u64 > u64::from(self.chunks_for(log.live.len() as u64))
    }
}
