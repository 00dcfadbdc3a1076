//! A small heap on the simulator, with two sessions.

#![allow(unsafe_code, reason = "explorer and heap share the simulator")]

use std::{alloc::Layout, sync::OnceLock, time::Duration};

use pmalloc::{
    BlockLayout, Error, Heap, HeapOptions, Policy, Session, Slot, TestGeometry, VersionedCell,
    persist::{
        LINE_BYTES, Medium, Offset, PAGE_BYTES, Span, Word,
        sim::{Domain, Sim, SimOptions},
    },
};

use crate::{
    alphabet::{Action, tag_of},
    model::{CELLS, CHILDREN, Held, Model},
    nodes::{Nodes, Size},
};

/// Slots of the array that operations work on: two lines.
pub const SLOTS: usize = 16;

/// After so many changes the version of a slot or cell begins again.
const VERSIONS: u64 = 1 << 20;

/// The largest number of an operation in a lane, and the largest epoch.
pub const NUMBER_MAX: u64 = (1 << 40) - 1;

/// The first word of a lane.
const LANE_MAGIC: u64 = u64::from_le_bytes(*b"PMALLANE");

/// Operations of a worn-out lane before it begins to count again.
const NUMBERS_LEFT: u64 = 4;

/// Options of a heap in which a full ring, chunk or slab is a few operations away.
///
/// Made once: asking the system for its processors, as every default does, takes longer than a recovery here.
pub fn options() -> &'static HeapOptions {
    static OPTIONS: OnceLock<HeapOptions> = OnceLock::new();
    OPTIONS.get_or_init(|| Heap::options().test_geometry(GEOMETRY))
}

const GEOMETRY: TestGeometry = TestGeometry {
    capacity_bytes: 256 << 10,
    slab_bytes: 16 << 10,
    ring_places: 16,
    lanes: 3,
    chunk_bytes: 256,
    logs: 2,
    roots: 8,
    stripes: 3,
};

/// An empty medium for such a heap.
///
/// # Panics
///
/// If the options are not valid, which they are.
#[must_use]
pub fn medium(domain: Domain) -> Sim {
    let len_bytes = options().heap_bytes().expect("valid sizes");
    Sim::new(SimOptions { len_bytes, domain })
}

/// Creates a heap on a simulator of which the exploration has handles.
///
/// # Errors
///
/// As [`HeapOptions::create_on`].
pub fn create(sim: Sim, policy: Policy) -> Result<Heap<Sim>, Error> {
    create_as(&options().clone().policy(policy), sim)
}

fn create_as(options: &HeapOptions, sim: Sim) -> Result<Heap<Sim>, Error> {
    // SAFETY:
    // 1. explorer and oracle look at the memory, and store through heaps only; a start state stores versions before its slots
    //    and cells are used;
    // 2. a heap that was killed, or that is recovered anew, lends nothing any more when the next one is opened.
    unsafe { options.create_on_shared(sim) }
}

/// Opens such a heap.
///
/// # Errors
///
/// As [`HeapOptions::open_on`].
pub fn open(sim: Sim) -> Result<Heap<Sim>, Error> {
    open_as(options(), sim)
}

fn open_as(options: &HeapOptions, sim: Sim) -> Result<Heap<Sim>, Error> {
    // SAFETY: as for `create`.
    unsafe { options.open_on_shared(sim) }
}

/// The medium of such a heap.
#[must_use]
pub fn medium_of(heap: &Heap<Sim>) -> &Sim {
    // SAFETY: as for `create`.
    unsafe { heap.medium() }
}

/// The slot at byte `offset` of a block that was made with zeros there.
///
/// # Errors
///
/// As [`Heap::slot_at`].
pub(crate) fn slot_at(heap: &Heap<Sim>, offset: u64) -> Result<&Slot, Error> {
    // SAFETY: eight zero bytes that only operations write; nobody looks at the bytes of the block, and the slot is forgotten
    // before that is freed.
    unsafe { heap.slot_at(offset) }
}

/// A heap, the sessions that work on it, and what they expect of it.
#[derive(Debug)]
pub struct World {
    /// The medium.
    pub sim: Sim,
    /// What it must hold.
    pub model: Model,
    /// The process that has the heap open.
    process: Sim,
    /// `None` only while it is opened again.
    heap: Option<Heap<Sim>>,
    /// How it is opened again.
    options: HeapOptions,
    /// Two, after [`World::open`].
    sessions: Vec<Session<Sim>>,
    next_id: u64,
}

impl World {
    /// A fresh heap on `sim`, with the array `slots`, all empty, and cells that hold zero.
    ///
    /// # Panics
    ///
    /// If the heap can't be created, which no simulated fault prevents here.
    #[must_use]
    pub fn new(sim: Sim, policy: Policy) -> Self {
        Self::with_options(sim, options().clone().policy(policy))
    }

