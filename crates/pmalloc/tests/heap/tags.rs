//! Goal: a block has the tag that it was allocated with as long as it lives, and lies among blocks of its tag only.
//!
//! Method: random allocations and frees of tagged blocks of all sizes, by every operation that allocates, against a model;
//! the heap is closed and recovered between rounds. A crash between the record of a large block and its effects, where
//! only the record knows the tag, is one image here and explored by `pmalloc-verify`.

use crate::common::shared::Shared;
use std::{alloc::Layout, collections::BTreeMap, sync::Arc};

use crate::common::image::{self, Interrupted};
use pmalloc::{
    Block, BlockLayout, Heap, Slot,
    persist::{Anon, Medium},
};

const TAGS: [u8; 5] = [0, 1, 7, 128, 255];
const SIZES: [usize; 6] = [16, 64, 700, 6000, 20_000, 100_000];

fn block(size: usize, tag: u8) -> BlockLayout {
    BlockLayout::new(Layout::from_size_align(size, 8).expect("a small layout")).with_tag(tag)
}

/// Allocates into the empty `slot` by one of the ways that there are, and leaves a block of `wanted` there.
fn allocate<M: Medium>(heap: &Heap<M>, slot: &Slot, wanted: BlockLayout, way: u32) {
    match way {
        0 => heap.alloc_to(slot, wanted).expect("room"),
        1 => heap.alloc_init(slot, wanted, |bytes| bytes.fill(1)).expect("room"),
        2 => {
            let reserved = heap.reserve(wanted).expect("room");
            let mut publish = heap.publish();
            publish.alloc(slot, reserved);
            publish.commit().expect("the slot is empty");
        }
        3 => {
            heap.alloc_to(slot, block(16, wanted.tag().wrapping_add(1))).expect("room");
            heap.replace(slot, wanted, |bytes| bytes.fill(1)).expect("room");
        }
        _ => heap.session().alloc_to(slot, wanted).expect("room"),
    }
}

/// What is live, by offset; no two tags in one page.
fn live<M: Medium>(heap: &Heap<M>) -> BTreeMap<u64, Block> {
    let blocks = heap.blocks();
    for block in &blocks {
        assert_eq!(heap.block_at(block.offset).expect("it is live"), *block);
    }
    let mut pages = BTreeMap::new();
    for block in &blocks {
        for page in block.offset / 4096..(block.offset + block.usable_bytes).div_ceil(4096) {
            let tag = pages.entry(page).or_insert(block.tag);
            assert_eq!(*tag, block.tag, "two tags in the page of {block:?}");
        }
    }
    blocks.into_iter().map(|block| (block.offset, block)).collect()
}

fn verify<M: Medium>(heap: &Heap<M>, model: &[Option<BlockLayout>]) {
    let slots = heap.slots("slots", model.len() as u64).expect("there");
    let (live, guard) = (live(heap), heap.pin());
    let mut counts = BTreeMap::<u8, (u64, u64)>::new();
    counts.insert(0, (1, live.values().next().expect("the slots").usable_bytes));
    for (slot, wanted) in slots.iter().zip(model) {
        let found = slot.offset(&guard).map(|offset| live[&offset]);
        assert_eq!(found.map(|block| block.tag), wanted.map(|wanted| wanted.tag()));
        if let Some(block) = found {
            let (blocks, bytes) = counts.entry(block.tag).or_default();
            (*blocks, *bytes) = (*blocks + 1, *bytes + block.usable_bytes);
        }
    }
    let stats = heap.stats().expect("a size");
    let tags = stats.tags.iter().map(|tag| (tag.tag, (tag.blocks, tag.live_bytes)));
    assert!(tags.eq(counts), "{:?}", stats.tags);
    let kinds = || stats.classes.iter().map(|class| (class.block_bytes, class.tag));
    assert!(kinds().is_sorted(), "a row per class and tag: {:?}", stats.classes);
    assert_eq!(heap.check().expect("readable").problems, []);
}

