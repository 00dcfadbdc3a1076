//! The book against a naive model: an ordered map of extents.

mod explore;
mod hostile;
mod random;
mod salvage;
mod threads;

use std::collections::BTreeMap;

use pmalloc_persist::{Anon, Medium, Offset, Word, sync::lock};

use super::{
    Append, Book, Extent, Held, LogId, Request,
    chunk::{ChunkIndex, Link},
    gc::Compacted,
};
use crate::{
    Error, Result,
    layout::{
        book::{ENTRY_BYTES, EntryOp, ExtentKind, LogEntry},
        geometry::{Geometry, Page, PageRange},
    },
    tests::small_geometry,
};

const LOG: LogId = LogId(0);
const OTHER: LogId = LogId(1);

/// Entries of a chunk of [`small_geometry`].
const ENTRIES: u32 = 6;

fn extent(start: u32, pages: u32) -> Extent {
    let kind = if start.is_multiple_of(2) { ExtentKind::Large } else { ExtentKind::Slab };
    Extent { range: PageRange::new(Page(start), pages), kind, tag: start.to_le_bytes()[0] }
}

/// A book on anonymous memory, beside what it should hold.
struct Fixture {
    m: Anon,
    geometry: Geometry,
    book: Book,
    model: BTreeMap<u32, Held>,
}

impl Fixture {
    fn new() -> Self {
        let geometry = small_geometry();
        let m = Anon::new(geometry.heap_bytes());
        Book::format(&m, &geometry);
        m.fence();
        Self { m, geometry, book: Book::new(&geometry), model: BTreeMap::new() }
    }

    fn alloc(&mut self, log: LogId, start: u32, pages: u32) {
        let append = self.book.reserve_alloc(&self.m, log, extent(start, pages)).unwrap();
        self.finish(append);
    }

    fn free(&mut self, start: u32) {
        let append = self.reserve_free(start);
        self.finish(append);
    }

    fn reserve_free(&self, start: u32) -> Append {
        let held = self.model[&start];
        let (append, extent) = self.book.reserve_free(&self.m, held.log, Page(start)).unwrap();
        assert_eq!(extent, held.extent);
        append
    }

    fn finish(&mut self, append: Append) {
        self.book.write(&self.m, &append);
        self.m.fence();
        self.commit(append);
    }

    fn commit(&mut self, append: Append) {
        let held = Held { extent: append.extent, log: append.log };
        let start = held.extent.range.start.0;
        if append.entry.op == EntryOp::Free {
            assert_eq!(self.model.remove(&start), Some(held));
        } else {
            self.model.insert(start, held);
        }
        self.book.commit(append);
    }

    /// Allocates and frees `count` times: garbage.
    fn churn(&mut self, log: LogId, start: u32, count: u32) {
        for _ in 0..count {
            self.alloc(log, start, 1);
            self.free(start);
        }
    }

    fn replayed(&self) -> (Book, Vec<Held>) {
        Book::replay(&self.m, &self.geometry).unwrap()
    }

    /// Replays the book, and compares the extents with the model.
    fn replays(&self) -> Book {
        let (book, held) = self.replayed();
        assert_eq!(held, self.model.values().copied().collect::<Vec<_>>());
        book
    }

    /// Reopens, and compares the extents with the model and the mirrors with those before.
    fn reopen(&mut self) {
        let book = self.replays();
        assert_eq!(mirrors(&book), mirrors(&self.book));
        self.book = book;
    }

    fn collect_fast(&self, log: LogId) {
        self.book.collect_fast(&self.m, &mut lock(self.book.log(log)));
    }

    fn next(&self, log: LogId) -> u64 {
        lock(self.book.log(log)).next
    }

    fn chunks(&self, log: LogId) -> Vec<u32> {
        lock(self.book.log(log)).chunks.iter().map(|chunk| chunk.index.0).collect()
    }

    /// The place of the `nth` entry of the log's last chunk.
    fn place(&self, log: LogId, nth: u64) -> u64 {
        let log = lock(self.book.log(log));
        let tail = log.chunks.tail().unwrap();
        self.book.area.place(tail.index, nth).bytes()
    }
}

/// All that replay rebuilds of a book, in a comparable form.
fn mirrors(book: &Book) -> String {
    let mut text = format!("{:?}", book.pool);
    for log in &book.logs {
        let log = lock(log);
        let live: BTreeMap<_, _> = log.live.iter().collect();
        text += &format!("\n{:?} {live:?}", log.id);
        for chunk in log.chunks.iter() {
            let base = chunk.base;
            let mut frees = chunk.frees.clone();
            frees.sort_unstable();
            let counts = (chunk.live, chunk.needed, chunk.in_flight, chunk.torn);
            text += &format!("\n  {base} {:?} {counts:?} {frees:?}", chunk.index);
        }
    }
    text
}