    /// Likewise, a heap that gives memory back as soon as it is free, and not only when time has passed.
    #[must_use]
    pub fn keeping_nothing(sim: Sim, policy: Policy) -> Self {
        Self::with_options(sim, options().clone().policy(policy).decay(Duration::ZERO))
    }

    /// Likewise, with rings of so many places: the heap is as large.
    #[must_use]
    pub fn with_rings(sim: Sim, policy: Policy, ring_places: u32) -> Self {
        let geometry = TestGeometry { ring_places, ..GEOMETRY };
        Self::with_options(sim, options().clone().policy(policy).test_geometry(geometry))
    }

    fn with_options(sim: Sim, options: HeapOptions) -> Self {
        let process = sim.new_process();
        let heap = create_as(&options, process.clone()).expect("a fresh medium has room");
        let mut world = Self::bare(sim, process, heap, options);
        world.furnish();
        world
    }

    /// A fresh heap on `sim`, with nothing in it.
    ///
    /// # Errors
    ///
    /// As the heap's.
    pub fn created(sim: Sim) -> Result<Self, Error> {
        let process = sim.new_process();
        Ok(Self::bare(sim, process.clone(), create(process, Policy::Eager)?, options().clone()))
    }

    /// The heap that is found on `sim`, with nothing in it.
    ///
    /// # Errors
    ///
    /// As the heap's.
    pub fn found(sim: Sim) -> Result<Self, Error> {
        let process = sim.new_process();
        Ok(Self::bare(sim, process.clone(), open(process)?, options().clone()))
    }

    fn bare(sim: Sim, process: Sim, heap: Heap<Sim>, options: HeapOptions) -> Self {
        let (model, sessions) = (Model::default(), Vec::new());
        Self { sim, model, process, heap: Some(heap), options, sessions, next_id: 1 }
    }

    /// Makes the array `slots` and the cells.
    ///
    /// # Panics
    ///
    /// If there is no room, which no simulated fault prevents here.
    pub fn furnish(&mut self) {
        let heap = self.heap();
        furnish(heap).expect("a fresh heap has room");
        self.sessions = vec![heap.session(), heap.session()];
        self.model = Model { slots: vec![None; SLOTS], ..Model::default() };
    }

    /// The process that has the heap open, also when it is dead.
    #[must_use]
    pub const fn process(&self) -> &Sim {
        &self.process
    }

    /// The heap.
    ///
    /// # Panics
    ///
    /// If opening it again failed.
    #[must_use]
    pub fn heap(&self) -> &Heap<Sim> {
        self.heap.as_ref().expect("the heap is open")
    }

