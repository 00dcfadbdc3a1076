//! A flat table of 32-bit words whose pages appear when they are first touched.
//!
//! Volatile: the allocator keeps one word per page of a heap in it, and rebuilds it at every open. Addresses
//! cost nothing, so that the table is as large as the capacity of the heap needs, and there is no tree.
//!
//! Under miri, which has no lazy memory, and under shuttle, whose atomics can't lie in mapped memory, the
//! table is allocated as a whole.

use core::ops::Range;
use std::io;

use crate::sync::{AtomicU32, Ordering};

#[cfg(any(miri, shuttle))]
use whole::Words;

#[cfg(not(any(miri, shuttle)))]
use lazy::Words;

/// A table of words that are zero until they are written.
///
/// # Examples
///
/// ```
/// use pmalloc_persist::LazyTable;
///
/// let table = LazyTable::new(1 << 20)?;
/// assert_eq!(table.load(70_000), 0);
/// table.store(70_000, 42);
/// assert_eq!(table.load(70_000), 42);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct LazyTable {
    words: Words,
}

impl LazyTable {
    /// A table of `count` zeros.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::OutOfMemory`] if the addresses aren't there: a limit on address space, or a system
    /// that accounts for memory never touched.
    pub fn new(count: usize) -> io::Result<Self> {
        Ok(Self { words: Words::new(count)? })
    }

    /// Number of words.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.as_slice().len()
    }

    /// Whether the table has no words.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The word `index`, or `None` behind the end.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&AtomicU32> {
        self.words.as_slice().get(index)
    }

    /// The words of `indexes`, for writing many at once.
    ///
    /// # Panics
    ///
    /// If a word lies behind the end.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn range(&self, indexes: Range<usize>) -> &[AtomicU32] {
        &self.words.as_slice()[indexes]
    }

    /// Reads the word `index`; what lies behind the end reads as zero. Acquire: pairs with
    /// [`store`](Self::store) and [`compare_exchange`](Self::compare_exchange).
    #[inline]
    #[must_use]
    pub fn load(&self, index: usize) -> u32 {
        self.get(index).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Writes the word `index`. Release: pairs with [`load`](Self::load).
    ///
    /// # Panics
    ///
    /// If `index` lies behind the end.
    #[inline]
    #[track_caller]
    pub fn store(&self, index: usize, value: u32) {
        self.word(index).store(value, Ordering::Release);
    }

    /// Replaces `current` by `new` in the word `index`. Pairs with [`load`](Self::load) and with itself.
    ///
    /// # Errors
    ///
    /// The value found, if it is not `current`.
    ///
    /// # Panics
    ///
    /// If `index` lies behind the end.
    #[inline]
    #[track_caller]
    pub fn compare_exchange(&self, index: usize, current: u32, new: u32) -> Result<u32, u32> {
        self.word(index).compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
    }

    #[inline]
    #[track_caller]
    fn word(&self, index: usize) -> &AtomicU32 {
        self.get(index).expect("an index inside the table")
    }
}

#[cfg(any(miri, shuttle))]
mod whole {
    //! Memory that is allocated as a whole.

    use std::io;

    use crate::sync::AtomicU32;

    #[derive(Debug)]
    pub(super) struct Words(Box<[AtomicU32]>);

    impl Words {
        #[allow(clippy::unnecessary_wraps, reason = "the lazy memory can fail")]
        pub(super) fn new(count: usize) -> io::Result<Self> {
            Ok(Self((0..count).map(|_| AtomicU32::new(0)).collect()))
        }

        pub(super) fn as_slice(&self) -> &[AtomicU32] {
            &self.0
        }
    }
}

#[cfg(not(any(miri, shuttle)))]
mod lazy {
    //! Memory that the kernel provides page by page.

    use core::ptr::NonNull;
    use std::{io, ptr};

    use rustix::{
        io::Errno,
        mm::{self, Advice, MapFlags, ProtFlags},
    };

    use crate::sync::AtomicU32;

    #[derive(Debug)]
    pub(super) struct Words {
        first: NonNull<AtomicU32>,
        count: usize,
        len_bytes: usize,
    }

    // SAFETY: the memory belongs to this value and is only accessed through atomics.
    unsafe impl Send for Words {}
    // SAFETY: as for `Send`.
    unsafe impl Sync for Words {}

    impl Words {
        pub(super) fn new(count: usize) -> io::Result<Self> {
            let len_bytes = count
                .max(1)
                .checked_mul(size_of::<AtomicU32>())
                .and_then(|len| len.checked_next_multiple_of(rustix::param::page_size()))
                .filter(|&len| isize::try_from(len).is_ok())
                .ok_or(Errno::NOMEM)?;
            let access = ProtFlags::READ | ProtFlags::WRITE;
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            // SAFETY: a new mapping at an address that the kernel chooses.
            let first = unsafe { mm::mmap_anonymous(ptr::null_mut(), len_bytes, access, flags) }?;
            // A large page for a few words would waste more than it saves; it doesn't matter if the kernel
            // has none and refuses the advice.
            // SAFETY: the advice changes the size of pages, not their contents.
            let _ = unsafe { mm::madvise(first, len_bytes, Advice::LinuxNoHugepage) };
            let first = NonNull::new(first.cast()).expect("nothing is mapped at address zero");
            Ok(Self { first, count, len_bytes })
        }

        #[inline]
        pub(super) fn as_slice(&self) -> &[AtomicU32] {
            // SAFETY: `new` mapped at least `count` zeroed, aligned words, which live as long as `self`;
            // zero is a valid atomic.
            unsafe { core::slice::from_raw_parts(self.first.as_ptr(), self.count) }
        }
    }

    impl Drop for Words {
        fn drop(&mut self) {
            // SAFETY: mapped in `new` with this length; no borrow outlives this value.
            let _ = unsafe { mm::munmap(self.first.as_ptr().cast(), self.len_bytes) };
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn words_are_zero_until_written_and_independent() {
        let table = LazyTable::new(5000).expect("memory");
        assert_eq!((table.len(), table.load(0), table.load(4999)), (5000, 0, 0));
        table.store(1024, 9);
        assert_eq!([1023, 1024, 1025].map(|i| table.load(i)), [0, 9, 0]);
        assert_eq!(table.compare_exchange(1024, 9, 10), Ok(9));
        assert_eq!(table.compare_exchange(1024, 9, 11), Err(10));
        assert_eq!(table.load(1024), 10);
    }

    #[test]
    fn behind_the_end_there_is_nothing() {
        let table = LazyTable::new(3).expect("memory");
        assert!(table.get(2).is_some() && table.get(3).is_none());
        assert_eq!(table.load(usize::MAX), 0);
        assert!(LazyTable::new(0).expect("memory").is_empty());
    }

    #[test]
    #[should_panic(expected = "an index inside the table")]
    fn writing_behind_the_end_panics() {
        LazyTable::new(3).expect("memory").store(3, 1);
    }

    #[test]
    #[cfg(not(miri))]
    fn a_table_for_sixteen_tebibytes_costs_only_what_is_touched() {
        let table = LazyTable::new(1 << 32).expect("addresses");
        for index in [0, 1 << 20, (1 << 32) - 1] {
            table.store(index, 5);
            assert_eq!(table.load(index), 5);
        }
        assert!(LazyTable::new(usize::MAX).is_err());
    }
}