impl Book {
    /// The extent from `start` on and the log that holds it; `None` if no log does. An extent is held from
    /// the commit of its allocation to that of its free.
    fn holds(&self, start: Page) -> Option<Held> {
        self.logs.iter().find_map(|log| {
            let log = lock(log);
            log.live.get(&start).map(|live| Held { extent: live.extent, log: log.id })
        })
    }
}

fn word(m: &Anon, offset: u64) -> &Word {
    m.at(Offset::new(offset)).unwrap()
}

#[test]
fn an_empty_book_replays_as_empty() {
    let mut fixture = Fixture::new();
    fixture.reopen();
    assert_eq!(fixture.book.stats(), super::BookStats::default());
    assert_eq!(fixture.book.compact(&fixture.m, LOG).unwrap(), Compacted::Done);
    assert_eq!(fixture.book.stats().chunks, 0);
}

#[test]
fn a_root_that_was_never_written_is_corruption() {
    let geometry = small_geometry();
    let m = Anon::new(geometry.heap_bytes());
    let error = Book::replay(&m, &geometry).unwrap_err();
    assert!(matches!(error, Error::Corrupted { offset: 12288, .. }), "{error}");
}

#[test]
fn a_book_behind_the_end_of_the_mapping_is_corruption() {
    let geometry = small_geometry();
    let m = Anon::new(geometry.book_span().end() - 1 - 4096);
    let error = Book::replay(&m, &geometry).unwrap_err();
    assert!(matches!(error, Error::Corrupted { .. }), "{error}");
}

#[test]
fn extents_of_every_kind_and_log_survive_reopening() {
    let mut fixture = Fixture::new();
    fixture.alloc(LOG, 0, 4);
    fixture.alloc(OTHER, 5, 4);
    fixture.alloc(LOG, 10, 1);
    fixture.reopen();
    fixture.free(5);
    fixture.alloc(LOG, 4, 6);
    fixture.reopen();
    assert_eq!(fixture.book.holds(Page(4)), Some(Held { extent: extent(4, 6), log: LOG }));
    assert_eq!(fixture.book.holds(Page(5)), None);
}

#[test]
fn the_chain_grows_by_chunks_and_replays() {
    let mut fixture = Fixture::new();
    for start in 0..4 * ENTRIES + 1 {
        fixture.alloc(LOG, start, 1);
        fixture.reopen();
    }
    assert_eq!(fixture.book.stats().chunks, 5);
    assert_eq!(fixture.next(LOG), u64::from(4 * ENTRIES + 1));
}

#[test]
fn a_second_free_and_a_free_in_another_log_find_nothing() {
    let mut fixture = Fixture::new();
    fixture.alloc(LOG, 3, 2);
    let pending = fixture.book.reserve_alloc(&fixture.m, LOG, extent(8, 1)).unwrap();
    let finds_nothing = |fixture: &Fixture, log, start| {
        let error = fixture.book.reserve_free(&fixture.m, log, Page(start)).unwrap_err();
        let wanted = fixture.geometry.page_offset(Page(start));
        matches!(error, Error::NotLive { offset } if offset == wanted)
    };
    assert!(finds_nothing(&fixture, LOG, 8));
    assert!(finds_nothing(&fixture, OTHER, 3));
    assert!(finds_nothing(&fixture, LOG, 4));
    let append = fixture.reserve_free(3);
    assert!(finds_nothing(&fixture, LOG, 3));
    assert!(fixture.book.holds(Page(3)).is_some(), "held until the free counts");
    fixture.book.cancel(append);
    fixture.finish(pending);
    fixture.free(3);
    assert!(fixture.book.holds(Page(3)).is_none());
    let (_, held) = fixture.replayed();
    assert_eq!(held.len(), 1);
}

#[test]
fn a_cancelled_append_leaves_a_hole_that_replay_skips() {
    let mut fixture = Fixture::new();
    for start in 0..3 {
        let append = fixture.book.reserve_alloc(&fixture.m, LOG, extent(50, 1)).unwrap();
        fixture.book.cancel(append);
        fixture.alloc(LOG, start, 1);
        fixture.reopen();
    }
    assert_eq!(fixture.next(LOG), 6);
    assert_eq!(fixture.book.stats().torn, 0);
}

