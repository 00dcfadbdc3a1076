//! Goal: a heap whose file was copied by a program that leaves out zeros has memory for all that is in use before any of
//! it is touched; without room for that it is refused, and is as it was.
//!
//! Method: images of heaps, closed and crashed, on simulated media on which no page of zeros has memory. Every request for
//! memory is refused once. The simulator panics where a page without memory is touched: on a full file system, that would
//! be a bus error.

#![cfg(not(any(miri, shuttle)))]

use crate::common::{
    contents,
    image::{self, Image, Interrupted},
    options,
    shared::Shared,
    tap::Tap,
};
use pmalloc::{
    Error,
    persist::{
        Medium, PAGE_BYTES, Span,
        sim::{BackFault, Domain, Sim, SimOptions},
    },
};

#[allow(clippy::cast_possible_truncation, reason = "a page")]
const PAGE_WORDS: usize = PAGE_BYTES as usize / 8;

/// A medium that holds `image`, and memory for no page of zeros but the last one, up to which the file reaches.
fn copy_of(image: &Image) -> Sim {
    let sim = Sim::new(SimOptions { len_bytes: image::heap_bytes(), domain: Domain::Word8 });
    let last = Span::new(image::heap_bytes() - PAGE_BYTES, PAGE_BYTES);
    sim.back(last).expect("inside the medium");
    for (page, words) in image.words.chunks(PAGE_WORDS).enumerate() {
        if words.iter().all(|word| *word == 0) {
            continue;
        }
        sim.back(Span::new(page as u64 * PAGE_BYTES, PAGE_BYTES)).expect("inside the medium");
        for (word, value) in image::words(&sim)[page * PAGE_WORDS..].iter().zip(words) {
            sim.store(word, *value);
        }
    }
    sim.sync().expect("it never fails");
    sim
}

fn images() -> [Image; 5] {
    [
        image::closed(),
        image::crashed("small allocation", Interrupted::AllocSmall, None),
        image::crashed("small free", Interrupted::FreeSmall, Some(1)),
        image::crashed("large allocation", Interrupted::AllocLarge, None),
        image::crashed("large free", Interrupted::FreeLarge, Some(2)),
    ]
}

#[test]
fn what_is_in_use_has_memory_before_it_is_touched() {
    for image in images() {
        let sim = copy_of(&image);
        let before = sim.occupied_bytes().expect("simulated");
        let heap = options().open_shared(Tap::new(sim.clone())).expect(image.name);
        assert!(
            sim.occupied_bytes().expect("simulated") > before,
            "{}: no hole in use",
            image.name
        );
        assert_eq!(contents(&heap).expect("undamaged"), image.contents, "{}", image.name);
        // Every byte of every block is there.
        for block in heap.iter() {
            sim.settle(Span::new(block.offset, block.usable_bytes));
        }
        let report = heap.check().expect("readable");
        assert_eq!((report.problems, report.unowned_blocks), (Vec::new(), 0), "{}", image.name);
    }
}

#[test]
fn without_room_for_what_is_in_use_a_copy_is_refused_and_stays_as_it_was() {
    for image in images() {
        let mut refused = 0;
        for nth in 0.. {
            let sim = copy_of(&image);
            sim.fail_backs(BackFault::Once(nth));
            let first = options().open_shared(Tap::new(sim.clone()));
            let was_asked = sim.back_calls() > nth;
            match first {
                Err(Error::NoSpace { .. }) if was_asked => refused += 1,
                // The log may do without room for a copy of itself.
                first => drop(first.expect(image.name)),
            }
            let heap = options().open_shared(Tap::new(sim)).expect(image.name);
            assert_eq!(contents(&heap).expect("undamaged"), image.contents, "{}", image.name);
            if !was_asked {
                break;
            }
        }
        assert!(refused > 0, "{}: never refused", image.name);
    }
}
