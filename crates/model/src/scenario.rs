//! What a scenario is: threads with their operations, a policy, and what the heap consists of.

use crate::layout::{Block, Blocks, Domain, Shape, Slot};

/// When the effects of an operation become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Policy {
    /// With the epoch, by a synchronizer.
    Batched,
    /// Before the operation returns.
    Eager,
}

/// What is written into a new block before it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Contents {
    /// Nothing.
    Bare,
    /// A user's data.
    Data,
    /// An empty slot: the block, X, becomes a node.
    Node,
}

/// An operation of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    /// Allocates one of these blocks into a slot.
    Alloc(Slot, Blocks, Contents),
    /// Frees what a slot owns.
    Free(Slot),
    /// Moves a block from a slot to an empty one.
    Move(Slot, Slot),
    /// Exchanges the blocks of two slots.
    Swap(Slot, Slot),
    /// Allocates a block in the place of another, which is freed.
    Replace(Slot, Blocks),
    /// Allocates two blocks; into [`Slot::Inner`] if the first is X as a node.
    Publish([Slot; 2], [Blocks; 2]),
    /// Frees what [`Slot::Inner`] owns, and the node from its slot.
    FreeBoth(Slot),
    /// The user writes into the block of a slot, and persists that.
    Write(Slot),
    /// The thread ends; another takes its lane.
    Handover,
    /// Makes the slab of A and B.
    CreateSlab,
    /// Gives the slab back, if all its blocks are free.
    ReturnSlab,
    /// Copies a log's live entries to a fresh chunk and switches to it.
    Copy(u8),
    /// Unlinks the first chunk of a log that nothing needs.
    Unlink(u8),
}

impl Op {
    /// Records that it takes.
    pub(crate) fn records(self) -> u8 {
        match self {
            Self::Alloc(..) | Self::Free(_) => 1,
            Self::Move(..)
            | Self::Swap(..)
            | Self::Replace(..)
            | Self::Publish(..)
            | Self::FreeBoth(_) => 2,
            _ => 0,
        }
    }

    /// The slots that it names, as a set of bits.
    pub(crate) fn slots(self) -> u8 {
        match self {
            Self::Alloc(slot, ..)
            | Self::Free(slot)
            | Self::Replace(slot, _)
            | Self::Write(slot) => slot.bit(),
            Self::Move(a, b) | Self::Swap(a, b) | Self::Publish([a, b], _) => a.bit() | b.bit(),
            Self::FreeBoth(outer) => Slot::Inner.bit() | outer.bit(),
            _ => 0,
        }
    }

    /// The sets of blocks from which it allocates.
    pub(crate) fn allocates(self) -> [Blocks; 2] {
        match self {
            Self::Alloc(_, from, _) | Self::Replace(_, from) => [from, Blocks::NONE],
            Self::Publish(_, from) => from,
            _ => [Blocks::NONE; 2],
        }
    }

    /// What it writes into the first block that it allocates.
    pub(crate) fn contents(self) -> Contents {
        match self {
            Self::Alloc(_, _, contents) => contents,
            Self::Publish([_, Slot::Inner], _) => Contents::Node,
            _ => Contents::Bare,
        }
    }
}

/// When a thread marks its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Order {
    /// Mark, own and look at the slots, stamp.
    MarkFirst,
    /// Own and look at the slots, take places in the logs, mark, stamp.
    LookFirst,
}

/// What stands between the mark and the load of the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Barrier {
    /// The synchronizer issues it for all threads, behind its bump.
    Membarrier,
    /// The locked instruction by which a slot is owned.
    SlotLock,
}

/// How the second run of a scenario begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Between {
    /// After every crash of the first run, with every image.
    Crash,
    /// After a crash, and also after a clean close.
    CrashOrClose,
    /// After a clean close, under the other policy.
    SwitchPolicy,
}

/// Operations of each thread.
pub(crate) type Programs = Vec<Vec<Op>>;

