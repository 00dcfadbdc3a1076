//! Real threads on one log: nothing is lost, and what they leave replays.

use std::thread;

use super::*;

#[test]
fn threads_append_to_one_log() {
    let fixture = Fixture::new();
    let (m, book) = (&fixture.m, &fixture.book);
    thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..500 {
                    let start = thread * 16 + round % 16;
                    let alloc = book.reserve_alloc(m, LOG, extent(start, 1)).unwrap();
                    book.write(m, &alloc);
                    m.fence();
                    book.commit(alloc);
                    if round < 495 {
                        let (free, _) = book.reserve_free(m, LOG, Page(start)).unwrap();
                        book.write(m, &free);
                        m.fence();
                        book.commit(free);
                    }
                }
            });
        }
    });
    // Without the waits of whoever finds the book full this failed when a thread lost the processor with an
    // append in flight: the tiny book fills up within one time slice.
    let (replayed, held) = fixture.replayed();
    assert_eq!(held.len(), 20);
    assert_eq!(mirrors(&replayed), mirrors(book));
    assert!(book.stats().fast_gc > 0);
}
