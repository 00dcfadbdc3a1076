//! Goal: the alphabet and the start states reach what they are there for.
//!
//! Method: each start state is built and looked at through the heap's figures; groups are looked at through what the
//! heap says of them, and through the records that they leave in the rings.

use pmalloc::{
    Error, Policy,
    persist::{
        Medium, Offset, Word,
        sim::{BackFault, Domain},
    },
};
use pmalloc_verify::{
    alphabet::{Action, Op, Plan, Step},
    start::Start,
    world::{NUMBER_MAX, World, medium},
};

/// First byte of the first lane and bytes from lane to lane, of header and marks, and ring places, as `docs/format.md`
/// has them for the geometry of the explored heap.
const LANES: u64 = 6 * 4096;
const LANE_BYTES: u64 = 4096;
const RING: u64 = 64 + 8 * 64;
const PLACES: u64 = 16;

fn world(start: Start) -> World {
    world_of(start, Policy::Eager)
}

fn world_of(start: Start, policy: Policy) -> World {
    let mut world = World::new(medium(Domain::Line64), policy);
    start.build(&mut world);
    world
}

/// What `op` by the first session is going to do.
fn plan(world: &World, op: Op) -> Plan {
    Step { op, lane: 0 }.plan(world)
}

fn perform(world: &mut World, op: Op) -> Result<(), Error> {
    let plan = plan(world, op);
    let after = plan.after(&world.model);
    plan.perform(world)?;
    world.model = after;
    Ok(())
}

/// The records in the rings: lane, place, and the word with the operation's number.
fn records(world: &World) -> Vec<(u64, u64, u64)> {
    let places = (0..3).flat_map(|lane| (0..PLACES).map(move |place| (lane, place)));
    let number = |(lane, place)| {
        let (half, line) = (place / (PLACES / 2), place % (PLACES / 2));
        let at = LANES + lane * LANE_BYTES + RING + line * 64 + half * 32 + 16;
        let word: &Word = world.sim.at(Offset::new(at)).expect("inside");
        (lane, place, world.sim.load(word))
    };
    places.map(number).collect()
}

/// The ring places that `op` by the first session writes.
fn places_written(world: &mut World, op: Op) -> Vec<u64> {
    let before = records(world);
    perform(world, op).expect("there is room");
    let after = records(world);
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after);
    changed.map(|(_, (_, place, _))| *place).collect()
}

#[test]
fn start_states_are_what_they_say() {
    for (start, fast, slow) in [(Start::FastGcPending, 1, 0), (Start::SlowGcPending, 0, 1)] {
        let mut world = world(start);
        let log = |world: &World| world.heap().stats().expect("readable").log;
        let before = log(&world);
        perform(&mut world, Op::AllocPages).expect("room");
        let after = log(&world);
        let collected = (after.fast_gc - before.fast_gc, after.slow_gc - before.slow_gc);
        assert_eq!(collected, (fast, slow), "{start:?}");
    }
    let mut full = world(Start::AlmostFull);
    let refused = perform(&mut full, Op::AllocPages);
    assert!(matches!(refused, Err(Error::OutOfMemory { .. })), "{refused:?}");
}

/// The numbers or epochs of the records in the rings, in order.
fn numbers(world: &World) -> Vec<u64> {
    let numbers = records(world).into_iter().map(|(_, _, word)| word & NUMBER_MAX);
    let mut numbers: Vec<u64> = numbers.filter(|number| *number > 0).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_worn_out_heap_counts_to_the_end_and_begins_again() {
    let mut eager = world(Start::WornOut);
    for last in [NUMBER_MAX - 2, NUMBER_MAX - 1, NUMBER_MAX, 1, 2] {
        assert!(numbers(&eager).contains(&last), "{last}: {:?}", numbers(&eager));
        perform(&mut eager, Op::SetCell).expect("it needs no room");
    }
    let mut batched = world_of(Start::WornOut, Policy::Batched);
    assert!(numbers(&batched)[0] > NUMBER_MAX / 2);
    perform(&mut batched, Op::Kill).expect("it is recovered");
    perform(&mut batched, Op::SetCell).expect("it needs no room");
    assert_eq!(numbers(&batched), [1]);
}

#[test]
fn groups_wrap_the_ring() {
    let mut world = world(Start::Wrapped);
    assert_eq!(places_written(&mut world, Op::PublishCells), [0, 1, 2, PLACES - 1]);
}

#[test]
fn groups_have_one_record_less_than_allowed_and_as_many() {
    let mut world = world(Start::Fragmented);
    assert_eq!(places_written(&mut world, Op::SetCell).len(), 1);
    assert_eq!(places_written(&mut world, Op::PublishBlocks).len(), 3);
    assert_eq!(places_written(&mut world, Op::PublishCells).len(), 4);
    assert_eq!(places_written(&mut world, Op::PublishTooMany), []);
}

#[test]
fn groups_free_a_large_block_and_allocate_another() {
    let world = world(Start::SlowGcPending);
    let Plan::Publish(_, actions) = plan(&world, Op::PublishPages) else { panic!("a group") };
    let [Action::Free(freed), Action::Alloc(filled, held)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!((freed, held.size), (filled, 16 << 10));
}

#[test]
fn groups_are_refused_for_want_of_blocks_and_of_places_in_the_log() {
    let mut full = world(Start::AlmostFull);
    let refused = perform(&mut full, Op::PublishBlocks);
    assert!(matches!(refused, Err(Error::OutOfMemory { .. })), "{refused:?}");

    // The pages get memory and are reserved; then the log wants a chunk, of which a new process knows nothing.
    let wanted = "backing a chunk of the bookkeeping log";
    let is_refused = |(start, nth): (Start, u64)| {
        let mut world = world(start);
        let used = |world: &World| world.heap().stats().expect("readable").used_bytes;
        perform(&mut world, Op::Reopen).expect("reopened");
        let before = used(&world);
        world.sim.fail_backs(BackFault::Once(nth));
        match perform(&mut world, Op::PublishPages) {
            Err(Error::NoSpace { doing, .. }) => {
                assert_eq!(used(&world), before, "{start:?}, call {nth}");
                doing == wanted
            }
            _ => false,
        }
    };
    let starts = Start::ALL.into_iter();
    let mut cases = starts.flat_map(|start| (0..3).map(move |nth| (start, nth)));
    assert!(cases.any(is_refused), "no start state in which the log wants a chunk");
}
