//! Compares a heap with the journal of what was done to it.
//!
//! Each operation that had returned must be there whole, each one in flight whole or not at all; no block
//! may exist that no slot owns, and no two blocks may overlap. What was in flight is resolved in the journal first,
//! so that the next worker goes on from what the heap really holds. Volatile.

use pmalloc::{Guard, Heap, Slot};
use pmalloc_persist::Medium;

use super::{
    cells::Cells,
    content::Pattern,
    engine::Manner,
    journal::{Journal, Tally},
    medium::Watched,
    plan::Plan,
    request::{Entry, Kind},
    resolve::{Resolved, View, resolve},
    slots::{SlotId, array_first, array_len, array_name},
};
use crate::{args::Verification, exit::Failure, trace::BlockId};

/// Violations of one audit that are described; the others are only counted.
const DESCRIBED: u64 = 20;

/// At which point of a replay an audit takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Somewhere on the way.
    AfterKill,
    /// When the whole trace was replayed.
    AtEnd,
}

/// What an audit found; it is also added to the journal's tallies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Operations that had begun and not returned, by kind.
    pub(super) in_flight: [u32; Kind::COUNT],
    /// Slot arrays whose creation had begun and not returned.
    pub(super) arrays_in_flight: u32,
    /// Blocks whose whole content was compared.
    pub(super) verified: u64,
    /// Contradictions.
    pub(super) violations: u64,
}

/// Resolves what `journal` has in flight, and compares `heap` with it.
pub(super) fn audit<M: Watched, J: Medium>(
    heap: &Heap<M>,
    journal: &Journal<J>,
    plan: &Plan,
    manner: Manner,
    stage: Stage,
) -> Result<Findings, Failure> {
    let mut auditor = Auditor {
        heap,
        journal,
        verification: manner.verification,
        arrays: Vec::new(),
        cells: Cells::open(heap, plan.threads(), manner.mix)?,
        owners: Vec::new(),
        owned: Vec::new(),
        findings: Findings::default(),
    };
    auditor.find_arrays()?;
    let guard = heap.pin();
    auditor.resolve(plan, &guard);
    for (block, size_bytes) in plan.blocks() {
        auditor.look_at(block, size_bytes, &guard);
    }
    auditor.look_for_strays(&guard);
    drop(guard);
    auditor.compare_blocks();
    auditor.check_heap()?;
    if stage == Stage::AtEnd {
        auditor.expect_end_of(plan);
    }
    let findings = auditor.findings;
    journal.add_tally(Tally::VerifiedBlocks, findings.verified);
    journal.add_tally(Tally::Violations, findings.violations);
    Ok(findings)
}

struct Auditor<'h, M: Watched, J> {
    heap: &'h Heap<M>,
    journal: &'h Journal<J>,
    verification: Verification,
    arrays: Vec<&'h [Slot]>,
    cells: Cells<'h>,
    /// Whether a block was found to own the slot, by slot.
    owners: Vec<bool>,
    /// Offsets of the blocks that must exist, and no others.
    owned: Vec<u64>,
    findings: Findings,
}

impl<'h, M: Watched, J: Medium> Auditor<'h, M, J> {
    /// Finds the slot arrays. One whose creation was cut off is made now: if only half of it existed, its
    /// other half turns up as a block that nobody owns.
    fn find_arrays(&mut self) -> Result<(), Failure> {
        let begun = self.journal.tally(Tally::ArraysBegun);
        if begun > self.journal.tally(Tally::ArraysMade) {
            self.findings.arrays_in_flight += 1;
        }
        for index in (0..).take_while(|&index| u64::from(index) < begun) {
            let len = array_len(index);
            let slots = self.heap.slots(&array_name(index), u64::from(len));
            let slots = slots.map_err(Failure::heap(Watched::path(self.heap)))?;
            self.owned.extend(self.heap.offset_of(slots.as_ptr().cast()));
            self.arrays.push(slots);
            self.owners.resize(array_first(index).index() + slots.len(), false);
        }
        self.journal.set_tally(Tally::ArraysMade, begun);
        Ok(())
    }

