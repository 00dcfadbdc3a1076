//! The operations, and the states they start from.

use std::fmt;

use pmalloc::{Error, Policy};

use crate::{
    model::{Extra, Held, Model, Node},
    nodes::Size,
    world::World,
};

/// Bytes of a block of which a slab holds two or three, so that every few allocations take a slab's last block.
const FEW_PER_SLAB: usize = 6000;
/// Bytes of a block with contents: over several lines, and of the class of the second root.
const CONTENTS: usize = 180;
/// Bytes of a page-granular block.
const PAGES: usize = 16 << 10;
/// The type of the root `extra`.
const EXTRA_TYPE: u64 = 7;

/// The tag of blocks of `size` bytes: those of which a slab holds few and the page-granular ones have one, so that tagged
/// slabs and tagged extents are made, freed and redone in all that the alphabet does.
pub(crate) fn tag_of(size: usize) -> u8 {
    match size {
        FEW_PER_SLAB => 0x5a,
        PAGES => 0xa5,
        _ => 0,
    }
}

/// An operation of the alphabet. Which slot it works on follows from the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// A bare block of the smallest class.
    AllocSmallest,
    /// A block with contents over two lines.
    AllocContents,
    /// A tagged block of which a slab holds few: takes a slab's last block, or makes a slab.
    AllocFewPerSlab,
    /// A tagged page-granular block, split off a free extent.
    AllocPages,
    /// The largest block that there is room for.
    AllocLargest,
    /// Frees the oldest block that this session allocated.
    FreeOwn,
    /// Frees the oldest block that the other session allocated.
    FreeOther,
    /// Frees a block of which a slab holds few: may empty the slab.
    FreeFewPerSlab,
    /// Frees a page-granular block: may merge free extents.
    FreePages,
    /// Gives empty slabs and free memory back.
    Trim,
    /// Creates a second root, of bytes.
    MakeRoot,
    /// Likewise, a page-granular one.
    MakeLargeRoot,
    /// Removes the second root.
    RemoveRoot,
    /// Ends the session and begins another.
    RenewSession,
    /// The process is killed, and another opens the heap.
    Kill,
    /// The heap is closed and opened again.
    Reopen,
    /// Replaces the oldest block of this session by one with contents.
    Replace,
    /// Exchanges the oldest block with the newest, or moves the only one.
    Swap,
    /// Publishes a block with contents, a page-granular one and a free of the oldest block that is not.
    PublishBlocks,
    /// Publishes a move and a free into which it moves: the slot changes twice.
    PublishMoves,
    /// Publishes a free of the oldest page-granular block, and another such block in its place.
    PublishPages,
    /// Publishes as many changes as the ring allows: a block with contents, a cell, and another twice.
    PublishCells,
    /// Publishes one change more than the ring allows, which is refused.
    PublishTooMany,
    /// Sets a cell.
    SetCell,
    /// Publishes a typed block and one with contents that a slot in it owns, the slot named first; if there is a typed block,
    /// publishes its free, with that of what its slot owns: for [`Start::Typed`](crate::start::Start::Typed).
    PublishNode,
    /// Likewise a page-granular typed block; what its slot owns moves out when it is freed.
    PublishLargeNode,
    /// Makes all effects durable: for the policy Batched.
    Sync,
    /// The heap is closed and opened with the other policy.
    Switch,
    /// The process is killed, and another opens the heap with the other policy.
    KillAndSwitch,
    /// Publishes five changes, one more than the usual rings allow: for [`Start::LongRings`](crate::start::Start::LongRings).
    PublishFive,
    /// Publishes eight changes, as many as rings of that start state allow.
    PublishEight,
}

impl Op {
    /// Every operation but those that have sets of their own: on typed blocks, and long groups.
    pub const ALL: [Self; 24] = [
        Self::AllocSmallest,
        Self::AllocContents,
        Self::AllocFewPerSlab,
        Self::AllocPages,
        Self::AllocLargest,
        Self::FreeOwn,
        Self::FreeOther,
        Self::FreeFewPerSlab,
        Self::FreePages,
        Self::Trim,
        Self::MakeRoot,
        Self::MakeLargeRoot,
        Self::RemoveRoot,
        Self::RenewSession,
        Self::Kill,
        Self::Reopen,
        Self::Replace,
        Self::Swap,
        Self::PublishBlocks,
        Self::PublishMoves,
        Self::PublishPages,
        Self::PublishCells,
        Self::PublishTooMany,
        Self::SetCell,
    ];
}

/// An operation by a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Step {
    /// What is done.
    pub op: Op,
    /// By which session.
    pub lane: usize,
}

