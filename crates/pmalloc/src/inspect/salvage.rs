//! Salvage: makes a heap that is refused, or that a check complains of, a whole heap again, as far as that is possible
//! without inventing data.
//!
//! It works on a copy, which takes the file's name when it is whole and durable. The damaged file keeps its bytes under
//! another name: who knows more about the data may make more of them. What was lost is written beside them before.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use pmalloc_persist::{Access, MapError, MapOptions, Medium, Offset, Span, Word};

use super::{
    check::{self, CheckReport},
    notes::{Notes, beside},
    owner,
    problem::{Problem, ProblemKind},
    root_table,
};
use crate::{
    core::{
        Core,
        format::{self, Exposure},
        header,
    },
    error::{Error, Findings, Result},
    lane,
    layout::{
        root::RootEntry,
        slot::SlotWord,
        state::Clean,
        superblock::{Header, SUPERBLOCK_WORDS},
    },
    recovery::{self, recover, state, superblock_places},
    root::{self, table},
};

/// How often the heap is checked and mended again: dropping a root may show what it hid.
const ROUNDS: u32 = 4;

/// What a salvage came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// What could not be kept, and what is not known to be whole.
    pub lost: Vec<Problem>,
    /// What was mended without a loss.
    pub repaired: Vec<Problem>,
    /// The heap as it is now. It opens, whatever problems remain.
    pub check: CheckReport,
    /// Where the damaged file is, of this salvage or of an earlier one; `None` if nothing had to be done.
    pub kept: Option<PathBuf>,
    /// The file that keeps what was lost and repaired, of this salvage and of earlier ones, until somebody removes it.
    pub report: Option<PathBuf>,
}

/// Makes the heap in the file at `path` openable again.
///
/// Nothing is invented: an extent, a slab or a root that can't be believed is dropped, a slot that owns no live block is
/// emptied, of slots that own one block the first keeps it, and each of those is reported as lost. Blocks that nobody owns
/// afterwards stay. A heap that lost power on a page-cache file is accepted as it is, which is reported as well: contents
/// of different moments may stand side by side.
///
/// A whole heap is left alone. The damaged file is kept beside the salvaged one, with `.damaged` behind its name; that
/// takes the space of a second heap. The salvaged file has its owner, group and mode. What was lost and repaired is kept in a
/// text file with `.salvaged` behind the name of the heap: as long as it is there, every later call tells it again.
///
/// # Errors
///
/// [`Error::Map`] if the file can't be opened, is in use, or the name of the kept file is taken; [`Error::NotAHeap`],
/// [`Error::Version`] for what a program that knows more wrote; [`Error::Corrupted`] if neither superblock copy says what
/// heap this was; [`Error::NoSpace`] if there is no room for a copy. Nothing has changed then, but for
/// [`MapError::Published`](pmalloc_persist::MapError::Published), which says that the heap is salvaged.
///
/// # Crash consistency
///
/// Atomic: after a crash the damaged file has its name as before, or the salvaged one has it. Salvage again then.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("heap");
/// use std::os::unix::fs::FileExt;
/// use pmalloc::Heap;
///
/// Heap::create(&path)?.close()?;
/// std::fs::OpenOptions::new().write(true).open(&path)?.write_all_at(b"oops", 2 * 4096)?;
/// assert!(Heap::open(&path).is_err());
/// let report = pmalloc::salvage_file(&path)?;
/// assert_eq!(report.check.problems, []);
/// Heap::open(&path)?;
/// # Ok(())
/// # }
/// ```
pub fn salvage_file(path: impl AsRef<Path>) -> Result<SalvageReport> {
    let path = path.as_ref();
    let file = owner::open_file(path, Access::Shared)?;
    let header = header::read_header(&file)?;
    let (bytes, file_bytes) = (header.geometry.heap_bytes(), file.len()?);
    let look = MapOptions::new(bytes.max(file_bytes)).access(Access::PrivateCopy);
    let original = Arc::new(file.map(&look)?);
    let power = Some(owner::power_of(&original)?);
    let check = check::check_closed(Ok(header.clone()), Arc::clone(&original), power)?;
    let notes = Notes::beside(path);
    if check.problems.is_empty() && file_bytes <= bytes {
        return told_again(path, &notes, check);
    }
    let kept = beside(path, ".damaged");
    let copy = Arc::new(original.file().replacement(&kept, bytes)?.map(&MapOptions::new(bytes))?);
    let mut report = salvage(&header, &copy)?;
    let lost_power = check.problems.into_iter().find(|found| found.kind == ProblemKind::PowerLoss);
    report.lost.splice(..0, lost_power);
    if file_bytes > bytes {
        let what = "bytes behind the end of the heap, which were no part of it";
        report.repaired.push(Problem::damaged(bytes, what));
    }
    copy.sync().map_err(Error::io("writing a salvaged heap"))?;
    // CRASH: what was lost is durable before it is; a salvage that starts over notes the same again.
    let before = notes.add(&report.lost, &report.repaired)?;
    // CRASH: the path still names the damaged file; then, by one rename, the salvaged one, which is durable.
    if let Err(error) = copy.publish() {
        if !matches!(error, MapError::Published { .. }) {
            notes.restore(before);
        }
        return Err(error.into());
    }
    Ok(SalvageReport { kept: Some(kept), report: Some(notes.into_path()), ..report })
}

