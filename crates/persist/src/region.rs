//! Bounds-checked typed views of a mapped range: the only place where words on media become references.

use core::ptr::NonNull;

use crate::{Claim, ClaimError, Offset, OnMedia, Span, claim::Claimable};

/// A place that lies outside a region or is misaligned for the type asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{span:?} lies outside the {region_len:#x} bytes of the region, or is misaligned")]
pub struct OutOfBounds {
    /// The bytes asked for.
    pub span: Span,
    /// Length of the region in bytes.
    pub region_len: u64,
}

/// A mapped range of memory.
///
/// A region does not own its memory: the [`Medium`](crate::Medium) that it belongs to does, and hands it
/// out by reference, so no view outlives the mapping.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    len: u64,
    /// Volatile.
    claimable: Claimable,
}

// SAFETY: a `Region` by itself only hands out shared references to atomics; the raw views are unsafe.
unsafe impl Send for Region {}
// SAFETY: as for `Send`.
unsafe impl Sync for Region {}

impl Region {
    /// A region of `len` bytes from `base` on.
    ///
    /// # Safety
    ///
    /// 1. `base` is aligned to [`PAGE_BYTES`](crate::PAGE_BYTES) and points to `len` bytes of one
    ///    allocation or mapping, readable and writable where backed, that outlive the region.
    /// 2. Until the region is dropped those bytes are accessed by this process only through the region,
    ///    through other regions over the same mapping, or by pointers derived from them.
    #[must_use]
    pub unsafe fn new(base: NonNull<u8>, len: u64) -> Self {
        Self { base, len, claimable: Claimable::default() }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the region has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address of the first byte.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The `T` at `at`.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] if `at` is misaligned for `T` or the `T` does not lie wholly inside.
    #[inline]
    pub fn at<T: OnMedia>(&self, at: Offset<T>) -> Result<&T, OutOfBounds> {
        let start = self.check(Span::new(at.bytes(), size_of::<T>() as u64), align_of::<T>())?;
        // SAFETY: `check` puts `start` inside the region.
        let place = unsafe { self.base.add(start) };
        // SAFETY:
        // 1. in bounds and aligned (`check`; the base is page aligned);
        // 2. every bit pattern is a valid `T`, and `T` is all atomics (`OnMedia`), so shared references
        //    may be written through;
        // 3. the memory outlives `self` (contract of `new`).
        Ok(unsafe { place.cast::<T>().as_ref() })
    }

    /// The `count` values of type `T` from `at` on.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] if `at` is misaligned for `T` or the array does not lie wholly inside.
    pub fn array<T: OnMedia>(&self, at: Offset<T>, count: u64) -> Result<&[T], OutOfBounds> {
        let len = count.saturating_mul(size_of::<T>() as u64);
        let span = Span::new(at.bytes(), len);
        let start = self.check(span, align_of::<T>())?;
        let error = OutOfBounds { span, region_len: self.len };
        let count = usize::try_from(count).map_err(|_| error)?;
        // SAFETY: `check` puts `start` inside the region.
        let place = unsafe { self.base.add(start) };
        // SAFETY: as in `at`, for `count` consecutive values.
        Ok(unsafe { core::slice::from_raw_parts(place.cast::<T>().as_ptr(), count) })
    }

    /// The bytes that `value`, a reference into this region, occupies.
    ///
    /// # Panics
    ///
    /// If `value` does not lie in this region: the caller mixed two heaps.
    #[inline]
    #[must_use]
    pub fn span_of<T>(&self, value: &T) -> Span {
        let start = (core::ptr::from_ref(value).addr()).wrapping_sub(self.base.addr().get()) as u64;
        let span = Span::new(start, size_of::<T>() as u64);
        assert!(start < self.len && span.end() <= self.len, "a view of another region");
        span
    }

