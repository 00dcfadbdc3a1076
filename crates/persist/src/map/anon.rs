//! Anonymous memory: durable for nobody, but the whole allocator runs on it, also under miri.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    io,
    ptr::NonNull,
    time::Duration,
};

use crate::{Exclusive, Medium, PAGE_BYTES, Region, Span, Word};

/// A medium in zeroed anonymous memory; flush and fence cost nothing and nothing survives the process.
#[derive(Debug)]
pub struct Anon {
    region: Region,
    layout: Layout,
}

impl Anon {
    /// A medium of `len_bytes` zero bytes, rounded up to whole pages.
    ///
    /// # Panics
    ///
    /// If `len_bytes` is zero or exceeds the address space.
    #[must_use]
    pub fn new(len_bytes: u64) -> Self {
        let len = len_bytes.next_multiple_of(PAGE_BYTES);
        let size = usize::try_from(len).expect("the length fits the address space");
        let page = usize::try_from(PAGE_BYTES).expect("a page fits the address space");
        let layout =
            Layout::from_size_align(size, page).expect("the length fits the address space");
        assert!(size > 0, "an empty medium");
        // SAFETY: the size is not zero (asserted above).
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        // SAFETY:
        // 1. `base` is page aligned by its layout, owns `len` bytes, and is freed only in `drop`;
        // 2. the allocation is private to this value.
        let region = unsafe { Region::new(base, len) };
        Self { region, layout }
    }
}

impl Drop for Anon {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed only here.
        unsafe { dealloc(self.region.base().as_ptr(), self.layout) }
    }
}

// SAFETY: nobody has another handle to the allocation.
unsafe impl Exclusive for Anon {}

// SAFETY:
// 1. and 2. the allocation is there from `new` to `drop`, all of it, and nothing is ever given back;
// 3. and 4. the words are the hardware's;
// 5. the region's claims.
unsafe impl Medium for Anon {
    #[inline]
    fn region(&self) -> &Region {
        &self.region
    }
    fn len(&self) -> u64 {
        self.region.len()
    }
    #[inline]
    fn load(&self, word: &Word) -> u64 {
        word.get()
    }
    #[inline]
    fn store(&self, word: &Word, value: u64) {
        word.set(value);
    }
    #[inline]
    fn compare_exchange(&self, word: &Word, current: u64, new: u64) -> Result<u64, u64> {
        word.compare_exchange(current, new)
    }
    #[inline]
    fn fetch_or(&self, word: &Word, bits: u64) -> u64 {
        word.fetch_or(bits)
    }
    #[inline]
    fn fetch_and(&self, word: &Word, bits: u64) -> u64 {
        word.fetch_and(bits)
    }
    #[inline]
    fn flush(&self, _span: Span) {}
    #[inline]
    fn fence(&self) {}
    fn back(&self, span: Span) -> io::Result<()> {
        if span.end() > self.region.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
    fn punch(&self, _span: Span) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn occupied_bytes(&self) -> io::Result<u64> {
        Ok(self.region.len())
    }
    /// Stands still: what is done here depends on nothing but the calls.
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}