#[test]
fn appends_commit_in_any_order() {
    let mut fixture = Fixture::new();
    for start in 0..ENTRIES {
        fixture.alloc(LOG, start, 1);
    }
    let second = fixture.reserve_free(1);
    let first = fixture.reserve_free(0);
    let third = fixture.book.reserve_alloc(&fixture.m, LOG, extent(20, 1)).unwrap();
    for append in [&third, &first, &second] {
        fixture.book.write(&fixture.m, append);
    }
    fixture.m.fence();
    for append in [third, first, second] {
        fixture.commit(append);
    }
    fixture.reopen();
}

#[test]
fn torn_entries_are_holes_and_the_log_goes_on_behind_them() {
    for kept in 1..15_u8 {
        let mut fixture = Fixture::new();
        fixture.alloc(LOG, 7, 2);
        let append = fixture.book.reserve_alloc(&fixture.m, LOG, extent(20, 3)).unwrap();
        let words = append.entry.encode(append.place.bytes());
        for (nth, &value) in (0_u64..).zip(&words) {
            if kept >> nth & 1 == 1 {
                fixture.m.store(word(&fixture.m, append.place.bytes() + 8 * nth), value);
            }
        }
        fixture.book.cancel(append);
        let stored = (0..4).any(|nth| kept >> nth & 1 == 1 && words[nth] != 0);
        assert!(stored, "every word of this entry has a bit");
        let (book, held) = fixture.replayed();
        assert_eq!(held.len(), 1, "a torn entry is none");
        assert_eq!(book.stats().torn, 1);
        fixture.book = book;
        assert_eq!(fixture.next(LOG), 2);
        fixture.alloc(LOG, 20, 3);
        fixture.free(7);
        fixture.reopen();
        assert_eq!(fixture.book.compact(&fixture.m, LOG).unwrap(), Compacted::Done);
        assert_eq!(fixture.book.stats().torn, 0);
        fixture.reopen();
        assert_eq!(fixture.book.stats().torn, 0);
    }
}

#[test]
fn empty_chunks_are_unlinked_wherever_they_stand_but_not_the_tail() {
    let mut fixture = Fixture::new();
    for start in 0..3 * ENTRIES {
        fixture.alloc(LOG, start, 1);
    }
    // The middle chunk becomes empty; its frees fill the fourth one.
    for start in ENTRIES..2 * ENTRIES {
        fixture.free(start);
    }
    assert_eq!(fixture.chunks(LOG), [0, 1, 2, 3]);
    fixture.collect_fast(LOG);
    assert_eq!(fixture.chunks(LOG), [0, 2, 3]);
    fixture.reopen();
    // The first and the second one now.
    for start in (0..ENTRIES).chain(2 * ENTRIES..3 * ENTRIES) {
        fixture.free(start);
    }
    let next = fixture.next(LOG);
    fixture.collect_fast(LOG);
    assert_eq!(fixture.chunks(LOG).len(), 1);
    fixture.reopen();
    assert_eq!(fixture.next(LOG), next);
}

#[test]
fn a_free_entry_outlives_the_allocation_that_it_ends() {
    let mut fixture = Fixture::new();
    // Chunk 0: a live extent and one freed in chunk 1; chunk 1: nothing but frees.
    for start in 0..ENTRIES {
        fixture.alloc(LOG, start, 1);
    }
    for start in 1..ENTRIES {
        fixture.free(start);
    }
    fixture.churn(LOG, 40, 1);
    assert_eq!(fixture.chunks(LOG).len(), 3);
    fixture.collect_fast(LOG);
    assert_eq!(fixture.chunks(LOG), [0, 1, 2], "chunk 1 is needed as long as chunk 0 is linked");
    fixture.reopen();
    fixture.collect_fast(LOG);
    assert_eq!(fixture.chunks(LOG), [0, 1, 2], "replay pins it, too");
    fixture.free(0);
    fixture.collect_fast(LOG);
    assert_eq!(fixture.chunks(LOG), [2], "one pass unlinks both, in order");
    fixture.reopen();
}

#[test]
fn a_chunk_with_an_append_in_flight_is_not_unlinked_and_the_log_not_copied() {
    let mut fixture = Fixture::new();
    let pending = fixture.book.reserve_alloc(&fixture.m, LOG, extent(30, 1)).unwrap();
    fixture.churn(LOG, 40, 2 * ENTRIES);
    fixture.collect_fast(LOG);
    assert!(fixture.chunks(LOG).contains(&0));
    assert_eq!(fixture.book.compact(&fixture.m, LOG).unwrap(), Compacted::Busy);
    fixture.finish(pending);
    fixture.reopen();
    assert_eq!(fixture.book.compact(&fixture.m, LOG).unwrap(), Compacted::Done);
    assert_eq!(fixture.book.stats().chunks, 1);
    fixture.reopen();
}