impl Step {
    /// Every operation by either session.
    #[must_use]
    pub fn all(policy: Policy) -> Vec<Self> {
        let steps = |op| [0, 1].map(|lane| Self { op, lane });
        // Whatever switches to Batched is explored by what switches back.
        let of_batched = [Op::Sync, Op::Switch, Op::KillAndSwitch];
        let more = of_batched.into_iter().filter(|_| policy == Policy::Batched);
        let more = more.map(|op| Self { op, lane: 0 });
        Op::ALL.into_iter().flat_map(steps).chain(more).collect()
    }

    /// What the step does in the present state of `world`, decided before anything happens.
    #[must_use]
    pub fn plan(&self, world: &World) -> Plan {
        let alloc = |size, filled| {
            let at = world.model.slots.iter().position(Option::is_none);
            at.map_or(Plan::Nothing, |at| Plan::Alloc(at, world.draft(self.lane, size, filled)))
        };
        match self.op {
            Op::AllocSmallest => alloc(16, false),
            Op::AllocContents => alloc(CONTENTS, true),
            Op::AllocFewPerSlab => alloc(FEW_PER_SLAB, false),
            Op::AllocPages => alloc(PAGES, false),
            Op::AllocLargest => alloc(largest(world), false),
            Op::FreeOwn => self.free(world, |held| held.lane == self.lane),
            Op::FreeOther => self.free(world, |held| held.lane != self.lane),
            Op::FreeFewPerSlab => self.free(world, |held| held.size == FEW_PER_SLAB),
            Op::FreePages => self.free(world, |held| held.size >= PAGES),
            Op::Trim => Plan::Trim,
            Op::Sync => Plan::Sync,
            Op::Switch => Plan::Switch,
            Op::KillAndSwitch => Plan::KillAndSwitch,
            Op::MakeRoot | Op::MakeLargeRoot if world.model.extra.is_some() => Plan::Nothing,
            Op::MakeRoot => Plan::MakeRoot(Extra::Small),
            Op::MakeLargeRoot => Plan::MakeRoot(Extra::Large),
            Op::RemoveRoot if world.model.extra.is_none() => Plan::Nothing,
            Op::RemoveRoot => Plan::RemoveRoot,
            Op::RenewSession => Plan::RenewSession(self.lane),
            Op::Kill => Plan::Kill,
            Op::Reopen => Plan::Reopen,
            Op::Replace => {
                let own = oldest(world, |held| held.lane == self.lane);
                own.map_or(Plan::Nothing, |at| {
                    Plan::Replace(at, world.draft(self.lane, CONTENTS, true))
                })
            }
            Op::Swap => self.swap(world),
            Op::PublishBlocks => self.publish_blocks(world),
            Op::PublishMoves => self.publish_moves(world),
            Op::PublishPages => self.publish_pages(world),
            Op::PublishCells => self.publish_cells(world),
            Op::PublishTooMany => self.publish_too_many(world),
            Op::PublishFive => self.publish_many(world, 5),
            Op::PublishEight => self.publish_many(world, 8),
            Op::PublishNode => self.publish_node(world, Size::Small),
            Op::PublishLargeNode => self.publish_node(world, Size::Large),
            Op::SetCell => Plan::Publish(self.lane, vec![Action::Set(0, world.value(0))]),
        }
    }

    fn swap(self, world: &World) -> Plan {
        let Some(from) = oldest(world, |_| true) else { return Plan::Nothing };
        let newest = world.model.slots.iter().rposition(Option::is_some);
        let other = newest.filter(|at| *at != from).or_else(|| empty(world).next());
        other.map_or(Plan::Nothing, |to| Plan::Publish(self.lane, vec![Action::Swap(from, to)]))
    }

    fn publish_blocks(self, world: &World) -> Plan {
        let mut empty = empty(world);
        let (Some(first), Some(second)) = (empty.next(), empty.next()) else {
            return Plan::Nothing;
        };
        let small = world.draft(self.lane, CONTENTS, true);
        let pages = Held { id: small.id + 1, ..world.draft(self.lane, PAGES, false) };
        let mut actions = vec![Action::Alloc(first, small), Action::Alloc(second, pages)];
        // Of two entries of the log at once the explorer has all combinations of words to visit: see `PublishPages`.
        actions.extend(oldest(world, |held| held.size < PAGES).map(Action::Free));
        Plan::Publish(self.lane, actions)
    }

    fn publish_moves(self, world: &World) -> Plan {
        let Some(from) = oldest(world, |held| held.lane == self.lane) else { return Plan::Nothing };
        let newest = world.model.slots.iter().rposition(Option::is_some);
        let Some(to) = newest.filter(|at| *at != from) else { return Plan::Nothing };
        Plan::Publish(self.lane, vec![Action::Free(to), Action::Move(from, to)])
    }

