//! Every way the command can fail, and its exit code. Volatile.

use std::{fmt, io, path::PathBuf, process::ExitCode};

use crate::trace::TraceError;

/// Why the command stops.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments contradict themselves or the files that are there.
    Usage(String),
    /// A heap refused.
    Heap {
        /// The heap's file.
        path: PathBuf,
        /// What it said.
        error: pmalloc::Error,
    },
    /// A trace is malformed or can't be read.
    Trace {
        /// Its name.
        name: String,
        /// What is wrong.
        error: TraceError,
    },
    /// A heap contradicts itself, or the record of what was done to it; the results were printed.
    Inconsistent(String),
    /// The operating system refused.
    Io {
        /// What was being done.
        doing: String,
        /// The system's error.
        source: io::Error,
    },
    /// The benchmarks have no results.
    Bench(pmalloc_bench::Error),
    /// What should be results of the benchmarks is something else.
    Results {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// A worker process ended in an unexpected way.
    Worker(String),
    /// The user interrupted the command.
    Interrupted,
    /// Something failed after the command had done what it was asked.
    Afterwards {
        /// What was done, and how it is undone.
        done: String,
        /// What failed.
        failure: Box<Self>,
    },
}

/// What the exit code tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// A run-time error.
    Error = 1,
    /// Wrong usage.
    Usage = 2,
    /// An inconsistent heap, a violation or a regression.
    Inconsistent = 3,
    /// The heap is open elsewhere.
    InUse = 4,
    /// Not a heap, or one of another version or layout.
    NotAHeap = 5,
}

impl Code {
    /// The code that `status` stands for, if it is one of these.
    pub(crate) fn from_status(status: i32) -> Option<Self> {
        [Self::Error, Self::Usage, Self::Inconsistent, Self::InUse, Self::NotAHeap]
            .into_iter()
            .find(|&code| code as i32 == status)
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

impl Failure {
    /// An error of the heap in `path`.
    pub(crate) fn heap(path: impl Into<PathBuf>) -> impl FnOnce(pmalloc::Error) -> Self {
        let path = path.into();
        move |error| Self::Heap { path, error }
    }

    /// An error of the operating system while `doing`.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// A failure that comes after something was `done`.
    pub(crate) fn after(done: impl Into<String>) -> impl FnOnce(Self) -> Self {
        let done = done.into();
        move |failure| Self::Afterwards { done, failure: Box::new(failure) }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Usage(_) => Code::Usage,
            Self::Heap { error, .. } => code_of(error),
            Self::Inconsistent(_) => Code::Inconsistent,
            Self::Bench(error) => code_of_bench(error),
            Self::Afterwards { failure, .. } => failure.code(),
            Self::Trace { .. }
            | Self::Results { .. }
            | Self::Io { .. }
            | Self::Worker(_)
            | Self::Interrupted => Code::Error,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Inconsistent(text) | Self::Worker(text) => f.write_str(text),
            // An error of mapping names the file itself.
            Self::Heap { error: error @ pmalloc::Error::Map(_), .. } => write!(f, "{error}"),
            Self::Heap { path, error } => {
                let (path, text) = (path.display().to_string(), error.to_string());
                // So does one of room for its file.
                if text.contains(&path) { f.write_str(&text) } else { write!(f, "{path}: {text}") }
            }
            Self::Trace { name, error } => write!(f, "{name}: {error}"),
            Self::Bench(error) => write!(f, "{error}"),
            Self::Results { path, error } => {
                write!(f, "{}: not results of `pmalloc bench`: {error}", path.display())
            }
            Self::Io { doing, source } => write!(f, "can't {doing}: {source}"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Afterwards { done, failure } => write!(f, "{failure}; {done}"),
        }
    }
}

/// The exit code of an error of the library.
fn code_of(error: &pmalloc::Error) -> Code {
    use pmalloc::{Error as E, persist::MapError as M};
    match error {
        E::Corrupted { .. } | E::PowerLoss => Code::Inconsistent,
        E::NotAHeap { .. }
        | E::Version { .. }
        | E::Layout { .. }
        | E::Map(M::NotRegularFile { .. } | M::Symlink { .. }) => Code::NotAHeap,
        E::Map(M::InUse { .. }) => Code::InUse,
        E::Invalid { .. } | E::Map(M::BadPath { .. }) => Code::Usage,
        _ => Code::Error,
    }
}

/// The exit code of an error of the benchmarks.
fn code_of_bench(error: &pmalloc_bench::Error) -> Code {
    use pmalloc_bench::Error as E;
    match error {
        E::UnknownBench { .. } | E::UnknownVariant { .. } | E::Nothing => Code::Usage,
        E::Heap(error) => code_of(error),
        _ => Code::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_has_its_code() {
        use pmalloc::{Error as E, persist::MapError};
        let path = || PathBuf::from("heap");
        for (error, code) in [
            (E::NotAHeap { why: "it is empty" }, Code::NotAHeap),
            (E::Version { what: "format version", found: 9, supported: 1 }, Code::NotAHeap),
            (E::Map(MapError::InUse { path: path(), owner: None }), Code::InUse),
            (E::Map(MapError::NotFound { path: path() }), Code::Error),
            (E::Map(MapError::BadPath { path: path(), why: "it is empty" }), Code::Usage),
            (E::PowerLoss, Code::Inconsistent),
            (E::Invalid { what: "stripes", why: "99".into() }, Code::Usage),
        ] {
            assert_eq!(Failure::heap(path())(error).code(), code);
        }
        assert_eq!(Failure::Usage(String::new()).code() as i32, 2);
        assert_eq!(Code::from_status(3), Some(Code::Inconsistent));
        assert_eq!(Code::from_status(101), None);
    }
}
