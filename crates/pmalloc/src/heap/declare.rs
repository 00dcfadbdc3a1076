//! Where a program has slots, said to the heap.

use pmalloc_persist::Medium;

use super::handle::Heap;
#[cfg(doc)]
use crate::Error;
use crate::{
    error::Result,
    root::declarations,
    value::{SlotLayout, SlotScope},
};

impl<M: Medium + 'static> Heap<M> {
    /// Says where the slots are in roots of bytes or in blocks of bytes, instead of what was said about them before.
    ///
    /// The check believes it, of this heap and of its file: it finds slots that own no live block, blocks that two slots
    /// own, and those that nothing owns. What is not declared counts as not known. So does what is declared wrongly, but
    /// nothing else: an operation goes by the slots that it is given.
    ///
    /// Typed roots, and what they lead to, are declared when a program asks for them ([`Heap::root`]).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for slots that are not at multiples of 8, overlap, or lie outside a root of this type;
    /// [`Error::Limit`] for more than a megabyte of declarations; as [`slots`](Heap::slots) and
    /// [`replace`](Heap::replace). Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// Atomic: after a crash the old declaration stands or the new one. Saying again what stands already writes nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use pmalloc::{Heap, SlotLayout, SlotScope};
    ///
    /// let heap = Heap::create(dir.path().join("heap"))?;
    /// heap.declare_slots(SlotScope::RootType(1), &SlotLayout::none().to_the_end(0, 8))?;
    /// heap.declare_slots(SlotScope::Tag(0), &SlotLayout::none())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn declare_slots(&self, scope: SlotScope, layout: &SlotLayout) -> Result<()> {
        declarations::declare_slots(self.core(), scope, layout)
    }

    /// What is declared about roots and blocks of bytes, in the order in which it was first said.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupted`] if the declarations are damaged: saying one anew drops the others; [`Error::Forked`].
    pub fn declared_slots(&self) -> Result<Vec<(SlotScope, SlotLayout)>> {
        declarations::declared_slots(self.core())
    }
}
