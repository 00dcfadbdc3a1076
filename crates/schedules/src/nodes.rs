//! Typed blocks with a slot of bytes in each: threads free them while others allocate into them.

use pmalloc::{Error, Guard, Heap, Persistent, Slot, persist::sim::Sim};

use crate::{
    history::Seen,
    scenario::{Op, Place, Scenario},
    threads::{layout, write_contents},
};

/// The root with slots of typed blocks, of scenarios that have some.
pub const NODES: &str = "nodes";

/// What places are called that lie in typed blocks: that of a number is in the node whose slot has the number.
pub const INSIDE: &str = "inside nodes";

/// Nodes of a scenario that has some.
pub const NODE_COUNT: usize = 2;

/// The root: as large as the array of slots, so that it needs no slab of its own.
#[derive(Debug, Persistent)]
#[repr(C)]
pub struct Nodes {
    nodes: [Slot<Node>; NODE_COUNT],
    rest: [u64; 6],
}

/// A typed block, of the class of small blocks.
#[derive(Debug, Persistent)]
#[repr(C)]
pub struct Node {
    before: [u64; 4],
    bytes: Slot,
    behind: [u64; 4],
}

impl Node {
    fn of(id: u64) -> Self {
        Self { before: [id; 4], bytes: Slot::new(), behind: [id; 4] }
    }

    fn seen(&self) -> Seen {
        let same = self.before.iter().chain(&self.behind).all(|word| *word == self.before[0]);
        if same { Seen::Contents(self.before[0]) } else { Seen::Other }
    }
}

/// Whether a scenario has nodes.
#[must_use]
pub fn are_in(scenario: &Scenario) -> bool {
    let mut ops = scenario.threads.iter().copied().flatten().chain(scenario.setup);
    ops.any(|op| {
        matches!(
            op,
            Op::MakeNode(_)
                | Op::FreeNode(_)
                | Op::ReplaceNode(_)
                | Op::FillInside(..)
                | Op::FreeInside(_)
        )
    })
}

/// The slots of the nodes.
///
/// # Errors
///
/// As the heap's.
pub fn slots(heap: &Heap<Sim>) -> Result<&[Slot<Node>; NODE_COUNT], Error> {
    let root = heap.root(NODES, || Nodes { nodes: [Slot::new(), Slot::new()], rest: [0; 6] })?;
    Ok(&root.nodes)
}

/// Calls `work` with the slot in the node at `at`, under a guard.
///
/// # Errors
///
/// As `work`'s, and [`Error::SlotForeign`] if there is no node.
pub fn inside(
    heap: &Heap<Sim>,
    at: usize,
    work: impl FnOnce(&Slot) -> Result<(), Error>,
) -> Result<(), Error> {
    let slot = &slots(heap)?[at];
    let guard = heap.pin();
    slot.get(&guard).map_or(Err(Error::SlotForeign), |node| work(&node.bytes))
}

/// Performs `op`, if it is on nodes.
#[must_use]
pub fn perform(heap: &Heap<Sim>, id: u64, op: Op) -> Option<Result<(), Error>> {
    let on = |at: usize, work: &dyn Fn(&Slot<Node>) -> Result<(), Error>| work(&slots(heap)?[at]);
    Some(match op {
        Op::MakeNode(at) => on(at, &|slot| heap.alloc_value(slot, Node::of(id))),
        Op::ReplaceNode(at) => on(at, &|slot| heap.replace_value(slot, Node::of(id))),
        Op::FreeNode(at) => on(at, &|slot| heap.free_from(slot)),
        Op::FillInside(at, bytes) => inside(heap, at, |slot| {
            heap.alloc_init(slot, layout(bytes), |block| write_contents(id, block))
        }),
        Op::FreeInside(at) => inside(heap, at, |slot| heap.free_from(slot)),
        _ => return None,
    })
}

/// Calls `look` with each place of nodes and in them, and what it owns; `bytes` tells what a block of bytes is.
///
/// # Errors
///
/// As the heap's.
pub fn observe(
    heap: &Heap<Sim>,
    guard: &Guard<'_, Sim>,
    bytes: impl Fn(&[u8]) -> Seen,
    mut look: impl FnMut(Place, Seen),
) -> Result<(), Error> {
    for (at, slot) in slots(heap)?.iter().enumerate() {
        let node = slot.get(guard);
        look((NODES, at), node.map_or(Seen::Empty, Node::seen));
        let block = node.and_then(|node| node.bytes.get(guard));
        look((INSIDE, at), block.map_or(Seen::Empty, &bytes));
    }
    Ok(())
}

/// Frees all nodes and what is in them.
///
/// # Errors
///
/// As the heap's.
pub fn free_all(heap: &Heap<Sim>) -> Result<(), Error> {
    for (at, slot) in slots(heap)?.iter().enumerate() {
        match inside(heap, at, |slot| heap.free_from(slot)) {
            Ok(()) | Err(Error::SlotEmpty { .. } | Error::SlotForeign) => {}
            Err(error) => return Err(error),
        }
        match heap.free_from(slot) {
            Ok(()) | Err(Error::SlotEmpty { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
