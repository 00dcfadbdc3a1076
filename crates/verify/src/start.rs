//! The states that sequences of operations start from.

use pmalloc::{
    Error, Policy,
    persist::{Medium, sim::Sim},
};

use crate::{
    alphabet::{Op, Step},
    world::World,
};

/// A state that sequences start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Start {
    /// Nothing but the slots.
    Fresh,
    /// Blocks of several sizes, every other one freed, also by the other session.
    Fragmented,
    /// No page is left, and few slots; the second root is there.
    AlmostFull,
    /// The next record of each lane goes to its ring's last place, and the one behind it to the first again; the versions of
    /// slots and cells are the last ones before they begin again, or the last but one.
    Wrapped,
    /// The next allocation of a page-granular block by the first session drops a chunk from its bookkeeping log.
    FastGcPending,
    /// The next allocation of a page-granular block by the first session copies its bookkeeping log.
    SlowGcPending,
    /// A block, and rings that are twice as long as usual: groups may have eight records.
    LongRings,
    /// Operations that are not durable: the next one of the first session runs a round of the synchronizer, and another
    /// session has left its lane with records that are live. For the policy Batched.
    Pending,
    /// As [`Start::Fragmented`], with the root of typed blocks; all versions of slots are near their end.
    Typed,
    /// Some blocks, also in flight, in a heap whose epochs begin again when it is opened, or whose lanes begin to count again
    /// within a few operations.
    WornOut,
}

impl Start {
    /// Every start state but those of sets of their own.
    pub const ALL: [Self; 6] = [
        Self::Fresh,
        Self::Fragmented,
        Self::AlmostFull,
        Self::Wrapped,
        Self::FastGcPending,
        Self::SlowGcPending,
    ];

    /// A world in this state, on `sim`.
    ///
    /// # Panics
    ///
    /// If the heap refuses what it has room for.
    #[must_use]
    pub fn world(self, sim: Sim, policy: Policy) -> World {
        let mut world = self.empty(sim, policy);
        self.build(&mut world);
        world
    }

    /// The fresh world that this state is built in.
    #[must_use]
    pub fn empty(self, sim: Sim, policy: Policy) -> World {
        match self {
            Self::LongRings => World::with_rings(sim, policy, 32),
            _ => World::new(sim, policy),
        }
    }

    /// Brings a fresh world into the state.
    ///
    /// # Panics
    ///
    /// If the heap refuses what it has room for.
    pub fn build(self, world: &mut World) {
        match self {
            Self::Fresh => {}
            Self::Fragmented => fragment(world),
            Self::AlmostFull => fill(world),
            Self::Wrapped => wrap_lanes(world),
            Self::FastGcPending => churn_pages(world, 1),
            Self::SlowGcPending => churn_pages(world, 0),
            Self::LongRings | Self::Pending => must(world, Op::AllocContents, 1),
            Self::WornOut => {
                must(world, Op::AllocPages, 0);
                must(world, Op::AllocContents, 1);
                world.wear_out();
            }
            Self::Typed => {
                world.make_nodes();
                fragment(world);
                world.age();
            }
        }
        if world.heap().policy() == Policy::Batched && !world.sim.needs_sync() {
            // What the state took to build is not what is explored.
            world.heap().sync().expect("no sync fails yet");
        }
        match self {
            Self::Pending => leave_pending(world),
            Self::WornOut => {
                must(world, Op::AllocSmallest, 0);
                must(world, Op::FreeOwn, 0);
            }
            _ => {}
        }
    }
}

/// Pairs of a page-granular allocation and its free that fill as many chunks as a log has before it is collected; the test
/// `start_states_are_what_they_say` keeps it true.
const PAIRS_TO_GC: usize = 6;

fn step(world: &mut World, op: Op, lane: usize) -> Result<(), Error> {
    let plan = Step { op, lane }.plan(world);
    let after = plan.after(&world.model);
    plan.perform(world)?;
    world.model = after;
    Ok(())
}

fn must(world: &mut World, op: Op, lane: usize) {
    step(world, op, lane).expect("the heap has room");
}

fn fragment(world: &mut World) {
    for lane in [0, 1] {
        for op in [Op::AllocSmallest, Op::AllocPages, Op::AllocContents, Op::AllocFewPerSlab] {
            must(world, op, lane);
        }
    }
    for op in [Op::FreeOwn, Op::FreeOther, Op::FreePages, Op::FreeFewPerSlab] {
        must(world, op, 0);
    }
    must(world, Op::AllocSmallest, 1);
    // What a new root gets is not all zero by itself.
    let filled = world
        .model
        .slots
        .iter()
        .position(|held| held.as_ref().is_some_and(|held| held.filled && held.lane == 1));
    let filled = filled.expect("the contents of session 1 are not the oldest block");
    world.free(1, filled).expect("just allocated");
    world.model.slots[filled] = None;
    must(world, Op::RenewSession, 1);
}

fn fill(world: &mut World) {
    must(world, Op::AllocSmallest, 0);
    must(world, Op::AllocContents, 1);
    must(world, Op::AllocFewPerSlab, 0);
    must(world, Op::MakeRoot, 1);
    for turn in 0.. {
        if step(world, Op::AllocLargest, turn % 2).is_err() {
            break;
        }
    }
}

fn wrap_lanes(world: &mut World) {
    for lane in [0, 1] {
        for _ in 0..7 {
            must(world, Op::AllocSmallest, lane);
            must(world, Op::FreeOwn, lane);
        }
        must(world, Op::AllocContents, lane);
    }
    world.age();
}

/// More than half a ring of records in one lane, on few lines; and some in the lane of a session that ends.
fn leave_pending(world: &mut World) {
    must(world, Op::AllocSmallest, 0);
    must(world, Op::FreeOwn, 0);
    for _ in 0..6 {
        must(world, Op::SetCell, 0);
    }
    must(world, Op::AllocSmallest, 0);
    must(world, Op::FreeOwn, 1);
    must(world, Op::RenewSession, 1);
}

/// Fills the log of the first session with pairs that say nothing any more. A block that stays has its entry before them
/// if it is of that session: then no chunk is empty, and only a copy shortens the log.
fn churn_pages(world: &mut World, lane_of_block: usize) {
    must(world, Op::AllocPages, lane_of_block);
    for _ in 0..PAIRS_TO_GC {
        must(world, Op::AllocPages, 0);
        let newest = world.model.slots.iter().rposition(Option::is_some).expect("just allocated");
        world.free(0, newest).expect("just allocated");
        world.model.slots[newest] = None;
    }
}
