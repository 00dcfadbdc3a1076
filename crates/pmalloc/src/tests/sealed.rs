//! Goal: every single flipped bit in a checksummed part of a heap is noticed before the heap is served, or by check.
//!
//! Method: the sealed parts of small heaps are found by reading them as recovery does; each of their bits is flipped in
//! turn, and the heap is checked without being opened.

use super::common::shared::Shared;
use std::sync::Arc;

use pmalloc_persist::{Anon, Medium, Offset, Span, Word};

use super::common::{
    image::{self, Image, Interrupted},
    options,
};
use crate::{
    book::Book,
    lane,
    layout::{
        book::{ChunkHeader, ENTRY_BYTES, ExtentKind, LogEntry, LogRoot},
        geometry::Geometry,
        lane::{LaneHeader, MARK_LINES},
        root::RootEntry,
        sealed::unseal,
        slab::SlabHeader,
        slot::SlotWord,
        state::{Policy, State},
        superblock::Superblock,
    },
    recovery::superblock_places,
    slab::Descriptor,
    tests::small_geometry,
};

const LINE: u64 = 64;

/// What a checksum covers that counts in a heap that was closed.
const OF_CLOSE: &str = "part that a close seals";

/// A sealed part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    what: &'static str,
    span: Span,
}

fn part(what: &'static str, start: u64, len: usize) -> Part {
    Part { what, span: Span::new(start, len as u64) }
}

fn word(m: &Anon, offset: u64) -> u64 {
    m.load(m.at::<Word>(Offset::new(offset)).expect("inside"))
}

/// Every sealed part of the heap on `m`.
fn sealed_parts(m: &Anon) -> Vec<Part> {
    let geometry = small_geometry();
    let mut parts: Vec<Part> = superblock_places()
        .map(|place| part("superblock", place, size_of::<Superblock>()))
        .to_vec();
    let state = Geometry::state();
    for at in [
        std::mem::offset_of!(State, clean),
        std::mem::offset_of!(State, durable_epoch),
        std::mem::offset_of!(State, policy),
        std::mem::offset_of!(State, grown_pages),
        std::mem::offset_of!(State, roots_used),
    ] {
        parts.push(part("state word", state + at as u64, 8));
    }
    parts.push(part(OF_CLOSE, state + std::mem::offset_of!(State, roots_check) as u64, 8));
    parts.push(part("owner", state + std::mem::offset_of!(State, owner) as u64, 64));
    for log in 0..geometry.logs {
        add_log(m, &geometry, log, &mut parts);
    }
    add_lanes(m, &geometry, &mut parts);
    let (_, held) = Book::replay(m, &geometry).expect("undamaged");
    for held in held.iter().filter(|held| held.extent.kind == ExtentKind::Slab) {
        let start = geometry.descriptor_of(held.extent.range).start;
        let check = std::mem::offset_of!(SlabHeader, bits_check);
        parts.push(part("slab header", start, check));
        parts.push(part(OF_CLOSE, start + check as u64, 8));
        let slab = Descriptor::open(m, &geometry, held.extent.range).expect("undamaged");
        let bits = slab.bitmap(m).expect("inside");
        parts.push(part(OF_CLOSE, start + LINE, size_of_val(bits)));
    }
    for index in 0..u64::from(geometry.roots) {
        let entry = Geometry::root_table().nth(index).expect("inside").bytes();
        let slot = std::mem::offset_of!(RootEntry, slot);
        if SlotWord::from_bits(word(m, entry + slot as u64)).place().is_some() {
            parts.push(part("root", entry, slot));
            parts.push(part(OF_CLOSE, entry + slot as u64, 8));
        }
    }
    parts
}

