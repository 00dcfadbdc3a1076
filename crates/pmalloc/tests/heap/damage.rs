//! Goal: damage of a heap's file is noticed before the heap gives memory away that somebody owns, and one damaged line hides no
//! more than what stood in it.
//!
//! Method: each line of the root table is zeroed in turn; each live bit of crashed heaps, of which no checksum tells, is
//! cleared in turn. Whatever opens is used up, and nothing that was owned may come out of it a second time. What a close
//! seals is flipped bit by bit elsewhere (`src/tests/sealed.rs`).

// The schedule tester owns the threads there.
#![cfg(not(shuttle))]

use std::{collections::BTreeSet, sync::Arc};

use crate::common::{
    ROOTS, fill,
    image::{self, Image, Interrupted},
    layout, options,
    shared::Shared,
};
use pmalloc::{
    Error, Heap, Persistent, Problem, ProblemKind, Slot,
    persist::{Anon, Medium, Span},
};

const LINE: u64 = 64;

fn medium(image: &Image) -> Arc<Anon> {
    let m = Arc::new(Anon::new(image::heap_bytes()));
    image.restore(&m);
    m
}

fn zero_line(m: &Anon, at: u64) {
    (at..at + LINE).for_each(|byte| image::set_byte(m, byte, 0));
}

fn problems_of(m: &Arc<Anon>) -> Vec<Problem> {
    options().check_on(Arc::clone(m)).expect("readable").problems
}

/// A zeroed line of an entry used to look like the end of the table: the roots behind it were gone, and nothing said so.
#[test]
fn a_zeroed_line_of_the_root_table_hides_no_other_root() {
    let crashed = image::crashed("crashed in alloc", Interrupted::AllocSmall, None);
    for image in [image::closed(), crashed] {
        let table = options().area("root table").expect("it has one");
        let mut refused = 0;
        for line in (table.start..table.end()).step_by(64) {
            let m = medium(&image);
            zero_line(&m, line);
            if !image.is_line_used(line) {
                let heap = options().open_shared(m).expect("nothing changed");
                assert_eq!(heap.roots().expect("whole").len(), ROOTS.len());
                continue;
            }
            assert_ne!(problems_of(&m), [], "{}, {line:#x}", image.name);
            // With its slot a root lost its place in the table; without its name it keeps its block from others.
            match options().open_shared(Arc::clone(&m)) {
                Err(Error::Corrupted { .. }) => refused += 1,
                Err(error) => panic!("{line:#x}: {error}"),
                Ok(heap) => assert_others_are_there(&heap, line, table),
            }
            options().salvage_on(&m).expect("it can be mended");
            let heap = options().open_shared(m).expect("it was mended");
            let names: Vec<String> =
                heap.roots().expect("whole").into_iter().map(|root| root.name).collect();
            assert_eq!(names, [ROOTS[1 - entry_of(line, table)].0], "{line:#x}");
        }
        assert_eq!(refused, ROOTS.len(), "{}", image.name);
    }
}

fn entry_of(line: u64, table: Span) -> usize {
    usize::try_from((line - table.start) / 128).expect("small")
}

fn assert_others_are_there(heap: &Heap<Arc<Anon>>, line: u64, table: Span) {
    for (nth, (name, count)) in ROOTS.into_iter().enumerate() {
        let is_damaged = nth == entry_of(line, table);
        match heap.slots(name, count) {
            Ok(_) => assert!(!is_damaged, "{line:#x}: {name} is damaged"),
            Err(error) => {
                assert!(is_damaged && matches!(error, Error::Corrupted { .. }), "{error}");
            }
        }
    }
}

/// Where the words of the bitmaps are, with those of their bits that are set.
fn live_words(image: &Image) -> Vec<(u64, u64)> {
    let magic = u64::from_le_bytes(*b"PMALSLAB");
    let lines = options().area("descriptors").expect("it has some");
    let word = |at| image.words[image::word_index(at)];
    let in_bitmap = |at: &u64| word(at / LINE * LINE) != magic;
    (lines.start..lines.end()).step_by(8).filter(in_bitmap).map(|at| (at, word(at))).collect()
}

