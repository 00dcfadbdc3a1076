//! The tracer's counts, against sequences whose counts are known by hand, and its distances against a naive
//! model.

use std::collections::BTreeSet;

use pmalloc_persist::{Anon, Counts, Event, Line, Medium, Offset, Span, Traced, Word};
use proptest::prelude::*;

fn medium() -> Traced<Anon> {
    Traced::new(Anon::new(1 << 16))
}

fn flush(medium: &Traced<Anon>, line: u64) {
    medium.flush(Line(line).span());
}

#[test]
fn everything_is_counted() {
    let medium = medium();
    let word = medium.at::<Word>(Offset::new(8)).expect("in bounds");
    medium.store(word, 1);
    assert_eq!(medium.compare_exchange(word, 0, 2), Err(1));
    assert_eq!(medium.compare_exchange(word, 1, 2), Ok(1));
    medium.fetch_or(word, 1);
    medium.fetch_and(word, 1);
    medium.stored(Span::new(100, 30));
    medium.flush(Span::new(100, 30));
    medium.persist(Span::new(0, 8));
    let before = medium.counts();
    let expected = Counts { flushes: 3, fences: 1, bytes: 4 * 8 + 30, reflushes: [0; 9] };
    assert_eq!(before, expected);
    medium.fence();
    assert_eq!(medium.counts() - before, Counts { fences: 1, ..Counts::default() });
    medium.reset();
    assert_eq!(medium.counts(), Counts::default());
    flush(&medium, 0);
    assert_eq!(medium.counts().reflushes, [0; 9], "a reset makes every flush the first again");
}

#[test]
fn distances_count_distinct_other_lines() {
    let medium = medium();
    let distances = |lines: &[u64]| {
        medium.reset();
        lines.iter().for_each(|&line| flush(&medium, line));
        let reflushes = medium.counts().reflushes;
        (0..9).filter(|&d| reflushes[d] > 0).map(|d| (d, reflushes[d])).collect::<Vec<_>>()
    };
    assert_eq!(distances(&[1, 1, 1]), [(0, 2)]);
    assert_eq!(distances(&[1, 2, 1]), [(1, 1)]);
    assert_eq!(distances(&[1, 2, 2, 2, 1]), [(0, 2), (1, 1)]);
    assert_eq!(distances(&[0, 1, 2, 3, 4, 5, 6, 7, 0]), [(7, 1)]);
    assert_eq!(distances(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 0]), [(8, 1)]);
    assert_eq!(distances(&(0..300).chain([0]).collect::<Vec<_>>()), [(8, 1)]);
}

#[test]
fn each_thread_has_its_own_distances() {
    let medium = medium();
    flush(&medium, 0);
    std::thread::scope(|scope| scope.spawn(|| flush(&medium, 0)).join()).expect("no panic");
    assert_eq!(medium.counts().reflushes, [0; 9]);
    flush(&medium, 0);
    assert_eq!(medium.counts().reflushes[0], 1);
    assert_eq!(medium.counts().reflushes_below(4), 1);
}

#[test]
fn a_trace_names_every_step() {
    let medium = medium();
    assert!(medium.take_trace().is_empty());
    medium.start_trace();
    let word = medium.at::<Word>(Offset::new(64)).expect("in bounds");
    medium.store(word, 1);
    medium.persist(Span::new(64, 65));
    let trace = medium.take_trace();
    let shapes: Vec<(char, u64)> = trace
        .iter()
        .map(|event| match event {
            Event::Store { span, .. } => ('s', span.start),
            Event::Flush { line, .. } => ('f', line.0),
            Event::Fence { .. } => ('|', 0),
            Event::Sync { .. } => ('=', 0),
        })
        .collect();
    assert_eq!(shapes, [('s', 64), ('f', 1), ('f', 2), ('|', 0)]);
    let [Event::Store { site, .. }, Event::Flush { site: flush, .. }, ..] = &trace[..] else {
        panic!("the order was checked above")
    };
    assert!(site.file().ends_with("traced.rs") && flush.line() == site.line() + 1);
    assert_eq!(Counts::of(&trace, |_| true), medium.counts());
    assert_eq!(Counts::of(&trace, |line| line == Line(2)).flushes, 1);
    assert_eq!(Counts::of(&trace, |line| line == Line(2)).bytes, 0);
}

proptest! {
    #[test]
    fn distances_agree_with_a_naive_model(lines in prop::collection::vec(0_u64..14, 0..200)) {
        let medium = medium();
        let mut expected = [0; 9];
        for (now, line) in lines.iter().enumerate() {
            flush(&medium, *line);
            if let Some(last) = lines[..now].iter().rposition(|other| other == line) {
                let between: BTreeSet<&u64> = lines[last + 1..now].iter().collect();
                expected[between.len().min(8)] += 1;
            }
        }
        prop_assert_eq!(medium.counts().reflushes, expected);
    }
}