/// The report on a whole heap: what earlier salvages noted, if it was not removed since.
fn told_again(path: &Path, notes: &Notes, check: CheckReport) -> Result<SalvageReport> {
    let Some(noted) = notes.read()? else {
        let none = Vec::new;
        return Ok(SalvageReport {
            lost: none(),
            repaired: none(),
            check,
            kept: None,
            report: None,
        });
    };
    let kept = Some(beside(path, ".damaged")).filter(|kept| kept.exists());
    let report = Some(notes.path().to_owned());
    Ok(SalvageReport { lost: noted.lost, repaired: noted.repaired, check, kept, report })
}

/// Salvages the heap on `m`, whose superblock says `header`. Nobody serves it meanwhile.
pub(crate) fn salvage<M: Medium + Clone>(header: &Header, m: &M) -> Result<SalvageReport> {
    let geometry = header.geometry;
    let mut findings = Findings::default();
    for span in [&format::fixed_spans(&geometry)[..], &[geometry.root_span()]].concat() {
        m.back(span).map_err(Error::backing("giving a salvaged heap memory"))?;
    }
    recovery::require_known(m, &geometry)?;
    table::require_known(m, &geometry, geometry.roots)?;
    mend_superblocks(m, header, &mut findings)?;
    recovery::salvage(m, &geometry, &mut findings)?;
    root_table::mend(m, &geometry, &mut findings)?;
    let recovered = match recover(m.clone(), geometry) {
        // A record that no operation can have written: none of those in flight is believed then.
        Err(Error::Corrupted { offset, what }) => {
            findings.lost(offset, what);
            lane::reset_all(m, &geometry)?;
            recover(m.clone(), geometry)?
        }
        recovered => recovered?,
    };
    let core = Core::new(header.clone(), recovered);
    findings.repaired.extend(core.findings.iter().cloned());
    let mut lost: Vec<Problem> = findings.lost.into_iter().map(Problem::from).collect();
    for _ in 0..ROUNDS {
        let emptied = empty_slots(&core)?;
        if emptied.is_empty() {
            break;
        }
        lost.extend(emptied);
    }
    root::seal(&core)?;
    state::set_clean(m, Clean::Closed)?;
    let check = check::check_closed(Ok(header.clone()), m.clone(), None)?;
    let repaired = findings.repaired.into_iter().map(Problem::from).collect();
    Ok(SalvageReport { lost, repaired, check, kept: None, report: None })
}

/// Writes the superblock copies that do not say `header`.
fn mend_superblocks<M: Medium>(m: &M, header: &Header, findings: &mut Findings) -> Result<()> {
    for place in superblock_places() {
        let words: &[Word; SUPERBLOCK_WORDS] = m.at(Offset::new(place))?;
        let copy = Header::decode(&words.each_ref().map(|word| m.load(word)), place);
        if copy.is_ok_and(|copy| copy == *header) {
            continue;
        }
        format::write_superblocks(m, header, &[place], Exposure::Hidden)?;
        findings.repaired(place, "a superblock copy, written again from the other one");
    }
    Ok(())
}

/// Empties the slots, those of damaged roots included, that a check complains of; returns what it said.
fn empty_slots<M: Medium>(core: &Core<M>) -> Result<Vec<Problem>> {
    let table = core.header.geometry.root_span();
    let mut problems = check::check(core)?.problems;
    problems.retain(|problem| match problem.kind {
        ProblemKind::Dangling | ProblemKind::SharedBlock => true,
        _ => table.contains(Span::new(problem.offset, 1)),
    });
    for problem in &problems {
        let place = match problem.offset.checked_sub(table.start).filter(|at| *at < table.len) {
            Some(at) => {
                let bytes = size_of::<RootEntry>() as u64;
                table.start + at / bytes * bytes + std::mem::offset_of!(RootEntry, slot) as u64
            }
            None => problem.offset,
        };
        let (m, word): (_, &Word) = (core.medium(), core.medium().at(Offset::new(place))?);
        let version = SlotWord::from_bits(m.load(word)).version();
        // CRASH: nobody opens the heap yet.
        m.store(word, SlotWord::empty(version.next()).bits());
        m.flush_of(word);
        m.fence();
    }
    Ok(problems)
}
