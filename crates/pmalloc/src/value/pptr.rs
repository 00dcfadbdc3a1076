//! A pointer that owns nothing: an offset that means the same wherever the heap is mapped.

use std::{fmt, marker::PhantomData};

/// Byte offset of a block, as a plain value: copyable, comparable, valid for as long as the block lives and in
/// every process that opens the heap.
#[repr(transparent)]
pub struct PPtr<T: ?Sized = [u8]> {
    offset: u64,
    target: PhantomData<fn() -> Box<T>>,
}

impl<T: ?Sized> PPtr<T> {
    /// The pointer to no block.
    pub const NULL: Self = Self { offset: 0, target: PhantomData };

    /// The pointer to byte `offset` of a heap.
    #[must_use]
    pub const fn from_offset(offset: u64) -> Self {
        Self { offset, target: PhantomData }
    }

    /// Bytes from the base of the heap; zero is the pointer to no block.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// Whether it points to no block.
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.offset == 0
    }
}

impl<T: ?Sized> Clone for PPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: ?Sized> Copy for PPtr<T> {}
impl<T: ?Sized> PartialEq for PPtr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.offset == other.offset
    }
}
impl<T: ?Sized> Eq for PPtr<T> {}
impl<T: ?Sized> fmt::Debug for PPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_null() {
            f.write_str("PPtr(null)")
        } else {
            write!(f, "PPtr({:#x})", self.offset)
        }
    }
}