    /// Finds out what became of the operations in flight, and looks at the cells.
    fn resolve(&mut self, plan: &Plan, guard: &Guard<'_, M>) {
        let (heap, arrays, cells) = (self.heap, &self.arrays, &self.cells);
        let view = View { heap, plan, arrays, cells, guard };
        let Resolved { in_flight, mut violations } = resolve(self.journal, &view);
        let expected = self.journal.threads().map(|thread| (thread, self.journal.cell(thread)));
        let found = expected.map(|(thread, value)| view.holds(thread, Some(value)));
        violations.extend(found.filter_map(Result::err));
        self.owned.extend(self.cells.block());
        self.findings.in_flight = in_flight;
        violations.iter().for_each(|what| self.violation(what));
    }

    fn look_at(&mut self, block: BlockId, size_bytes: u64, guard: &Guard<'_, M>) {
        if let Entry::Live(slot) = self.journal.entry(block) {
            self.expect_live(block, slot, self.slot(slot).get(guard), size_bytes);
        }
    }

    fn expect_live(&mut self, block: BlockId, slot: SlotId, found: Option<&[u8]>, size_bytes: u64) {
        if std::mem::replace(&mut self.owners[slot.index()], true) {
            self.violation(&format!("{block} has a slot that another one has, too"));
        }
        let place = found.and_then(|bytes| self.heap.offset_of(bytes.as_ptr()));
        self.owned.extend(place);
        if self.verification == Verification::Off {
            if found.is_none() {
                self.violation(&format!("{block} is gone: its slot is empty"));
            }
            return;
        }
        match Pattern::whole(block, found, size_bytes) {
            Ok(()) => self.findings.verified += 1,
            Err(what) => self.violation(&what),
        }
    }

    /// Slots that no block has must be empty.
    fn look_for_strays(&mut self, guard: &Guard<'_, M>) {
        for (slot, is_owned) in (0..).map(SlotId::new).zip(std::mem::take(&mut self.owners)) {
            if !is_owned && self.slot(slot).get(guard).is_some() {
                self.violation(&format!(
                    "slot {} owns a block that was never put there",
                    slot.get()
                ));
            }
        }
    }

    /// The blocks that exist must be those that slots and roots own, and may not overlap.
    fn compare_blocks(&mut self) {
        let blocks = self.heap.blocks();
        let mut found: Vec<_> =
            blocks.iter().map(|block| (block.offset, block.usable_bytes)).collect();
        found.sort_unstable();
        for pair in found.windows(2) {
            if pair[0].0 + pair[0].1 > pair[1].0 {
                self.violation(&format!(
                    "the blocks at {:#x} and {:#x} overlap",
                    pair[0].0, pair[1].0
                ));
            }
        }
        let mut owned = std::mem::take(&mut self.owned);
        owned.sort_unstable();
        for pair in owned.windows(2) {
            if pair[0] == pair[1] {
                self.violation(&format!("two slots own the block at {:#x}", pair[0]));
            }
        }
        let found: Vec<_> = found.into_iter().map(|(offset, _)| offset).collect();
        for offset in missing_from(&owned, &found) {
            self.violation(&format!("the block at {offset:#x} leaked: no slot owns it"));
        }
        for offset in missing_from(&found, &owned) {
            self.violation(&format!("a slot owns {offset:#x}, where no block is"));
        }
    }

    fn check_heap(&mut self) -> Result<(), Failure> {
        let report = self.heap.check().map_err(Failure::heap(Watched::path(self.heap)))?;
        for problem in report.problems {
            self.violation(&format!("check: {}", problem.text));
        }
        Ok(())
    }

    /// All that the trace leaves live must be live, and nothing else.
    fn expect_end_of(&mut self, plan: &Plan) {
        for (block, _) in plan.blocks() {
            let is_live = match self.journal.entry(block) {
                Entry::Live(_) => true,
                Entry::Freed => false,
                Entry::Untouched => {
                    self.violation(&format!("{block} was never allocated"));
                    continue;
                }
            };
            if is_live != plan.is_live_at_end(block) {
                self.violation(&format!(
                    "{block} is live at the end: {is_live}, against the trace"
                ));
            }
        }
    }

    fn slot(&self, slot: SlotId) -> &'h Slot {
        let (array, index) = slot.place();
        &self.arrays[array][index]
    }

    fn violation(&mut self, what: &str) {
        self.findings.violations += 1;
        if self.findings.violations <= DESCRIBED {
            eprintln!("violation: {what}");
        }
    }
}

/// The elements of `all` that are not in `some`; both are sorted.
fn missing_from<'a>(some: &'a [u64], all: &'a [u64]) -> impl Iterator<Item = u64> + 'a {
    all.iter().copied().filter(|element| some.binary_search(element).is_err())
}

#[cfg(test)]
mod tests;