fn add_log(m: &Anon, geometry: &Geometry, log: u32, parts: &mut Vec<Part>) {
    let root = Geometry::log_roots().nth(u64::from(log)).expect("inside").bytes();
    assert_eq!(size_of::<LogRoot>() as u64, LINE);
    parts.push(part("log root", root, 8));
    let mut link = unseal(word(m, root)).expect("undamaged");
    while link != 0 {
        let chunk = geometry.book_span().start + (link - 1) * geometry.chunk_bytes;
        parts.push(part("chunk header", chunk, size_of::<ChunkHeader>()));
        for nth in LINE / ENTRY_BYTES..geometry.chunk_bytes / ENTRY_BYTES {
            let place = chunk + nth * ENTRY_BYTES;
            let words = [0, 8, 16, 24].map(|at| word(m, place + at));
            if LogEntry::decode(words, place).is_some() {
                parts.push(part("entry", place, 32));
            }
        }
        let next = word(m, chunk + std::mem::offset_of!(ChunkHeader, next) as u64);
        link = if next == 0 { 0 } else { unseal(next).expect("undamaged") };
    }
}

fn add_lanes(m: &Anon, geometry: &Geometry, parts: &mut Vec<Part>) {
    for index in 0..geometry.lanes {
        let directory = geometry.directory().nth(u64::from(index)).expect("inside").bytes();
        parts.push(part("directory word", directory, 8));
        if word(m, directory) == 0 {
            continue;
        }
        let lane = geometry.lane_span(index).start;
        parts.push(part("lane header", lane, size_of::<LaneHeader>()));
        for line in 1..=MARK_LINES {
            parts.push(part("mark", lane + line * LINE, 8));
        }
    }
}

/// Whether anything is said about the heap on `m`.
fn is_noticed(m: &Arc<Anon>) -> bool {
    options().check_on(Arc::clone(m)).map_or(true, |report| !report.problems.is_empty())
}

/// Flips every bit of every sealed part; `excuse` tells of words that may change unnoticed to a value.
fn flip_all(image: &Image, excuse: impl Fn(&Part, u64) -> bool) -> Vec<&'static str> {
    let m = Arc::new(Anon::new(image::heap_bytes()));
    image.restore(&m);
    assert!(!is_noticed(&m), "{}: nothing is wrong yet", image.name);
    image.restore(&m);
    let parts = sealed_parts(&m);
    let mut flips = 0;
    for sealed in &parts {
        for at in (sealed.span.start..sealed.span.end()).step_by(8) {
            for bit in 0..64 {
                image.restore(&m);
                let value = word(&m, at) ^ (1 << bit);
                m.store(m.at(Offset::new(at)).expect("inside"), value);
                flips += 1;
                assert!(
                    is_noticed(&m) || excuse(sealed, value),
                    "{}: bit {bit} of {at:#x}, in a {}, is flipped unnoticed",
                    image.name,
                    sealed.what
                );
            }
        }
    }
    println!("{}: {flips} flips in {} parts", image.name, parts.len());
    parts.into_iter().map(|part| part.what).collect()
}

#[test]
fn every_flipped_bit_of_a_closed_heap_is_noticed() {
    let kinds = flip_all(&image::closed(), |_, _| false);
    for what in [
        "superblock",
        "state word",
        "owner",
        "log root",
        "chunk header",
        "entry",
        "directory word",
        "lane header",
        "mark",
        "slab header",
        "root",
        OF_CLOSE,
    ] {
        assert!(kinds.contains(&what), "no {what} in the image");
    }
}

#[test]
fn every_flipped_bit_of_a_crashed_heap_is_noticed_but_where_it_looks_torn() {
    // An entry that lacks a word is what an interrupted append leaves; and the mark that retires the record in flight
    // may be what a crash kept from being written, so its line is empty and a flip there is damage: noticed.
    let looks_torn =
        |part: &Part, value: u64| part.what == OF_CLOSE || part.what == "entry" && value == 0;
    for (name, interrupted, seed) in [
        ("crashed in alloc, small, oldest", Interrupted::AllocSmall, None),
        ("crashed in free, large, sampled", Interrupted::FreeLarge, Some(3)),
    ] {
        flip_all(&image::crashed(name, interrupted, seed), looks_torn);
    }
}