    /// Claims the memory, as [`Medium::claim`](crate::Medium::claim) does.
    ///
    /// # Errors
    ///
    /// [`ClaimError::InUse`].
    pub fn claim(&self) -> Result<Claim, ClaimError> {
        self.claimable.claim()
    }

    /// Offset of the address `place`, or `None` if it lies outside the region.
    #[inline]
    #[must_use]
    pub fn offset_of(&self, place: *const u8) -> Option<u64> {
        let offset = place.addr().checked_sub(self.base.addr().get())? as u64;
        (offset < self.len).then_some(offset)
    }

    /// Address of the first byte of `span`.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] if the span does not lie wholly inside.
    #[inline]
    pub fn pointer(&self, span: Span) -> Result<NonNull<u8>, OutOfBounds> {
        let start = self.check(span, 1)?;
        // SAFETY: `check` puts `start` inside the region.
        Ok(unsafe { self.base.add(start) })
    }

    #[cold]
    fn outside(&self, span: Span) -> OutOfBounds {
        OutOfBounds { span, region_len: self.len }
    }

    /// Where `span` begins, if it lies inside and is aligned. Whatever an operation looks at or changes goes through here.
    #[inline(always)]
    fn check(&self, span: Span, align: usize) -> Result<usize, OutOfBounds> {
        let is_inside = span.len <= self.len && span.start <= self.len - span.len;
        if !is_inside || !span.start.is_multiple_of(align as u64) {
            return Err(self.outside(span));
        }
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a mapping is as long as addresses allow"
        )]
        let start = span.start as usize;
        Ok(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Anon, Medium, Word};

    const LEN: u64 = 8192;

    #[test]
    fn views_lie_wholly_inside_and_are_aligned() {
        let memory = Anon::new(LEN);
        let region = memory.region();
        assert_eq!(region.len(), LEN);
        for at in [0, 8, LEN - 8] {
            let word = region.at(Offset::<Word>::new(at)).expect("inside");
            assert_eq!(region.span_of(word), Span::new(at, 8));
        }
        for at in [1, 4, 7, LEN - 7, LEN, LEN + 8, u64::MAX - 7] {
            let refused = region.at(Offset::<Word>::new(at)).map(|_| ()).expect_err("outside");
            assert_eq!(refused, OutOfBounds { span: Span::new(at, 8), region_len: LEN });
        }
    }

    #[test]
    fn arrays_lie_wholly_inside() {
        let memory = Anon::new(LEN);
        let region = memory.region();
        let array = |at, count| region.array(Offset::<Word>::new(at), count).map(<[Word]>::len);
        assert_eq!(array(0, LEN / 8), Ok(1024));
        assert_eq!(array(LEN - 16, 2), Ok(2));
        assert_eq!(array(LEN, 0), Ok(0));
        for (at, count) in [(0, 1025), (8, 1024), (4, 1), (0, u64::MAX), (8, u64::MAX / 8)] {
            assert!(array(at, count).is_err(), "{count} words from {at} on");
        }
    }

    #[test]
    fn addresses_and_offsets_name_the_same_bytes() {
        let memory = Anon::new(LEN);
        let region = memory.region();
        for at in [0, 1, LEN - 1] {
            let place = region.pointer(Span::new(at, 1)).expect("inside");
            assert_eq!(region.offset_of(place.as_ptr()), Some(at));
        }
        let base = region.base().as_ptr();
        assert_eq!(region.offset_of(base.wrapping_add(8192)), None);
        assert_eq!(region.offset_of(base.wrapping_sub(1)), None);
        assert!(
            region.pointer(Span::new(LEN, 0)).is_ok() && region.pointer(Span::new(LEN, 1)).is_err()
        );
    }

    #[test]
    #[should_panic(expected = "a view of another region")]
    fn a_view_of_another_region_is_noticed() {
        let [one, other] = [(); 2].map(|()| Anon::new(LEN));
        let word = other.region().at(Offset::<Word>::new(LEN - 8)).expect("inside");
        let _ = one.region().span_of(word);
    }
}
