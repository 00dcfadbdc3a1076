//! What keeps a heap from being served, of its root table; and how the table is mended.
//!
//! Of the entries that were never used only those in pages with memory are looked at: reading the others would take memory
//! that a full file system does not have. Whoever uses the first entry of a page finds out.

use pmalloc_persist::{Medium, Offset};

use super::problem::{Problem, ProblemKind, Tell};
use crate::{
    core::Core,
    error::{Error, Findings, Result},
    layout::{
        declared::{Run, Scope},
        geometry::Geometry,
        root::{RootEntry, RootKind},
        sealed::Flip,
        state::Clean,
    },
    recovery::state,
    root::{
        declarations,
        entry::{self, RootInfo, RootState},
        table::{backed_entries, block_of, is_misplaced, slot_words, words_of},
    },
    value::slot::SlotCell,
};

/// What is said of a closed heap whose roots are not those of the close.
const CHECK_FAILS: &str =
    "the slots of the root table do not match their checksum: a root may be missing";

/// Sees that every root has its block, and that no entry is wiped or written where none was made.
pub(crate) fn examine<M: Medium>(core: &Core<M>, tell: Tell<'_>) -> Result<()> {
    let (m, geometry) = (core.medium(), &core.header.geometry);
    let used = state::roots_used(m, geometry)?;
    for index in 0..used {
        examine_entry(core, entry::at(m, geometry, index)?, tell)?;
    }
    for index in used..backed_entries(geometry, used) {
        let entry = entry::at(m, geometry, index)?;
        if is_misplaced(m, entry, index == used)? {
            let place = m.region().span_of(entry).start;
            let text = "something stands behind the last entry of the root table";
            tell(Problem::damaged(place, text))?;
        }
    }
    Ok(())
}

fn examine_entry<M: Medium>(core: &Core<M>, entry: &RootEntry, tell: Tell<'_>) -> Result<()> {
    let m = core.medium();
    let place = m.region().span_of(entry).start;
    let (name, size) = match entry::read(m, entry) {
        Ok(RootState::Dead) => return Ok(()),
        Ok(RootState::Live(root)) => (format!("{:?}", root.name), root.size_bytes()),
        Err(Error::Corrupted { offset, what }) if block_of(m, entry).is_none() => {
            return tell(Problem::damaged(offset, what));
        }
        // Served without it: nobody takes its name or its block.
        Err(Error::Corrupted { .. }) => ("whose entry is damaged".into(), 0),
        Err(error) => return Err(error),
    };
    let span = block_of(m, entry).and_then(|block| core.block_span(block));
    if span.is_none_or(|span| span.len < size) {
        let text = format!("the root {name} lies in no live block of its size");
        tell(Problem { kind: ProblemKind::Dangling, offset: place, text })?;
    }
    Ok(())
}

/// Sees that the slots of the table are those of the last close, in a heap that was closed.
pub(crate) fn examine_check<M: Medium>(core: &Core<M>, tell: Tell<'_>) -> Result<()> {
    let (m, geometry) = (core.medium(), &core.header.geometry);
    if state::roots_check_matches(m, &slot_words(m, geometry)?)? {
        return Ok(());
    }
    tell(Problem::damaged(state::roots_check_offset(), CHECK_FAILS))
}

/// Sees that every slot of every root array, and of every typed root whose slots are declared, owns a live block or none, in
/// a heap that was not closed: nothing else tells whether a live bit changed.
///
/// What a program says of its roots of bytes is not believed here: it may be wrong, and the heap is whole all the same.
pub(crate) fn examine_slots<M: Medium>(core: &Core<M>, tell: Tell<'_>) -> Result<()> {
    let (m, geometry) = (core.medium(), &core.header.geometry);
    // Where the declarations are damaged, the check says so, and the roots are looked at when they are asked for.
    let declared = declarations::load(core).unwrap_or_default();
    for index in 0..state::roots_used(m, geometry)? {
        let Ok(RootState::Live(root)) = entry::read(m, entry::at(m, geometry, index)?) else {
            continue;
        };
        if core.block_span(root.offset).is_none_or(|span| span.len < root.size_bytes()) {
            continue;
        }
        match root.kind {
            RootKind::Slots => examine_run(core, &root, &Run::every_word(), tell)?,
            RootKind::Typed => {
                let slots = declared.iter().find(|one| one.scope == Scope::Graph(root.type_id));
                let runs = slots.and_then(|slots| slots.types.first()).map(|slots| &slots.runs);
                for run in runs.into_iter().flatten() {
                    examine_run(core, &root, run, tell)?;
                }
            }
            RootKind::Bytes => {}
        }
    }
    Ok(())
}

