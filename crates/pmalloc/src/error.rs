//! Every way an operation can fail, told apart by what the caller can do about it.

use std::{borrow::Cow, io};

use pmalloc_persist::{ClaimError, MapError, OutOfBounds, is_out_of_space};

/// Result of a heap operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed. An operation that fails changes nothing.
///
/// [`is_out_of_space`](Error::is_out_of_space) tells a heap or file system that is full from all else.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A size, alignment, name or option that no heap accepts.
    #[error("invalid {what}: {why}")]
    Invalid {
        /// Which argument.
        what: &'static str,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// The heap has no room: not even after empty slabs, freed blocks that no guard sees and what the calling session had
    /// at hand were given back. What other sessions have at hand stays with them.
    #[error(
        "no room for {requested_bytes} bytes in a heap of {capacity_bytes} bytes capacity: free blocks, \
         or create a heap with a larger capacity"
    )]
    OutOfMemory {
        /// Bytes asked for.
        requested_bytes: u64,
        /// Capacity of the heap in bytes.
        capacity_bytes: u64,
    },
    /// The place is not the start of a live block.
    #[error(
        "{offset:#x} is not the start of a live block: it was freed before, or never allocated; `pmalloc check` \
         tells which slots are damaged"
    )]
    NotLive {
        /// The place.
        offset: u64,
    },
    /// The slot owns a block already.
    #[error("the slot at {slot:#x} owns a block already: free it first")]
    SlotFull {
        /// Offset of the slot.
        slot: u64,
    },
    /// The slot owns no block.
    #[error("the slot at {slot:#x} owns no block: allocate one into it first")]
    SlotEmpty {
        /// Offset of the slot.
        slot: u64,
    },
    /// The slot or versioned cell does not lie in a live block of this heap.
    #[error(
        "the slot or cell lies in no live block of this heap: use slots that `Heap::slots` returned, and \
         what stands in blocks that slots own"
    )]
    SlotForeign,
    /// A fixed limit is reached.
    #[error("no more than {limit} {what}: use fewer, or a second heap")]
    Limit {
        /// Of what there are too many.
        what: &'static str,
        /// How many there can be.
        limit: u64,
    },
    /// A root of this name exists with another kind, length or type.
    #[error(
        "the root {name:?} exists with {found}, not {expected}: ask for what is there, or choose another name"
    )]
    RootMismatch {
        /// The root's name.
        name: String,
        /// What was asked for.
        expected: String,
        /// What the heap holds.
        found: String,
    },
    /// No root has this name.
    #[error("no root is called {name:?}: `Heap::roots` lists those that exist")]
    RootMissing {
        /// The name.
        name: String,
    },
    /// The root can't be removed: references to it were handed out, and live as long as the heap is open.
    #[error(
        "the root {name:?} was handed out since the heap was opened: open the heap anew and remove it first"
    )]
    RootInUse {
        /// The root's name.
        name: String,
    },
    /// What is to be freed holds slots that own blocks.
    #[error(
        "the slot at {slot:#x} lies in what is freed and owns a block: free that first, or in the same publish"
    )]
    ChildrenAlive {
        /// Offset of the first such slot.
        slot: u64,
    },
    /// The block is to be given to a slot, or freed, as one that nothing owns; but something does.
    #[error("the block at {offset:#x} is not without an owner: the word at {slot:#x} {how}")]
    Owned {
        /// Offset of the block.
        offset: u64,
        /// Offset of the slot that owns it, or may.
        slot: u64,
        /// Which of these, and what can be done.
        how: &'static str,
    },
    /// A guard lives, which may lend what is to change hands.
    #[error(
        "the heap is pinned: give a block that nothing owns to a slot, or free it, while no guard lives"
    )]
    Pinned,
    /// The heap was created for data of another layout.
    #[error(
        "the heap holds data of layout {found:?}, not {expected:?}: open it with the program that made it"
    )]
    Layout {
        /// The name asked for.
        expected: String,
        /// The name in the heap.
        found: String,
    },
    /// The file is not a heap.
    #[error("not a heap: {why}; give the path of a heap, or create one")]
    NotAHeap {
        /// What was found.
        why: &'static str,
    },
    /// The heap was written by a program that knows more: by one with another format, or that uses what this one does not
    /// know. Nothing is wrong with it, and it is never salvaged.
    #[error(
        "the heap has {what} {found}, and this program knows no other than {supported}: open it with the program that \
         wrote it"
    )]
    Version {
        /// What is not known: the format version, required features, the policy and the like.
        what: &'static str,
        /// The number found.
        found: u64,
        /// The largest number that this program knows.
        supported: u64,
    },
    /// The heap contradicts itself.
    #[error(
        "the heap is corrupted at {offset:#x}: {what}; `pmalloc check` lists all that is wrong"
    )]
    Corrupted {
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: Cow<'static, str>,
    },
    /// The machine lost power, or was reset, while a heap on a page-cache file was not synchronized; or a write to its disk
    /// failed.
    #[error(
        "the machine restarted since this heap was last written, and it was not synchronized, or a write to its disk \
         failed: what the kernel wrote of it is a mixture; `pmalloc check` shows what is there, `pmalloc check --salvage` makes it \
         openable"
    )]
    PowerLoss,
    /// The process is a fork of the one that opened the heap.
    #[error(
        "this process is a fork of the one that opened the heap: open the heap in one of them only"
    )]
    Forked,
    /// Other handles to the heap exist.
    #[error("other handles to this heap exist: drop them first")]
    HandlesRemain,
    /// The file can't be mapped.
    #[error(transparent)]
    Map(MapError),
    /// The file system has no room: it is full, a quota is used up, a limit on the size of files is reached, or a tmpfs
    /// gets no memory. What is freed in the heap can be allocated again; the heap can't grow until there is room.
    #[error("{doing}: {source}; {}", advice(source))]
    NoSpace {
        /// What was being done.
        doing: Cow<'static, str>,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The medium can't be served: another heap has it, or its bytes may change under the heap.
    #[error(transparent)]
    Medium(#[from] ClaimError),
    /// The operating system refused.
    #[error("{doing}: {source}; {}", advice(source))]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// An [`Error`] on its way to the caller: a word. Results of operations, which nearly all succeed, are handed on in a register
/// so, where those with an error in place would be copied.
#[derive(Debug)]
pub(crate) struct Raised(Box<Error>);

impl Raised {
    /// What it is.
    pub(crate) fn error(&self) -> &Error {
        &self.0
    }
}

impl From<Error> for Raised {
    #[cold]
    fn from(error: Error) -> Self {
        Self(Box::new(error))
    }
}

impl From<Raised> for Error {
    #[cold]
    fn from(raised: Raised) -> Self {
        *raised.0
    }
}

impl Error {
    /// Whether there was no room, in the heap ([`Error::OutOfMemory`]) or in its file system ([`Error::NoSpace`]): a cache
    /// that frees something may try again.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::alloc::Layout;
    /// # let dir = tempfile::tempdir()?;
    /// let heap = pmalloc::Heap::options().capacity_bytes(1 << 20).create(dir.path().join("cache"))?;
    /// let slots = heap.slots("entries", 4)?;
    /// let entry = Layout::new::<[u8; 300_000]>();
    /// for slot in slots {
    ///     match heap.alloc_to(slot, entry) {
    ///         Err(full) if full.is_out_of_space() => {
    ///             heap.free_from(&slots[0])?; // evicted
    ///             heap.alloc_to(slot, entry)?;
    ///         }
    ///         // Anything else is no reason to evict: a broken disk, say.
    ///         done => done?,
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::OutOfMemory { .. } | Self::NoSpace { .. })
    }

    /// An [`Error::Io`], or an [`Error::NoSpace`], that says what was being done.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match is_out_of_space(&source) {
            true => Self::NoSpace { doing: doing.into(), source },
            false => Self::Io { doing, source },
        }
    }

    /// As [`io`](Self::io), where memory was asked of the file system: if a tmpfs gets none, it has no room.
    pub(crate) fn backing(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::OutOfMemory => Self::NoSpace { doing: doing.into(), source },
            _ => Self::io(doing)(source),
        }
    }

    /// An [`Error::Corrupted`].
    pub(crate) fn corrupted(offset: u64, what: impl Into<Cow<'static, str>>) -> Self {
        Self::Corrupted { offset, what: what.into() }
    }

    /// An [`Error::Version`].
    pub(crate) fn unknown(what: &'static str, found: u64, supported: u64) -> Self {
        Self::Version { what, found, supported }
    }
}

