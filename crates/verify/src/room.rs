//! The room of a recovered heap: all that is freed comes back, and all of it can be used.
//!
//! A block that leaked is seen in the list of live blocks. A slab without a live block, or pages that belong to nothing,
//! are not: they show only as bytes that a heap without blocks still uses. The root array of the slots excepted it must use
//! none; log chunks, descriptors and lanes lie outside the data area.

use std::{alloc::Layout, sync::OnceLock};

use pmalloc::{
    Error, Heap, Policy, Session, Slot,
    persist::sim::{Domain, Sim},
};

use crate::{
    nodes::{Nodes, Size},
    world::{SLOTS, World, medium},
};

/// Bytes of the data area that a heap without blocks uses for the root array `slots`.
#[derive(Debug, Clone, Copy)]
pub struct RootBytes(u64);

impl RootBytes {
    /// As a fresh heap uses them. Measured once, and not in the midst of an operation.
    ///
    /// # Panics
    ///
    /// If a fresh heap has no room for the array.
    pub fn measure() -> Self {
        static MEASURED: OnceLock<RootBytes> = OnceLock::new();
        *MEASURED.get_or_init(|| {
            let world = World::new(medium(Domain::Line64), Policy::Eager);
            Self(world.heap().stats().expect("the simulator knows its size").used_bytes)
        })
    }

    /// Likewise with the root of typed blocks, and the block that tells of their types.
    ///
    /// # Panics
    ///
    /// As [`RootBytes::measure`].
    pub fn measure_typed() -> Self {
        static MEASURED: OnceLock<RootBytes> = OnceLock::new();
        *MEASURED.get_or_init(|| {
            let mut world = World::new(medium(Domain::Line64), Policy::Eager);
            world.make_nodes();
            Self(world.heap().stats().expect("the simulator knows its size").used_bytes)
        })
    }

    /// Expects that `heap`, in which no block but the root array is live, uses what that needs.
    ///
    /// # Errors
    ///
    /// How much it uses.
    pub fn expect(self, heap: &Heap<Sim>, when: &str) -> Result<(), String> {
        let stats = heap.stats().map_err(|error| format!("stats: {error}"))?;
        if stats.used_bytes == self.0 {
            return Ok(());
        }
        let (wanted, used, classes) = (self.0, stats.used_bytes, stats.classes);
        Err(format!("{used} bytes are in use {when}, the root needs {wanted}; slabs: {classes:?}"))
    }
}

/// Frees what the slots own, removes the root `extra` if there is one, and gives back all that is free then.
///
/// Through a session of its own: the thread's implicit one may be in the midst of the operation that crashed.
///
/// # Errors
///
/// What can't be freed.
pub fn empty(heap: &Heap<Sim>) -> Result<(), String> {
    let slots = slots(heap)?;
    let mut session = heap.session();
    let full: Vec<&Slot> = {
        let guard = heap.pin();
        slots.iter().filter(|slot| !slot.is_empty(&guard)).collect()
    };
    let error = |error: Error| format!("freeing what was found: {error}");
    for slot in full {
        session.free_from(slot).map_err(error)?;
    }
    if heap.root_find("nodes").map_err(error)?.is_some() {
        free_nodes(heap, &mut session).map_err(error)?;
    }
    match session.root_remove("extra") {
        Ok(()) | Err(Error::RootMissing { .. }) => {}
        Err(error) => return Err(format!("removing the root: {error}")),
    }
    give_back(heap, session)
}

/// Frees the typed blocks and what they own.
fn free_nodes(heap: &Heap<Sim>, session: &mut Session<Sim>) -> Result<(), Error> {
    let nodes = Nodes::of(heap)?;
    for size in Size::ALL {
        let guard = heap.pin();
        let Some(child) = nodes.child(size, &guard) else { continue };
        if !child.is_empty(&guard) {
            session.free_from(child)?;
        }
        drop(guard);
        match size {
            Size::Small => session.free_from(nodes.small())?,
            Size::Large => session.free_from(nodes.large())?,
        }
    }
    Ok(())
}

/// Allocates in the empty `heap` blocks of several sizes, then fills it again and again, and expects the same room each
/// time. Leaves it as empty as it was.
///
/// # Errors
///
/// What is refused, or how much room there was.
pub fn use_all(heap: &Heap<Sim>) -> Result<(), String> {
    let slots = slots(heap)?;
    let mut session = heap.session();
    for size in [16, 100, 1000, 6000, 14_000] {
        let allocated = session.alloc_to(&slots[0], layout(size));
        allocated.map_err(|error| format!("allocating {size} bytes: {error}"))?;
        session.free_from(&slots[0]).map_err(|error| format!("freeing {size} bytes: {error}"))?;
    }
    // The first round moves the last empty slabs out of the way.
    fill(&mut session, slots)?;
    let (first, second) = (fill(&mut session, slots)?, fill(&mut session, slots)?);
    // Of 16 slots of four pages each all but those next to the root array's slab must find room.
    if first != second || first < SLOTS - 4 {
        return Err(format!("room for {first}, then for {second} blocks of four pages"));
    }
    give_back(heap, session)
}

/// Ends `session`, which empties its caches, and gives back what no block is in.
fn give_back(heap: &Heap<Sim>, session: Session<Sim>) -> Result<(), String> {
    drop(session);
    heap.trim().map(drop).map_err(|error| format!("trim: {error}"))
}

/// Fills the slots with blocks of four pages as far as they go, frees them, and returns how many there were.
fn fill(session: &mut Session<Sim>, slots: &[Slot]) -> Result<usize, String> {
    let mut count = 0;
    while count < slots.len() {
        match session.alloc_to(&slots[count], layout(16 << 10)) {
            Ok(()) => count += 1,
            Err(Error::OutOfMemory { .. }) => break,
            Err(error) => return Err(format!("filling: {error}")),
        }
    }
    for slot in &slots[..count] {
        session.free_from(slot).map_err(|error| format!("emptying: {error}"))?;
    }
    Ok(count)
}

fn slots(heap: &Heap<Sim>) -> Result<&[Slot], String> {
    heap.slots("slots", SLOTS as u64).map_err(|error| format!("slots: {error}"))
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a valid size")
}
