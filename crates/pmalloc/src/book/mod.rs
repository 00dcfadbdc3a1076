//! The bookkeeping log: which extents are allocated.
//!
//! Each arena has a log: a chain of chunks to which an entry is appended for every extent that is
//! allocated or freed; the last entry that names an extent decides. Nothing is updated in place, so an
//! extent costs one line flush, always in a line other than the one before. Chunks of which nothing is
//! needed any more are unlinked, and a log that is mostly garbage is copied.
//!
//! | file | what it does |
//! |---|---|
//! | [`chunk`] | chunks and links on media |
//! | [`pool`] | chunks that are free |
//! | [`chain`] | a log's chunks in memory, by sequence number |
//! | [`log`] | the mirror of a log in memory |
//! | [`append`] | reserve, write, commit, cancel |
//! | [`gc`] | unlink empty chunks, copy sparse logs |
//! | [`replay`] | from media back to mirrors and extents |
//! | [`salvage`] | what is left of damaged logs, and logs written anew |
//! | [`torn`] | what interrupted appends leave |
//!
//! The arenas append, the heap replays when it opens, recovery appends what is missing and compacts.
//! Persistent are the roots and the chunks that they reach; all else is rebuilt from them.
//!
//! What a caller promises: an extent belongs to at most one log at a time and its free goes to the log
//! that holds it; its memory is handed out again only when the free was fenced and committed; an append
//! is committed only behind the fence that follows its `write`.
//!
//! Locks: a log's before the pool's; never two logs'.

mod append;
mod chain;
mod chunk;
mod gc;
mod log;
mod pool;
mod replay;
mod salvage;
#[cfg(test)]
mod tests;
mod torn;

use crossbeam_utils::CachePadded;
use pmalloc_persist::{
    Medium,
    sync::{AtomicU32, Mutex, Ordering, lock},
};

pub(crate) use self::{
    append::{Append, Request},
    salvage::HeldExtents,
};
use self::{
    chunk::{Area, ChunkIndex},
    log::Log,
    pool::Pool,
};
use crate::{
    Result,
    layout::{
        book::ExtentKind,
        geometry::{Geometry, PageRange},
    },
};

/// Index of a log: below [`Geometry::logs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LogId(pub(crate) u32);

impl LogId {
    /// The number as it stands in the page map: there are at most 64 logs.
    pub(crate) fn code(self) -> u8 {
        u8::try_from(self.0).expect("there are few logs")
    }
}

/// An allocated run of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where it is.
    pub(crate) range: PageRange,
    /// What it is used for.
    pub(crate) kind: ExtentKind,
    /// The user's tag of a large block.
    pub(crate) tag: u8,
}

/// An extent, and the log that holds it as allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// The extent.
    pub(crate) extent: Extent,
    /// Where its free goes.
    pub(crate) log: LogId,
}

/// What the book did and consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BookStats {
    /// Chunks linked.
    pub(crate) chunks: u64,
    /// Allocations that hold their extent.
    pub(crate) entries_live: u64,
    /// How often chunks were unlinked.
    pub(crate) fast_gc: u64,
    /// How often a log was copied.
    pub(crate) slow_gc: u64,
    /// Places that replay found torn and that are still linked.
    pub(crate) torn: u64,
}

/// The bookkeeping logs of a heap.
#[derive(Debug)]
pub(crate) struct Book {
    geometry: Geometry,
    area: Area,
    /// The mirrors, in cache lines of their own: threads of different arenas share none on the way of an append.
    logs: Vec<CachePadded<Mutex<Log>>>,
    pool: Pool,
    /// Volatile: chunks from the first on that have memory for sure, as none ever loses it. To make one of them again
    /// takes no system call, for which others would wait at the lock of the log.
    backed: AtomicU32,
    /// Volatile: chunks that copies of all logs would fill; sizes what allocations leave for the collectors. Counted in
    /// chunks, it rarely changes.
    copies: CachePadded<AtomicU32>,
}

impl Book {
    /// Writes an empty book and flushes it: the roots, whose page the caller has backed. The caller fences
    /// before anything makes the heap visible.
    pub(crate) fn format<M: Medium>(m: &M, geometry: &Geometry) {
        Area::of(geometry).clear_roots(m, geometry.logs);
    }

    /// The book of a heap whose logs are empty.
    pub(crate) fn new(geometry: &Geometry) -> Self {
        let area = Area::of(geometry);
        let log = |id| CachePadded::new(Mutex::new(Log::new(LogId(id), area.entries())));
        Self {
            geometry: *geometry,
            area,
            logs: (0..geometry.logs).map(log).collect(),
            pool: Pool::new(area.chunks()),
            backed: AtomicU32::new(0),
            copies: CachePadded::new(AtomicU32::new(0)),
        }
    }

    /// Figures of all logs.
    pub(crate) fn stats(&self) -> BookStats {
        let mut stats = BookStats::default();
        for log in &self.logs {
            let log = lock(log);
            stats.chunks += log.chunks.len() as u64;
            stats.entries_live += log.live.len() as u64;
            stats.fast_gc += log.fast_gc;
            stats.slow_gc += log.slow_gc;
            stats.torn += log.chunks.iter().map(|chunk| u64::from(chunk.torn)).sum::<u64>();
        }
        stats
    }

    /// As [`Area::make`], for a chunk that the pool handed out and that may have no memory.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`](crate::Error::NoSpace) if the file system has no room; the chunk is then as free as before.
    fn make<M: Medium>(&self, m: &M, index: ChunkIndex, log: LogId, base: u64) -> Result<()> {
        // Acquire: pairs with the store below, behind which the chunks have memory.
        let backed = self.backed.load(Ordering::Acquire);
        if index.0 >= backed {
            // The lowest free chunk is handed out first: those in between are in use and have memory already.
            self.area.back(m, ChunkIndex(backed), index)?;
            self.backed.fetch_max(index.0 + 1, Ordering::Release);
        }
        self.area.make(m, index, log, base)
    }

    fn log(&self, id: LogId) -> &Mutex<Log> {
        &self.logs[id.0 as usize]
    }
}
