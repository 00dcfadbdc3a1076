//! Typed blocks with a slot in them: what a publish makes together, and takes apart again.
//!
//! A node and the block that its slot owns are made by one publish, and the slot is named first: recovery redoes a slot in a
//! block that is as new as the slot's own. Nodes are small, or extents of their own.

use pmalloc::{
    Error, Guard, Heap, Persistent, Publish, Reservation, Session, Slot, persist::sim::Sim,
};

use crate::model::{CHILDREN, Held, Model, Node};

/// The root: as large as the array that operations work on, so that it needs no slab of its own.
#[derive(Debug, Persistent)]
#[repr(C)]
pub struct Nodes {
    small: Slot<SmallNode>,
    large: Slot<LargeNode>,
    rest: [u64; 14],
}

/// A node of the class of blocks with contents. Its slot is not in its first line.
#[derive(Debug, Persistent)]
#[repr(C)]
pub struct SmallNode {
    before: [u64; 9],
    child: Slot,
    behind: [u64; 13],
}

/// A page-granular node.
#[derive(Debug, Persistent)]
#[repr(C)]
pub struct LargeNode {
    before: [u64; 9],
    child: Slot,
    behind: [u64; 2000],
}

/// Which node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Size {
    /// The small one.
    Small,
    /// The page-granular one.
    Large,
}

impl Size {
    /// Both.
    pub const ALL: [Self; CHILDREN] = [Self::Small, Self::Large];
}

impl SmallNode {
    /// The node `id`, which owns nothing.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self { before: [id; 9], child: Slot::new(), behind: [id; 13] }
    }

    /// The slot in it.
    #[must_use]
    pub const fn child(&self) -> &Slot {
        &self.child
    }
}

impl LargeNode {
    /// The node `id`, which owns nothing.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self { before: [id; 9], child: Slot::new(), behind: [id; 2000] }
    }

    /// The slot in it.
    #[must_use]
    pub const fn child(&self) -> &Slot {
        &self.child
    }
}

impl Nodes {
    /// The root in `heap`.
    ///
    /// # Errors
    ///
    /// As the heap's.
    pub fn of(heap: &Heap<Sim>) -> Result<&Self, Error> {
        heap.root("nodes", || Self { small: Slot::new(), large: Slot::new(), rest: [0; 14] })
    }

    /// The slot of the small node.
    #[must_use]
    pub const fn small(&self) -> &Slot<SmallNode> {
        &self.small
    }

    /// The slot of the large node.
    #[must_use]
    pub const fn large(&self) -> &Slot<LargeNode> {
        &self.large
    }

    /// Adds the allocation of the node `id` to `publish`, and before it that of what its slot owns.
    ///
    /// # Errors
    ///
    /// As the heap's.
    pub fn add<'h>(
        &'h self,
        heap: &'h Heap<Sim>,
        session: &mut Session<Sim>,
        publish: &mut Publish<'h, Sim>,
        (size, id): (Size, u64),
        child: Reservation<'h, Sim>,
    ) -> Result<(), Error> {
        match size {
            Size::Small => {
                let new = heap.reserve_value_in(session, SmallNode::new(id))?;
                publish.alloc(new.slot(SmallNode::child), child);
                publish.alloc(&self.small, new);
            }
            Size::Large => {
                let new = heap.reserve_value_in(session, LargeNode::new(id))?;
                publish.alloc(new.slot(LargeNode::child), child);
                publish.alloc(&self.large, new);
            }
        }
        Ok(())
    }

    /// The slot in the node of `size`, if there is one.
    pub fn child<'g>(&self, size: Size, guard: &'g Guard<'_, Sim>) -> Option<&'g Slot> {
        match size {
            Size::Small => self.small.get(guard).map(SmallNode::child),
            Size::Large => self.large.get(guard).map(LargeNode::child),
        }
    }

    /// Whether the nodes are as `model` says, but for what their slots own.
    ///
    /// # Errors
    ///
    /// How they differ.
    pub fn match_to(&self, model: &Model, guard: &Guard<'_, Sim>) -> Result<(), String> {
        let [small, large] = &model.nodes;
        let found = self.small.get(guard).map(|node| words(&node.before, &node.behind));
        expect(found, small.as_ref()).map_err(|what| format!("the small node: {what}"))?;
        let found = self.large.get(guard).map(|node| words(&node.before, &node.behind));
        expect(found, large.as_ref()).map_err(|what| format!("the large node: {what}"))?;
        // A slot that names no live block of the type's size reads as empty.
        let full = [self.small.offset(guard), self.large.offset(guard)];
        match full.iter().flatten().count() == model.nodes.iter().flatten().count() {
            true => Ok(()),
            false => Err(format!("the nodes' slots own {full:x?}")),
        }
    }

    /// The offsets of the nodes.
    pub fn offsets(&self, guard: &Guard<'_, Sim>) -> impl Iterator<Item = u64> + use<> {
        [self.small.offset(guard), self.large.offset(guard)].into_iter().flatten()
    }
}

/// The word that all of a node's hold, if it is one.
fn words(before: &[u64], behind: &[u64]) -> Option<u64> {
    let same = before.iter().chain(behind).all(|word| *word == before[0]);
    same.then_some(before[0])
}

fn expect(found: Option<Option<u64>>, wanted: Option<&Node>) -> Result<(), String> {
    match (found, wanted) {
        (None, None) => Ok(()),
        (Some(Some(id)), Some(node)) if id == node.id => Ok(()),
        (found, wanted) => Err(format!("{found:?}, not {wanted:?}")),
    }
}

/// What the slots in the nodes own, by the model.
pub fn children(model: &Model) -> impl Iterator<Item = (Size, Option<&Held>)> {
    let nodes = Size::ALL.into_iter().zip(&model.nodes);
    nodes.filter_map(|(size, node)| Some((size, node.as_ref()?.child.as_ref())))
}
