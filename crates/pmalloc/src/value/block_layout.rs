//! What a block is asked for with: size, alignment, tag.

use std::alloc::Layout;

/// Size, alignment and tag of a block.
///
/// Every allocation takes a [`Layout`], which is a block without a tag, or one of these.
///
/// A tag is a number of the program's, zero if it gave none, that a block carries as long as it lives:
/// [`Heap::iter`](crate::Heap::iter) shows it, and [`Stats::tags`](crate::Stats::tags) counts blocks by it. Blocks of
/// different tags lie in different slabs, so a tag costs nothing per block; a program that uses many tags for few blocks
/// pays with slabs that are hardly filled.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use std::alloc::Layout;
/// use pmalloc::{BlockLayout, Heap};
///
/// const SESSION: u8 = 1;
///
/// let heap = Heap::create(dir.path().join("heap"))?;
/// let slots = heap.slots("slots", 2)?;
/// heap.alloc_to(&slots[0], Layout::new::<[u64; 4]>())?;
/// heap.alloc_to(&slots[1], BlockLayout::new(Layout::new::<[u64; 4]>()).with_tag(SESSION))?;
/// assert_eq!(heap.blocks().iter().filter(|block| block.tag == SESSION).count(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockLayout {
    layout: Layout,
    tag: u8,
}

impl BlockLayout {
    /// A block of `layout`, with tag zero.
    #[inline]
    #[must_use]
    pub const fn new(layout: Layout) -> Self {
        Self { layout, tag: 0 }
    }

    /// The same, with `tag`.
    #[inline]
    #[must_use]
    pub const fn with_tag(self, tag: u8) -> Self {
        Self { tag, ..self }
    }

    /// Size and alignment.
    #[inline]
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// The tag.
    #[inline]
    #[must_use]
    pub const fn tag(&self) -> u8 {
        self.tag
    }
}

impl From<Layout> for BlockLayout {
    #[inline]
    fn from(layout: Layout) -> Self {
        Self::new(layout)
    }
}
