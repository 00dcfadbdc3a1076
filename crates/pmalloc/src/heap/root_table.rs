//! The root table as a whole: how many of its entries were used, what keeps a heap from being served, and how it is mended.
//!
//! Persistent: the state page says how many entries were ever used. The number is raised when a new entry is durable, and is
//! durable before the entry's slot is filled. So
//!
//! - an entry below the number is never all zero, whatever a crash left: one that is was wiped, and hid the roots behind it
//!   when the first empty entry ended every search;
//! - the entry at the number may hold anything but a slot: its making was cut off;
//! - behind that all is zero.
//!
//! Of the entries that were never used only those in pages with memory are looked at: reading the others would take memory
//! that a full file system does not have. Whoever uses the first entry of a page finds out.

use pmalloc_persist::{Medium, Offset, PAGE_BYTES, Word};

use super::{
    check::{Problem, ProblemKind},
    core::Core,
    declare,
    refusal::Tell,
    root_entry::{self, Entry, RootInfo},
    slot::SlotCell,
};
use crate::{
    error::{Error, Findings, Result},
    layout::{
        declared::{Run, Scope},
        geometry::Geometry,
        root::{RootEntry, RootKind},
        sealed::Flip,
        slot::SlotWord,
        state::Clean,
    },
    recovery::state,
};

/// Words of an entry.
const ENTRY_WORDS: usize = size_of::<RootEntry>() / size_of::<Word>();

/// What is said of a closed heap whose roots are not those of the close.
const CHECK_FAILS: &str =
    "the slots of the root table do not match their checksum: a root may be missing";

/// Sees that every root has its block, and that no entry is wiped or written where none was made.
pub(super) fn examine<M: Medium>(core: &Core<M>, tell: Tell<'_>) -> Result<()> {
    let (m, geometry) = (core.medium(), &core.header.geometry);
    let used = state::roots_used(m, geometry)?;
    for index in 0..used {
        examine_entry(core, root_entry::at(m, geometry, index)?, tell)?;
    }
    for index in used..backed_entries(geometry, used) {
        let entry = root_entry::at(m, geometry, index)?;
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
    let (name, size) = match root_entry::read(m, entry) {
        Ok(Entry::Dead) => return Ok(()),
        Ok(Entry::Live(root)) => (format!("{:?}", root.name), root.size_bytes()),
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
pub(super) fn examine_check<M: Medium>(core: &Core<M>, tell: Tell<'_>) -> Result<()> {
    let (m, geometry) = (core.medium(), &core.header.geometry);
    if state::roots_check_matches(m, &slot_words(m, geometry)?)? {
        return Ok(());
    }
    tell(Problem::damaged(state::roots_check_offset(), CHECK_FAILS))
}

/// Writes the check over the slots of the table of a heap that is being closed, without fencing.
pub(super) fn seal<M: Medium>(core: &Core<M>) -> Result<()> {
    let (m, geometry) = (core.medium(), &core.header.geometry);
    state::set_roots_check(m, &slot_words(m, geometry)?)
}

/// Sees that every slot of every root array, and of every typed root whose slots are declared, owns a live block or none, in
/// a heap that was not closed: nothing else tells whether a live bit changed.
///
/// What a program says of its roots of bytes is not believed here: it may be wrong, and the heap is whole all the same.
pub(super) fn examine_slots<M: Medium>(core: &Core<M>, tell: Tell<'_>) -> Result<()> {
    let (m, geometry) = (core.medium(), &core.header.geometry);
    // Where the declarations are damaged, the check says so, and the roots are looked at when they are asked for.
    let declared = declare::load(core).unwrap_or_default();
    for index in 0..state::roots_used(m, geometry)? {
        let Ok(Entry::Live(root)) = root_entry::read(m, root_entry::at(m, geometry, index)?) else {
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

/// The slots of all entries that were used.
fn slot_words<M: Medium>(m: &M, geometry: &Geometry) -> Result<Vec<u64>> {
    let entries =
        (0..state::roots_used(m, geometry)?).map(|index| root_entry::at(m, geometry, index));
    entries.map(|entry| Ok(m.load(&entry?.slot))).collect()
}

fn block_of<M: Medium>(m: &M, entry: &RootEntry) -> Option<u64> {
    SlotWord::from_bits(m.load(&entry.slot)).place()
}

/// Entries in the pages of the table that have memory when `used` entries were used.
fn backed_entries(geometry: &Geometry, used: u32) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "a page holds few entries")]
    let per_page = (PAGE_BYTES / size_of::<RootEntry>() as u64) as u32;
    used.max(1).next_multiple_of(per_page).min(geometry.roots)
}

fn words_of<'m, M: Medium>(m: &'m M, entry: &RootEntry) -> Result<&'m [Word; ENTRY_WORDS]> {
    Ok(m.at(Offset::new(m.region().span_of(entry).start))?)
}

/// Whether an entry that was never used holds what it can't, even if it is the next one to be used.
pub(super) fn is_misplaced<M: Medium>(m: &M, entry: &RootEntry, is_next: bool) -> Result<bool> {
    if is_next {
        return Ok(m.load(&entry.slot) != 0);
    }
    Ok(words_of(m, entry)?.iter().any(|word| m.load(word) != 0))
}

/// Sees that no root in the first `entries` of the table is of a kind that this program does not know.
///
/// # Errors
///
/// [`Error::Version`].
pub(super) fn require_known<M: Medium>(m: &M, geometry: &Geometry, entries: u32) -> Result<()> {
    for index in 0..entries {
        if let Err(error @ Error::Version { .. }) =
            root_entry::read(m, root_entry::at(m, geometry, index)?)
        {
            return Err(error);
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
pub(super) fn mend<M: Medium>(m: &M, geometry: &Geometry, findings: &mut Findings) -> Result<()> {
    if state::read(m, geometry)?.clean == Clean::Closed {
        mend_slots(m, geometry, findings)?;
    }
    let said = state::roots_used(m, geometry)?;
    let mut used = said;
    for index in said..geometry.roots {
        let is_whole =
            matches!(root_entry::read(m, root_entry::at(m, geometry, index)?), Ok(Entry::Live(_)));
        if is_whole {
            used = index + 1;
        }
    }
    for index in 0..geometry.roots {
        let entry = root_entry::at(m, geometry, index)?;
        let place = m.region().span_of(entry).start;
        let is_wiped = m.load(&entry.checksum) == 0 && m.load(&entry.slot) == 0;
        if index < used && is_wiped {
            root_entry::write_dead(m, entry);
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
            let slot = &root_entry::at(m, geometry, at as u32)?.slot;
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
