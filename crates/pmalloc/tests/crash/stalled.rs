//! Goal: under the policy Batched a thread that is stopped inside an operation keeps nobody from working. It keeps effects
//! from becoming durable, and memory from being reused; when it goes on, both go on.
//!
//! Method: a medium whose next fence stops one thread, while two others fill several rings, a third one synchronizes, and
//! a guard is held, from before or made while the thread is stopped, which still sees what that frees. The simulator tells
//! what a loss of power would leave meanwhile, and afterwards.

#![cfg(not(any(miri, shuttle)))]

use std::{
    cell::OnceCell,
    sync::{Condvar, Mutex},
    thread::{self, ThreadId},
};

use crate::common::{fill, layout, options, shared::Shared, watchdog::Watchdog};
use pmalloc::{
    Error, Heap, Policy, Slot, TestGeometry,
    persist::{
        Observed, Observer,
        sim::{Domain, Sim, SimOptions},
    },
};

type Medium = Observed<Sim, Door>;

/// Stops one thread in front of a fence.
#[derive(Debug, Default)]
struct Door {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    /// Nobody is stopped.
    #[default]
    Open,
    /// The next fence of this thread stops it.
    Armed(ThreadId),
    /// A thread is stopped.
    Shut,
}

impl Door {
    fn set(&self, state: State) {
        *self.state.lock().expect("nobody panics here") = state;
        self.changed.notify_all();
    }

    fn wait_while(&self, condition: impl Fn(&State) -> bool) {
        let state = self.state.lock().expect("nobody panics here");
        drop(self.changed.wait_while(state, |state| condition(state)).expect("nor here"));
    }
}

impl Observer for Door {
    fn fencing(&self) {
        let own = State::Armed(thread::current().id());
        let mut state = self.state.lock().expect("nobody panics here");
        if *state == own {
            *state = State::Shut;
            drop(state);
            self.changed.notify_all();
            self.wait_while(|state| *state == State::Shut);
        }
    }
}

/// An operation that a thread is stopped in, and whether the first two slots are full afterwards. Before, the second one is.
struct Stalled {
    name: &'static str,
    /// Bytes of the block in the second slot.
    bytes: usize,
    run: fn(&Heap<Medium>, &[Slot]) -> Result<(), Error>,
    full: [bool; 2],
}

const STALLED: [Stalled; 5] = [
    Stalled {
        name: "alloc",
        bytes: 100,
        run: |heap, slots| heap.alloc_to(&slots[0], layout(100)),
        full: [true, true],
    },
    Stalled {
        name: "free",
        bytes: 100,
        run: |heap, slots| heap.free_from(&slots[1]),
        full: [false, false],
    },
    Stalled {
        name: "alloc of pages",
        bytes: 100,
        run: |heap, slots| heap.alloc_to(&slots[0], layout(33_000)),
        full: [true, true],
    },
    Stalled {
        name: "free of pages",
        bytes: 33_000,
        run: |heap, slots| heap.free_from(&slots[1]),
        full: [false, false],
    },
    Stalled {
        name: "move",
        bytes: 100,
        run: |heap, slots| heap.move_to(&slots[1], &slots[0]),
        full: [true, false],
    },
];

/// When the guard is made that keeps what is freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pinned {
    /// Before the thread is stopped.
    Before,
    /// While it is.
    Meanwhile,
}

/// The slot whose block a guard keeps, and one to warm up with.
const GUARDED: usize = 2;
const WARM: usize = 3;

/// The first slot of each worker, who has four, and the number of slots.
const WORKERS: [usize; 2] = [4, 8];
const SLOTS: usize = 12;

/// More slots than the heap has room for pages, and than a slab has small blocks.
const MORE: usize = 1000;

/// Places of a ring.
const PLACES: u32 = 8;

/// Rounds of a worker, each of ten records.
const ROUNDS: usize = 4;

fn create(sim: &Sim) -> Heap<Medium> {
    let options = options().policy(Policy::Batched).test_geometry(geometry());
    options.create_shared(Observed::new(sim.clone(), Door::default())).expect("room")
}

fn geometry() -> TestGeometry {
    TestGeometry {
        capacity_bytes: 2 << 20,
        slab_bytes: 64 << 10,
        ring_places: PLACES,
        lanes: 16,
        chunk_bytes: 4096,
        // As many as threads, so that what the stopped one frees waits behind nobody else's.
        logs: 5,
        roots: 8,
        stripes: 3,
    }
}

/// Fills more than four rings, and leaves contents in the first slot and a large block in the third.
fn work(heap: &Heap<Medium>, slots: &[Slot], seed: usize) {
    let [first, second, third, fourth] = slots else { panic!("four slots each") };
    for round in 0..ROUNDS {
        heap.alloc_init(first, layout(100), fill(seed + round)).expect("room");
        heap.alloc_to(second, layout(20_000)).expect("room");
        heap.replace(second, layout(3000), fill(seed)).expect("room");
        heap.move_to(second, fourth).expect("it is empty");
        heap.free_from(fourth).expect("it is full");
        heap.alloc_to(third, layout(20_000)).expect("room");
        if round + 1 < ROUNDS {
            heap.free_from(first).expect("it is full");
            heap.free_from(third).expect("it is full");
        }
    }
}

/// What a loss of power leaves, at worst: everything that had returned.
fn judge(sim: &Sim, op: &Stalled, has_returned: bool) -> u64 {
    let image = sim.crash_state().oldest();
    let heap = options().open_shared(image).expect("it recovers");
    judge_open(&heap, op, has_returned);
    heap.stats().expect("it is served").replayed
}

