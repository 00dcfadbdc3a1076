//! Finds out what became of the operations that a kill cut off.
//!
//! One that had returned is noted to the end. One that had begun must be there wholly or not at all: every slot that it
//! names owns what it did before, or every one what it does afterwards, and the thread's cell holds the value of the same
//! time. Volatile.

use std::collections::BTreeMap;

use pmalloc::{Guard, Heap, Slot};
use pmalloc_persist::Medium;

use super::{
    cells::Cells,
    content::Pattern,
    journal::{Journal, Pending, Stage},
    plan::Plan,
    request::{Entry, Kind},
    slots::SlotId,
};
use crate::trace::BlockId;

/// A recovered heap, as far as operations in flight can have changed it.
pub(super) struct View<'v, M: Medium + 'static> {
    pub(super) heap: &'v Heap<M>,
    pub(super) plan: &'v Plan,
    pub(super) arrays: &'v [&'v [Slot]],
    pub(super) cells: &'v Cells<'v>,
    pub(super) guard: &'v Guard<'v, M>,
}

/// What was found of the operations in flight.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// Those that had begun and not returned, by kind.
    pub(super) in_flight: [u32; Kind::COUNT],
    /// What contradicts itself.
    pub(super) violations: Vec<String>,
}

/// What a slot owns before an operation and after it.
#[derive(Debug, Default)]
struct Owners {
    before: Option<BlockId>,
    after: Option<BlockId>,
}

/// Notes in `journal` what became of each operation in flight.
pub(super) fn resolve<M: Medium, J: Medium>(journal: &Journal<J>, view: &View<'_, M>) -> Resolved {
    let in_flight = |thread| Some((thread, journal.pending(thread)?));
    let (returned, begun): (Vec<_>, Vec<_>) = journal
        .threads()
        .filter_map(in_flight)
        .partition(|(_, pending)| pending.stage == Stage::Returned);
    // First, as what others had begun may rest on it.
    returned.into_iter().for_each(|(thread, _)| complete(journal, thread));
    let mut resolved = Resolved::default();
    for (thread, pending) in begun {
        resolved.in_flight[pending.kind.index()] += 1;
        let owners = owners(journal, &pending);
        let cells = pending.cell.map(|after| (journal.cell(thread), after)).unzip();
        let before = view
            .owns(owners.iter().map(|(slot, owners)| (*slot, owners.before)))
            .and_then(|()| view.holds(thread, cells.0));
        let after = view
            .owns(owners.iter().map(|(slot, owners)| (*slot, owners.after)))
            .and_then(|()| view.holds(thread, cells.1));
        match (before, after) {
            (_, Ok(())) => complete(journal, thread),
            (Ok(()), _) => journal.withdraw(thread),
            (Err(before), Err(after)) => {
                journal.withdraw(thread);
                resolved.violations.push(format!(
                    "an operation of thread {thread} ({}) is there in part: {before}, against its not having \
                     happened, and {after}, against its having happened",
                    pending.kind.name(),
                ));
            }
        }
    }
    resolved
}

/// Nobody waits in a process that is dead.
fn complete<J: Medium>(journal: &Journal<J>, thread: u16) {
    journal.complete(thread, |_| {});
}

/// The slots that an operation names, and what each owns.
fn owners<J: Medium>(journal: &Journal<J>, pending: &Pending) -> BTreeMap<SlotId, Owners> {
    let mut owners: BTreeMap<SlotId, Owners> = BTreeMap::new();
    for change in &pending.changes {
        if let Entry::Live(slot) = journal.entry(change.block) {
            owners.entry(slot).or_default().before = Some(change.block);
        }
        if let Entry::Live(slot) = change.after {
            owners.entry(slot).or_default().after = Some(change.block);
        }
    }
    owners
}

impl<M: Medium> View<'_, M> {
    /// Whether each slot owns what it is said to; if not, the first contradiction.
    fn owns(
        &self,
        mut owners: impl Iterator<Item = (SlotId, Option<BlockId>)>,
    ) -> Result<(), String> {
        owners.try_for_each(|(slot, owner)| {
            let (array, index) = slot.place();
            let found = self.arrays[array][index].get(self.guard);
            match owner {
                Some(block) => Pattern::whole(block, found, self.plan.size_of(block)),
                None if found.is_none() => Ok(()),
                None => Err(format!("slot {} owns a block", slot.get())),
            }
        })
    }

    /// Whether the cell of `thread` holds `value`, if any is expected.
    pub(super) fn holds(&self, thread: u16, value: Option<u64>) -> Result<(), String> {
        let (Some(cell), Some(value)) = (self.cells.of(thread), value) else { return Ok(()) };
        match cell.load(self.heap) {
            found if found == value => Ok(()),
            found => Err(format!("the cell of thread {thread} holds {found} and not {value}")),
        }
    }
}