/// One thing that is wrong with a heap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Where, as a byte offset from the base of the heap.
    pub(crate) offset: u64,
    /// What.
    pub(crate) what: Cow<'static, str>,
}

impl Finding {
    /// What is wrong at byte `offset`.
    pub(crate) fn new(offset: u64, what: impl Into<Cow<'static, str>>) -> Self {
        Self { offset, what: what.into() }
    }
}

/// What was wrong with a heap that is being salvaged.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What was mended without a loss.
    pub(crate) repaired: Vec<Finding>,
    /// What could not be kept.
    pub(crate) lost: Vec<Finding>,
}

impl Findings {
    /// Notes something that was mended.
    pub(crate) fn repaired(&mut self, offset: u64, what: impl Into<Cow<'static, str>>) {
        self.repaired.push(Finding::new(offset, what));
    }

    /// Notes something that could not be kept.
    pub(crate) fn lost(&mut self, offset: u64, what: impl Into<Cow<'static, str>>) {
        self.lost.push(Finding::new(offset, what));
    }
}

/// What to do about an error of the operating system.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free space on its file system, or raise the quota, and try again"
        }
        io::ErrorKind::FileTooLarge => {
            "raise the limit on file sizes (ulimit -f), or free blocks of the heap"
        }
        io::ErrorKind::OutOfMemory => {
            "free memory, raise the limit on address space (ulimit -v), or create a heap of a smaller capacity"
        }
        _ => "check the file and its file system",
    }
}

impl From<MapError> for Error {
    fn from(error: MapError) -> Self {
        match error {
            MapError::NoSpace { op, path, source } => {
                Self::NoSpace { doing: format!("can't {op} {}", path.display()).into(), source }
            }
            error => Self::Map(error),
        }
    }
}

impl From<OutOfBounds> for Error {
    /// Metadata that names a place outside the heap is corrupted metadata.
    fn from(error: OutOfBounds) -> Self {
        Self::corrupted(error.span.start, "a place outside the heap is referred to")
    }
}
