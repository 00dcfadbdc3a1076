//! Judges a recovered heap.
//!
//! Whatever image a crash left: the heap opens; every slot is as before or as after the operation in flight, whole; the
//! live blocks are exactly those that slots and root table own, and have memory; the heap's own check finds nothing; and, once per
//! distinct state, recovering again changes nothing, all memory comes back, also as the next recovery sees it, and all
//! can be used.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, PoisonError},
};

use pmalloc::{
    Error, Guard, Heap, RootInfo, Slot,
    persist::{
        Medium, Offset, Span, Word,
        sim::{BackFault, Digest, Sim},
    },
};

use crate::{
    explore::Lie,
    model::{Expected, Extra, Held, Model, Shared},
    nodes::{self, Nodes},
    room::{self, RootBytes},
    world::{SLOTS, cell, medium_of, open},
};

/// A recovered state, as far as it is looked at: which accepted state it is, and where its blocks are.
pub(crate) type Verdict = Result<Digest, String>;

/// The oracle of one case.
#[derive(Debug)]
pub struct Oracle {
    expected: Shared,
    /// Without the root of typed blocks, and with it.
    root_bytes: [RootBytes; 2],
    /// Whether it makes a heap look bad, to see that it notices.
    lie: Option<Lie>,
    /// Whether recovery finds the file system full.
    is_disk_full: bool,
    /// Digests whose liveness was checked.
    seen: Mutex<HashSet<Digest>>,
}

impl Oracle {
    /// An oracle that accepts what `expected` says at the time.
    #[must_use]
    pub fn new(expected: Shared, lie: Option<Lie>) -> Self {
        let root_bytes = [RootBytes::measure(), RootBytes::measure_typed()];
        Self { expected, root_bytes, lie, is_disk_full: false, seen: Mutex::new(HashSet::new()) }
    }

    /// The same, with recovery on a full file system.
    #[must_use]
    pub fn on_full_disk(self) -> Self {
        Self { is_disk_full: true, ..self }
    }

    /// Recovers the heap on `sim` and judges it.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self, sim: &Sim) -> Verdict {
        let expected = self.expected.get();
        let heap = self.open(sim).map_err(|error| format!("it does not open: {error}"))?;
        self.judge(sim, heap, &expected)
    }

    /// Judges `heap`, which was recovered on `sim`.
    pub(crate) fn judge(&self, sim: &Sim, heap: Heap<Sim>, expected: &Expected) -> Verdict {
        sim.recovered();
        let found = judge(&heap, sim, expected)?;
        let digest = Digest::of(&found);
        if self.is_disk_full {
            // What was torn, and not copied away for want of room, shows in a heap that was closed: so each image is closed.
            drop(closed(heap, sim, expected, &found)?);
            if self.is_new(digest) {
                self.exercise(sim, expected, &found)?;
            }
            return Ok(digest);
        }
        if self.is_new(digest) {
            self.exercise(sim, expected, &found)?;
        }
        // Kept until here: dropping a handle closes the heap.
        drop(heap);
        Ok(digest)
    }

    /// Opens the heap; if a full file system keeps it from opening, again with room.
    fn open(&self, sim: &Sim) -> Result<Heap<Sim>, Error> {
        if !self.is_disk_full {
            return open(sim.clone());
        }
        sim.fail_backs(BackFault::From(0));
        let opened = open(sim.clone());
        sim.fail_backs(BackFault::Never);
        match opened {
            Err(Error::NoSpace { .. }) => open(sim.clone()),
            opened => opened,
        }
    }

    /// Recovers again and again, and looks whether all memory is there.
    fn exercise(&self, sim: &Sim, expected: &Expected, found: &Found) -> Result<(), String> {
        let has_nodes = expected.states[found.state].has_nodes;
        let root_bytes = self.root_bytes[usize::from(has_nodes)];
        let expect_bare = |heap, when| root_bytes.expect(heap, when);
        let again = closed(reopened(sim, expected, found)?, sim, expected, found)?;
        let hoard = (self.lie == Some(Lie::Hoarded)).then(|| again.pin());
        room::empty(&again)?;
        expect_bare(&again, "after all was freed")?;
        drop(hoard);
        let third = open(sim.clone()).map_err(|error| format!("empty: {error}"))?;
        expect_bare(&third, "after all was freed and the heap recovered")?;
        room::use_all(&third)?;
        expect_bare(&third, "after all was used")
    }

    fn is_new(&self, digest: Digest) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(digest)
    }
}