    fn publish_pages(self, world: &World) -> Plan {
        let full = oldest(world, |held| held.size >= PAGES);
        let Some(at) = full.or_else(|| empty(world).next()) else { return Plan::Nothing };
        let mut actions: Vec<Action> = full.map(Action::Free).into_iter().collect();
        actions.push(Action::Alloc(at, world.draft(self.lane, PAGES, false)));
        Plan::Publish(self.lane, actions)
    }

    fn publish_cells(self, world: &World) -> Plan {
        let Some(at) = empty(world).next() else { return Plan::Nothing };
        let held = world.draft(self.lane, CONTENTS, true);
        let set = |cell, nth| Action::Set(cell, world.value(nth));
        Plan::Publish(self.lane, vec![set(0, 1), Action::Alloc(at, held), set(1, 2), set(0, 3)])
    }

    /// Sets cells, between which a block is allocated and the oldest one freed, if there is one.
    fn publish_many(self, world: &World, changes: u64) -> Plan {
        let Some(at) = empty(world).next() else { return Plan::Nothing };
        let alloc = Action::Alloc(at, world.draft(self.lane, CONTENTS, true));
        let free = oldest(world, |_| true).map(Action::Free);
        let blocks: Vec<Action> = [alloc].into_iter().chain(free).collect();
        let sets = changes - blocks.len() as u64;
        let set = |nth: u64| Action::Set(usize::from(nth % 2 == 1), world.value(nth + 1));
        let mut actions: Vec<Action> = (0..sets).map(set).collect();
        actions.splice(1..1, blocks);
        Plan::Publish(self.lane, actions)
    }

    fn publish_too_many(self, world: &World) -> Plan {
        let Plan::Publish(_, mut actions) = self.publish_cells(world) else { return Plan::Nothing };
        actions.push(Action::Set(1, world.value(4)));
        Plan::Refused(self.lane, actions)
    }

    fn publish_node(self, world: &World, size: Size) -> Plan {
        let actions = match &world.model.nodes[size as usize] {
            None => {
                let child = world.draft(self.lane, CONTENTS, true);
                let id = child.id + 1;
                vec![Action::AllocNode(size, Node { id, child: Some(child) })]
            }
            Some(Node { child: None, .. }) => vec![Action::FreeNode(size)],
            Some(_) => match (size, empty(world).next()) {
                (Size::Large, Some(at)) => vec![Action::MoveOut(size, at), Action::FreeNode(size)],
                _ => vec![Action::FreeInside(size), Action::FreeNode(size)],
            },
        };
        Plan::Publish(self.lane, actions)
    }

    fn free(self, world: &World, wanted: impl Fn(&Held) -> bool) -> Plan {
        oldest(world, wanted).map_or(Plan::Nothing, |at| Plan::Free(self.lane, at))
    }
}

/// The slot of the oldest block that is `wanted`.
fn oldest(world: &World, wanted: impl Fn(&Held) -> bool) -> Option<usize> {
    let full = world.model.slots.iter().enumerate();
    let blocks = full.filter_map(|(at, held)| held.as_ref().map(|held| (at, held)));
    let oldest = blocks.filter(|(_, held)| wanted(held)).min_by_key(|(_, held)| held.id);
    oldest.map(|(at, _)| at)
}

/// The empty slots.
fn empty(world: &World) -> impl Iterator<Item = usize> {
    let slots = world.model.slots.iter().enumerate();
    slots.filter(|(_, held)| held.is_none()).map(|(at, _)| at)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.op, self.lane)
    }
}

fn largest(world: &World) -> usize {
    let stats = world.heap().stats().expect("the simulator knows its size");
    usize::try_from(stats.largest_free_bytes).expect("a small heap").max(PAGES)
}

/// A step with its slot and size.
#[derive(Debug, Clone)]
pub enum Plan {
    /// Nothing fits the step in this state.
    Nothing,
    /// Allocate into a slot.
    Alloc(usize, Held),
    /// Free a slot through a session.
    Free(usize, usize),
    /// Give back what is free.
    Trim,
    /// Make all effects durable.
    Sync,
    /// Close the heap, and open it with the other policy.
    Switch,
    /// Kill the process, and open the heap with the other policy.
    KillAndSwitch,
    /// Create the root `extra`.
    MakeRoot(Extra),
    /// Remove it.
    RemoveRoot,
    /// End a session and begin another.
    RenewSession(usize),
    /// Kill the process, and open the heap in another.
    Kill,
    /// Close the heap, and open it in another process.
    Reopen,
    /// Replace the block of a slot.
    Replace(usize, Held),
    /// Publish through a session.
    Publish(usize, Vec<Action>),
    /// Publish through a session, and be refused for too many changes.
    Refused(usize, Vec<Action>),
}

