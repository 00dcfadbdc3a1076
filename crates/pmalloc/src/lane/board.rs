//! What a synchronizer sees of a lane: whether an operation is inside, and the lines that operations have left unflushed.
//!
//! The lane's holder is the only writer, but for [`Board::take`], which the one synchronizer calls. Volatile: a lane's
//! board outlives the sessions that hold the lane, and is empty when the heap is opened.

use crossbeam_utils::CachePadded;
use pmalloc_persist::sync::{AtomicU64, Ordering};

/// The shared side of a lane.
#[derive(Debug)]
pub(crate) struct Board {
    /// Written by the lane's holder.
    own: CachePadded<Own>,
    /// Line numbers, as a ring: those from `taken` up to `noted` are to be flushed.
    lines: Box<[AtomicU64]>,
    /// Lines that a synchronizer took. Written by the synchronizer.
    taken: CachePadded<AtomicU64>,
}

#[derive(Debug)]
struct Own {
    /// Odd while an operation is inside.
    mark: AtomicU64,
    /// Lines that were noted, by operations that have left.
    noted: AtomicU64,
}

impl Board {
    /// The board of a lane with `places` records. Each record that is not durable leaves at most two lines: that of a bit or
    /// a log entry, and that of a slot.
    pub(super) fn new(places: u32) -> Self {
        let lines = (2 * places as usize).next_power_of_two();
        Self {
            own: CachePadded::new(Own { mark: AtomicU64::new(0), noted: AtomicU64::new(0) }),
            lines: (0..lines).map(|_| AtomicU64::new(0)).collect(),
            taken: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// Marks the lane: an operation goes in. It looks at the epoch only then.
    ///
    /// An operation that panics before it [leaves](Self::leave) stays inside: its record may be durable and its effects are
    /// not stored, so that no epoch that covers it may become durable.
    #[inline(always)]
    pub(super) fn enter(&self) {
        // Relaxed load: only the holder writes it. The store and the look at the epoch that follows are SeqCst, as are the
        // synchronizer's change of the epoch and its look at the mark: one of the two sees the other (rule 2).
        let mark = self.own.mark.load(Ordering::Relaxed);
        self.own.mark.store(mark + 1, Ordering::SeqCst);
    }

    /// Notes the `nth` line, in which all that the operation stores was stored. It counts when the operation
    /// [leaves](Self::leave).
    #[inline(always)]
    pub(super) fn note(&self, nth: u64, line: u64) {
        debug_assert!(
            nth - self.taken.load(Ordering::Relaxed) < self.lines.len() as u64,
            "a record leaves at most two lines"
        );
        // Relaxed: published by `leave`.
        self.lines[self.place(nth)].store(line, Ordering::Relaxed);
    }

    /// Unmarks the lane: the operation has stored its effects. `noted` lines were noted so far.
    #[inline(always)]
    pub(super) fn leave(&self, noted: u64) {
        let mark = self.own.mark.load(Ordering::Relaxed);
        // Release, both: who sees that the operation has left, or that lines were noted, sees what it stored.
        self.own.noted.store(noted, Ordering::Release);
        self.own.mark.store(mark + 1, Ordering::Release);
    }

    /// Whether an operation is inside, and the mark it has put.
    pub(crate) fn inside(&self) -> Option<u64> {
        let mark = self.own.mark.load(Ordering::SeqCst);
        (mark % 2 == 1).then_some(mark)
    }

    /// Whether the operation that had put this mark has left.
    pub(crate) fn has_left(&self, mark: u64) -> bool {
        self.own.mark.load(Ordering::Acquire) != mark
    }

    /// How many lines were noted, by operations whose stores are seen then.
    pub(crate) fn noted(&self) -> u64 {
        self.own.noted.load(Ordering::Acquire)
    }

    /// Hands the first `noted` lines, but for those taken before, to `flush`. One thread at a time calls this.
    pub(crate) fn take(&self, noted: u64, mut flush: impl FnMut(u64)) {
        let taken = self.taken.load(Ordering::Relaxed);
        for nth in taken..noted {
            flush(self.lines[self.place(nth)].load(Ordering::Relaxed));
        }
        // Release: the holder writes a place again only when it has seen the epoch durable, which is later still.
        self.taken.store(noted, Ordering::Release);
    }

    #[inline]
    fn place(&self, nth: u64) -> usize {
        #[allow(clippy::cast_possible_truncation, reason = "the length is a power of two")]
        let nth = nth as usize;
        nth & (self.lines.len() - 1)
    }
}