    /// The array that operations work on.
    ///
    /// # Panics
    ///
    /// If it is gone.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        self.heap().slots("slots", SLOTS as u64).expect("it was created")
    }

    /// The block that the next allocation would be.
    #[must_use]
    pub fn draft(&self, lane: usize, size: usize, filled: bool) -> Held {
        Held { id: self.next_id, size, tag: tag_of(size), filled, lane }
    }

    /// The value that the `nth` cell of the next publish would get: all 44 bits of it count.
    #[must_use]
    pub fn value(&self, nth: u64) -> u64 {
        (self.next_id + nth).wrapping_mul(0x9e37_79b9_7f4a_7c15) & VersionedCell::VALUE_MAX
    }

    /// Allocates `held` into the slot `at`.
    ///
    /// # Errors
    ///
    /// As the heap's.
    ///
    /// # Panics
    ///
    /// If the size is no valid layout.
    pub fn alloc(&mut self, at: usize, held: &Held) -> Result<(), Error> {
        self.next_id += 1;
        let heap = self.heap().clone();
        let slot = &heap.slots("slots", SLOTS as u64)?[at];
        let session = &mut self.sessions[held.lane];
        if held.filled {
            session.alloc_init(slot, layout(held), |bytes| held.fill(bytes))
        } else {
            session.alloc_to(slot, layout(held))
        }
    }

    /// Frees the slot `at` through session `lane`.
    ///
    /// # Errors
    ///
    /// As the heap's.
    ///
    /// # Panics
    ///
    /// If the slots are gone.
    pub fn free(&mut self, lane: usize, at: usize) -> Result<(), Error> {
        let heap = self.heap().clone();
        let slot = &heap.slots("slots", SLOTS as u64)?[at];
        self.sessions[lane].free_from(slot)
    }

    /// Replaces the block of the slot `at` by `held`, which is filled.
    ///
    /// # Errors
    ///
    /// As the heap's.
    ///
    /// # Panics
    ///
    /// If the slots are gone.
    pub fn replace(&mut self, at: usize, held: &Held) -> Result<(), Error> {
        self.next_id += 1;
        let heap = self.heap().clone();
        let slot = &heap.slots("slots", SLOTS as u64)?[at];
        self.sessions[held.lane].replace(slot, layout(held), |bytes| held.fill(bytes))
    }

    /// Performs `actions` as one through session `lane`.
    ///
    /// # Errors
    ///
    /// As the heap's.
    ///
    /// # Panics
    ///
    /// If the slots are gone.
    pub fn publish(&mut self, lane: usize, actions: &[Action]) -> Result<(), Error> {
        let heap = self.heap().clone();
        let slots = heap.slots("slots", SLOTS as u64)?;
        // Only for actions on them: looking for the root declares its types, and a guard keeps what is freed from reuse.
        let of_nodes = actions.iter().any(Action::is_on_nodes);
        let root = of_nodes.then(|| Nodes::of(&heap)).transpose()?;
        let guard = of_nodes.then(|| heap.pin());
        let nodes = || root.expect("an action is on nodes");
        let inside = |size| {
            let guard = guard.as_ref().expect("an action is on nodes");
            nodes().child(size, guard).expect("the node is there")
        };
        let session = &mut self.sessions[lane];
        let mut publish = heap.publish();
        for action in actions {
            match action {
                Action::AllocNode(size, node) => {
                    self.next_id += 2;
                    let held = node.child.as_ref().expect("a new node owns something");
                    let mut child = heap.reserve_in(session, layout(held))?;
                    child.write(|bytes| held.fill(bytes));
                    nodes().add(&heap, session, &mut publish, (*size, node.id), child)?;
                }
                Action::FreeInside(size) => {
                    publish.free(inside(*size));
                }
                Action::MoveOut(size, at) => {
                    publish.move_to(inside(*size), &slots[*at]);
                }
                Action::FreeNode(Size::Small) => {
                    publish.free(nodes().small());
                }
                Action::FreeNode(Size::Large) => {
                    publish.free(nodes().large());
                }
                Action::Alloc(at, held) => {
                    self.next_id += 1;
                    let mut block = heap.reserve_in(session, layout(held))?;
                    if held.filled {
                        block.write(|bytes| held.fill(bytes));
                    }
                    publish.alloc(&slots[*at], block);
                }
                Action::Free(at) => {
                    publish.free(&slots[*at]);
                }
                Action::Move(from, to) => {
                    publish.move_to(&slots[*from], &slots[*to]);
                }
                Action::Swap(a, b) => {
                    publish.swap(&slots[*a], &slots[*b]);
                }
                Action::Set(at, value) => {
                    self.next_id += 1;
                    publish.set(cell(&heap, *at)?, *value);
                }
            }
        }
        publish.commit_in(session)
    }

    /// Makes the root of typed blocks.
    ///
    /// # Panics
    ///
    /// If there is no room.
    pub fn make_nodes(&mut self) {
        Nodes::of(self.heap()).expect("there is room");
        self.model.has_nodes = true;
    }

    /// Brings the versions of all slots and cells to the last one, or the last but one, before they begin again.
    ///
    /// # Panics
    ///
    /// If the root table can't be read.
    pub fn age(&self) {
        const PLACE: u64 = (1 << 44) - 1;
        let m = &self.process;
        for name in ["slots", "cells", "nodes"] {
            let Some(root) = self.heap().root_find(name).expect("readable") else { continue };
            // Cells have a line of their own each; of the nodes' root the first two words are slots.
            let (step, count) = match name {
                "cells" => (LINE_BYTES, CELLS as u64),
                "nodes" => (8, CHILDREN as u64),
                _ => (8, SLOTS as u64),
            };
            for nth in 0..count {
                let word: &Word = m.at(Offset::new(root.offset + nth * step)).expect("inside");
                m.store(word, m.load(word) & PLACE | (VERSIONS - 1 - nth % 2) << 44);
                m.persist(m.region().span_of(word));
            }
        }
    }

    /// Closes the heap, uses up the numbers of its lanes and half of its epochs, and opens it again: once more, and the epochs
    /// begin again.
    ///
    /// # Panics
    ///
    /// If the heap can't be closed or opened.
    pub fn wear_out(&mut self) {
        const MARKS: u64 = 8;
        self.close().expect("no sync fails yet");
        let m = &self.process;
        let store = |offset: u64, value: u64| {
            let word: &Word = m.at(Offset::new(offset)).expect("inside");
            m.store(word, sealed(value));
            m.persist(m.region().span_of(word));
        };
        // What is opened ends two epochs.
        store(2 * PAGE_BYTES + LINE_BYTES, NUMBER_MAX / 2 - 2);
        let pages = (0..m.len() / PAGE_BYTES).map(|page| page * PAGE_BYTES);
        let is_lane = |start: &u64| {
            m.has_memory(Span::new(*start, PAGE_BYTES))
                && m.at(Offset::new(*start)).is_ok_and(|word: &Word| m.load(word) == LANE_MAGIC)
        };
        let last = NUMBER_MAX - NUMBERS_LEFT;
        let lanes: Vec<u64> = pages.filter(is_lane).collect();
        assert!(!lanes.is_empty(), "a session had a lane");
        lanes.into_iter().for_each(|lane| store(lane + (1 + last % MARKS) * LINE_BYTES, last));
        self.open().expect("it was closed");
    }

    /// Ends session `lane`, which gives its caches and its lane back, and begins a new one.
    pub fn renew_session(&mut self, lane: usize) {
        let session = self.heap().session();
        self.sessions[lane] = session;
    }

    /// Kills the process without a warning, and opens the heap in another one: no power is lost, and nothing is
    /// closed.
    ///
    /// # Panics
    ///
    /// If the heap does not open.
    pub fn kill(&mut self) {
        self.process.kill();
        self.reopen();
    }

    /// Performs `work`, unless the process is killed at the `nth` call that changes the medium; whether it came to that. Then
    /// only [`World::reopen`] makes sense.
    pub fn kill_in<T>(&mut self, nth: u64, work: impl FnOnce(&mut Self) -> T) -> bool {
        let process = self.process.clone();
        process.kill_in(nth, || work(self)).is_none()
    }

    /// Closes the heap, unless its process was killed, and opens it in another process.
    ///
    /// # Panics
    ///
    /// If the heap does not open.
    pub fn reopen(&mut self) {
        self.abandon();
        self.open().expect("it was whole");
    }

    /// Closes the heap, unless its process was killed, and opens it in another process with the other policy.
    ///
    /// # Panics
    ///
    /// If the heap does not open.
    pub fn switch_policy(&mut self) {
        let policy = match self.heap().policy() {
            Policy::Batched => Policy::Eager,
            _ => Policy::Batched,
        };
        self.options = self.options.clone().policy(policy);
        self.reopen();
    }

    /// Gives the heap up as a program that ends: it is closed, unless its process was killed.
    pub fn abandon(&mut self) {
        self.sessions.clear();
        self.heap = None;
    }

    /// Closes the heap.
    ///
    /// # Errors
    ///
    /// As the heap's.
    ///
    /// # Panics
    ///
    /// If it is not open.
    pub fn close(&mut self) -> Result<(), Error> {
        self.sessions.clear();
        self.heap.take().expect("the heap is open").close()
    }

    /// Opens the heap in another process; what this one still has of it is given up.
    ///
    /// # Errors
    ///
    /// As the heap's.
    pub fn open(&mut self) -> Result<(), Error> {
        self.abandon();
        self.process = self.process.new_process();
        let heap = open_as(&self.options, self.process.clone())?;
        self.sessions = vec![heap.session(), heap.session()];
        self.heap = Some(heap);
        Ok(())
    }

    /// Whether the heap is open.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.heap.is_some()
    }

    /// Gives up everything but the heap.
    ///
    /// # Panics
    ///
    /// If opening it again failed.
    #[must_use]
    pub fn into_heap(self) -> (Heap<Sim>, Model) {
        drop(self.sessions);
        (self.heap.expect("the heap is open"), self.model)
    }
}

/// The word of a value with its check, as the format has it.
const fn sealed(value: u64) -> u64 {
    let check = value ^ value >> 16 ^ value >> 32 ^ 0x5ea1;
    value | (check & 0xffff) << 48
}

/// Makes the roots that a world works on.
///
/// # Errors
///
/// As the heap's.
pub(crate) fn furnish(heap: &Heap<Sim>) -> Result<(), Error> {
    heap.slots("slots", SLOTS as u64)?;
    // Of the class of the first array: the cells need no slab of their own.
    cell(heap, 0).map(drop)
}

/// The cell `at` of `heap`: each has a line of its own.
///
/// # Errors
///
/// As the heap's.
pub fn cell(heap: &Heap<Sim>, at: usize) -> Result<&VersionedCell, Error> {
    let root = heap.root_bytes("cells", SLOTS * 8, 0)?;
    heap.root_cell(&root, at as u64 * LINE_BYTES)
}

fn layout(held: &Held) -> BlockLayout {
    let layout = Layout::from_size_align(held.size, 8).expect("a valid size");
    BlockLayout::new(layout).with_tag(held.tag)
}
