//! Named roots: the blocks that are found without a pointer.
//!
//! Entries of the root table are used from the front; the first one that was never used ends every search. An
//! entry exists if and only if its slot is full.

use pmalloc_persist::{Medium, Offset, PAGE_BYTES, Span, sync::lock};

use super::{
    alloc,
    core::Core,
    root_table,
    session::{Access, SessionState},
    slot::Slot,
};
use crate::{
    error::{Error, Result},
    layout::{
        geometry::Geometry,
        root::{ROOT_NAME_MAX_BYTES, RootEntry, RootKind},
        sealed::checksum,
        slot::SlotWord,
        superblock::{pack_name, unpack_name},
    },
};

/// An entry that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    /// Its name.
    pub(super) name: String,
    /// What its block holds.
    pub(super) kind: RootKind,
    /// How many of them.
    pub(super) length: u64,
    /// Byte offset of its block.
    pub(super) block: u64,
}

/// Finds or creates the root array `name`.
pub(super) fn slots<'h, M: Medium>(
    core: &'h Core<M>,
    access: &mut impl Access<M>,
    name: &str,
    count: u64,
) -> Result<&'h [Slot]> {
    check_name(name)?;
    if count == 0 || count > core.header.geometry.capacity_bytes / 8 {
        return Err(Error::Invalid {
            what: "number of slots",
            why: format!("{count}; a root array has at least one slot and must fit the heap"),
        });
    }
    let found = {
        let _entered = core.enter()?;
        let _roots = lock(&core.roots);
        find(core, name)?.0
    };
    let block = match found {
        Some(root) => check_match(&root, count)?,
        None => access.with(|state| find_or_create(core, state, name, count))?,
    };
    if core.block_span(block).is_none_or(|span| span.len < count * 8) {
        return Err(Error::corrupted(block, "a root array lies in no live block of its size"));
    }
    core.root_blocks.insert(block);
    Ok(core.medium().region().array(Offset::new(block), count)?)
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > ROOT_NAME_MAX_BYTES || name.contains('\0') {
        return Err(Error::Invalid {
            what: "root name",
            why: format!("{name:?}; a name has 1 to {ROOT_NAME_MAX_BYTES} bytes and no NUL"),
        });
    }
    Ok(())
}

fn check_match(root: &Root, count: u64) -> Result<u64> {
    if root.length == count {
        return Ok(root.block);
    }
    Err(Error::RootMismatch {
        name: root.name.clone(),
        expected: format!("{count} slots"),
        found: format!("{} slots", root.length),
    })
}

/// The root `name`, and the index of the first entry that can be used for a new one.
///
/// # Errors
///
/// [`Error::Corrupted`] if the name is not found and a damaged entry may have had it. Roots that are whole are found
/// whatever stands before them.
fn find<M: Medium>(core: &Core<M>, name: &str) -> Result<(Option<Root>, Option<u32>)> {
    let (mut free, mut damaged) = (None, None);
    for index in 0..core.header.geometry.roots {
        let entry = root_table(core.medium(), &core.header.geometry, index)?;
        match read(core.medium(), entry) {
            Ok(Entry::Live(root)) if root.name == name => return Ok((Some(root), free)),
            Ok(Entry::Live(_)) => {}
            Ok(Entry::Dead) => free = free.or(Some(index)),
            Ok(Entry::Pristine) => {
                free = free.or(Some(index));
                break;
            }
            Err(error) => damaged = damaged.or(Some(error)),
        }
    }
    damaged.map_or(Ok((None, free)), Err)
}

/// Notes the blocks of all roots, before a slot can name one of them.
pub(super) fn protect<M: Medium>(core: &Core<M>) -> Result<()> {
    for index in 0..core.header.geometry.roots {
        let entry = root_table(core.medium(), &core.header.geometry, index)?;
        match SlotWord::from_bits(core.medium().load(&entry.slot)).place() {
            Some(block) => core.root_blocks.insert(block),
            None if matches!(read(core.medium(), entry)?, Entry::Pristine) => break,
            None => {}
        }
    }
    Ok(())
}

/// What an entry of the root table holds.
pub(super) enum Entry {
    /// Never used, nor any behind it.
    Pristine,
    /// Not in use.
    Dead,
    /// A root.
    Live(Root),
}

