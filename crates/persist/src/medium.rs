//! The seam: everything that touches durable memory goes through a [`Medium`].

use std::{
    io,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use crate::{
    Claim, ClaimError, MediaInfo, OnMedia, OutOfBounds, Region, Span, Word, offset::Offset,
    process::ProcessId,
};

/// Durable memory.
///
/// Production mappings, the tracer and the crash simulator implement this trait, and every structure built
/// on it is generic over it: the code that is tested is the code that runs.
///
/// The model is that of x86 with write-back memory (Raad et al., Persistency semantics of the Intel-x86
/// architecture, POPL 2020): a store becomes durable at any time after it is made, at the latest when a
/// [`flush`](Medium::flush) of its line made after it is followed by a [`fence`](Medium::fence) of the same
/// thread. Stores to one line become durable in the order in which they are made; between lines there is
/// no order but that of flush and fence.
///
/// # Safety
///
/// Code that lends the memory as references, as a heap does, relies on what an implementation says, as on that of a
/// [`GlobalAlloc`](core::alloc::GlobalAlloc):
///
/// 1. [`region`](Medium::region) is always a region of the same memory, which stays mapped as long as the medium lives.
/// 2. [`len`](Medium::len) never shrinks. The bytes below it can be touched, but for pages that were never
///    [backed](Medium::back), or punched since: once `back` has returned `Ok`, those of its span can be, until they are
///    punched.
/// 3. The words of the region are read and written by atomic accesses with at least the orders that the methods name,
///    to the word that was given and to no other; each returns what it found, and stores what it was given. A medium
///    that stops storing lets nobody load any more who relied on the store.
/// 4. Nothing but stores, plain ones of the user, and `punch` changes what the memory reads as. `punch` leaves alone what
///    does not lie in the span. What is decided only when it is looked at, as by a simulator, is decided before `load`
///    and [`settle`](Medium::settle) return, and for good.
/// 5. A [`Claim`] is given out while no other one lives, or by a medium that says in its documentation who sees to that.
pub unsafe trait Medium: Send + Sync {
    /// The mapped range.
    fn region(&self) -> &Region;

    /// Bytes from the base on that may be touched: the present size of the file.
    fn len(&self) -> u64;

    /// Whether there is nothing that may be touched.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads `word` (acquire).
    #[track_caller]
    fn load(&self, word: &Word) -> u64;

    /// Reads `word` (acquire) for no more than which class it belongs to: whether it is zero, which of two
    /// numbers is larger.
    ///
    /// The hardware reads the word and classifies it. The simulator puts every value that a crash can have
    /// left there through `class`, and goes on with one image for each *class* and not for each value: a
    /// recovery that only asks whether a word counts is explored at the price of the answers. Nothing is lost
    /// by that, because the caller gets nothing else that could make a difference. To keep it so is the
    /// caller's one duty: `class` depends on its argument alone, passes nothing on but what it returns, and
    /// does not touch the medium. A later [`load`](Medium::load) of the word is sound; it tells the values of
    /// the class apart.
    #[inline]
    #[track_caller]
    fn classify<C: PartialEq>(&self, word: &Word, class: impl Fn(u64) -> C) -> C
    where
        Self: Sized,
    {
        class(self.load(word))
    }

    /// Writes `word` (release).
    #[track_caller]
    fn store(&self, word: &Word, value: u64);

    /// Tells that the line of `word` is soon stored in. A line that was flushed may have left the cache: to ask for it ahead,
    /// while a fence is waited for, takes that time off the store. It changes nothing that a program can see.
    #[inline]
    fn prefetch(&self, word: &Word) {
        let _ = word;
    }

    /// Replaces `current` by `new` atomically.
    ///
    /// # Errors
    ///
    /// The value found, if it is not `current`.
    #[track_caller]
    fn compare_exchange(&self, word: &Word, current: u64, new: u64) -> Result<u64, u64>;

    /// Sets `bits` atomically and returns the word before.
    #[track_caller]
    fn fetch_or(&self, word: &Word, bits: u64) -> u64;

    /// Keeps only `bits` atomically and returns the word before.
    #[track_caller]
    fn fetch_and(&self, word: &Word, bits: u64) -> u64;

    /// Starts writing back every line that `span` touches.
    ///
    /// # Panics
    ///
    /// May panic if `span` lies outside the region.
    #[track_caller]
    fn flush(&self, span: Span);

    /// Waits until all that this thread flushed is durable.
    #[track_caller]
    fn fence(&self);

    /// Tells that the bytes of `span` were written by plain stores (an initialiser's), before they are
    /// flushed. The hardware needs no telling; the simulator does.
    #[track_caller]
    fn stored(&self, span: Span) {
        let _ = span;
    }

    /// Tells that the bytes of `span` are about to be read by plain loads. The hardware needs no telling;
    /// the simulator does.
    #[track_caller]
    fn settle(&self, span: Span) {
        let _ = span;
    }

    /// Gives every page that `span` touches memory of its own and makes the file reach to its end, so that
    /// touching it can't fail; durable on return if the durability asks for that. Bytes that had no memory
    /// read as zero, others keep their contents.
    ///
    /// # Errors
    ///
    /// The error of the file system, most often that it is full; nothing needs undoing then.
    #[track_caller]
    fn back(&self, span: Span) -> io::Result<()>;

    /// Sees that every page of `spans`, ascending and apart from each other, has memory, as [`back`](Medium::back) gave it
    /// to them at some time: a file that was copied may have holes where it had zeros. Costs little where they still have it.
    ///
    /// To be called for whatever is in use, before it is touched, when a medium is opened.
    ///
    /// # Errors
    ///
    /// As [`back`](Medium::back).
    #[track_caller]
    fn ensure(&self, spans: &[Span]) -> io::Result<()> {
        spans.iter().try_for_each(|span| self.back(*span))
    }

    /// Gives the memory of the whole pages in `span` back to the file system. They read as zero (or as
    /// before, where the medium can't punch holes) and need [`back`](Medium::back) before the next write.
    ///
    /// # Errors
    ///
    /// The error of the file system; the pages are then as before.
    #[track_caller]
    fn punch(&self, span: Span) -> io::Result<()>;

    /// Writes everything to stable storage, where that is more than flush and fence: `msync` and `fsync`
    /// of a page-cache file.
    ///
    /// # Errors
    ///
    /// The error of the file system; nothing can be said about what reached the disk then.
    #[track_caller]
    fn sync(&self) -> io::Result<()>;

    /// As [`sync`](Medium::sync), but only the pages of `span` have to reach stable storage: a barrier that does not wait
    /// for whatever else of a large file is waiting to be written.
    ///
    /// # Errors
    ///
    /// As [`sync`](Medium::sync), also of what was written elsewhere.
    #[track_caller]
    fn sync_span(&self, span: Span) -> io::Result<()> {
        let _ = span;
        self.sync()
    }

    /// Whether stores may reach stable storage at any time and in any order, whatever is flushed, so that a power loss between
    /// two [`sync`](Medium::sync)s leaves a mixture: a file in the page cache of a disk, whose pages the kernel writes when it
    /// likes, or persistent memory that is used without flushes.
    fn needs_sync(&self) -> bool {
        false
    }

    /// Memory that the medium occupies now, in bytes: blocks of the file times 512.
    ///
    /// # Errors
    ///
    /// The error of the file system.
    fn occupied_bytes(&self) -> io::Result<u64>;

    /// Time since some moment before now, which never goes back: what the user of the medium measures waiting by.
    ///
    /// That of the system, unless the medium has a time of its own, as the simulator does: nothing that happens on it may
    /// depend on how fast the machine is.
    fn now(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    /// Whether this process is a fork of the one that mapped the medium and so must not touch it.
    #[inline]
    fn forked(&self) -> bool {
        false
    }

    /// Claims the medium for one structure, which lends the memory as references, until the claim is dropped.
    ///
    /// # Errors
    ///
    /// [`ClaimError`] if it is claimed already, or if its bytes may change under the claim.
    fn claim(&self) -> Result<Claim, ClaimError> {
        self.region().claim()
    }

    /// What there is to know about the medium.
    fn info(&self) -> MediaInfo<'_> {
        MediaInfo::of_memory(self.len(), self.region().len())
    }

    /// The process that uses the medium, which a structure may write down as its owner: zero where no other one ever
    /// can, as in memory that dies with its process.
    ///
    /// # Errors
    ///
    /// That of reading `/proc`, most often that it isn't mounted.
    fn process(&self) -> io::Result<ProcessId> {
        Ok(ProcessId { pid: 0, start_time: 0 })
    }

    /// The boot of the machine, a number that changes when it restarts: zero where the medium does not outlive it.
    ///
    /// # Errors
    ///
    /// That of reading `/proc`, most often that it isn't mounted.
    fn boot(&self) -> io::Result<u128> {
        Ok(0)
    }

    /// The `T` at `at`.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] if it is misaligned or does not lie inside the region.
    #[inline]
    fn at<T: OnMedia>(&self, at: Offset<T>) -> Result<&T, OutOfBounds>
    where
        Self: Sized,
    {
        self.region().at(at)
    }

    /// Flushes the lines of `value`, a reference into this medium.
    #[inline]
    #[track_caller]
    fn flush_of<T: OnMedia>(&self, value: &T)
    where
        Self: Sized,
    {
        self.flush(self.region().span_of(value));
    }

    /// Flushes `span` and fences.
    #[inline]
    #[track_caller]
    fn persist(&self, span: Span) {
        self.flush(span);
        self.fence();
    }
}

/// A medium whose memory is reached through this very value and through nothing else: there is no clone of it, and no
/// handle to what it wraps is left elsewhere.
///
/// A structure that owns such a medium can lend the memory as references: nobody else in the process can write to it.
///
/// # Safety
///
/// As long as a value of the type is not borrowed, no safe code reaches the words of its region but by borrowing it, and
/// none punches its pages.
pub unsafe trait Exclusive: Medium {}

// SAFETY: all is passed on to the medium.
unsafe impl<M: Medium> Medium for Arc<M> {
    #[inline]
    fn region(&self) -> &Region {
        (**self).region()
    }
    #[inline]
    fn len(&self) -> u64 {
        (**self).len()
    }
    #[inline]
    #[track_caller]
    fn load(&self, word: &Word) -> u64 {
        (**self).load(word)
    }
    #[inline]
    #[track_caller]
    fn classify<C: PartialEq>(&self, word: &Word, class: impl Fn(u64) -> C) -> C {
        (**self).classify(word, class)
    }
    #[inline]
    #[track_caller]
    fn store(&self, word: &Word, value: u64) {
        (**self).store(word, value);
    }
    #[inline]
    fn prefetch(&self, word: &Word) {
        (**self).prefetch(word);
    }
    #[inline]
    #[track_caller]
    fn compare_exchange(&self, word: &Word, current: u64, new: u64) -> Result<u64, u64> {
        (**self).compare_exchange(word, current, new)
    }
    #[inline]
    #[track_caller]
    fn fetch_or(&self, word: &Word, bits: u64) -> u64 {
        (**self).fetch_or(word, bits)
    }
    #[inline]
    #[track_caller]
    fn fetch_and(&self, word: &Word, bits: u64) -> u64 {
        (**self).fetch_and(word, bits)
    }
    #[inline]
    #[track_caller]
    fn flush(&self, span: Span) {
        (**self).flush(span);
    }
    #[inline]
    #[track_caller]
    fn flush_of<T: OnMedia>(&self, value: &T) {
        (**self).flush_of(value);
    }
    #[inline]
    #[track_caller]
    fn fence(&self) {
        (**self).fence();
    }
    #[inline]
    #[track_caller]
    fn stored(&self, span: Span) {
        (**self).stored(span);
    }
    #[inline]
    #[track_caller]
    fn settle(&self, span: Span) {
        (**self).settle(span);
    }
    #[track_caller]
    fn back(&self, span: Span) -> io::Result<()> {
        (**self).back(span)
    }
    #[track_caller]
    fn ensure(&self, spans: &[Span]) -> io::Result<()> {
        (**self).ensure(spans)
    }
    #[track_caller]
    fn punch(&self, span: Span) -> io::Result<()> {
        (**self).punch(span)
    }
    #[track_caller]
    fn sync(&self) -> io::Result<()> {
        (**self).sync()
    }
    #[track_caller]
    fn sync_span(&self, span: Span) -> io::Result<()> {
        (**self).sync_span(span)
    }
    fn needs_sync(&self) -> bool {
        (**self).needs_sync()
    }
    fn occupied_bytes(&self) -> io::Result<u64> {
        (**self).occupied_bytes()
    }
    fn now(&self) -> Duration {
        (**self).now()
    }
    #[inline]
    fn forked(&self) -> bool {
        (**self).forked()
    }
    fn process(&self) -> io::Result<ProcessId> {
        (**self).process()
    }
    fn boot(&self) -> io::Result<u128> {
        (**self).boot()
    }
    fn claim(&self) -> Result<Claim, ClaimError> {
        (**self).claim()
    }
    fn info(&self) -> MediaInfo<'_> {
        (**self).info()
    }
}
