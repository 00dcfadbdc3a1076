//! A state of the model: memory, and all that is volatile.

use crate::{
    book::{Mirror, Place, Pool},
    layout::{Block, Layout, Slot},
    memory::{Image, Memory},
    packed::{Change, SlotValue},
    rule::Break,
    scenario::{Op, Order, Policy, Run, Scenario},
    thread::At,
};

/// A scenario, with the rule that is broken in it.
#[derive(Debug)]
pub(crate) struct Model<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) layout: Layout,
    pub(crate) broken: Option<Break>,
}

impl Model<'_> {
    pub(crate) fn breaks(&self, rule: Break) -> bool {
        self.broken == Some(rule)
    }

    pub(crate) fn policy(&self, world: &World) -> Policy {
        self.scenario.policy(world.run)
    }

    /// Whether a block's effect is an entry of a log.
    pub(crate) fn is_large(&self, block: Block) -> bool {
        self.scenario.large.contains(block)
    }

    /// Whether a block lies in the slab that has to be made.
    pub(crate) fn is_in_slab(&self, block: Block) -> bool {
        self.layout.shape().slab && matches!(block, Block::A | Block::B)
    }

    /// The operation that a thread is in, or begins next.
    pub(crate) fn op(&self, world: &World, thread: usize) -> Option<Op> {
        let program = self.scenario.programs(world.run).get(thread)?;
        program.get(usize::from(world.threads[thread].op)).copied()
    }

    /// The order of a thread's steps; Eager doesn't mark.
    pub(crate) fn order(&self) -> Order {
        self.scenario.order
    }

    /// The agent number of a synchronizer.
    pub(crate) fn agent(&self, synchronizer: usize) -> usize {
        self.layout.shape().lanes + synchronizer
    }

    /// Whether the memory of a block that was freed may be handed out.
    fn is_reusable(&self, world: &World, block: Block) -> bool {
        match world.uses[block.index()] {
            Use::Free => true,
            Use::Taken => false,
            Use::Limbo(epoch) => {
                self.breaks(Break::ReuseAtOnce)
                    || self.breaks(Break::ReuseWhenClosed) && epoch < world.epoch
            }
        }
    }

    /// Whether a block may be handed out.
    pub(crate) fn is_available(&self, world: &World, block: Block) -> bool {
        self.is_reusable(world, block) && self.has_memory(world, block)
    }

    /// Whether no block with other bounds uses the memory of `block`.
    fn has_memory(&self, world: &World, block: Block) -> bool {
        if self.layout.shape().slab {
            return match block {
                Block::A | Block::B => world.slab == SlabUse::Present,
                Block::Y => world.slab == SlabUse::Absent,
                Block::X => true,
            };
        }
        let other = match block {
            Block::X => Block::Y,
            Block::Y => Block::X,
            _ => return true,
        };
        match world.uses[other.index()] {
            Use::Free => true,
            Use::Taken => false,
            Use::Limbo(_) => self.breaks(Break::MorphInLimbo),
        }
    }

    /// Whether the slab's pages may be taken for it.
    pub(crate) fn is_slab_room(&self, world: &World) -> bool {
        world.slab == SlabUse::Absent && self.is_reusable(world, Block::Y)
    }

    /// Whether the slab may be given back.
    pub(crate) fn is_slab_idle(&self, world: &World) -> bool {
        let is_idle = |block: Block| match world.uses[block.index()] {
            Use::Free => true,
            Use::Taken => false,
            Use::Limbo(_) => self.breaks(Break::SlabInLimbo),
        };
        world.slab == SlabUse::Present && is_idle(Block::A) && is_idle(Block::B)
    }
}

/// What a block is used for, as the allocator knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Use {
    Free,
    /// Reserved, live, or being freed.
    Taken,
    /// Freed in this epoch.
    Limbo(u8),
}

/// Whether there is a slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SlabUse {
    Absent,
    /// Being made or given back.
    Changing,
    Present,
}

/// What must be found after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Truth {
    pub(crate) slots: [Option<Block>; 4],
    /// Whether X is a node.
    pub(crate) is_node: bool,
    /// By block: the first word, if it is known.
    pub(crate) contents: [Option<u32>; 4],
}

impl Truth {
    pub(crate) fn owner_of(&self, slot: Slot) -> Option<Block> {
        self.slots[slot.index()]
    }

    pub(crate) fn owns_node(&self, slot: Slot) -> bool {
        self.is_node && self.owner_of(slot) == Some(Block::X)
    }
}

/// The volatile side of a lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Lane {
    /// The next ring place.
    pub(crate) position: u8,
    /// Tag of the last record.
    pub(crate) tag: u8,
    /// Eager: number of the last operation.
    pub(crate) number: u8,
    /// By place: the epoch of its last record.
    pub(crate) epochs: Vec<u8>,
    /// The mark that others see: odd while the thread is inside.
    pub(crate) mark: u8,
    /// Whether the store of the mark is still in the thread's store buffer.
    pub(crate) is_buffered: bool,
}

impl Lane {
    /// Lets the store of the mark become visible.
    pub(crate) fn drain(&mut self) {
        if self.is_buffered {
            self.is_buffered = false;
            self.mark += 1;
        }
    }
}

