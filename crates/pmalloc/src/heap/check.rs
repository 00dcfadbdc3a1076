//! Is a heap whole? Reads everything, changes nothing.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use pmalloc_persist::{Access, MapOptions, MediaFile, Medium, Offset, Word};

use super::{
    blocks::Blocks,
    core::Core,
    options, owner,
    refusal::{self, Power},
    root_entry::{self, Entry, RootInfo},
    root_table,
    slot::SlotCell,
};
use crate::{
    error::{Error, Result},
    layout::{
        geometry::Geometry,
        root::RootKind,
        superblock::{Header, SUPERBLOCK_WORDS},
    },
    recovery::{
        state::{self, OwnerFound},
        superblock_places,
    },
};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Everything that is wrong; empty for a whole heap.
    pub problems: Vec<Problem>,
    /// Live blocks.
    pub blocks: u64,
    /// Their usable bytes.
    pub live_bytes: u64,
    /// Live blocks that neither the root table nor a slot of a root array owns. They may be owned by slots in
    /// other blocks, which an untyped heap can't tell.
    pub unowned_blocks: u64,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Of what kind.
    pub kind: ProblemKind,
    /// Where, as a byte offset from the base of the heap.
    pub offset: u64,
    /// In words.
    pub text: String,
}

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// Metadata does not match its checksum or contradicts other metadata.
    Damaged,
    /// A slot owns a place that is not the start of a live block.
    Dangling,
    /// Two slots own one block.
    SharedBlock,
    /// The heap lost power while it was written: its contents may be of different moments.
    PowerLoss,
    /// A bitmap and the volatile state disagree about free blocks.
    Miscounted,
}

impl ProblemKind {
    /// The kind that reports call `name`.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        [Self::Damaged, Self::Dangling, Self::SharedBlock, Self::PowerLoss, Self::Miscounted]
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    /// A word for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Dangling => "dangling",
            Self::SharedBlock => "shared-block",
            Self::PowerLoss => "power-loss",
            Self::Miscounted => "miscounted",
        }
    }
}

/// Checks the heap in the file at `path`. A heap that was not closed is recovered in a private copy; the file is
/// not touched.
///
/// # Errors
///
/// [`Error::Map`] if the file can't be opened or is in use, [`Error::NotAHeap`], [`Error::Version`]; damage is in
/// the report.
pub fn check_file(path: impl AsRef<Path>) -> Result<CheckReport> {
    let file = MediaFile::open(path.as_ref(), Access::PrivateCopy)?;
    let header = match options::read_header(&file) {
        Err(Error::Corrupted { offset, what }) => {
            return Ok(unreadable(vec![Problem::damaged(offset, what)]));
        }
        header => header?,
    };
    let bytes = header.geometry.heap_bytes();
    let file_bytes = file.len()?;
    let mapped = file.map(&MapOptions::new(bytes.max(file_bytes)))?;
    let power = owner::power_of(&mapped)?;
    let mut report = check_closed(Ok(header), mapped, Some(power))?;
    if file_bytes > bytes {
        let text = "the file is longer than the heap, and is not opened like this";
        report.problems.push(Problem::damaged(bytes, text));
    }
    Ok(report)
}

/// Checks the heap on `medium`, whose superblock says `header`, without serving it.
pub(super) fn check_closed<M: Medium>(
    header: Result<Header>,
    medium: M,
    power: Option<Power>,
) -> Result<CheckReport> {
    let mut problems = Vec::new();
    let admitted = header.and_then(|header| {
        let mut note = |problem| {
            problems.push(problem);
            Ok(())
        };
        refusal::admit(medium, header, power, &mut note)
    });
    match admitted.and_then(|core| look(&core, problems.clone())) {
        Err(Error::Corrupted { offset, what }) => {
            problems.push(Problem::damaged(offset, what));
            Ok(unreadable(problems))
        }
        report => report,
    }
}

/// The report on a heap that can't be read.
fn unreadable(problems: Vec<Problem>) -> CheckReport {
    CheckReport { problems, blocks: 0, live_bytes: 0, unowned_blocks: 0 }
}

/// Checks an open heap on which no operation runs.
pub(super) fn check<M: Medium>(core: &Core<M>) -> Result<CheckReport> {
    let mut problems = Vec::new();
    let mut note = |problem| {
        problems.push(problem);
        Ok(())
    };
    root_table::examine(core, &mut note)?;
    look(core, problems)
}