/// One thing to explore.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) policy: Policy,
    pub(crate) programs: Programs,
    /// A second run, after recovery; without operations there is none.
    pub(crate) second: Programs,
    pub(crate) between: Between,
    /// How often the synchronizers run, in either run.
    pub(crate) rounds: [u8; 2],
    pub(crate) synchronizers: usize,
    /// Blocks that are large: their effect is a log entry, not a bit.
    pub(crate) large: Blocks,
    pub(crate) shape: Shape,
    pub(crate) order: Order,
    pub(crate) barrier: Barrier,
    pub(crate) domains: &'static [Domain],
    /// Whether processes are killed in it, too, and power is lost in the recovery behind that.
    pub(crate) is_killed: bool,
    /// Whether the quick run leaves it out.
    pub(crate) is_long: bool,
}

const BOTH: &[Domain] = &[Domain::Word8, Domain::Line64];

impl Scenario {
    fn new(name: &'static str, about: &'static str, policy: Policy, programs: Programs) -> Self {
        let marks = if policy == Policy::Eager { 2 } else { 0 };
        let lanes = programs.len();
        let shape = Shape { lanes, ring: 3, marks, logs: 1, chunks: 1, entries: 4, slab: false };
        Self {
            name,
            about,
            policy,
            programs,
            second: Vec::new(),
            between: Between::Crash,
            rounds: [2, 1],
            synchronizers: 1,
            large: Blocks::NONE,
            shape,
            order: Order::MarkFirst,
            barrier: Barrier::Membarrier,
            domains: BOTH,
            is_killed: false,
            is_long: false,
        }
    }

    pub(crate) fn batched(name: &'static str, about: &'static str, programs: Programs) -> Self {
        Self::new(name, about, Policy::Batched, programs)
    }

    pub(crate) fn eager(name: &'static str, about: &'static str, programs: Programs) -> Self {
        Self { rounds: [0; 2], ..Self::new(name, about, Policy::Eager, programs) }
    }

    /// Adds a second run.
    pub(crate) fn then(mut self, second: Programs) -> Self {
        self.shape.lanes = self.shape.lanes.max(second.len());
        self.second = second;
        self
    }

    pub(crate) fn between(mut self, between: Between) -> Self {
        if between == Between::SwitchPolicy {
            self.shape.marks = 2;
        }
        self.between = between;
        self
    }

    pub(crate) fn rounds(mut self, first: u8, second: u8) -> Self {
        self.rounds = [first, second];
        self
    }

    pub(crate) fn ring(mut self, places: usize) -> Self {
        self.shape.ring = places;
        self
    }

    /// Makes blocks large, over logs with chunks of so many entries.
    pub(crate) fn book(
        mut self,
        large: Blocks,
        logs: usize,
        chunks: usize,
        entries: usize,
    ) -> Self {
        self.large = large;
        self.order = Order::LookFirst;
        self.shape = Shape { logs, chunks, entries, ..self.shape };
        self
    }

    /// Makes A and B blocks of a slab, which lies where Y does.
    pub(crate) fn slab(mut self) -> Self {
        self.large = Block::Y.only();
        self.order = Order::LookFirst;
        self.shape = Shape { entries: 12, slab: true, ..self.shape };
        self
    }

    pub(crate) fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    pub(crate) fn slot_lock(mut self) -> Self {
        self.barrier = Barrier::SlotLock;
        self
    }

    pub(crate) fn two_synchronizers(mut self) -> Self {
        self.synchronizers = 2;
        self
    }

    /// Kills processes, too.
    pub(crate) fn killed(mut self) -> Self {
        self.is_killed = true;
        self
    }

    /// Explores it in the long run only.
    pub(crate) fn long(mut self) -> Self {
        self.is_long = true;
        self
    }

    /// Explores it in one domain only, in the quick and in the long run.
    pub(crate) fn only(mut self, domains: &'static [Domain]) -> Self {
        self.domains = domains;
        self
    }

    /// The operations of a run.
    pub(crate) fn programs(&self, run: Run) -> &Programs {
        match run {
            Run::First => &self.programs,
            Run::Second => &self.second,
        }
    }

    /// The policy of a run.
    pub(crate) fn policy(&self, run: Run) -> Policy {
        match (self.policy, run, self.between) {
            (Policy::Batched, Run::Second, Between::SwitchPolicy) => Policy::Eager,
            (Policy::Eager, Run::Second, Between::SwitchPolicy) => Policy::Batched,
            (policy, ..) => policy,
        }
    }
}

/// Which run of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Run {
    /// The first.
    First,
    /// The one behind a recovery or a close.
    Second,
}
