//! The kinds of media that a replay's heaps live on: watched, and watched and counted. Volatile.

use std::path::Path;

use pmalloc_persist::{Mapped, Medium, Traced};

use super::probe::Probe;

/// A watched file.
pub(crate) type Plain = Probe<Mapped>;

/// A watched file whose flushes are counted.
pub(crate) type Counted = Traced<Plain>;

/// A medium with a probe in it.
pub(crate) trait Watched: Medium + 'static {
    /// The probe.
    fn probe(&self) -> &Plain;

    /// The file.
    fn path(&self) -> &Path {
        self.probe().inner().path()
    }
}

impl Watched for Plain {
    fn probe(&self) -> &Plain {
        self
    }
}

impl Watched for Counted {
    fn probe(&self) -> &Plain {
        self.inner()
    }
}
