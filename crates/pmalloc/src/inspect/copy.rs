//! A copy of a heap's file that is whole, or isn't there.
//!
//! The lock of a reader keeps every program from opening the heap meanwhile, so that all bytes are of one moment. The copy is
//! checked before it gets its name.

use std::{mem, ops::ControlFlow, path::Path};

use pmalloc_persist::{
    Access, CopyProgress, MapOptions, Mapped, Medium, Observed, Observer, Span,
    sync::{Arc, Mutex, lock},
};

use super::{
    check::{self, CheckReport},
    owner::{self, Kept, Power},
    problem::Problem,
};
use crate::{
    core::header,
    error::{Error, Result},
    layout::superblock::Header,
    recovery::GIVING,
};

/// What a copy came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
#[must_use = "a heap with problems is not copied"]
pub struct CopyReport {
    /// The state of the copy. If there are problems, it was given up, and nothing has the name that it was to get.
    pub check: CheckReport,
    /// Bytes that were copied: holes are not.
    pub copied_bytes: u64,
    /// Memory that the copy occupies, in bytes.
    pub heap_bytes: u64,
}

/// Copies the heap in the file `from`, which no program may have open, to the new file `to`.
///
/// The copy has the same bytes, and so the same identity (`uuid`): it is the same heap a second time. It is readable and
/// writable by its owner only, and takes no more room than the original: holes stay holes, and what is in use has memory. A
/// heap that was not closed is copied as it is; the copy recovers when it is opened.
///
/// The copy is checked before it gets its name. What is wrong with the heap is wrong with the copy: see
/// [`CopyReport::check`]. Nothing is called `to` then; a damaged heap can be [salvaged](crate::salvage_file).
///
/// # Errors
///
/// [`Error::Map`] if the heap can't be opened, or is in use, by whom is said
/// ([`MapError::InUse`](pmalloc_persist::MapError::InUse)); if `to` exists, or there is no room for it. [`Error::NotAHeap`],
/// [`Error::Version`], [`Error::Corrupted`] if neither superblock copy can be read, [`Error::NoSpace`]. Nothing is called `to`
/// then.
///
/// # Crash consistency
///
/// Atomic: after a crash nothing is called `to`, or it is the whole copy, which is durable.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let (path, backup) = (dir.path().join("heap"), dir.path().join("backup"));
/// pmalloc::Heap::create(&path)?.close()?;
/// let report = pmalloc::copy_file(&path, &backup)?;
/// assert_eq!(report.check.problems, []);
/// pmalloc::Heap::open(&backup)?;
/// # Ok(())
/// # }
/// ```
pub fn copy_file(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<CopyReport> {
    copy_file_with(from, to, |_| ControlFlow::Continue(()))
}

/// As [`copy_file`], and `tell` hears how far the copy is. It can end it: the error is then a
/// [`MapError::Io`](pmalloc_persist::MapError::Io) of the kind [`Interrupted`](std::io::ErrorKind::Interrupted).
///
/// # Errors
///
/// As [`copy_file`].
///
/// # Crash consistency
///
/// As [`copy_file`].
pub fn copy_file_with(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    mut tell: impl FnMut(CopyProgress) -> ControlFlow<()>,
) -> Result<CopyReport> {
    let file = owner::open_file(from, Access::PrivateCopy)?;
    let header = header::read_header(&file)?;
    let kept = owner::kept_on(file.storage()?);
    let len = file.len()?;
    let mut copied_bytes = 0;
    let mut note = |progress: CopyProgress| {
        copied_bytes = progress.copied_bytes;
        tell(progress)
    };
    // The lock is held until the copy has its name.
    let copy = file.copy_to(to.as_ref(), &mut note)?;
    let copy = copy.map(&MapOptions::new(len.max(1)))?;
    let (check, in_use) = look(&copy, header, kept)?;
    if check.problems.is_empty() {
        in_use.iter().try_for_each(|spans| copy.ensure(spans)).map_err(Error::backing(GIVING))?;
        // CRASH: nobody knows the copy before this; then it is whole and durable.
        copy.publish()?;
    }
    let heap_bytes = copy.occupied_bytes().map_err(Error::io("asking for the size of a copy"))?;
    Ok(CopyReport { check, copied_bytes, heap_bytes })
}

/// Checks `copy`, of a heap that lay where a power loss leaves `kept`, without changing it. Says also what of it is in use.
fn look(copy: &Mapped, header: Header, kept: Kept) -> Result<(CheckReport, Vec<Vec<Span>>)> {
    let (bytes, len) = (header.geometry.heap_bytes(), copy.len());
    let private = copy.private_copy(bytes.max(len))?;
    let here = owner::power_of(&private)?;
    // What was left of the original counts, and what an open will make of the copy.
    let power = if kept == Kept::InPart { Power { kept, ..here } } else { here };
    let in_use = InUse::default();
    let observed = Observed::new(private, in_use.clone());
    let mut report = check::check_closed(Ok(header), observed, Some(power))?;
    if len > bytes {
        report.problems.push(Problem::too_long(bytes));
    }
    let spans = mem::take(&mut *lock(&in_use.0));
    Ok((report, spans))
}

/// Notes what a recovery wants to have memory. A private mapping has that anyway; the file is given it when all is well.
#[derive(Debug, Clone, Default)]
struct InUse(Arc<Mutex<Vec<Vec<Span>>>>);

impl Observer for InUse {
    fn ensuring(&self, spans: &[Span]) {
        lock(&self.0).push(spans.to_vec());
    }
}
