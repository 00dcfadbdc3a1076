//! Named roots: the blocks that are found without a pointer.

use pmalloc_persist::{Medium, sync::Arc};

use super::{handle::Heap, session::Session};
#[cfg(doc)]
use crate::Error;
use crate::{
    core::Implicit,
    error::Result,
    root::{self, Removal, RootInfo},
    value::{Persistent, Slot, VersionedCell},
};

impl<M: Medium + 'static> Heap<M> {
    /// The `count` slots of the root array `name`, creating it with empty slots if there is none.
    ///
    /// A name has at most 63 bytes. The slots live as long as the heap.
    ///
    /// # Errors
    ///
    /// [`Error::RootMismatch`] if a root of this name exists and is something else, [`Error::Invalid`] for a bad name or
    /// length zero, [`Error::Limit`] if the root table is full, [`Error::OutOfMemory`], [`Error::NoSpace`].
    ///
    /// # Crash consistency
    ///
    /// Atomic: after a crash the array exists whole, with empty slots, or not at all.
    pub fn slots(&self, name: &str, count: u64) -> Result<&[Slot]> {
        root::slots(self.core(), name, count)
    }

    /// The root `name` of `size_bytes` bytes, creating it zeroed if there is none.
    ///
    /// The heap does not look into it. `type_id` is what the program calls its type, any number; it is compared whenever
    /// the root is asked for. A root may be as large as the heap, and starts at a multiple of 64 bytes.
    ///
    /// The root is told by its offset and not by a reference, as nothing keeps it from being
    /// [removed](Heap::root_remove): who makes pointers from the offset sees to that. Bytes that are zero are empty
    /// [`Slot`]s, too, and may be used as such in place.
    ///
    /// # Errors
    ///
    /// [`Error::RootMismatch`] if a root of this name exists and is something else, also of another size or type;
    /// [`Error::Invalid`] for a bad name or size zero, [`Error::Limit`] if the root table is full,
    /// [`Error::OutOfMemory`], [`Error::NoSpace`].
    ///
    /// # Crash consistency
    ///
    /// Atomic: after a crash the root exists whole, all its bytes zero, or not at all.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let heap = pmalloc::Heap::create(dir.path().join("heap"))?;
    /// let made = heap.root_bytes("settings", 256, 1)?;
    /// assert_eq!(heap.root_bytes("settings", 256, 1)?, made);
    /// assert_eq!(heap.root_find("settings")?, Some(made));
    /// heap.root_remove("settings")?;
    /// assert_eq!(heap.root_find("settings")?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn root_bytes(&self, name: &str, size_bytes: usize, type_id: u64) -> Result<RootInfo> {
        root::bytes(self.core(), name, size_bytes, type_id)
    }

    /// The versioned cell at byte `at_byte`, a multiple of 8, of a root of bytes.
    ///
    /// The cell lives as long as the heap: from now on until the heap is closed the root can't be removed. Its bytes are used
    /// as cells only: what [`slot_at`](Heap::slot_at) makes of them is answered for there.
    ///
    /// # Errors
    ///
    /// [`Error::RootMissing`] if `root` is no more, or not in this heap, [`Error::RootMismatch`] if it is not one of bytes;
    /// [`Error::Invalid`] for a place that is misaligned or not inside, [`Error::Corrupted`], [`Error::Forked`],
    /// [`Error::Io`].
    ///
    /// # Examples
    ///
    /// See [`VersionedCell`].
    pub fn root_cell(&self, root: &RootInfo, at_byte: u64) -> Result<&VersionedCell> {
        root::cell(self.core(), root, at_byte)
    }

    /// The value of the root `name`, creating it with what `init` returns if there is none.
    ///
    /// The value lives as long as the heap. It is known again by the layout of its type and of all types that it leads to
    /// by slots: size, alignment, and the names, offsets and types of the fields.
    ///
    /// Where its slots are, and those of all that they lead to, is noted in the heap for its check, as
    /// [`declare_slots`](Heap::declare_slots) does for bytes.
    ///
    /// `init` may use the heap. If another thread creates the root meanwhile, what `init` returned is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::RootMismatch`] if a root of this name exists and is something else, also of another layout;
    /// [`Error::Invalid`] for a bad name, a type without bytes or one aligned to more than 64; [`Error::Limit`] if the root
    /// table is full, [`Error::OutOfMemory`], [`Error::NoSpace`].
    ///
    /// # Crash consistency
    ///
    /// Atomic: after a crash the root exists with its whole value, or not at all.
    ///
    /// # Examples
    ///
    /// See [`Persistent`].
    pub fn root<T: Persistent>(&self, name: &str, init: impl FnOnce() -> T) -> Result<&T> {
        root::value(self.core(), name, init)
    }

    /// Removes the root `name`, which holds a `T`, as [`root_remove`](Heap::root_remove) does for others.
    ///
    /// # Errors
    ///
    /// As [`root_remove`](Heap::root_remove), and [`Error::RootMismatch`] for a root that is no `T`.
    ///
    /// # Crash consistency
    ///
    /// As [`root_remove`](Heap::root_remove).
    pub fn root_remove_typed<T: Persistent>(&self, name: &str) -> Result<()> {
        root::remove(self.core(), &mut Implicit(self.core()), name, Removal::of_typed::<T>()?)
    }

    /// The root `name`, of whatever kind, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a bad name; [`Error::Corrupted`] if a damaged entry of the table may have it, or if the
    /// root lies in no live block.
    pub fn root_find(&self, name: &str) -> Result<Option<RootInfo>> {
        root::find(self.core(), name)
    }

    /// All roots of the program, in the order of the table.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupted`] if an entry of the table is damaged.
    pub fn roots(&self) -> Result<Vec<RootInfo>> {
        root::all(self.core())
    }

    /// Removes the root `name` and frees its block; the name can be used again.
    ///
    /// A typed root is removed by [`root_remove_typed`](Heap::root_remove_typed), which knows where its slots are.
    ///
    /// A root of bytes is not looked into: what slots in it own is lost to the program, and pointers into it dangle, as
    /// those into any block that is freed. The block is not reused while guards live that are older.
    ///
    /// # Errors
    ///
    /// [`Error::RootMissing`]; [`Error::RootMismatch`] for a typed root; [`Error::RootInUse`] for a root array that [`slots`](Heap::slots) returned since the heap
    /// was opened, as references to it may live as long as the heap; [`Error::ChildrenAlive`] for a root array with a full
    /// slot; [`Error::Invalid`] for a bad name, [`Error::Corrupted`] if the table is damaged; [`Error::OutOfMemory`] or
    /// [`Error::NoSpace`] if the bookkeeping log of a large root has no room. Nothing changed then.
    ///
    /// # Crash consistency
    ///
    /// Atomic: after a crash the root is there, whole, or neither it nor its block is.
    pub fn root_remove(&self, name: &str) -> Result<()> {
        root::remove(self.core(), &mut Implicit(self.core()), name, Removal::Untyped)
    }
}

impl<M: Medium + 'static> Session<M> {
    /// As [`Heap::root_remove`].
    ///
    /// # Errors
    ///
    /// As [`Heap::root_remove`].
    pub fn root_remove(&mut self, name: &str) -> Result<()> {
        let core = Arc::clone(self.heap().core());
        root::remove(&core, &mut self.access(), name, Removal::Untyped)
    }

    /// As [`Heap::root_remove_typed`].
    ///
    /// # Errors
    ///
    /// As [`Heap::root_remove_typed`].
    pub fn root_remove_typed<T: Persistent>(&mut self, name: &str) -> Result<()> {
        let core = Arc::clone(self.heap().core());
        root::remove(&core, &mut self.access(), name, Removal::of_typed::<T>()?)
    }
}
