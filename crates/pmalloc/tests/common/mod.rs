//! What the tests of damaged heaps share: a heap in which everything is small, images of it, and a program that uses
//! whatever opens.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod child;
pub(crate) mod image;
pub(crate) mod shared;
pub(crate) mod tap;
pub(crate) mod watchdog;

use shared::{Raw, Shared};
use std::{alloc::Layout, hint::black_box, mem::discriminant, sync::Arc};

use pmalloc::{
    BlockLayout, Error, Heap, HeapOptions, Policy, Slot, TestGeometry,
    persist::{Anon, Medium},
};

/// The root arrays of every image, and how many slots they have.
pub(crate) const ROOTS: [(&str, u64); 2] = [("first", 24), ("second", 8)];

/// Sizes that make slabs of several classes, and large blocks.
pub(crate) const SIZES: [usize; 8] = [16, 48, 200, 900, 3000, 9000, 20_000, 33_000];

/// Options of a heap in which a full ring, chunk or slab is a few operations away.
pub(crate) fn options() -> HeapOptions {
    // Images of crashed heaps stop at a certain fence of an operation.
    Heap::options().policy(Policy::Eager).test_geometry(TestGeometry {
        capacity_bytes: 256 << 10,
        slab_bytes: 16 << 10,
        ring_places: 8,
        lanes: 2,
        chunk_bytes: 256,
        logs: 2,
        roots: 8,
        stripes: 3,
    })
}

/// A layout of `size` bytes; some sizes have a tag, so that every image holds tagged slabs and extents.
pub(crate) fn layout(size: usize) -> BlockLayout {
    let layout = Layout::from_size_align(size, 8).expect("a small layout");
    BlockLayout::new(layout).with_tag(tag_of(size))
}

/// The tag of blocks of `size` bytes.
fn tag_of(size: usize) -> u8 {
    match size {
        48 => 1,
        20_000 => 200,
        _ => 0,
    }
}

/// Fills a block with a byte that tells it from others.
pub(crate) fn fill(id: usize) -> impl FnOnce(&mut [u8]) {
    move |bytes| bytes.fill((id * 37 + 11).to_le_bytes()[0])
}

/// What came of a heap with damaged metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Outcome {
    /// It was not opened, or its roots were refused.
    Refused,
    /// It opened, and a check says what is wrong.
    Reported,
    /// Nothing says that anything is wrong, and the slots read other than before.
    Silent,
    /// Nothing is wrong.
    Harmless,
}

/// Opens the heap on `m`, checks it, reads and changes all that its roots reach, closes it, and opens it once more.
///
/// Whatever the bytes are, every call has to return. `contents` is what [`contents`] said before the damage.
pub(crate) fn exercise(m: &Arc<Anon>, contents: u64) -> Outcome {
    let heap = match options().open_shared(Arc::clone(m)) {
        Ok(heap) => heap,
        Err(refused) => {
            assert_check_says_so(m, &refused);
            return Outcome::Refused;
        }
    };
    let outcome = judge(&heap, contents);
    let mut found = outcome;
    for (name, count) in ROOTS {
        match heap.slots(name, count) {
            Ok(slots) => work(&heap, slots),
            Err(_) => found = Outcome::Refused,
        }
    }
    black_box(heap.check().is_ok_and(|report| report.problems.is_empty()));
    black_box(heap.trim().is_ok());
    heap.close().expect("anonymous memory synchronizes");
    // What this session did to the damaged heap must open or be refused, too.
    if let Ok(heap) = options().open_shared(Arc::clone(m)) {
        black_box(heap.check().is_ok());
        black_box(heap.roots().is_ok());
        for (name, _) in ROOTS {
            black_box(heap.root_remove(name).is_ok());
        }
        heap.close().expect("anonymous memory synchronizes");
    }
    found
}

/// Asserts that a check finds something wrong with a heap that opening refused, or refuses it likewise.
fn assert_check_says_so(m: &Arc<Anon>, refused: &Error) {
    match options().check_on(Arc::clone(m)) {
        Ok(report) => assert!(!report.problems.is_empty(), "check says nothing of: {refused}"),
        // It looks further than opening, which ends at the loss of power, and finds what a newer program wrote.
        Err(Error::Version { .. }) if matches!(refused, Error::PowerLoss) => {}
        Err(error) => assert_eq!(discriminant(&error), discriminant(refused), "{error}, {refused}"),
    }
}

fn judge(heap: &Heap<Arc<Anon>>, before: u64) -> Outcome {
    let whole = heap.check().is_ok_and(|report| report.problems.is_empty());
    let blocks = heap.blocks();
    let apart = |pair: &[pmalloc::Block]| pair[0].offset + pair[0].usable_bytes <= pair[1].offset;
    assert!(blocks.windows(2).all(apart), "live blocks overlap");
    let end = heap.raw().region().len();
    assert!(blocks.iter().all(|block| block.offset + block.usable_bytes <= end), "out of bounds");
    black_box(heap.stats().is_ok());
    match contents(heap) {
        _ if !whole => Outcome::Reported,
        Ok(now) if now == before => Outcome::Harmless,
        Ok(_) => Outcome::Silent,
        Err(_) => Outcome::Refused,
    }
}

/// A hash of all that the slots of all roots read, and of the tags of the live blocks.
pub(crate) fn contents<M: Medium>(heap: &Heap<M>) -> Result<u64, Error> {
    let guard = heap.pin();
    let tags = heap.blocks().into_iter().map(|block| u64::from(block.tag) + 1);
    let mut hash = tags.fold(0_u64, |hash, tag| hash.wrapping_mul(31).wrapping_add(tag));
    for (name, count) in ROOTS {
        for slot in heap.slots(name, count)? {
            let bytes = slot.get(&guard).unwrap_or_default();
            let sum = bytes.iter().fold(bytes.len() as u64, |sum, byte| {
                sum.rotate_left(5).wrapping_add(u64::from(*byte))
            });
            hash = (hash ^ sum).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
        }
    }
    Ok(hash)
}

/// Frees what is full and fills what is empty, twice over.
fn work(heap: &Heap<Arc<Anon>>, slots: &[Slot]) {
    for round in 0..2 {
        for (at, slot) in slots.iter().enumerate() {
            let size = SIZES[(at + round) % SIZES.len()];
            let is_empty = slot.is_empty(&heap.pin());
            let done = match is_empty {
                true => heap.alloc_init(slot, layout(size), fill(at)),
                false => heap.free_from(slot).and_then(|()| heap.alloc_to(slot, layout(size))),
            };
            black_box(done.is_ok());
            if at % 5 == 0 {
                black_box(heap.free_from(slot).is_ok());
            }
        }
    }
}