#[test]
fn blocks_keep_their_tags_over_churn_and_recovery() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let options = Heap::options().capacity_bytes(64 << 20).arenas(2);
    let medium = Arc::new(Anon::new(options.heap_bytes().expect("valid")));
    let mut heap = options.create_shared(Arc::clone(&medium)).expect("created");
    let mut model: Vec<Option<BlockLayout>> = vec![None; 200];
    for _ in 0..6 {
        let slots = heap.slots("slots", model.len() as u64).expect("room");
        for _ in 0..600 {
            let at = rng.usize(..slots.len());
            if model[at].take().is_some() {
                heap.free_from(&slots[at]).expect("full");
            } else {
                let wanted = block(SIZES[rng.usize(..SIZES.len())], TAGS[rng.usize(..TAGS.len())]);
                allocate(&heap, &slots[at], wanted, rng.u32(..5));
                model[at] = Some(wanted);
            }
        }
        verify(&heap, &model);
        heap.close().expect("closed");
        heap = options.open_shared(Arc::clone(&medium)).expect("opened");
        verify(&heap, &model);
    }
}

/// The slab of a tag that is not used any more goes back, and what it held serves any other tag.
#[test]
fn the_memory_of_one_tag_serves_the_next() {
    let options = Heap::options().capacity_bytes(1 << 20).arenas(1);
    let medium = Anon::new(options.heap_bytes().expect("valid"));
    let heap = options.create_shared(medium).expect("created");
    let slots = heap.slots("slots", 10_000).expect("room");
    let mut counts = Vec::new();
    for tag in TAGS {
        let mut session = heap.session();
        let full = slots.iter().take_while(|slot| session.alloc_to(slot, block(600, tag)).is_ok());
        let count = full.count();
        slots[..count].iter().for_each(|slot| session.free_from(slot).expect("full"));
        // Its caches come back with it, and what is whole then with the trim.
        drop(session);
        heap.trim().expect("anonymous");
        counts.push(count);
    }
    assert!(counts[0] > 1000, "{counts:?}");
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
}

#[test]
fn a_record_alone_restores_the_tag_of_a_large_block() {
    let image = image::crashed("tags", Interrupted::AllocLarge, None);
    let medium = Arc::new(Anon::new(image::heap_bytes()));
    image.restore(&medium);
    let heap = crate::common::options().open_shared(Arc::clone(&medium)).expect("recovered");
    assert_eq!(heap.stats().expect("anonymous").replayed, 1);
    let slots = heap.slots("first", 24).expect("there");
    let offset = slots[0].offset(&heap.pin()).expect("the operation was decided");
    let tag = crate::common::layout(20_000).tag();
    assert_ne!(tag, 0);
    assert_eq!(live(&heap)[&offset].tag, tag);
}

/// Blocks that stay are listed once each, whatever comes and goes beside them.
#[test]
fn an_iteration_finds_what_stays_while_others_churn() {
    let options = Heap::options().capacity_bytes(16 << 20).arenas(2);
    let medium = Anon::new(options.heap_bytes().expect("valid"));
    let heap = options.create_shared(medium).expect("created");
    let slots = heap.slots("slots", 300).expect("room");
    let (stay, churn) = slots.split_at(100);
    for (at, slot) in stay.iter().enumerate() {
        heap.alloc_to(slot, block(SIZES[at % SIZES.len()], 9)).expect("room");
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                for (at, slot) in churn.iter().enumerate() {
                    heap.alloc_to(slot, block(SIZES[(at + round) % SIZES.len()], 3)).expect("room");
                }
                churn.iter().for_each(|slot| heap.free_from(slot).expect("full"));
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..200 {
            let listed: Vec<u64> =
                heap.iter().filter(|block| block.tag == 9).map(|block| block.offset).collect();
            assert!(listed.is_sorted());
            assert_eq!(listed.len(), stay.len());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