#[test]
fn copying_keeps_the_extents_and_raises_the_sequence_numbers() {
    let mut fixture = Fixture::new();
    for start in 0..2 * ENTRIES + 1 {
        fixture.alloc(LOG, start, 1);
    }
    fixture.free(4);
    let next = fixture.next(LOG);
    assert_eq!(fixture.book.compact(&fixture.m, LOG).unwrap(), Compacted::Done);
    assert_eq!(fixture.next(LOG), next + u64::from(2 * ENTRIES));
    assert_eq!(fixture.book.stats().chunks, 2);
    fixture.reopen();
    // Full to the last place: the next entry needs a chunk.
    fixture.alloc(LOG, 4, 1);
    assert_eq!(fixture.book.stats().chunks, 3);
    fixture.reopen();
}

#[test]
fn sequence_numbers_never_fall_back_even_if_nothing_is_live() {
    let mut fixture = Fixture::new();
    let mut newest = 0;
    for round in 0..40 {
        fixture.churn(LOG, 1, 1 + round % 5);
        match round % 3 {
            0 => fixture.collect_fast(LOG),
            1 => assert_eq!(fixture.book.compact(&fixture.m, LOG).unwrap(), Compacted::Done),
            _ => {}
        }
        assert!(fixture.next(LOG) > newest);
        newest = fixture.next(LOG);
        fixture.reopen();
        assert_eq!(fixture.next(LOG), newest);
    }
}

#[test]
fn churn_collects_by_itself_and_the_log_stays_short() {
    let mut fixture = Fixture::new();
    fixture.alloc(LOG, 0, 1);
    let mut longest = 0;
    for round in 0..200 {
        // Extents that live for a while keep the chunks from being empty.
        fixture.alloc(LOG, 1 + round % 20, 1);
        if round >= 15 {
            fixture.free(1 + (round + 5) % 20);
        }
        longest = longest.max(fixture.book.stats().chunks);
    }
    fixture.reopen();
    // Sixteen live extents fill 27 chunks at a tenth; a look is taken every `chunks` frees.
    assert!(longest <= 27 + 27 / 3 + 2, "{longest} chunks");
    assert!(fixture.book.stats().chunks >= 3);
    // Nothing lives: chunks become empty one after the other.
    let mut fixture = Fixture::new();
    fixture.churn(LOG, 1, 20 * ENTRIES);
    let stats = fixture.book.stats();
    assert!(stats.fast_gc > 0 && stats.slow_gc == 0 && stats.chunks <= 4, "{stats:?}");
    fixture.reopen();
    // One extent lives, and the frees of its neighbours, of theirs, and so on, are needed.
    fixture.alloc(LOG, 0, 1);
    fixture.churn(LOG, 1, 20 * ENTRIES);
    let stats = fixture.book.stats();
    assert!(stats.slow_gc > 0 && stats.chunks <= 4, "{stats:?}");
    fixture.reopen();
}

#[test]
fn a_full_book_is_a_typed_error_that_changes_nothing() {
    let mut fixture = Fixture::new();
    for start in 0..ENTRIES {
        fixture.alloc(OTHER, 2 * start, 1);
    }
    // Appends in flight keep the collectors away.
    let mut pending = Vec::new();
    let error = loop {
        let start = 1000 + u32::try_from(pending.len()).unwrap();
        match fixture.book.reserve_alloc(&fixture.m, LOG, extent(start, 1)) {
            Ok(append) => pending.push(append),
            Err(error) => break error,
        }
        assert!(pending.len() < 1000);
    };
    assert!(matches!(error, Error::OutOfMemory { requested_bytes: 256, .. }), "{error}");
    assert_eq!(pending.len(), 30 * ENTRIES as usize, "half of the book is for copies and frees");
    let before = mirrors(&fixture.book);
    assert!(fixture.book.reserve_alloc(&fixture.m, OTHER, extent(2000, 1)).is_err());
    assert_eq!(mirrors(&fixture.book), before);
    for start in 0..ENTRIES {
        fixture.free(2 * start);
    }
    for append in pending {
        fixture.book.cancel(append);
    }
    fixture.churn(LOG, 0, 100);
    assert!(fixture.book.stats().chunks <= 5, "what was cancelled is collected");
    fixture.reopen();
}

