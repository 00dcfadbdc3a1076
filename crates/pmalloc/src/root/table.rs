//! The root table as a whole: how many of its entries were used, and which of them hold roots.
//!
//! Persistent: the state page says how many entries were ever used. The number is raised when a new entry is durable, and is
//! durable before the entry's slot is filled. So
//!
//! - an entry below the number is never all zero, whatever a crash left: one that is was wiped, and hid the roots behind it
//!   when the first empty entry ended every search;
//! - the entry at the number may hold anything but a slot: its making was cut off;
//! - behind that all is zero.

use pmalloc_persist::{Medium, Offset, PAGE_BYTES, Word};

use super::entry::{self, RootInfo, RootState};
use crate::{
    core::Core,
    error::{Error, Result},
    layout::{geometry::Geometry, root::RootEntry, slot::SlotWord},
    recovery::state,
};

/// Words of an entry.
const ENTRY_WORDS: usize = size_of::<RootEntry>() / size_of::<Word>();

/// What a search of the root table found.
pub(crate) struct FoundRoot {
    /// The root and the index of its entry.
    pub(crate) root: Option<(u32, RootInfo)>,
    /// The index of the first entry that can be used for a new one.
    pub(crate) free: Option<u32>,
}

/// Searches the root `name`.
///
/// # Errors
///
/// [`Error::Corrupted`] if the name is not found and a damaged entry may have had it. Roots that are whole are found
/// whatever stands before them.
pub(crate) fn find<M: Medium>(core: &Core<M>, name: &str) -> Result<FoundRoot> {
    let (mut free, mut damaged) = (None, None);
    for (index, entry) in entries(core)? {
        match entry {
            Ok(RootState::Live(root)) if root.name == name => {
                return Ok(FoundRoot { root: Some((index, root)), free });
            }
            Ok(RootState::Live(_)) => {}
            Ok(RootState::Dead) => free = free.or(Some(index)),
            Err(error) => damaged = damaged.or(Some(error)),
        }
    }
    let geometry = &core.header.geometry;
    let next = state::roots_used(core.medium(), geometry)?;
    let free = free.or((next < geometry.roots).then_some(next));
    damaged.map_or(Ok(FoundRoot { root: None, free }), Err)
}

/// The entries of the table that were ever used, with their indexes.
pub(crate) fn entries<M: Medium>(
    core: &Core<M>,
) -> Result<impl Iterator<Item = (u32, Result<RootState>)>> {
    let (m, geometry) = (core.medium(), &core.header.geometry);
    let read = |index| entry::at(m, geometry, index).and_then(|at| entry::read(m, at));
    Ok((0..state::roots_used(m, geometry)?).map(move |index| (index, read(index))))
}

/// The roots that are whole, also the heap's own.
pub(crate) fn live<M: Medium>(core: &Core<M>) -> impl Iterator<Item = RootInfo> {
    entries(core).into_iter().flatten().filter_map(|(_, entry)| match entry {
        Ok(RootState::Live(root)) => Some(root),
        _ => None,
    })
}

/// Sees that a root lies in a live block that is large enough.
pub(crate) fn check_block<M: Medium>(core: &Core<M>, root: &RootInfo) -> Result<()> {
    if core.block_span(root.offset).is_none_or(|span| span.len < root.size_bytes()) {
        return Err(Error::corrupted(root.offset, "a root lies in no live block of its size"));
    }
    Ok(())
}

/// Byte offset of the slot of an entry.
pub(crate) fn slot_of<M: Medium>(core: &Core<M>, entry: &RootEntry) -> u64 {
    core.medium().region().span_of(&entry.slot).start
}

/// Notes the blocks of all roots, before a slot can name one of them.
pub(crate) fn protect<M: Medium>(core: &Core<M>) -> Result<()> {
    let (m, geometry) = (core.medium(), &core.header.geometry);
    for index in 0..state::roots_used(m, geometry)? {
        let entry = entry::at(m, geometry, index)?;
        if let Some(block) = SlotWord::from_bits(m.load(&entry.slot)).place() {
            core.root_blocks.insert(block);
        }
    }
    Ok(())
}

/// The slots of all entries that were used.
pub(crate) fn slot_words<M: Medium>(m: &M, geometry: &Geometry) -> Result<Vec<u64>> {
    let entries = (0..state::roots_used(m, geometry)?).map(|index| entry::at(m, geometry, index));
    entries.map(|entry| Ok(m.load(&entry?.slot))).collect()
}

/// The block that the slot of an entry owns.
pub(crate) fn block_of<M: Medium>(m: &M, entry: &RootEntry) -> Option<u64> {
    SlotWord::from_bits(m.load(&entry.slot)).place()
}

/// Entries in the pages of the table that have memory when `used` entries were used.
pub(crate) fn backed_entries(geometry: &Geometry, used: u32) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "a page holds few entries")]
    let per_page = (PAGE_BYTES / size_of::<RootEntry>() as u64) as u32;
    used.max(1).next_multiple_of(per_page).min(geometry.roots)
}

/// All words of an entry.
pub(crate) fn words_of<'m, M: Medium>(
    m: &'m M,
    entry: &RootEntry,
) -> Result<&'m [Word; ENTRY_WORDS]> {
    Ok(m.at(Offset::new(m.region().span_of(entry).start))?)
}

/// Whether an entry that was never used holds what it can't, even if it is the next one to be used.
pub(crate) fn is_misplaced<M: Medium>(m: &M, entry: &RootEntry, is_next: bool) -> Result<bool> {
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
pub(crate) fn require_known<M: Medium>(m: &M, geometry: &Geometry, entries: u32) -> Result<()> {
    for index in 0..entries {
        if let Err(error @ Error::Version { .. }) = entry::read(m, entry::at(m, geometry, index)?) {
            return Err(error);
        }
    }
    Ok(())
}
