//! Why there are no results. Volatile.

use std::{io, path::PathBuf, process::ExitStatus};

/// Why there are no results.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No benchmark has this name.
    #[error("no benchmark is called {name}: there are{known}")]
    UnknownBench {
        /// The name.
        name: String,
        /// Those that there are, each on a line of its own with what it measures.
        known: String,
    },
    /// A benchmark has no such variant, or none at this scale.
    #[error("{bench} has no variant {variant}: there are {}", known.join(", "))]
    UnknownVariant {
        /// The benchmark.
        bench: &'static str,
        /// The variant.
        variant: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The plan has no row.
    #[error("nothing is measured: no benchmark that was asked for has these numbers of threads")]
    Nothing,
    /// Every row needs more memory or space than there is.
    #[error("there is no room for any of the heaps: choose another directory, or fewer benchmarks")]
    NoRoom,
    /// A cell's description makes no sense: it was not written by the supervisor.
    #[error("not the description of a cell: {0}")]
    Description(#[source] serde_json::Error),
    /// A child can't be started.
    #[error("can't start {}: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A child died, or ended without a result.
    #[error("the process that measured {cell} ended with {status}: {stderr}")]
    Child {
        /// What it was doing.
        cell: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// No heap can be made with these options.
    #[error("no heap can be measured: {0}")]
    Heap(#[from] pmalloc::Error),
    /// The operating system refused.
    #[error("can't {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The system's error.
        source: io::Error,
    },
    /// The user has had enough.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// An error of the operating system while `doing`.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
