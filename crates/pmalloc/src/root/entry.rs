//! Entries of the root table: where they are, and what stands in them.
//!
//! Persistent: a root exists if and only if the slot of its entry is full. Entries are used from the front; the state page
//! says how many ever were, and no search goes beyond them.

use std::fmt;

use pmalloc_persist::{Medium, Span, Word};

use crate::{
    error::{Error, Result},
    layout::{
        geometry::Geometry,
        root::{RootEntry, RootKind},
        sealed::checksum,
        slot::SlotWord,
        superblock::{pack_name, unpack_name},
    },
};

/// A named root.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RootInfo {
    /// Its name.
    pub name: String,
    /// What its block holds.
    pub kind: RootKind,
    /// How much of it: slots, or bytes.
    pub length: u64,
    /// What the program calls the type of its bytes; the layout hash of a typed root; zero for slots.
    pub type_id: u64,
    /// Byte offset of its block from the base of the heap.
    pub offset: u64,
}

impl RootInfo {
    /// Bytes that the root takes.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.shape().size_bytes()
    }

    /// Sees that the root is of the shape `wanted`.
    pub(crate) fn require(&self, wanted: Shape) -> Result<()> {
        if self.shape() == wanted { Ok(()) } else { Err(self.mismatch(wanted.to_string())) }
    }

    /// The error of who expected something else.
    pub(crate) fn mismatch(&self, expected: String) -> Error {
        let (name, found) = (self.name.clone(), self.shape().to_string());
        Error::RootMismatch { name, expected, found }
    }

    /// What the root is, but for its name and place.
    pub(crate) const fn shape(&self) -> Shape {
        Shape { kind: self.kind, length: self.length, type_id: self.type_id }
    }
}

/// What a root is, but for its name and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// What its block holds.
    pub(crate) kind: RootKind,
    /// How much of it.
    pub(crate) length: u64,
    /// Of which type.
    pub(crate) type_id: u64,
}

impl Shape {
    /// Bytes that such a root takes; saturates.
    pub(crate) const fn size_bytes(self) -> u64 {
        match self.kind {
            RootKind::Slots => self.length.saturating_mul(size_of::<Word>() as u64),
            RootKind::Bytes | RootKind::Typed => self.length,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RootKind::Slots => write!(f, "{} slots", self.length),
            RootKind::Bytes => write!(f, "{} bytes of type {:#x}", self.length, self.type_id),
            RootKind::Typed => {
                write!(f, "a value of {} bytes and layout {:#x}", self.length, self.type_id)
            }
        }
    }
}

/// What an entry of the root table that was used holds.
pub(crate) enum RootState {
    /// Not in use any more.
    Dead,
    /// A root.
    Live(RootInfo),
}

/// The entry at `index`.
///
/// # Errors
///
/// [`Error::SlotForeign`] if the table has no such entry.
pub(crate) fn at<'m, M: Medium>(
    m: &'m M,
    geometry: &Geometry,
    index: u32,
) -> Result<&'m RootEntry> {
    let at = Geometry::root_table().nth(u64::from(index)).filter(|_| index < geometry.roots);
    Ok(m.at(at.ok_or(Error::SlotForeign)?)?)
}

/// Reads an entry that was used.
///
/// # Errors
///
/// [`Error::Corrupted`] if its slot is full and the rest does not match its checksum, or if nothing stands in it: it was
/// durable before. [`Error::Version`] for a kind that this program does not know.
pub(crate) fn read<M: Medium>(m: &M, entry: &RootEntry) -> Result<RootState> {
    let slot = SlotWord::from_bits(m.load(&entry.slot));
    let place = m.region().span_of(entry).start;
    let Some(block) = slot.place() else {
        let is_wiped = slot == SlotWord::default() && m.load(&entry.checksum) == 0;
        let wiped = || Error::corrupted(place, "a root entry that was used is empty");
        return if is_wiped { Err(wiped()) } else { Ok(RootState::Dead) };
    };
    let words = content(m, entry);
    if m.load(&entry.checksum) != entry_checksum(&words, place) {
        return Err(Error::corrupted(place, "a root does not match its checksum"));
    }
    let name = unpack_name(&words[..8])
        .ok_or_else(|| Error::corrupted(place, "a root's name is not a zero-padded string"))?;
    let kind = RootKind::from_code(words[8])
        .ok_or_else(|| Error::unknown("roots of kind", words[8], RootKind::Typed.code()))?;
    Ok(RootState::Live(RootInfo {
        name,
        kind,
        length: words[9],
        type_id: words[10],
        offset: block,
    }))
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

/// Bit 32 is set, so that an entry that was used is never all zero.
fn entry_checksum(words: &[u64; 11], place: u64) -> u64 {
    1 << 32 | checksum(words, place)
}

/// Gives the entry at `index` memory.
pub(crate) fn back<M: Medium>(m: &M, index: u32) -> Result<()> {
    let bytes = size_of::<RootEntry>() as u64;
    let start = Geometry::root_table().bytes() + u64::from(index) * bytes;
    m.back(Span::new(start, bytes)).map_err(Error::backing("backing the root table"))
}

/// Writes all that a root needs but its slot.
///
/// # Crash consistency
///
/// The slot is empty: whatever part of the entry is durable, no root is there. The caller fences before the record that
/// fills the slot: the fence behind the block's zeros.
pub(crate) fn write<M: Medium>(m: &M, entry: &RootEntry, name: &str, shape: Shape) {
    let mut words = [0; 11];
    words[..8].copy_from_slice(&pack_name(name));
    words[8] = shape.kind.code();
    words[9] = shape.length;
    words[10] = shape.type_id;
    write_words(m, entry, words);
}

/// Makes an entry one that was used and holds no root.
///
/// # Crash consistency
///
/// None: nobody may open the heap before this is done and durable.
pub(crate) fn write_dead<M: Medium>(m: &M, entry: &RootEntry) {
    write_words(m, entry, [0; 11]);
}

fn write_words<M: Medium>(m: &M, entry: &RootEntry, words: [u64; 11]) {
    for (word, value) in entry.name.iter().zip(words) {
        m.store(word, value);
    }
    m.store(&entry.kind, words[8]);
    m.store(&entry.length, words[9]);
    m.store(&entry.layout_hash, words[10]);
    m.store(&entry.checksum, entry_checksum(&words, m.region().span_of(entry).start));
    // CRASH: see above.
    m.flush_of(entry);
}