/// Reads an entry.
///
/// # Errors
///
/// [`Error::Corrupted`] if its slot is full and the rest does not match its checksum: it was durable before.
pub(super) fn read<M: Medium>(m: &M, entry: &RootEntry) -> Result<Entry> {
    let slot = SlotWord::from_bits(m.load(&entry.slot));
    let place = m.region().span_of(entry).start;
    let Some(block) = slot.place() else {
        let pristine = slot == SlotWord::default() && m.load(&entry.checksum) == 0;
        return Ok(if pristine { Entry::Pristine } else { Entry::Dead });
    };
    let words = content(m, entry);
    if m.load(&entry.checksum) != checksum(&words, place) {
        return Err(Error::corrupted(place, "a root does not match its checksum"));
    }
    let name = unpack_name(&words[..8])
        .ok_or_else(|| Error::corrupted(place, "a root's name is not a zero-padded string"))?;
    let kind = RootKind::from_code(words[8])
        .ok_or_else(|| Error::corrupted(place, "a root is of no known kind"))?;
    Ok(Entry::Live(Root { name, kind, length: words[9], block }))
}

fn content<M: Medium>(m: &M, entry: &RootEntry) -> [u64; 11] {
    let mut words = [0; 11];
    for (word, name) in words.iter_mut().zip(&entry.name) {
        *word = m.load(name);
    }
    words[8] = m.load(&entry.kind);
    words[9] = m.load(&entry.length);
    words[10] = m.load(&entry.layout_hash);
    words
}

/// As [`slots`], where another thread may have created the array since.
fn find_or_create<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    name: &str,
    count: u64,
) -> Result<u64> {
    let _entered = core.enter()?;
    let _roots = lock(&core.roots);
    match find(core, name)? {
        (Some(root), _) => check_match(&root, count),
        (None, free) => create(core, state, free, name, count),
    }
}

/// Creates the root array `name` in the entry `free` and returns its block.
fn create<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    free: Option<u32>,
    name: &str,
    count: u64,
) -> Result<u64> {
    let m = core.medium();
    let geometry = &core.header.geometry;
    let limit = Error::Limit { what: "named roots", limit: u64::from(geometry.roots) };
    let index = free.ok_or(limit)?;
    back(m, geometry, index)?;
    let entry = root_table(m, geometry, index)?;
    let place = m.region().span_of(entry).start;
    write_name(m, entry, place, name, count);
    let slot_place = place + std::mem::offset_of!(RootEntry, slot) as u64;
    let slot: &Slot = m.at(Offset::new(slot_place))?;
    alloc::alloc_zeroed_root(core, state, slot, slot_place, count * 8)?;
    slot.read(m).place().ok_or(Error::SlotEmpty { slot: slot_place })
}

/// Backs the entry at `index` and the one behind it, which ends the search when this one is used.
fn back<M: Medium>(m: &M, geometry: &Geometry, index: u32) -> Result<()> {
    let bytes = size_of::<RootEntry>() as u64;
    let start = Geometry::root_table().bytes() + u64::from(index) * bytes;
    let end = (start + 2 * bytes).min(geometry.root_span().end());
    debug_assert!(end.is_multiple_of(bytes) && PAGE_BYTES.is_multiple_of(bytes));
    m.back(Span::new(start, end - start)).map_err(Error::io("backing the root table"))
}

/// # Crash consistency
///
/// The slot is empty: whatever part of the entry is durable, no root is there. The caller fences before the record that
/// fills the slot: the fence behind the block's zeros.
fn write_name<M: Medium>(m: &M, entry: &RootEntry, place: u64, name: &str, count: u64) {
    let mut words = [0; 11];
    words[..8].copy_from_slice(&pack_name(name));
    words[8] = RootKind::Slots.code();
    words[9] = count;
    for (word, value) in entry.name.iter().zip(words) {
        m.store(word, value);
    }
    m.store(&entry.kind, words[8]);
    m.store(&entry.length, words[9]);
    m.store(&entry.layout_hash, words[10]);
    m.store(&entry.checksum, checksum(&words, place));
    // CRASH: see above.
    m.flush_of(entry);
}
