//! The versioned cell: a number in heap memory that changes together with slots.

use std::fmt;

use pmalloc_persist::{Medium, Word, on_media};

use crate::layout::cell::{CELL_VALUE_MAX, CellWord};

/// A persistent number of 44 bits that is changed by publishes only, and owns nothing.
///
/// [`Publish::set`](crate::Publish::set) changes it in one step with slots and other cells, [`Heap::set`](crate::Heap::set) on its own.
/// Eight bytes: the value below 20 bits that count the changes, so that recovery can tell whether a change is in place
/// already. A plain word can't take part in a publish for want of them: redoing the publish could overwrite what the
/// program stored later.
///
/// It stands in values of a program's types, or in a [root of bytes](crate::Heap::root_cell). All zero bytes are a cell that holds
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
    pub(crate) struct CellImage: 8 {
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

    /// The cell's word.
    pub(crate) fn read<M: Medium>(&self, m: &M) -> CellWord {
        CellWord::from_bits(m.load(&self.image.word))
    }
}

impl fmt::Debug for VersionedCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value is not read here: only a medium may look at it.
        f.write_str("VersionedCell")
    }
}