/// Looks for what opening does without, in a heap that has the `problems` that it does not do without.
fn look<M: Medium>(core: &Core<M>, problems: Vec<Problem>) -> Result<CheckReport> {
    let told = problems.iter().map(|problem| (problem.kind, problem.offset)).collect();
    let mut checker = Checker { core, problems, told, owners: BTreeMap::new() };
    let (mut blocks, mut live_bytes) = (0, 0);
    for block in Blocks::new(core) {
        blocks += 1;
        live_bytes += block.usable_bytes;
        checker.owners.insert(block.offset, None);
    }
    checker.check_superblocks()?;
    for found in &core.findings {
        checker.report(found.clone().into());
    }
    checker.check_roots()?;
    checker.check_slabs();
    let unowned = checker.owners.values().filter(|owner| owner.is_none()).count() as u64;
    Ok(CheckReport { problems: checker.problems, blocks, live_bytes, unowned_blocks: unowned })
}

struct Checker<'a, M> {
    core: &'a Core<M>,
    problems: Vec<Problem>,
    /// Which of them: each is told once.
    told: HashSet<(ProblemKind, u64)>,
    /// Live blocks and the slot that owns each, as far as it was seen.
    owners: BTreeMap<u64, Option<u64>>,
}

impl<M: Medium> Checker<'_, M> {
    fn report(&mut self, problem: Problem) {
        if self.told.insert((problem.kind, problem.offset)) {
            self.problems.push(problem);
        }
    }

    /// Opening needs one copy; the other must say the same.
    fn check_superblocks(&mut self) -> Result<()> {
        let (m, header) = (self.core.medium(), &self.core.header);
        let never_served = state::read(m, &header.geometry)?.owner == OwnerFound::Never;
        for place in superblock_places() {
            let words: &[Word; SUPERBLOCK_WORDS] = m.at(Offset::new(place))?;
            let copy = Header::decode(&words.each_ref().map(|word| m.load(word)), place);
            // A crash may keep the creator of a heap from its second copy; whoever serves the heap writes it.
            let is_missing = never_served && place == Geometry::second_superblock();
            if copy.is_ok_and(|copy| copy == *header) || is_missing {
                continue;
            }
            let text = "a superblock copy is damaged; the heap is served by the other";
            self.report(Problem::damaged(place, text));
        }
        Ok(())
    }

    fn check_roots(&mut self) -> Result<()> {
        let (m, geometry) = (self.core.medium(), self.core.header.geometry);
        for index in 0..state::roots_used(m, &geometry)? {
            let entry = root_entry::at(m, &geometry, index)?;
            match root_entry::read(m, entry) {
                Ok(Entry::Dead) => {}
                Ok(Entry::Live(root)) => self.check_root(index, &root),
                Err(Error::Corrupted { offset, what }) => {
                    self.report(Problem::damaged(offset, what));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn check_root(&mut self, index: u32, root: &RootInfo) {
        let entry = Geometry::root_table().nth(u64::from(index));
        let place = entry.expect("the root table lies inside the heap").bytes();
        self.claim(place, root.offset);
        if self.core.block_span(root.offset).is_none_or(|span| span.len < root.size_bytes()) {
            return;
        }
        if root.kind != RootKind::Slots {
            return;
        }
        let region = self.core.medium().region();
        let Ok(slots) = region.array::<SlotCell>(Offset::new(root.offset), root.length) else {
            return;
        };
        for slot in slots {
            if let Some(block) = slot.read(self.core.medium()).place() {
                self.claim(region.span_of(slot).start, block);
            }
        }
    }

    /// Notes that the slot at byte `slot` owns the block at byte `block`.
    fn claim(&mut self, slot: u64, block: u64) {
        match self.owners.get_mut(&block) {
            None => self.report(Problem::dangling(slot, block)),
            Some(owner @ None) => *owner = Some(slot),
            Some(Some(other)) => {
                let text = format!("the slots at {other:#x} and {slot:#x} both own {block:#x}");
                self.report(Problem { kind: ProblemKind::SharedBlock, offset: slot, text });
            }
        }
    }

    /// A block that is free in an inventory must not be live on media.
    fn check_slabs(&mut self) {
        let core = self.core;
        let mut wrong = Vec::new();
        for arena in &core.arenas {
            arena.for_each_slab(|inventory| {
                if inventory.contradicts(core.medium()) {
                    wrong.push(inventory.descriptor().block_offset(0));
                }
            });
        }
        for offset in wrong {
            let text = "a slab counts live blocks as free".into();
            self.report(Problem { kind: ProblemKind::Miscounted, offset, text });
        }
    }
}