/// What was found: the index of the accepted state, and the blocks.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Found {
    state: usize,
    blocks: Vec<(u64, u64)>,
}

fn judge(heap: &Heap<Sim>, sim: &Sim, expected: &Expected) -> Result<Found, String> {
    let mut refusals = Vec::new();
    let mut state = None;
    for (index, model) in expected.states.iter().enumerate() {
        match matches(heap, model) {
            Ok(()) => {
                state = Some(index);
                break;
            }
            Err(refusal) => refusals.push(refusal),
        }
    }
    let state = state.ok_or_else(|| format!("no accepted state: {}", refusals.join("; ")))?;
    let model = &expected.states[state];
    // The check need not know the slots of typed roots and blocks. Whether all is owned that lives, the model says.
    let found_typed = nodes::children(model).map(|(_, child)| 1 + u64::from(child.is_some())).sum();
    let report = heap.check().map_err(|error| format!("check failed: {error}"))?;
    if let Some(problem) = report.problems.first() {
        return Err(format!("check found {problem:?}"));
    }
    let unowned = report.unowned_blocks;
    if unowned > found_typed {
        return Err(format!(
            "{unowned} blocks leaked, {found_typed} at most are owned by typed slots"
        ));
    }
    let blocks: Vec<(u64, u64)> =
        heap.blocks().iter().map(|block| (block.offset, block.usable_bytes)).collect();
    // A program may touch all of a block, also of one without contents.
    let bare = |&&(offset, bytes): &&(u64, u64)| !sim.has_memory(Span::new(offset, bytes));
    if let Some((offset, _)) = blocks.iter().find(bare) {
        return Err(format!("the live block at {offset:#x} has no memory"));
    }
    match blocks.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
        Some(pair) => Err(format!("blocks overlap: {pair:x?}")),
        None => Ok(Found { state, blocks }),
    }
}

/// Whether the heap is in the state `model`.
///
/// # Errors
///
/// How it differs.
pub fn matches(heap: &Heap<Sim>, model: &Model) -> Result<(), String> {
    let slots = heap.slots("slots", SLOTS as u64).map_err(|error| format!("slots: {error}"))?;
    let guard = heap.pin();
    let mut owned = BTreeMap::new();
    for (at, (slot, held)) in slots.iter().zip(&model.slots).enumerate() {
        match (slot.offset(&guard), held) {
            (None, None) => {}
            (Some(offset), Some(held)) => {
                check_block(slot, &guard, held).map_err(|what| format!("slot {at}: {what}"))?;
                owned.insert(offset, held.tag);
            }
            (found, _) => return Err(format!("slot {at} owns {found:x?}, not {held:?}")),
        }
    }
    if model.has_nodes {
        owned.extend(match_nodes(heap, &guard, model)?);
    }
    let in_nodes = nodes::children(model).map(|(_, child)| 1 + usize::from(child.is_some()));
    let full = model.slots.iter().flatten().count() + in_nodes.sum::<usize>();
    if owned.len() != full {
        return Err(format!("{full} full slots own {} blocks", owned.len()));
    }
    let blocks = heap.blocks();
    for (offset, tag) in owned {
        match blocks.iter().find(|block| block.offset == offset) {
            None => return Err(format!("a slot owns {offset:#x}, where no live block starts")),
            Some(block) if block.tag != tag => {
                return Err(format!("{block:x?} has not tag {tag:x}"));
            }
            Some(_) => {}
        }
    }
    // The array `slots`, the cells, the root of typed blocks and the root `extra` are blocks as well.
    let live = blocks.len();
    if live != full + 2 + usize::from(model.has_nodes) + usize::from(model.extra.is_some()) {
        return Err(format!("{live} blocks are live, {full} slots are full"));
    }
    for (at, value) in model.cells.iter().enumerate() {
        let found = cell(heap, at).map_err(|error| format!("cells: {error}"))?.load(heap);
        if found != *value {
            return Err(format!("cell {at} holds {found:#x}, not {value:#x}"));
        }
    }
    check_extra(heap, model.extra)
}

