//! What is salvaged of logs: a log that is whole is believed, and what only garbage names comes last and is said.

use super::*;
use crate::{error::Findings, layout::state::Clean};

/// The start of an extent that log 0 allocated and freed. The chunk with the free is log 1's since then, that with the
/// allocation is garbage that nobody made anew.
const FREED: u32 = 30;

/// A book with such an extent, and two live ones.
fn with_garbage() -> Fixture {
    let mut fixture = Fixture::new();
    // Chunk 0 is garbage soon, so that the lowest free chunk is not the one with the allocation.
    fixture.churn(LOG, 50, ENTRIES / 2);
    fixture.alloc(LOG, FREED, 2);
    fixture.churn(LOG, 50, 2);
    fixture.collect_fast(LOG);
    assert_eq!(fixture.chunks(LOG), [1]);
    // Forgets how many frees there were: the log is not to be collected by itself.
    fixture.reopen();
    let hole = fixture.book.reserve_alloc(&fixture.m, LOG, extent(52, 1)).unwrap();
    fixture.book.cancel(hole);
    fixture.free(FREED);
    fixture.churn(LOG, 50, ENTRIES / 2);
    fixture.alloc(LOG, 54, 1);
    assert_eq!(fixture.chunks(LOG), [1, 0, 2]);
    fixture.collect_fast(LOG);
    assert_eq!(fixture.chunks(LOG), [2]);
    fixture.alloc(OTHER, 56, 1);
    assert_eq!(fixture.chunks(OTHER), [0]);
    fixture
}

impl Fixture {
    /// What is salvaged of the book of a heap that was left as `clean` says.
    fn salvaged(&self, clean: Clean) -> (Vec<Held>, Findings) {
        let mut findings = Findings::default();
        let pages = self.geometry.data_pages();
        let extents = Book::salvage(&self.m, &self.geometry, (pages, clean), &mut findings);
        (extents.iter().copied().collect(), findings)
    }

    fn live(&self) -> Vec<Held> {
        self.model.values().copied().collect()
    }

    /// Leaves an entry in the log of which one word is missing.
    fn tear(&mut self, log: LogId) {
        let append = self.book.reserve_alloc(&self.m, log, extent(40, 1)).unwrap();
        self.book.write(&self.m, &append);
        let place = append.place.bytes();
        self.book.commit(append);
        self.m.store(word(&self.m, place + 8), 0);
    }

    /// Damages the link behind the log's last chunk.
    fn break_chain(&self, log: LogId) {
        let tail = *self.chunks(log).last().unwrap();
        let header = self.book.area.span_of(ChunkIndex(tail)).start;
        let next = std::mem::offset_of!(crate::layout::book::ChunkHeader, next) as u64;
        self.m.store(word(&self.m, header + next), 0x4711);
    }
}

/// A torn entry, which any crash may leave, used to count as a broken chain, for which every chunk with the log's header
/// was read: log 0 got its freed extent back, and if another log had its pages by then, that one lost them.
#[test]
fn a_torn_entry_brings_nothing_back() {
    for is_used_again in [false, true] {
        let mut fixture = with_garbage();
        if is_used_again {
            fixture.alloc(OTHER, FREED, 1);
        }
        fixture.tear(LOG);
        let (held, findings) = fixture.salvaged(Clean::No);
        assert_eq!(held, fixture.live());
        assert_eq!((findings.repaired, findings.lost), (vec![], vec![]));
    }
}

#[test]
fn a_torn_entry_in_a_closed_heap_is_damage() {
    let mut fixture = with_garbage();
    fixture.tear(LOG);
    let (_, findings) = fixture.salvaged(Clean::Closed);
    let lost: Vec<_> = findings.lost.iter().map(|finding| &*finding.what).collect();
    assert_eq!(lost, ["an entry of the bookkeeping log can't be read"]);
}

#[test]
fn what_only_garbage_names_comes_back_and_is_said() {
    let fixture = with_garbage();
    fixture.break_chain(LOG);
    let (held, findings) = fixture.salvaged(Clean::No);
    let (back, kept): (Vec<Held>, Vec<Held>) =
        held.iter().partition(|held| held.extent.range.start == Page(FREED));
    assert_eq!(kept, fixture.live());
    assert_eq!(back, [Held { extent: extent(FREED, 2), log: LOG }]);
    let [said] = &findings.repaired[..] else { panic!("{:?}", findings.repaired) };
    assert_eq!(said.offset, fixture.geometry.page_offset(Page(FREED)));
    assert_eq!(findings.lost.len(), 1, "the link: {:?}", findings.lost);
}

/// The logs used to be believed in the order of their numbers.
#[test]
fn a_whole_log_is_believed_before_a_broken_one() {
    let mut fixture = with_garbage();
    fixture.alloc(OTHER, FREED + 1, 3);
    fixture.break_chain(LOG);
    let (held, findings) = fixture.salvaged(Clean::No);
    assert_eq!(held, fixture.live());
    assert_eq!(findings.repaired, []);
    assert_eq!(findings.lost.len(), 2, "the link, and the garbage: {:?}", findings.lost);
}
