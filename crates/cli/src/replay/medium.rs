//! The kinds of media that a replay's heaps live on: watched, and watched and counted. Volatile.

use std::path::Path;

use pmalloc::Heap;
use pmalloc_persist::{Exclusive, Mapped, Observed, Traced};

use super::probe::Probe;

/// A watched file.
pub(crate) type Plain = Observed<Mapped, Probe>;

/// A watched file whose flushes are counted.
pub(crate) type Counted = Traced<Plain>;

/// A medium with a probe in it.
pub(crate) trait Watched: Exclusive + Sized + 'static {
    /// The probe.
    fn probe(heap: &Heap<Self>) -> &Probe;

    /// The file.
    fn path(heap: &Heap<Self>) -> &Path {
        heap.media().path.expect("a replay's heap lies in a file")
    }
}

impl Watched for Plain {
    fn probe(heap: &Heap<Self>) -> &Probe {
        heap.observer()
    }
}

impl Watched for Counted {
    fn probe(heap: &Heap<Self>) -> &Probe {
        heap.observer()
    }
}
