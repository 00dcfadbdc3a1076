//! Goal: the start states are what they say.
//!
//! Method: each is built and looked at through the heap's figures.

use pmalloc::{Error, persist::sim::Domain};
use pmalloc_verify::{
    alphabet::{Op, Start, Step},
    world::{World, medium},
};

fn world(start: Start) -> World {
    let mut world = World::new(medium(Domain::Line64));
    start.build(&mut world);
    world
}

fn perform(world: &mut World, op: Op) -> Result<(), Error> {
    let plan = Step { op, lane: 0 }.plan(world);
    let after = plan.after(&world.model);
    plan.perform(world)?;
    world.model = after;
    Ok(())
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
