//! Judges a recovered heap.
//!
//! Whatever image a crash left: the heap opens; every slot is as before or as after the operation in flight, whole; the
//! live blocks are exactly those that slots and root table own; the heap's own check finds nothing; and, once per
//! distinct state, recovering again changes nothing and all memory can be used and comes back.

use std::{
    alloc::Layout,
    collections::{BTreeSet, HashSet},
    sync::{Mutex, PoisonError},
};

use pmalloc::{
    Error, Guard, Heap, Session, Slot,
    persist::sim::{Digest, Sim},
};

use crate::{
    model::{Expected, Held, Model, Shared},
    world::{SLOTS, options},
};

/// A recovered state, as far as it is looked at: which accepted state it is, and where its blocks are.
type Verdict = Result<Digest, String>;

/// The oracle of one case.
#[derive(Debug)]
pub struct Oracle {
    expected: Shared,
    /// Digests whose liveness was checked.
    seen: Mutex<HashSet<Digest>>,
}

impl Oracle {
    /// An oracle that accepts what `expected` says at the time.
    #[must_use]
    pub fn new(expected: Shared) -> Self {
        Self { expected, seen: Mutex::new(HashSet::new()) }
    }

    /// Recovers the heap on `sim` and judges it.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self, sim: &Sim) -> Verdict {
        let expected = self.expected.get();
        let heap = match options().open_on(sim.clone()) {
            Err(error) => return Err(format!("it does not open: {error}")),
            Ok(heap) => heap,
        };
        sim.recovered();
        let found = judge(&heap, &expected)?;
        let digest = Digest::of(&found);
        if self.is_new(digest) {
            // The first handle is kept until the end: dropping it would close the heap.
            use_all(&reopened(sim, &expected, &found)?)?;
        }
        drop(heap);
        Ok(digest)
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

fn judge(heap: &Heap<Sim>, expected: &Expected) -> Result<Found, String> {
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
    let report = heap.check().map_err(|error| format!("check failed: {error}"))?;
    if let Some(problem) = report.problems.first() {
        return Err(format!("check found {problem:?}"));
    }
    if report.unowned_blocks > 0 {
        return Err(format!("{} blocks leaked", report.unowned_blocks));
    }
    let blocks: Vec<(u64, u64)> =
        heap.blocks().iter().map(|block| (block.offset, block.usable_bytes)).collect();
    match blocks.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
        Some(pair) => Err(format!("blocks overlap: {pair:x?}")),
        None => Ok(Found { state, blocks }),
    }
}

/// Whether the heap is in the state `model`.
fn matches(heap: &Heap<Sim>, model: &Model) -> Result<(), String> {
    let slots = heap.slots("slots", SLOTS as u64).map_err(|error| format!("slots: {error}"))?;
    let guard = heap.pin();
    let mut owned = BTreeSet::new();
    for (at, (slot, held)) in slots.iter().zip(&model.slots).enumerate() {
        match (slot.offset(&guard), held) {
            (None, None) => {}
            (Some(offset), Some(held)) => {
                check_block(slot, &guard, held).map_err(|what| format!("slot {at}: {what}"))?;
                owned.insert(offset);
            }
            (found, _) => return Err(format!("slot {at} owns {found:x?}, not {held:?}")),
        }
    }
    let full = model.slots.iter().flatten().count();
    if owned.len() != full {
        return Err(format!("{full} full slots own {} blocks", owned.len()));
    }
    let blocks = heap.blocks();
    if let Some(dangling) =
        owned.iter().find(|offset| blocks.iter().all(|block| block.offset != **offset))
    {
        return Err(format!("a slot owns {dangling:#x}, where no live block starts"));
    }
    // The arrays `slots` and `extra` are blocks as well.
    let live = blocks.len();
    if live != full + 1 + usize::from(model.extra) {
        return Err(format!("{live} blocks are live, {full} slots are full"));
    }
    Ok(())
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
    let heap = options().open_on(sim.clone()).map_err(|error| format!("again: {error}"))?;
    let again = judge(&heap, expected).map_err(|what| format!("recovered again: {what}"))?;
    if again == *found {
        Ok(heap)
    } else {
        Err(format!("recovered again: {again:?}, not {found:?}"))
    }
}

/// Frees everything, fills the heap again and again and expects the same room each time.
///
/// Through a session of its own: the thread's implicit one may be in the midst of the operation that crashed.
fn use_all(heap: &Heap<Sim>) -> Result<(), String> {
    let slots = heap.slots("slots", SLOTS as u64).map_err(|error| format!("slots: {error}"))?;
    let mut session = heap.session();
    let full: Vec<bool> = {
        let guard = heap.pin();
        slots.iter().map(|slot| !slot.is_empty(&guard)).collect()
    };
    for (slot, _) in slots.iter().zip(full).filter(|(_, full)| *full) {
        session.free_from(slot).map_err(|error| format!("freeing what was found: {error}"))?;
    }
    for size in [16, 100, 1000, 6000, 14_000] {
        let allocated = session.alloc_to(&slots[0], layout(size));
        allocated.map_err(|error| format!("allocating {size} bytes: {error}"))?;
        session.free_from(&slots[0]).map_err(|error| format!("freeing {size} bytes: {error}"))?;
    }
    // The first round moves the last empty slabs out of the way.
    fill(&mut session, slots)?;
    let (first, second) = (fill(&mut session, slots)?, fill(&mut session, slots)?);
    // Of 16 slots of four pages each all but those next to the root arrays' slabs must find room.
    if first != second || first < SLOTS - 4 {
        return Err(format!("room for {first}, then for {second} blocks of four pages"));
    }
    Ok(())
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

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a valid size")
}

/// Judges a heap in the making: it is absent, or it opens and is empty.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_creation(sim: &Sim) -> Verdict {
    match options().open_on(sim.clone()) {
        Err(Error::NotAHeap { .. }) => Ok(Digest(0)),
        Err(error) => Err(format!("neither absent nor whole: {error}")),
        Ok(heap) => {
            sim.recovered();
            let report = heap.check().map_err(|error| format!("check failed: {error}"))?;
            if report.blocks > 0 || !report.problems.is_empty() {
                return Err(format!("a new heap is not empty: {report:?}"));
            }
            heap.slots("slots", SLOTS as u64).map_err(|error| format!("slots: {error}"))?;
            use_all(&heap)?;
            Ok(Digest(1))
        }
    }
}