fn judge_open<M: pmalloc::persist::Medium + 'static>(
    heap: &Heap<M>,
    op: &Stalled,
    has_returned: bool,
) {
    let report = heap.check().expect("it can be read");
    assert_eq!((report.problems.len(), report.unowned_blocks), (0, 0), "{}: {report:?}", op.name);
    let slots = heap.slots("slots", SLOTS as u64).expect("it is there");
    let guard = heap.pin();
    let is_full: Vec<bool> = slots.iter().map(|slot| !slot.is_empty(&guard)).collect();
    let stalled = [is_full[0], is_full[1]];
    assert!(stalled == op.full || !has_returned && stalled == [false, true], "{}", op.name);
    for start in WORKERS {
        assert_eq!(is_full[start..start + 4], [true, false, true, false], "{}", op.name);
        let mut expected = [0; 100];
        fill(start + ROUNDS - 1)(&mut expected);
        let found = slots[start].get(&guard).expect("it is full");
        assert_eq!(found[..100], expected, "{}", op.name);
    }
    assert!(!is_full[GUARDED] && !is_full[WARM], "{}", op.name);
}

#[test]
fn a_thread_that_is_stopped_inside_an_operation_stops_nobody_else() {
    let watchdog = Watchdog::new("the case");
    let guards = [Pinned::Before, Pinned::Meanwhile];
    let cases = STALLED.iter().flat_map(|op| guards.map(|pinned| (op, pinned)));
    for (nth, (op, pinned)) in (0..).zip(cases) {
        watchdog.begin(nth);
        let len_bytes = options().test_geometry(geometry()).heap_bytes().expect("valid sizes");
        let sim = Sim::new(SimOptions { len_bytes, domain: Domain::Line64 });
        let heap = create(&sim);
        stall(&heap, &sim, op, pinned);
        heap.close().expect("nobody is stopped");
        let heap = options().open_shared(sim.clone()).expect("it was closed");
        assert_eq!(heap.stats().expect("it is served").replayed, 0);
        judge_open(&heap, op, true);
    }
}

fn stall(heap: &Heap<Medium>, sim: &Sim, op: &Stalled, pinned: Pinned) {
    let slots = heap.slots("slots", SLOTS as u64).expect("room");
    let more = heap.slots("more", MORE as u64).expect("room");
    // No operation has to make the heap longer from here on, which would stop others.
    free_all(heap, use_up(heap, more, 33_000));
    heap.sync().expect("nobody is stopped");
    heap.alloc_init(&slots[1], layout(op.bytes), fill(2)).expect("room");
    heap.alloc_init(&slots[GUARDED], layout(100), fill(0)).expect("room");
    heap.sync().expect("nobody is stopped");
    let guard = OnceCell::new();
    let look = |slot: &'static str, nth: usize| {
        let bytes = slots[nth].get(guard.get_or_init(|| heap.pin())).expect("it is full");
        (slot, bytes, bytes.to_vec())
    };
    let mut seen = Vec::new();
    if pinned == Pinned::Before {
        seen.push(look("the slot that is freed meanwhile", GUARDED));
    }
    let door = medium(heap).observer();
    thread::scope(|scope| {
        let stalled = scope.spawn(|| {
            // What the first operation of a thread does besides is done.
            for size in [100, 33_000] {
                heap.alloc_to(&slots[WARM], layout(size)).expect("room");
                heap.free_from(&slots[WARM]).expect("it is full");
            }
            door.set(State::Armed(thread::current().id()));
            (op.run)(heap, slots).expect("there is room");
        });
        door.wait_while(|state| *state != State::Shut);
        let syncing = scope.spawn(|| heap.sync().expect("it waits for the stopped thread"));
        let workers = WORKERS.map(|start| {
            scope.spawn(move || {
                if start == WORKERS[0] {
                    heap.free_from(&slots[GUARDED]).expect("it is full");
                }
                work(heap, &slots[start..start + 4], start);
            })
        });
        workers.into_iter().for_each(|worker| worker.join().expect("it works on"));
        assert!(!syncing.is_finished(), "{}: it was stopped outside of an operation", op.name);
        assert!(judge(sim, op, false) > 2 * u64::from(PLACES), "{}: little is live", op.name);
        // The stopped operation has not unlinked anything yet; its epoch has ended.
        seen.push(look("the slot of the stopped operation", 1));
        door.set(State::Open);
        stalled.join().expect("it goes on");
        syncing.join().expect("it ends now");
    });
    judge(sim, op, true);
    heap.sync().expect("nobody is stopped");
    assert_eq!(judge(sim, op, true), 0, "{}: something is not durable", op.name);
    // Memory is used again, but not what the guard keeps.
    for bytes in [100, op.bytes] {
        let used = use_up(heap, more, bytes);
        for (slot, now, before) in &seen {
            assert_eq!(now, before, "{}: {slot} is changed under a guard", op.name);
        }
        free_all(heap, used);
        heap.sync().expect("nobody is stopped");
    }
}

/// Fills blocks until there is no room, or no slot.
fn use_up<'s>(heap: &Heap<Medium>, slots: &'s [Slot], bytes: usize) -> &'s [Slot] {
    let is_filled = |slot: &&Slot| heap.alloc_init(slot, layout(bytes), fill(3)).is_ok();
    let used = slots.iter().take_while(is_filled).count();
    assert!(used > 10, "{used} blocks of {bytes} bytes");
    &slots[..used]
}

fn free_all(heap: &Heap<Medium>, slots: &[Slot]) {
    slots.iter().for_each(|slot| heap.free_from(slot).expect("it is full"));
}

fn medium(heap: &Heap<Medium>) -> &Medium {
    crate::common::shared::Raw::raw(heap)
}
