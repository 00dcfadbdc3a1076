//! Goal: every command takes a heap for what it is whose process was killed while it made operations durable.
//!
//! Method: under the policy Batched a thread begins a round, which ends an epoch; at its first flush another thread works in
//! the next epoch, and the file is copied. The copy is what a kill at that moment leaves: records of two epochs.

use std::{
    alloc::Layout,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use crate::common::{Place, run, str};
use pmalloc::{
    Heap, Policy, Slot,
    persist::{Mapped, Observed, Observer, Span},
};
use serde_json::Value;

type Call = Box<dyn FnOnce() + Send>;

/// Makes a call at the next flush.
#[derive(Clone, Default)]
struct AtFlush(Arc<Mutex<Option<Call>>>);

impl Observer for AtFlush {
    fn flushing(&self, _: Span) {
        let call = self.0.lock().expect("nobody panics").take();
        call.into_iter().for_each(|call| call());
    }
}

type Watched = Heap<Observed<Mapped, AtFlush>>;

fn slots(heap: &Watched) -> &[Slot] {
    heap.slots("test", 128).expect("slots")
}

fn fill(heap: &Watched, slots: &[Slot], size: usize) {
    for slot in slots {
        let layout = Layout::from_size_align(size, 8).expect("a layout");
        heap.alloc_init(slot, layout, |bytes| bytes.fill(7)).expect("room");
    }
}

fn free(heap: &Watched, slots: &[Slot]) {
    slots.iter().for_each(|slot| heap.free_from(slot).expect("full"));
}

/// Operations of the epoch that ends: the root, 64 blocks, 10 frees; and of the next: 5 blocks, 3 frees.
const OPERATIONS: [u64; 2] = [1 + 64 + 10, 5 + 3];

/// Blocks that are live then, the root's among them.
const LIVE: u64 = 1 + 64 - 10 + 5 - 3;

/// Leaves a heap at `left` whose process was killed in a round.
fn leave(path: &Path, left: &Path) {
    let hook = AtFlush::default();
    let options = Heap::options().capacity_bytes(64 << 20).policy(Policy::Batched);
    let heap = options.create_with(path, |mapped| Observed::new(mapped, hook.clone()));
    let heap: Arc<Watched> = Arc::new(heap.expect("room"));
    fill(&heap, &slots(&heap)[..60], 100);
    fill(&heap, &slots(&heap)[60..64], 20_000);
    free(&heap, &slots(&heap)[..10]);
    let (other, left) = (Arc::clone(&heap), left.to_owned());
    let path = path.to_owned();
    let call = move || {
        let in_the_next_epoch = move || {
            fill(&other, &slots(&other)[100..104], 1000);
            fill(&other, &slots(&other)[104..105], 30_000);
            free(&other, &slots(&other)[10..13]);
        };
        thread::spawn(in_the_next_epoch).join().expect("it works beside a round");
        fs::copy(path, left).expect("room");
    };
    *hook.0.lock().expect("nobody panics") = Some(Box::new(call));
    // It takes what was freed, and so makes it durable first.
    heap.trim().expect("nothing fails");
    assert!(hook.0.lock().expect("nobody panics").is_none(), "a round flushes something");
    Arc::into_inner(heap).expect("the other thread is gone").close().expect("closed");
}

fn json(args: &[&str]) -> Value {
    run(&[args, &["--json"]].concat()).expect_code(0).json()
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

#[test]
fn what_is_left_of_two_epochs_is_all_there_for_every_command() {
    let place = Place::new();
    let [path, left, copy] = ["heap", "left", "copy"].map(|name| place.path(name));
    leave(&path, &left);
    let before = fs::read(&left).expect("readable");
    let records: u64 = OPERATIONS.iter().sum();

    assert_eq!(json(&["info", str(&left)])["clean"], false);
    let checked = json(&["check", str(&left)]);
    assert_eq!((&checked["ok"], number(&checked["blocks"])), (&true.into(), LIVE), "{checked}");
    let stats = json(&["stats", str(&left)]);
    assert_eq!((number(&stats["live_blocks"]), &stats["policy"]), (LIVE, &"batched".into()));
    assert_eq!(number(&stats["replayed"]), records);
    let map = json(&["map", str(&left)]);
    let slabs = map["slabs"].as_array().expect("slabs");
    let small: u64 = slabs.iter().map(|group| number(&group["live"])).sum();
    assert_eq!((small, number(&map["large"]["parts"])), (LIVE - 5, 5));
    json(&["copy", str(&left), str(&copy)]);
    assert!(before == fs::read(&left).expect("readable"), "looking changes nothing");

    for path in [&copy, &left] {
        let recovered = json(&["recover", str(path)]);
        assert_eq!(number(&recovered["replayed"]), records, "{recovered}");
        assert_eq!(number(&recovered["rolled_forward"]), records, "{recovered}");
        assert_eq!(
            (&recovered["rolled_back"], &recovered["was_closed"]),
            (&0.into(), &false.into())
        );
        assert_eq!(number(&json(&["check", str(path)])["blocks"]), LIVE);
        let heap = Heap::open(path).expect("closed");
        let slots = heap.slots("test", 128).expect("slots");
        for (at, slot) in slots.iter().enumerate() {
            let guard = heap.pin();
            let found = slot.get(&guard);
            let is_full = (13..64).contains(&at) || (100..105).contains(&at);
            assert_eq!(found.is_some(), is_full, "slot {at}");
            assert!(found.is_none_or(|bytes| bytes[..100] == [7; 100]), "slot {at}");
        }
        assert_eq!(heap.policy(), Policy::Batched);
        heap.close().expect("closed");
    }
}