/// Sees that each slot of a run in the block of `root` owns a live block or none.
fn examine_run<M: Medium>(
    core: &Core<M>,
    root: &RootInfo,
    run: &Run,
    tell: Tell<'_>,
) -> Result<()> {
    let m = core.medium();
    let mut slab = None;
    for nth in 0..run.count_in(root.size_bytes()) {
        let offset = root.offset + run.offset + nth * run.stride;
        let slot: &SlotCell = m.at(Offset::new(offset))?;
        let block = slot.read(m).place();
        if let Some(block) = block.filter(|block| !core.space.is_live_near(*block, &mut slab)) {
            tell(Problem::dangling(offset, block))?;
        }
    }
    Ok(())
}

/// Makes a damaged table one that [`examine`] accepts, but for roots that have no block.
///
/// A whole root behind the last used entry is kept. Of an entry that was wiped nothing is left to keep.
///
/// # Crash consistency
///
/// None: nobody may open the heap before this is done and durable.
pub(crate) fn mend<M: Medium>(m: &M, geometry: &Geometry, findings: &mut Findings) -> Result<()> {
    if state::read(m, geometry)?.clean == Clean::Closed {
        mend_slots(m, geometry, findings)?;
    }
    let said = state::roots_used(m, geometry)?;
    let mut used = said;
    for index in said..geometry.roots {
        let is_whole =
            matches!(entry::read(m, entry::at(m, geometry, index)?), Ok(RootState::Live(_)));
        if is_whole {
            used = index + 1;
        }
    }
    for index in 0..geometry.roots {
        let entry = entry::at(m, geometry, index)?;
        let place = m.region().span_of(entry).start;
        let is_wiped = m.load(&entry.checksum) == 0 && m.load(&entry.slot) == 0;
        if index < used && is_wiped {
            entry::write_dead(m, entry);
            if index < said {
                findings.lost(
                    place,
                    "a root entry was wiped: its root, if it held one, has no name any more",
                );
            }
        } else if index >= used && is_misplaced(m, entry, false)? {
            if is_misplaced(m, entry, index == used)? {
                findings.repaired(place, "something stood behind the last entry of the root table");
            }
            for word in words_of(m, entry)? {
                // CRASH: see above.
                m.store(word, 0);
            }
            m.flush_of(entry);
        }
    }
    if used > said {
        findings
            .repaired(Geometry::root_table().bytes(), "roots that the state page did not count");
    }
    state::set_roots_used(m, used)?;
    m.fence();
    Ok(())
}

/// Makes the slots of a closed heap's table those of the close, if one bit is wrong.
fn mend_slots<M: Medium>(m: &M, geometry: &Geometry, findings: &mut Findings) -> Result<()> {
    let mut slots = slot_words(m, geometry)?;
    match state::undo_flip_of_roots(m, &mut slots)? {
        Flip::None => {}
        Flip::InCheck => {
            findings.repaired(
                state::roots_check_offset(),
                "one wrong bit in the check of the root table",
            );
        }
        Flip::InWord(at) => {
            #[allow(clippy::cast_possible_truncation, reason = "a table has few entries")]
            let slot = &entry::at(m, geometry, at as u32)?.slot;
            // CRASH: nobody opens the heap yet.
            m.store(slot, slots[at]);
            m.flush_of(slot);
            findings
                .repaired(m.region().span_of(slot).start, "one wrong bit in the slot of a root");
        }
        Flip::More => findings.lost(state::roots_check_offset(), CHECK_FAILS),
    }
    Ok(())
}