#[test]
fn a_book_that_was_full_because_an_append_stalled_goes_on_when_it_lands() {
    let mut fixture = Fixture::new();
    let stalled = fixture.book.reserve_alloc(&fixture.m, LOG, extent(30, 1)).unwrap();
    // A story: frees used to take the last chunks, and then no log could be copied ever again.
    let mut errors = 0;
    for round in 0..1000 {
        match fixture.book.reserve_alloc(&fixture.m, LOG, extent(40, 1)) {
            Ok(append) => fixture.finish(append),
            Err(_) => errors += 1,
        }
        if errors == 0 {
            match fixture.book.reserve_free(&fixture.m, LOG, Page(40)) {
                Ok((append, _)) => fixture.finish(append),
                Err(_) => errors += 1,
            }
        }
        if errors > 0 {
            break;
        }
        assert!(round < 999, "the book is never full");
    }
    fixture.finish(stalled);
    if fixture.model.contains_key(&40) {
        fixture.free(40);
    }
    fixture.churn(LOG, 40, 100);
    assert!(fixture.book.stats().chunks <= 4);
    fixture.reopen();
}

#[test]
fn every_page_can_be_an_extent_of_its_own_and_be_freed() {
    let mut fixture = Fixture::new();
    for round in 0..4 {
        for start in 0..64 {
            fixture.alloc(LogId((start + round) % 2), start, 1);
        }
        fixture.reopen();
        for start in 0..64 {
            fixture.free((start * 37 + round) % 64);
        }
        fixture.reopen();
    }
}

#[test]
#[should_panic(expected = "committed only when it was written")]
fn an_entry_that_was_not_written_is_not_committed() {
    let fixture = Fixture::new();
    let append = fixture.book.reserve_alloc(&fixture.m, LOG, extent(0, 1)).unwrap();
    fixture.book.commit(append);
}

#[test]
#[should_panic(expected = "can't be cancelled")]
fn an_entry_that_was_written_is_not_cancelled() {
    let fixture = Fixture::new();
    let append = fixture.book.reserve_alloc(&fixture.m, LOG, extent(0, 1)).unwrap();
    fixture.book.write(&fixture.m, &append);
    fixture.book.cancel(append);
}

#[test]
fn an_append_that_was_written_may_be_dropped_with_the_book() {
    let mut fixture = Fixture::new();
    fixture.alloc(LOG, 0, 1);
    let append = fixture.book.reserve_alloc(&fixture.m, LOG, extent(4, 1)).unwrap();
    fixture.book.write(&fixture.m, &append);
    drop(append);
    assert_eq!(fixture.book.compact(&fixture.m, LOG).unwrap(), Compacted::Busy);
    fixture.model.insert(4, Held { extent: extent(4, 1), log: LOG });
    fixture.book = fixture.replayed().0;
    fixture.reopen();
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "neither written nor cancelled")]
fn an_append_that_is_dropped_is_reported() {
    let fixture = Fixture::new();
    drop(fixture.book.reserve_alloc(&fixture.m, LOG, extent(0, 1)).unwrap());
}

/// A book with a place left in a chunk that is mostly garbage, and no chunk that may be taken.
fn almost_full() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.alloc(LOG, 0, 1);
    fixture.churn(LOG, 2, 2);
    let pool = &fixture.book.pool;
    pool.take_many(pool.free() - 3, 0).unwrap();
    fixture
}

/// A group of operations found the book full, although its log was mostly garbage.
#[test]
fn several_appends_find_room_that_a_copy_makes() {
    let more = |start| Request::Alloc(LOG, extent(start, 1));
    let fixture = almost_full();
    let (book, m) = (&fixture.book, &fixture.m);
    let first = book.reserve_alloc(m, LOG, extent(2, 1)).unwrap();
    let error = book.reserve_alloc(m, LOG, extent(4, 1)).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "the first is in its way: {error}");
    book.cancel(first);

    let mut fixture = almost_full();
    let requests = [more(2), more(4), Request::Free(LOG, Page(0)), more(6)];
    let mut appends = Vec::new();
    fixture.book.reserve_all(&fixture.m, requests.into_iter(), &mut appends).unwrap();
    appends.into_iter().for_each(|append| fixture.finish(append));
    fixture.replays();
}

#[test]
fn appends_of_which_one_can_not_be_are_none() {
    let mut fixture = almost_full();
    let (book, m) = (&fixture.book, &fixture.m);
    let too_many: Vec<Request> =
        (1..30).map(|page| Request::Alloc(LOG, extent(2 * page, 1))).collect();
    let error = book.reserve_all(m, too_many.into_iter(), &mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    let twice = [Request::Free(LOG, Page(0)); 2];
    let error = book.reserve_all(m, twice.into_iter(), &mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::NotLive { .. }), "{error}");
    assert_eq!(lock(book.log(LOG)).in_flight, 0);
    fixture.free(0);
    fixture.replays();
}
