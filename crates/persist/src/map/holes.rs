//! Which parts of a file have no memory, though they once had: a copy that leaves out zeros makes such holes.
//!
//! Touching one is a bus error where the file system is full. Holes are looked for only in what is said to be in use, so
//! that a huge and sparse file costs little.

use std::{io, os::fd::OwnedFd};

use super::grow::{hole_end, next_hole};
use crate::Span;

/// The parts of `spans`, whole pages in ascending order, that may have no memory. `data` is a run of bytes that is known to
/// have some, and becomes the last one found.
pub(super) fn holes_in(file: &OwnedFd, spans: &[Span], data: &mut Span) -> io::Result<Vec<Span>> {
    let mut holes: Vec<Span> = Vec::new();
    let mut spans = spans.iter().copied().filter(|span| !span.is_empty());
    let mut next = spans.next();
    while let Some(span) = next {
        if data.start <= span.start && span.start < data.end() {
            next = rest(span, data.end()).or_else(|| spans.next());
            continue;
        }
        let end = next_hole(file, span.start)?.unwrap_or(span.start);
        if end > span.start {
            *data = Span::new(span.start, end - span.start);
            continue;
        }
        let end = hole_end(file, span.start)?.min(span.end());
        add(&mut holes, Span::new(span.start, end - span.start));
        next = rest(span, end).or_else(|| spans.next());
    }
    Ok(holes)
}

/// What of `span` lies behind byte `end`.
fn rest(span: Span, end: u64) -> Option<Span> {
    (end < span.end()).then(|| Span::new(end, span.end() - end))
}

fn add(holes: &mut Vec<Span>, hole: Span) {
    match holes.last_mut() {
        Some(last) if last.end() == hole.start => last.len += hole.len,
        _ => holes.push(hole),
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::PAGE_BYTES;

    /// A file of 100 pages, of which those in `data` have memory.
    fn file(data: &[u64]) -> OwnedFd {
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(100 * PAGE_BYTES).expect("a length");
        for page in data {
            file.write_all_at(&[1; 4096], page * PAGE_BYTES).expect("written");
        }
        file.into()
    }

    fn pages(start: u64, count: u64) -> Span {
        Span::new(start * PAGE_BYTES, count * PAGE_BYTES)
    }

    #[test]
    fn only_holes_in_use_are_found() {
        let file = file(&[0, 1, 2, 5, 60, 61]);
        let find = |spans: &[Span]| {
            holes_in(&file, spans, &mut Span::new(0, 0)).expect("a file that can be asked")
        };
        assert_eq!(find(&[]), []);
        assert_eq!(find(&[pages(0, 3), pages(5, 1), pages(60, 2)]), []);
        assert_eq!(find(&[pages(1, 3), pages(60, 1)]), [pages(3, 1)]);
        assert_eq!(find(&[pages(0, 8)]), [pages(3, 2), pages(6, 2)]);
        assert_eq!(find(&[pages(3, 1), pages(4, 1)]), [pages(3, 2)], "one call for both");
        assert_eq!(find(&[pages(0, 4), pages(58, 4)]), [pages(3, 1), pages(58, 2)]);
        assert_eq!(find(&[pages(90, 20)]), [pages(90, 20)], "and behind the end");
    }

    #[test]
    fn what_is_known_to_have_memory_is_not_asked_for_again() {
        let file = file(&[0, 1, 2]);
        let mut known = Span::new(0, 0);
        assert_eq!(holes_in(&file, &[pages(0, 1)], &mut known).expect("a file"), []);
        assert_eq!(known, pages(0, 3));
        known = pages(0, 50);
        assert_eq!(holes_in(&file, &[pages(40, 1)], &mut known).expect("a file"), []);
    }
}
