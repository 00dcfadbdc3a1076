//! The versioned cell: a number in heap memory that changes together with slots.

use std::fmt;

use pmalloc_persist::{Medium, Word, on_media};

use super::{FORKED, Heap};
use crate::{
    error::{Error, Result},
    layout::cell::{CELL_VALUE_MAX, CellValue, CellWord},
};

/// A persistent number of 44 bits that is changed by publishes only, and owns nothing.
///
/// [`Publish::set`](super::Publish::set) changes it in one step with slots and other cells, [`Heap::set`] on its own.
/// Eight bytes: the value below 20 bits that count the changes, so that recovery can tell whether a change is in place
/// already. A plain word can't take part in a publish for want of them: redoing the publish could overwrite what the
/// program stored later.
///
/// It stands in values of a program's types, or in a [root of bytes](Heap::root_cell). All zero bytes are a cell that holds
/// zero; a value's own eight bytes, written with the contents of a new block, are a cell that holds it. From then on nothing
/// but publishes may write there. A cell is no [`Slot`](super::Slot), though it is packed alike: no word may be used as
/// both, and nothing on media tells them apart.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use std::alloc::Layout;
/// use pmalloc::Heap;
///
/// let heap = Heap::create(dir.path().join("heap"))?;
/// let slots = heap.slots("inbox", 1)?;
/// let counts = heap.root_bytes("counts", 64, 0)?;
/// let count = heap.root_cell(&counts, 0)?;
///
/// // The message is there if and only if it is counted.
/// let mut message = heap.reserve(Layout::new::<[u8; 2]>())?;
/// message.write(|bytes| bytes.copy_from_slice(b"hi"));
/// let mut publish = heap.publish();
/// publish.alloc(&slots[0], message);
/// publish.set(count, count.load(&heap) + 1);
/// publish.commit()?;
/// assert_eq!(count.load(&heap), 1);
/// # Ok(())
/// # }
/// ```
#[repr(transparent)]
pub struct VersionedCell {
    image: CellImage,
}

on_media! {
    /// A cell as it lies on media.
    pub(super) struct CellImage: 8 {
        /// Persistent: the packed word of the cell.
        word: Word,
    }
}

impl VersionedCell {
    /// Largest value.
    pub const VALUE_MAX: u64 = CELL_VALUE_MAX;

    /// A cell that holds `value`, to be moved into the heap, or `None` if the value is larger than
    /// [`VALUE_MAX`](Self::VALUE_MAX).
    #[must_use]
    pub const fn new(value: u64) -> Option<Self> {
        if value > Self::VALUE_MAX {
            None
        } else {
            Some(Self { image: CellImage { word: Word::new(value) } })
        }
    }

    /// The value. A change of another thread is decided, and so outlives a crash, before it is seen; the changes of one
    /// publish are seen one after the other.
    ///
    /// # Panics
    ///
    /// If the cell does not lie in `heap`, or in a forked child, which has none of the heap's memory.
    #[must_use]
    pub fn load<M: Medium>(&self, heap: &Heap<M>) -> u64 {
        let m = heap.core().medium_around(self).expect(FORKED);
        self.read(m).value().get()
    }

    /// The cell's word.
    pub(super) fn read<M: Medium>(&self, m: &M) -> CellWord {
        CellWord::from_bits(m.load(&self.image.word))
    }
}

/// `value` as one that a cell can hold.
pub(super) fn cell_value(value: u64) -> Result<CellValue> {
    CellValue::new(value).ok_or_else(|| Error::Invalid {
        what: "value of a versioned cell",
        why: format!("{value}; the largest is {}", VersionedCell::VALUE_MAX),
    })
}

impl fmt::Debug for VersionedCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value is not read here: only a medium may look at it.
        f.write_str("VersionedCell")
    }
}
