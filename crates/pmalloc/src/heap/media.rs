//! What a heap tells of its medium: figures and places, and no way to its words. Volatile.

use std::ptr::NonNull;

use pmalloc_persist::{Counts, Event, MediaInfo, Medium, Observed, Observer, Span, Traced};

use super::handle::Heap;
use crate::{
    core::in_place,
    error::{Error, Result},
};

impl<M: Medium + 'static> Heap<M> {
    /// Where the heap lies, how long it is, and what a durable store survives there.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("heap");
    /// let heap = pmalloc::Heap::create(&path)?;
    /// let media = heap.media();
    /// assert_eq!(media.path, Some(path.as_path()));
    /// assert!(media.durability.is_some() && !media.durability_is_forced);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn media(&self) -> MediaInfo<'_> {
        self.core().medium().info()
    }

    /// Whether this process is a fork of the one that opened the heap, and so must not use it.
    #[inline]
    #[must_use]
    pub fn is_forked(&self) -> bool {
        self.core().medium().forked()
    }

    /// The offset of the address `place`, or `None` if it lies outside the heap.
    #[inline]
    #[must_use]
    pub fn offset_of(&self, place: *const u8) -> Option<u64> {
        self.core().medium().region().offset_of(place)
    }

    /// The address of byte `offset`, or `None` behind the end of the heap and in a forked child. What lies there is another
    /// matter.
    #[inline]
    #[must_use]
    pub fn address_of(&self, offset: u64) -> Option<NonNull<u8>> {
        let m = self.core().medium();
        if offset >= m.len() || m.forked() {
            return None;
        }
        m.region().pointer(Span::new(offset, 1)).ok()
    }

    /// Memory that the heap occupies now, in bytes: blocks of its file times 512.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Forked`].
    pub fn occupied_bytes(&self) -> Result<u64> {
        self.core().check_process()?;
        let bytes = self.core().medium().occupied_bytes();
        bytes.map_err(Error::io("asking for the heap's size"))
    }

    /// Starts writing back what the program wrote to `span` by pointers of its own; [`fence`](Heap::fence) waits for it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for bytes outside the heap, [`Error::Forked`], [`Error::Io`].
    ///
    /// # Crash consistency
    ///
    /// What was written is durable after the fence, and may be before, in any order.
    pub fn flush(&self, span: Span) -> Result<()> {
        in_place::flush(self.core(), span)
    }

    /// Waits until all that this thread flushed is durable. A forked child has nothing to wait for.
    pub fn fence(&self) {
        let m = self.core().medium();
        if !m.forked() {
            m.fence();
        }
    }
}

impl<M: Medium + 'static> Heap<Traced<M>> {
    /// What was asked of the medium since the heap was opened or the counts were [reset](Heap::reset_counts); nothing in a
    /// forked child.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.tracer().map(Traced::counts).unwrap_or_default()
    }

    /// Counts from zero again, and forgets which lines were flushed.
    pub fn reset_counts(&self) {
        if let Some(tracer) = self.tracer() {
            tracer.reset();
        }
    }

    /// Records every store, flush and fence from now on.
    pub fn start_trace(&self) {
        if let Some(tracer) = self.tracer() {
            tracer.start_trace();
        }
    }

    /// Ends the recording and hands it out; empty if there was none.
    #[must_use]
    pub fn take_trace(&self) -> Vec<Event> {
        self.tracer().map(Traced::take_trace).unwrap_or_default()
    }

    /// The tracer; `None` in a forked child, where a thread of the parent may hold its lock for ever.
    fn tracer(&self) -> Option<&Traced<M>> {
        let tracer = self.core().medium();
        (!tracer.forked()).then_some(tracer)
    }
}

impl<M: Medium + 'static, O: Observer + 'static> Heap<Observed<M, O>> {
    /// Who is told what is asked of the medium.
    #[must_use]
    pub fn observer(&self) -> &O {
        self.core().medium().observer()
    }
}

impl<M: Medium + 'static, O: Observer + 'static> Heap<Traced<Observed<M, O>>> {
    /// Who is told what is asked of the medium.
    #[must_use]
    pub fn observer(&self) -> &O {
        self.core().medium().inner().observer()
    }
}
