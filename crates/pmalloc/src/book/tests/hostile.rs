//! Damaged and hostile media: replay ends, without a panic, and says where it hurts.

use pmalloc_persist::{LINE_BYTES, Span};

use super::*;

/// A book with several chunks in two logs, frees and a cancelled hole.
fn populated() -> Fixture {
    let mut fixture = Fixture::new();
    for start in 0..2 * ENTRIES + 2 {
        fixture.alloc(LOG, start, 1);
    }
    for start in 3..6 {
        fixture.free(start);
    }
    for start in 20..24 {
        fixture.alloc(OTHER, 2 * start, 2);
    }
    let append = fixture.book.reserve_alloc(&fixture.m, OTHER, extent(0, 1)).unwrap();
    fixture.book.cancel(append);
    fixture
}

/// Replays; a book that is accepted must then work: appends, collects, and replays to the same extents.
fn survives(m: &Anon, geometry: &Geometry) -> Result<Vec<Held>> {
    let (book, held) = Book::replay(m, geometry)?;
    for log in [LOG, OTHER] {
        book.collect_fast(m, &mut lock(book.log(log)));
        assert_eq!(book.compact(m, log)?, Compacted::Done);
    }
    let (_, again) = Book::replay(m, geometry).expect("a compacted book is sound");
    assert_eq!(again, held);
    Ok(held)
}

fn bytes_of(m: &Anon, start: u64, len: u64) -> Vec<u64> {
    (0..len / 8).map(|nth| m.load(word(m, start + 8 * nth))).collect()
}

fn put(m: &Anon, start: u64, words: &[u64]) {
    for (nth, &value) in (0_u64..).zip(words) {
        m.store(word(m, start + 8 * nth), value);
    }
}

/// Whether `offset` lies in a word that carries a check which a torn write can't fail: a root, a link or a
/// header. A damaged entry can't be told from a torn one.
fn is_checked(fixture: &Fixture, offset: u64) -> bool {
    let book = fixture.geometry.book_span().start;
    let chunk_bytes = fixture.geometry.chunk_bytes;
    match offset.checked_sub(book) {
        None => offset % LINE_BYTES < 8,
        Some(in_book) => {
            let linked = [fixture.chunks(LOG), fixture.chunks(OTHER)].concat();
            let chunk = u32::try_from(in_book / chunk_bytes).unwrap();
            in_book % chunk_bytes < LINE_BYTES && linked.contains(&chunk)
        }
    }
}

#[test]
fn no_damaged_byte_makes_replay_panic_or_hang() {
    let fixture = populated();
    let book = fixture.geometry.book_span();
    let roots = Span::new(Geometry::log_roots().bytes(), 2 * LINE_BYTES);
    let sound = [roots, book].map(|span| bytes_of(&fixture.m, span.start, span.len));
    let five_chunks = Span::new(book.start, 5 * fixture.geometry.chunk_bytes);
    let all = (roots.start..roots.end()).chain(five_chunks.start..five_chunks.end());
    for (byte, mutation) in all.flat_map(|byte| (0..5).map(move |mutation| (byte, mutation))) {
        let (at, shift) = (byte / 8 * 8, byte % 8 * 8);
        let value = fixture.m.load(word(&fixture.m, at));
        let old = value >> shift & 0xff;
        let new = [old ^ 1, old ^ 0x80, 0, 0xff, old.wrapping_add(1) & 0xff][mutation];
        put(&fixture.m, at, &[value & !(0xff << shift) | new << shift]);
        let outcome = survives(&fixture.m, &fixture.geometry);
        if new != old && is_checked(&fixture, byte) {
            assert!(matches!(outcome, Err(Error::Corrupted { .. })), "{byte:#x} {old} {new}");
        }
        put(&fixture.m, roots.start, &sound[0]);
        put(&fixture.m, book.start, &sound[1]);
    }
    let model: Vec<Held> = fixture.model.values().copied().collect();
    assert_eq!(survives(&fixture.m, &fixture.geometry).unwrap(), model);
}

#[test]
fn random_words_never_make_replay_panic_or_hang() {
    let fixture = populated();
    let book = fixture.geometry.book_span();
    let sound = bytes_of(&fixture.m, book.start, book.len);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..3000 {
        for _ in 0..random.u32(1..6) {
            // Words that occur in the book, put where others belong, are the likeliest to be believed.
            let value = sound[random.usize(..240)];
            put(&fixture.m, book.start + 8 * random.u64(..240), &[value]);
        }
        drop(survives(&fixture.m, &fixture.geometry));
        put(&fixture.m, book.start, &sound);
        Book::format(&fixture.m, &fixture.geometry);
        fixture.book.area.set_link(&fixture.m, Link::Root(LOG), ChunkIndex(0));
    }
}

