//! The one scalar that exists on media.
//!
//! Everything persistent is made of [`Word`]s: eight bytes, naturally aligned, accessed atomically and
//! always whole. Two facts follow, and the rest of the project leans on both: no access is ever mixed
//! with one of another size, and a store is all there or not there after a power failure, because
//! eight aligned bytes are the unit that the hardware writes atomically (Intel SDM volume 3, section
//! 9.1.1; the persistence domain accepts no smaller unit).

use core::sync::atomic::{AtomicU64, Ordering};

/// A 64-bit persistent word.
///
/// A word has no public accessors: it is read and written through a [`Medium`](crate::Medium), so that
/// the tracer and the crash simulator see every access that production code makes.
#[repr(transparent)]
pub struct Word(AtomicU64);

impl Word {
    /// A word that holds `value`, to be moved to where a [`Medium`](crate::Medium) finds it.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Reads the word. Pairs with the `Release` of [`Word::set`].
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Writes the word. Pairs with the `Acquire` of [`Word::get`].
    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// Replaces `current` by `new` and returns `current`, or returns the value found as the error.
    #[inline]
    pub(crate) fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        self.0.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
    }

    /// Sets `bits` and returns the word before.
    #[inline]
    pub(crate) fn fetch_or(&self, bits: u64) -> u64 {
        self.0.fetch_or(bits, Ordering::AcqRel)
    }

    /// Keeps only `bits` and returns the word before.
    #[inline]
    pub(crate) fn fetch_and(&self, bits: u64) -> u64 {
        self.0.fetch_and(bits, Ordering::AcqRel)
    }
}

impl core::fmt::Debug for Word {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Word({:#x})", self.get())
    }
}