/// The blocks that the slots of all roots own, and those of the roots.
fn owned(heap: &Heap<Arc<Anon>>) -> BTreeSet<u64> {
    let guard = heap.pin();
    let mut owned: BTreeSet<u64> =
        heap.roots().expect("whole").iter().map(|root| root.offset).collect();
    for (name, count) in ROOTS {
        let slots = heap.slots(name, count).expect("it exists");
        owned.extend(slots.iter().filter_map(|slot| slot.offset(&guard)));
    }
    owned
}

/// A cleared bit used to give the block away: of a root, its slots were overwritten by what was allocated next.
#[test]
fn no_live_bit_of_a_crashed_heap_is_missed_where_a_root_or_a_slot_of_it_tells() {
    for (name, interrupted, seed) in [
        ("crashed in alloc, small, oldest", Interrupted::AllocSmall, None),
        ("crashed in free, small, newest", Interrupted::FreeSmall, Some(0)),
        ("crashed in alloc, large, sampled", Interrupted::AllocLarge, Some(7)),
    ] {
        let image = image::crashed(name, interrupted, seed);
        let before = owned(&options().open_shared(medium(&image)).expect("whole"));
        let mut refused = 0;
        for (at, word) in live_words(&image) {
            for bit in (0..64).filter(|bit| word >> bit & 1 == 1) {
                let m = medium(&image);
                let byte = at + bit / 8;
                image::set_byte(&*m, byte, image.byte(byte) & !(1 << (bit % 8)));
                let heap = match options().open_shared(Arc::clone(&m)) {
                    Ok(heap) => heap,
                    Err(Error::Corrupted { .. }) => {
                        assert_ne!(problems_of(&m), [], "{name}");
                        refused += 1;
                        continue;
                    }
                    Err(error) => panic!("{name}: {error}"),
                };
                // The bit of the block in flight: recovery sets it.
                assert!(owned(&heap).is_subset(&before), "{name}, {at:#x}, {bit}");
                let blocks: BTreeSet<u64> = heap.iter().map(|block| block.offset).collect();
                assert!(blocks.is_superset(&owned(&heap)), "{name}, {at:#x}, {bit}");
            }
        }
        assert!(refused > 10, "{name}: {refused}");
    }
}

#[test]
fn the_error_names_the_root_that_has_no_block() {
    let image = image::crashed("crashed", Interrupted::AllocSmall, None);
    let m = medium(&image);
    for (at, _) in live_words(&image) {
        (at..at + 8).for_each(|byte| image::set_byte(&*m, byte, 0));
    }
    let errors: Vec<String> = problems_of(&m).into_iter().map(|problem| problem.text).collect();
    for (name, _) in ROOTS {
        assert!(errors.iter().any(|text| text.contains(&format!("root {name:?}"))), "{errors:?}");
    }
    let error = options().open_shared(m).expect_err("nothing is live").to_string();
    assert!(error.contains("pmalloc check"), "{error}");
}

/// A root with a slot of its own.
#[derive(Persistent)]
#[repr(C)]
struct Head {
    first: Slot,
    other: [Slot; 3],
}

fn head() -> Head {
    Head { first: Slot::new(), other: std::array::from_fn(|_| Slot::new()) }
}

/// The heap on `m` as a crash leaves it.
fn crashed(m: &Anon) -> Image {
    let words = image::words(m).iter().map(|word| m.load(word)).collect();
    Image { name: "typed", words, arrays: Vec::new(), contents: 0 }
}

/// The image with each word of its bitmaps cleared in turn that has a bit.
fn cleared(image: &Image) -> impl Iterator<Item = Arc<Anon>> {
    let words = live_words(image).into_iter().filter(|(_, word)| *word != 0);
    words.map(|(at, _)| {
        let m = medium(image);
        (at..at + 8).for_each(|byte| image::set_byte(&*m, byte, 0));
        m
    })
}