/// Whether the typed blocks are as `model` says, and own what it says; the offsets and tags of them and of what they own.
fn match_nodes(
    heap: &Heap<Sim>,
    guard: &Guard<'_, Sim>,
    model: &Model,
) -> Result<Vec<(u64, u8)>, String> {
    let nodes = Nodes::of(heap).map_err(|error| format!("nodes: {error}"))?;
    nodes.match_to(model, guard)?;
    let mut owned: Vec<(u64, u8)> = nodes.offsets(guard).map(|offset| (offset, 0)).collect();
    for (size, held) in nodes::children(model) {
        let slot = nodes.child(size, guard).ok_or("a node is gone")?;
        match (slot.offset(guard), held) {
            (None, None) => {}
            (Some(offset), Some(held)) => {
                check_block(slot, guard, held).map_err(|what| format!("in {size:?}: {what}"))?;
                owned.push((offset, held.tag));
            }
            (found, _) => return Err(format!("{size:?} owns {found:x?}, not {held:?}")),
        }
    }
    Ok(owned)
}

/// Whether the root `extra` is there as `wanted`, and zero.
fn check_extra(heap: &Heap<Sim>, wanted: Option<Extra>) -> Result<(), String> {
    let found = heap.root_find("extra").map_err(|error| format!("extra: {error}"))?;
    let size = found.as_ref().map(RootInfo::size_bytes);
    if size != wanted.map(|extra| extra.bytes() as u64) {
        return Err(format!("the root extra is {found:?}, not {wanted:?}"));
    }
    let Some(root) = found else { return Ok(()) };
    let m = medium_of(heap);
    let words = m.region().array::<Word>(Offset::new(root.offset), root.length / 8);
    let words = words.map_err(|error| format!("extra: {error}"))?;
    match words.iter().position(|word| m.load(word) != 0) {
        Some(at) => Err(format!("word {at} of a new root is not zero")),
        None => Ok(()),
    }
}

/// Whether the slot's block is live and holds what was written. Blocks without contents are not read: what is in them
/// after a crash is nobody's concern, and reading it would tell images apart that are not different.
fn check_block(slot: &Slot, guard: &Guard<'_, Sim>, held: &Held) -> Result<(), String> {
    if !held.filled {
        return Ok(());
    }
    let bytes = slot.get(guard).ok_or("no live block")?;
    if bytes.len() < held.size {
        return Err(format!("{} bytes, not {}", bytes.len(), held.size));
    }
    let wrong = |index: &usize| bytes[*index] != held.byte(*index);
    match (0..held.size).find(wrong) {
        Some(index) => Err(format!("byte {index} of {held:?} is not what was written")),
        None => Ok(()),
    }
}

/// Recovers again, as after a crash at once, and expects the same state.
fn reopened(sim: &Sim, expected: &Expected, found: &Found) -> Result<Heap<Sim>, String> {
    let heap = open(sim.clone()).map_err(|error| format!("again: {error}"))?;
    let again = judge(&heap, sim, expected).map_err(|what| format!("recovered again: {what}"))?;
    if again == *found {
        Ok(heap)
    } else {
        Err(format!("recovered again: {again:?}, not {found:?}"))
    }
}

/// Closes the heap, opens it, and expects the same state.
fn closed(
    heap: Heap<Sim>,
    sim: &Sim,
    expected: &Expected,
    found: &Found,
) -> Result<Heap<Sim>, String> {
    heap.close().map_err(|error| format!("closing what was recovered: {error}"))?;
    reopened(sim, expected, found).map_err(|what| format!("closed, and {what}"))
}

/// What [`check_creation`] says of a heap that is not there.
pub const ABSENT: Digest = Digest(0);

/// Judges a heap in the making: it is absent, or it opens and is empty.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_creation(sim: &Sim) -> Verdict {
    match open(sim.clone()) {
        Err(Error::NotAHeap { .. }) => Ok(ABSENT),
        Err(error) => Err(format!("neither absent nor whole: {error}")),
        Ok(heap) => judge_new(sim, &heap),
    }
}

/// Judges a heap that was just created, and that was recovered on `sim`.
pub(crate) fn judge_new(sim: &Sim, heap: &Heap<Sim>) -> Verdict {
    sim.recovered();
    let report = heap.check().map_err(|error| format!("check failed: {error}"))?;
    if report.blocks > 0 || !report.problems.is_empty() {
        return Err(format!("a new heap is not empty: {report:?}"));
    }
    heap.slots("slots", SLOTS as u64).map_err(|error| format!("slots: {error}"))?;
    room::use_all(heap)?;
    RootBytes::measure().expect(heap, "after all was used")?;
    Ok(Digest(1))
}