/// A thread, and the operation that it is in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Thread {
    /// Which operation of its program.
    pub(crate) op: u8,
    pub(crate) at: At,
    pub(crate) reserved: Vec<Block>,
    /// Changes of the operation, in the order of its records.
    pub(crate) changes: Vec<Change>,
    /// What its slots get, each once.
    pub(crate) stores: Vec<(Slot, SlotValue)>,
    /// Places taken in logs.
    pub(crate) places: Vec<Place>,
    /// A chunk that is being made for a log.
    pub(crate) chunk: Option<u8>,
    pub(crate) stamp: u8,
    /// Slots owned, as a set of bits.
    pub(crate) owned: u8,
    pub(crate) owns_node: bool,
    /// Whether records may be on media and no effect was stored yet.
    pub(crate) is_decided: bool,
}

impl Thread {
    pub(crate) fn new(op: u8) -> Self {
        Self {
            op,
            at: At::Start,
            reserved: Vec::new(),
            changes: Vec::new(),
            stores: Vec::new(),
            places: Vec::new(),
            chunk: None,
            stamp: 0,
            owned: 0,
            owns_node: false,
            is_decided: false,
        }
    }
}

/// A thread that synchronizes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Synchronizer {
    pub(crate) at: crate::synchronizer::Sync,
    /// The epoch that it closes.
    pub(crate) closing: u8,
    /// By lane: the odd mark it saw, until that changed.
    pub(crate) waits: Vec<Option<u8>>,
}

/// A state.
#[derive(Debug, Clone, Hash)]
pub(crate) struct World {
    pub(crate) run: Run,
    pub(crate) memory: Memory,
    pub(crate) truth: Truth,
    pub(crate) epoch: u8,
    /// The durable epoch that the synchronizer has announced.
    pub(crate) durable: u8,
    pub(crate) rounds: u8,
    pub(crate) is_synchronizing: bool,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) threads: Vec<Thread>,
    pub(crate) synchronizers: Vec<Synchronizer>,
    /// Slots owned by any thread, as a set of bits.
    pub(crate) owned: u8,
    pub(crate) is_node_owned: bool,
    pub(crate) uses: [Use; 4],
    pub(crate) slab: SlabUse,
    pub(crate) logs: Vec<Mirror>,
    pub(crate) pool: Pool,
    /// Entries to be flushed with an epoch: chunk, entry, epoch.
    pub(crate) unflushed: Vec<(u8, u8, u8)>,
}

impl Model<'_> {
    /// The state in which the first run begins.
    pub(crate) fn first(&self) -> World {
        let mut image = Image::new(self.layout.words());
        for log in 0..self.layout.shape().logs {
            image.set(self.layout.base(log), 1);
            image.set(self.layout.root(log), small(log) + 1);
        }
        if self.layout.shape().slab {
            // What a descriptor that no slab uses holds means nothing.
            image.set(self.layout.bit(Block::A), 1);
            image.set(self.layout.bit(Block::B), 1);
        }
        let truth = Truth { slots: [None; 4], is_node: false, contents: [None; 4] };
        self.begin(Run::First, &image, truth).expect("a new heap is whole")
    }

    /// The state in which a run on `image` begins, which recovery or a close left.
    pub(crate) fn begin(&self, run: Run, image: &Image, truth: Truth) -> Result<World, String> {
        let shape = self.layout.shape();
        let agents = shape.lanes + self.scenario.synchronizers;
        let books = self.replay(image)?;
        let durable = image.get(self.layout.durable()).to_le_bytes()[0];
        let is_present = books.iter().any(|log| log.holds(crate::packed::Extent::Slab));
        let mut pool = Pool::new(0, shape.chunks);
        for chunk in books.iter().flat_map(|log| &log.chunks) {
            pool.take_exact(chunk.index);
        }
        let live = |block: Block| truth.slots.contains(&Some(block));
        Ok(World {
            run,
            memory: Memory::new(image, agents),
            truth,
            epoch: durable + 1,
            durable,
            rounds: self.scenario.rounds[run as usize],
            is_synchronizing: false,
            lanes: (0..shape.lanes).map(|lane| self.lane(image, lane)).collect(),
            threads: (0..shape.lanes).map(|_| Thread::new(0)).collect(),
            synchronizers: vec![Synchronizer::new(shape.lanes); self.scenario.synchronizers],
            owned: 0,
            is_node_owned: false,
            uses: Block::ALL.map(|block| if live(block) { Use::Taken } else { Use::Free }),
            slab: if is_present { SlabUse::Present } else { SlabUse::Absent },
            logs: books,
            pool,
            unflushed: Vec::new(),
        })
    }

    /// A lane whose ring was zeroed: its numbers go on above the newest mark.
    fn lane(&self, image: &Image, lane: usize) -> Lane {
        let marks =
            (0..self.layout.shape().marks).map(|nth| image.get(self.layout.mark(lane, nth)));
        let newest = marks.max().unwrap_or(0).to_le_bytes()[0];
        let number = if self.breaks(Break::NumbersRestart) { 0 } else { newest };
        Lane {
            position: 0,
            tag: 0,
            number,
            epochs: vec![0; self.layout.shape().ring],
            mark: 0,
            is_buffered: false,
        }
    }
}

/// A small number as a word.
pub(crate) fn small(number: usize) -> u32 {
    u32::try_from(number).expect("numbers of a model are small")
}