/// One action of a publish, on slots and cells by number.
#[derive(Debug, Clone)]
pub enum Action {
    /// Allocate into a slot.
    Alloc(usize, Held),
    /// Free a slot.
    Free(usize),
    /// Move a block from the first slot to the second.
    Move(usize, usize),
    /// Exchange the blocks of two slots.
    Swap(usize, usize),
    /// Set a cell.
    Set(usize, u64),
    /// Allocate a typed block, and what the slot in it owns.
    AllocNode(Size, Node),
    /// Free what the slot in a typed block owns.
    FreeInside(Size),
    /// Move what the slot in a typed block owns to a slot.
    MoveOut(Size, usize),
    /// Free a typed block.
    FreeNode(Size),
}

impl Action {
    pub(crate) const fn is_on_nodes(&self) -> bool {
        matches!(
            self,
            Self::AllocNode(..) | Self::FreeInside(_) | Self::MoveOut(..) | Self::FreeNode(_)
        )
    }

    fn apply(&self, model: &mut Model) {
        match self {
            Self::Alloc(at, held) => model.slots[*at] = Some(held.clone()),
            Self::Free(at) => model.slots[*at] = None,
            Self::Move(a, b) | Self::Swap(a, b) => model.slots.swap(*a, *b),
            Self::Set(at, value) => model.cells[*at] = *value,
            Self::AllocNode(size, node) => model.nodes[*size as usize] = Some(node.clone()),
            Self::FreeInside(size) => drop(child(model, *size).take()),
            Self::MoveOut(size, at) => model.slots[*at] = child(model, *size).take(),
            Self::FreeNode(size) => model.nodes[*size as usize] = None,
        }
    }
}

/// What the slot in a typed block owns.
fn child(model: &mut Model, size: Size) -> &mut Option<Held> {
    &mut model.nodes[size as usize].as_mut().expect("the node is there").child
}

impl Plan {
    /// The state after the step, if it succeeds.
    #[must_use]
    pub fn after(&self, before: &Model) -> Model {
        let mut after = before.clone();
        match self {
            Self::Alloc(at, held) | Self::Replace(at, held) => {
                after.slots[*at] = Some(held.clone());
            }
            Self::Free(_, at) => after.slots[*at] = None,
            Self::Publish(_, actions) => actions.iter().for_each(|action| action.apply(&mut after)),
            Self::MakeRoot(extra) => after.extra = Some(*extra),
            Self::RemoveRoot => after.extra = None,
            Self::Nothing
            | Self::Trim
            | Self::Sync
            | Self::Switch
            | Self::KillAndSwitch
            | Self::RenewSession(_)
            | Self::Kill
            | Self::Reopen
            | Self::Refused(..) => {}
        }
        after
    }

    /// Performs the step.
    ///
    /// # Errors
    ///
    /// As the heap's; the state is then as before.
    ///
    /// # Panics
    ///
    /// If the heap does what it must refuse.
    pub fn perform(&self, world: &mut World) -> Result<(), Error> {
        match self {
            Self::Nothing => Ok(()),
            Self::Alloc(at, held) => world.alloc(*at, held),
            Self::Free(lane, at) => world.free(*lane, *at),
            Self::Trim => world.heap().trim().map(drop),
            Self::Sync => world.heap().sync(),
            Self::Switch => {
                world.switch_policy();
                Ok(())
            }
            Self::KillAndSwitch => {
                world.process().kill();
                world.switch_policy();
                Ok(())
            }
            Self::MakeRoot(extra) => {
                world.heap().root_bytes("extra", extra.bytes(), EXTRA_TYPE).map(drop)
            }
            Self::RemoveRoot => world.heap().root_remove("extra"),
            Self::RenewSession(lane) => {
                world.renew_session(*lane);
                Ok(())
            }
            Self::Kill => {
                world.kill();
                Ok(())
            }
            Self::Reopen => {
                world.reopen();
                Ok(())
            }
            Self::Replace(at, held) => world.replace(*at, held),
            Self::Publish(lane, actions) => world.publish(*lane, actions),
            Self::Refused(lane, actions) => match world.publish(*lane, actions) {
                Err(Error::Limit { .. }) => Ok(()),
                Ok(()) => panic!("more changes than the ring allows are published"),
                error => error,
            },
        }
    }
}
