//! Is a heap whole? Reads everything, changes nothing.

use std::{collections::HashSet, path::Path};

use pmalloc_persist::{Access, MapOptions, Medium, Offset, Word};

use super::{
    owner::{self, Power},
    owners::{BlockOwner, Owners},
    problem::{Problem, ProblemKind},
    refusal, root_table,
};
use crate::{
    core::{Block, Core, header},
    error::{Error, Result},
    layout::{
        geometry::Geometry,
        superblock::{Header, SUPERBLOCK_WORDS},
    },
    recovery::{
        state::{self, OwnerFound},
        superblock_places,
    },
};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CheckReport {
    /// Everything that is wrong; empty for a whole heap.
    pub problems: Vec<Problem>,
    /// Live blocks.
    pub blocks: u64,
    /// Their usable bytes.
    pub live_bytes: u64,
    /// Live blocks that nothing owns: their number is that of [`orphans`](Self::orphans).
    pub unowned_blocks: u64,
    /// Live blocks that no known slot owns, but perhaps a word in bytes of which nothing is known: see
    /// [`Heap::declare_slots`](crate::Heap::declare_slots).
    pub unknown_blocks: u64,
    /// The blocks that nothing owns: see [`Heap::adopt`](crate::Heap::adopt).
    pub orphans: Vec<Block>,
}

/// Checks the heap in the file at `path`. A heap that was not closed is recovered in a private copy; the file is
/// not touched.
///
/// # Errors
///
/// [`Error::Map`] if the file can't be opened or is in use, [`Error::NotAHeap`], [`Error::Version`]; damage is in
/// the report.
pub fn check_file(path: impl AsRef<Path>) -> Result<CheckReport> {
    let file = owner::open_file(path, Access::PrivateCopy)?;
    let header = match header::read_header(&file) {
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
        report.problems.push(Problem::too_long(bytes));
    }
    Ok(report)
}

/// Checks the heap on `medium`, whose superblock says `header`, without serving it.
pub(crate) fn check_closed<M: Medium>(
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
    CheckReport { problems, ..CheckReport::default() }
}

/// Checks an open heap on which no operation runs.
pub(crate) fn check<M: Medium>(core: &Core<M>) -> Result<CheckReport> {
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
    let mut checker = Checker { core, problems, told };
    checker.check_superblocks()?;
    for found in &core.findings {
        checker.report(found.clone().into());
    }
    let mut owners = Owners::of(core)?;
    owners.problems.drain(..).for_each(|problem| checker.report(problem));
    checker.check_slabs();
    let mut report = CheckReport { problems: checker.problems, ..CheckReport::default() };
    for (block, owner) in owners.blocks() {
        report.blocks += 1;
        report.live_bytes += block.usable_bytes;
        match owner {
            BlockOwner::Nobody => report.orphans.push(block),
            BlockOwner::Unknown(_) => report.unknown_blocks += 1,
            BlockOwner::Slot(_) | BlockOwner::Declared(_) => {}
        }
    }
    report.unowned_blocks = report.orphans.len() as u64;
    Ok(report)
}

struct Checker<'a, M> {
    core: &'a Core<M>,
    problems: Vec<Problem>,
    /// Which of them: each is told once.
    told: HashSet<(ProblemKind, u64)>,
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
