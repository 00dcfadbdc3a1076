//! Places and sizes on media: typed offsets, byte spans and cache lines.

use core::{fmt, marker::PhantomData};

/// Bytes per cache line: the unit of flushing and of [`Line`].
pub const LINE_BYTES: u64 = 64;

/// Bytes per page: the unit of backing and punching.
pub const PAGE_BYTES: u64 = 4096;

/// Offset of a `T` in bytes from the base of a region.
///
/// Offsets, never addresses, are stored on media and passed around: a heap may be mapped anywhere.
pub struct Offset<T>(u64, PhantomData<fn() -> T>);

impl<T> Offset<T> {
    /// The offset `bytes` from the base.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes, PhantomData)
    }

    /// Bytes from the base.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The `index`-th `T` of an array that starts here, or `None` on overflow.
    #[must_use]
    pub const fn nth(self, index: u64) -> Option<Self> {
        match index.checked_mul(size_of::<T>() as u64) {
            Some(distance) => match self.0.checked_add(distance) {
                Some(bytes) => Some(Self::new(bytes)),
                None => None,
            },
            None => None,
        }
    }
}

impl<T> Clone for Offset<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Offset<T> {}
impl<T> PartialEq for Offset<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for Offset<T> {}
impl<T> fmt::Debug for Offset<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{:#x}", self.0)
    }
}

/// A run of bytes in a region.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte, from the base of the region.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Span {
    /// The `len` bytes from `start` on.
    #[must_use]
    pub const fn new(start: u64, len: u64) -> Self {
        Self { start, len }
    }

    /// The byte behind the last one; saturates.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Whether the span has no bytes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Whether `other` lies wholly inside.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// Whether the spans share a byte.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// The lines that the span touches, in ascending order.
    pub fn lines(self) -> impl Iterator<Item = Line> + Clone {
        let first = self.start / LINE_BYTES;
        let end = if self.is_empty() { first } else { self.end().div_ceil(LINE_BYTES) };
        (first..end).map(Line)
    }

    /// The smallest span of whole pages that contains this one.
    #[must_use]
    pub const fn to_pages(self) -> Self {
        let start = self.start / PAGE_BYTES * PAGE_BYTES;
        Self { start, len: self.end().next_multiple_of(PAGE_BYTES) - start }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{:#x}", self.start, self.len)
    }
}

/// Index of a cache line in a region.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line(pub u64);

impl Line {
    /// The line that holds byte `offset`.
    #[must_use]
    pub const fn of(offset: u64) -> Self {
        Self(offset / LINE_BYTES)
    }

    /// The bytes of the line.
    #[must_use]
    pub const fn span(self) -> Span {
        Span::new(self.0 * LINE_BYTES, LINE_BYTES)
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spans around the borders of lines and pages, and empty ones.
    fn spans() -> Vec<Span> {
        let borders = [0, LINE_BYTES, 2 * LINE_BYTES, PAGE_BYTES, 2 * PAGE_BYTES];
        let near = borders.map(|border| [border.saturating_sub(1), border, border + 1]);
        let starts = near.as_flattened();
        starts.iter().flat_map(|start| starts.iter().map(|len| Span::new(*start, *len))).collect()
    }

    #[test]
    fn a_span_has_the_bytes_from_its_start_to_its_end() {
        assert_eq!(Span::new(5, 7).end(), 12);
        assert_eq!(Span::new(u64::MAX - 1, 5).end(), u64::MAX);
        assert!(Span::new(5, 0).is_empty() && !Span::new(0, 1).is_empty());
    }

    #[test]
    fn a_span_contains_what_has_no_byte_outside_and_overlaps_what_shares_one() {
        let small = || (0..6).flat_map(|start| (1..6).map(move |len| Span::new(start, len)));
        let has = |span: Span, byte| (span.start..span.start + span.len).contains(&byte);
        for (one, other) in small().flat_map(|one| small().map(move |other| (one, other))) {
            let shared = (0..12).filter(|byte| has(one, *byte) && has(other, *byte)).count() as u64;
            assert_eq!(one.contains(other), shared == other.len, "{one:?} {other:?}");
            assert_eq!(one.overlaps(other), shared > 0, "{one:?} {other:?}");
        }
    }

    #[test]
    fn the_lines_of_a_span_are_those_of_its_bytes() {
        // Miri takes minutes for all of them.
        for span in spans().into_iter().step_by(if cfg!(miri) { 7 } else { 1 }) {
            let holds_one = |line: &Line| {
                !span.is_empty() && line.span().start < span.end() && span.start < line.span().end()
            };
            let expected: Vec<Line> =
                (0..5 * PAGE_BYTES / LINE_BYTES).map(Line).filter(holds_one).collect();
            assert_eq!(span.lines().collect::<Vec<_>>(), expected, "{span:?}");
            assert!(expected.iter().all(|line| span.overlaps(line.span())), "{span:?}");
        }
        assert_eq!(Line::of(2 * LINE_BYTES - 1).span(), Span::new(LINE_BYTES, LINE_BYTES));
    }

    #[test]
    fn the_pages_of_a_span_hold_it_and_no_page_more() {
        for span in spans() {
            let pages = span.to_pages();
            assert!(pages.contains(span), "{span:?} in {pages:?}");
            assert!(pages.start.is_multiple_of(PAGE_BYTES) && pages.len.is_multiple_of(PAGE_BYTES));
            assert!(span.start - pages.start < PAGE_BYTES, "{span:?} in {pages:?}");
            assert!(pages.end() - span.end() < PAGE_BYTES, "{span:?} in {pages:?}");
        }
    }

    #[test]
    fn elements_of_an_array_follow_each_other_and_overflow_is_none() {
        let array = Offset::<[u64; 3]>::new(48);
        assert_eq!(array.nth(0), Some(array));
        assert_eq!(array.nth(2).map(Offset::bytes), Some(48 + 2 * 24));
        assert_eq!(array.nth(u64::MAX / 24 + 1), None);
        assert_eq!(array.nth(u64::MAX / 24), None);
    }
}