/// A heap with one flipped bit used to open, and to hand out memory that slots owned: in a file that a program has kept for
/// months, one bit of which a disk returned wrong.
#[test]
fn every_flipped_bit_of_what_a_close_seals_is_refused_and_salvaged_without_a_loss() {
    let image = image::closed();
    let m = Arc::new(Anon::new(image::heap_bytes()));
    image.restore(&m);
    let parts = sealed_parts(&m);
    let mut flips = 0;
    for part in parts.iter().filter(|part| part.what == OF_CLOSE) {
        for at in (part.span.start..part.span.end()).step_by(8) {
            for bit in 0..64 {
                image.restore(&m);
                m.store(m.at(Offset::new(at)).expect("inside"), word(&m, at) ^ 1 << bit);
                let error = options().open_shared(Arc::clone(&m)).expect_err("a bit is wrong");
                assert!(matches!(error, crate::Error::Corrupted { .. }), "{at:#x}, {bit}: {error}");
                flips += 1;
                let report = options().salvage_on(&m).expect("it can be mended");
                let heap = options().open_shared(Arc::clone(&m)).expect("it was mended");
                assert_eq!(report.lost, [], "{at:#x}, {bit}");
                assert_eq!(super::common::contents(&heap).expect("whole"), image.contents);
            }
        }
    }
    println!("{flips} flips");
    assert!(flips > 2000, "{flips}");
}

#[test]
fn a_closed_heap_with_a_record_in_flight_opens_and_is_reported() {
    let image = image::closed();
    let m = Arc::new(Anon::new(image::heap_bytes()));
    image.restore(&m);
    let geometry = small_geometry();
    let left = lane::Left { is_closed: true, policy: Policy::Eager, durable: 0 };
    let lanes = lane::replay(&*m, &geometry, left).expect("undamaged");
    let lane = &lanes[0];
    assert_eq!(lane.stray, None);
    let ring = geometry.lane_span(lane.index).start + (1 + MARK_LINES) * LINE;
    let number = ring + std::mem::offset_of!(crate::layout::lane::RecordWords, number) as u64;
    let stale = word(&m, number);
    assert_ne!(stale & 0xff_ffff_ffff, 0, "the ring's first place was used");
    let (mask, next) = (0xff_ffff_ffff_u64, lane.newest_mark + 1);
    m.store(m.at(Offset::new(number)).expect("inside"), stale & !mask | next);
    let report = options().check_on(Arc::clone(&m)).expect("it can be served");
    assert!(report.problems.iter().any(|p| p.offset == ring), "{report:?}");
    // The check wiped the ring; what the record says was not done.
    let heap = options().open_shared(Arc::clone(&m)).expect("it can be served");
    assert_eq!(super::common::contents(&heap).expect("undamaged"), image.contents);
}

#[test]
fn either_superblock_copy_serves_and_the_other_is_reported() {
    let image = image::closed();
    let m = Arc::new(Anon::new(image::heap_bytes()));
    for place in superblock_places() {
        image.restore(&m);
        m.store(m.at(Offset::new(place + 16)).expect("inside"), 1);
        let heap = options().open_shared(Arc::clone(&m)).expect("served by the other copy");
        let problems = heap.check().expect("readable").problems;
        assert_eq!(problems.iter().map(|problem| problem.offset).collect::<Vec<_>>(), [place]);
    }
}

#[test]
fn a_damaged_root_hides_no_other_and_keeps_its_name_from_being_taken() {
    let m = Arc::new(Anon::new(image::heap_bytes()));
    let heap = options().create_shared(Arc::clone(&m)).expect("created");
    for name in ["first", "second"] {
        heap.slots(name, 8).expect("room");
    }
    heap.close().expect("closed");
    let entry = Geometry::root_table().bytes();
    m.store(m.at(Offset::new(entry)).expect("inside"), 1);

    let heap = options().open_shared(Arc::clone(&m)).expect("it can be served");
    assert_eq!(heap.slots("second", 8).expect("it is whole").len(), 8);
    for name in ["first", "third"] {
        let error = heap.slots(name, 8).expect_err("it may be the damaged one");
        assert!(
            matches!(error, crate::Error::Corrupted { offset, .. } if offset == entry),
            "{error}"
        );
    }
}