/// Where a typed root has slots is declared when it is made.
#[test]
fn a_crashed_heap_with_a_typed_root_whose_slot_dangles_is_refused() {
    for nth in 0..4 {
        let m = Arc::new(Anon::new(image::heap_bytes()));
        let heap = options().create_shared(Arc::clone(&m)).expect("room");
        let root = heap.root("head", head).expect("room");
        let slots: Vec<&Slot> = std::iter::once(&root.first).chain(&root.other).collect();
        // Of a class that the root has not, so that the bits of the two are in different slabs.
        heap.alloc_init(slots[nth], layout(900), fill(1)).expect("room");
        let slot = heap.offset_of(std::ptr::from_ref(slots[nth]).cast()).expect("in the heap");
        let image = crashed(&m);
        let mut is_told = false;
        for m in cleared(&image) {
            let problems = problems_of(&m);
            is_told |= problems
                .iter()
                .any(|found| found.kind == ProblemKind::Dangling && found.offset == slot);
            // Whoever else has a bit is a root, or the block of the declarations.
            let opened = options().open_shared(m).map(drop);
            assert!(matches!(opened, Err(Error::Corrupted { .. })), "{opened:?}");
            assert!(!problems.is_empty(), "the check tells as well");
        }
        assert!(is_told, "one of the bits is that of the block");
        let heap = options().open_shared(medium(&image)).expect("whole");
        heap.root("head", head).expect("whole");
    }
}

/// Slots at unequal distances, too many to be declared.
#[derive(Persistent)]
#[repr(C)]
struct Wide {
    rows: [Row; 4200],
}

#[derive(Persistent)]
#[repr(C)]
struct Row {
    slots: [Slot; 2],
    number: u64,
}

/// Where nothing is declared, what the slots of a typed root are is known when it is asked for.
#[test]
fn a_typed_root_of_a_crashed_heap_is_not_handed_out_with_a_slot_that_dangles() {
    let m = Arc::new(Anon::new(image::heap_bytes()));
    let heap = options().create_shared(Arc::clone(&m)).expect("room");
    let root = heap.root("wide", Wide::zeroed).expect("room");
    heap.alloc_init(&root.rows[4100].slots[1], layout(900), fill(1)).expect("room");
    let mut count = 0;
    for m in cleared(&crashed(&m)) {
        let heap = options().open_shared(m).expect("nothing tells of the slot");
        match heap.root("wide", Wide::zeroed) {
            Err(Error::Corrupted { what, .. }) => assert!(what.contains("\"wide\""), "{what}"),
            other => panic!("{:?}", other.map(drop)),
        }
        count += 1;
    }
    assert_eq!(count, 1, "the root is no block of a slab");
}

#[test]
fn a_lane_that_has_used_up_its_numbers_begins_again() {
    let image = image::closed();
    let medium = Arc::new(Anon::new(image::heap_bytes()));
    image.restore(&medium);
    let areas = options().areas().expect("valid options");
    let lanes = areas.iter().find(|(name, _)| *name == "lanes").expect("there are lanes").1;
    // The mark of residue 7, sealed: the value and the exclusive or of its 16-bit parts with a constant.
    let last = (1_u64 << 40) - 1;
    let check = (last ^ last >> 16 ^ last >> 32 ^ 0x5ea1) & 0xffff;
    let mark = &image::words(&*medium)[image::word_index(lanes.start + 64 + 7 * 64)];
    medium.store(mark, last | check << 48);
    let heap = options().open_shared(Arc::clone(&medium)).expect("opened");
    let empty = |heap: &Heap<Arc<Anon>>| {
        let slots = heap.slots("first", 24).expect("it exists");
        let guard = heap.pin();
        slots.iter().position(|slot| slot.is_empty(&guard)).expect("one is empty")
    };
    let at = empty(&heap);
    heap.alloc_to(&heap.slots("first", 24).expect("it exists")[at], layout(16)).expect("room");
    assert_eq!(heap.check().expect("readable").problems, []);
    let mark = &image::words(&*medium)[image::word_index(lanes.start + 64 + 64)];
    assert_eq!(
        medium.load(mark) & ((1 << 48) - 1),
        1,
        "the first operation of a lane that began again"
    );
    drop(heap);
    let heap = options().open_shared(medium).expect("opened");
    assert_ne!(empty(&heap), at);
}