/// Expects [`Error::Corrupted`] that says `what`, and returns where.
fn refused(fixture: &Fixture, what: &str) -> u64 {
    match Book::replay(&fixture.m, &fixture.geometry) {
        Err(Error::Corrupted { offset, what: found }) => {
            assert!(found.contains(what), "{found}");
            offset
        }
        other => panic!("{other:?}"),
    }
}

/// Appends an entry with a good checksum behind the log's last one.
fn forge(fixture: &Fixture, log: LogId, op: EntryOp, start: u32, pages: u32) -> u64 {
    let (base, nth) = {
        let log = lock(fixture.book.log(log));
        let base = log.chunks.tail().unwrap().base;
        (base, log.next - base)
    };
    let entry = LogEntry { op, start_page: start, pages, tag: 0, sequence: base + nth };
    let place = fixture.place(log, nth);
    put(&fixture.m, place, &entry.encode(place));
    place
}

#[test]
fn impossible_entries_are_refused_with_their_place() {
    let large = EntryOp::Alloc(ExtentKind::Large);
    for (log, op, start, pages, what) in [
        (LOG, large, 10, 2, "allocated twice"),
        (LOG, EntryOp::Free, 10, 1, "another length"),
        (LOG, large, 30, 0, "outside the data area"),
        (LOG, EntryOp::Free, 0, 0, "outside the data area"),
        (LOG, large, 60, 5, "outside the data area"),
        (LOG, large, u32::MAX, u32::MAX, "outside the data area"),
        (OTHER, large, 10, 2, "overlap"),
        (OTHER, large, 11, 1, "overlap"),
        (LOG, large, 9, 2, "overlap"),
    ] {
        let mut fixture = Fixture::new();
        fixture.alloc(LOG, 10, 2);
        fixture.alloc(OTHER, 20, 1);
        let place = forge(&fixture, log, op, start, pages);
        let offset = refused(&fixture, what);
        if start != 9 {
            assert!(offset == place || what == "overlap", "{offset:#x} {place:#x}");
        }
        assert_eq!(offset % ENTRY_BYTES, 0);
    }
}

#[test]
fn a_free_whose_allocation_was_collected_has_no_effect() {
    let mut fixture = Fixture::new();
    fixture.alloc(LOG, 10, 2);
    fixture.alloc(OTHER, 20, 4);
    forge(&fixture, LOG, EntryOp::Free, 20, 1);
    let (_, held) = fixture.replayed();
    assert_eq!(held, fixture.model.values().copied().collect::<Vec<_>>());
}

#[test]
fn an_entry_of_another_number_is_refused() {
    let mut fixture = Fixture::new();
    fixture.alloc(LOG, 10, 2);
    let entry = LogEntry {
        op: EntryOp::Alloc(ExtentKind::Large),
        start_page: 0,
        pages: 1,
        tag: 0,
        sequence: 7,
    };
    let place = fixture.place(LOG, 1);
    put(&fixture.m, place, &entry.encode(place));
    assert_eq!(refused(&fixture, "another place"), place);
}

#[test]
fn chains_that_cycle_share_or_leave_the_book_are_refused() {
    let area = Fixture::new().book.area;
    for (link, target, what) in [
        (Link::After(ChunkIndex(2)), 0, "linked twice"),
        (Link::After(ChunkIndex(2)), 2, "linked twice"),
        (Link::Root(OTHER), 1, "linked twice"),
        (Link::After(ChunkIndex(2)), 3, "linked twice"),
        (Link::After(ChunkIndex(2)), 9, "no header"),
        (Link::After(ChunkIndex(2)), 64, "names no chunk"),
        (Link::Root(LOG), u32::MAX - 1, "names no chunk"),
    ] {
        let fixture = populated();
        area.set_link(&fixture.m, link, ChunkIndex(target));
        if target == 3 {
            // Chunk 3 belongs to the other log, which is replayed later.
            refused(&fixture, "no header of its log");
        } else {
            refused(&fixture, what);
        }
    }
}

#[test]
fn numbers_that_fall_back_or_overflow_are_refused() {
    for (base, what) in [(5, "fall back"), (u64::MAX - 2, "overflow"), (1 << 63, "overflow")] {
        let fixture = populated();
        let area = fixture.book.area;
        area.make(&fixture.m, ChunkIndex(9), LOG, base).unwrap();
        area.set_link(&fixture.m, Link::After(ChunkIndex(2)), ChunkIndex(9));
        let offset = refused(&fixture, what);
        assert_eq!(offset, area.span_of(ChunkIndex(9)).start);
    }
}
