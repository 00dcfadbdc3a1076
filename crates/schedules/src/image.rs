//! Recovers an image and judges it.

#![allow(unsafe_code, reason = "schedule and heap share the simulator")]

use std::collections::BTreeMap;

use pmalloc::{
    Error, Heap, HeapOptions, Slot,
    persist::sim::{Digest, Sim},
};

use crate::{
    history::{Contents, History, Observed, Seen},
    scenario::{BOX, CELLS, LARGE, SLOT_COUNT, SLOTS, SMALL, Scenario},
    threads,
};

/// Opens the image on `sim` and checks that `history` explains what is in it, beginning from `start`.
///
/// # Errors
///
/// What is wrong, in words.
pub fn judge(
    sim: &Sim,
    scenario: &Scenario,
    start: &Contents,
    history: &History,
) -> Result<Digest, String> {
    let heap = open(sim).map_err(|error| said("open", &error))?;
    sim.recovered();
    let observed = judge_open(&heap, scenario, start, history)?;
    probe(&heap)?;
    Ok(Digest::of(&observed))
}

/// Opens the heap on a simulator of which the schedule has handles.
///
/// # Errors
///
/// As [`HeapOptions::open_on`].
pub fn open(sim: &Sim) -> Result<Heap<Sim>, Error> {
    // SAFETY:
    // 1. the schedule looks at the memory, and stores through heaps only;
    // 2. it opens one heap at a time.
    unsafe { Heap::options().open_on_shared(sim.clone()) }
}

/// As [`judge`], for a heap that is open and on which no operation runs. Makes root arrays that are missing.
///
/// # Errors
///
/// What is wrong, in words.
pub fn judge_open(
    heap: &Heap<Sim>,
    scenario: &Scenario,
    start: &Contents,
    history: &History,
) -> Result<Observed, String> {
    check(heap)?;
    let live_blocks = heap.blocks().len();
    let observed = observe(heap, scenario).map_err(|error| said("a lookup", &error))?;
    let owned = observed.slots.values().filter(|&&seen| seen != Seen::Empty).count();
    // The root of bytes with slots and cells is a block as well.
    if live_blocks != owned + observed.roots.len() + 1 {
        return Err(format!("{live_blocks} live blocks, but this was found: {observed:?}"));
    }
    if history.explains(start, &observed) {
        Ok(observed)
    } else {
        Err(format!(
            "no order of the calls explains {observed:?}; they were {:#?}",
            history.calls()
        ))
    }
}

/// The heap's own check, which does not know where the slots of the root of bytes are: who owns what they own counts as
/// unknown.
fn check(heap: &Heap<Sim>) -> Result<(), String> {
    let (in_box, _) = threads::in_box(heap).map_err(|error| said("a lookup", &error))?;
    let owned_in_box = {
        let guard = heap.pin();
        in_box.iter().filter(|slot| !slot.is_empty(&guard)).count() as u64
    };
    let report = heap.check().map_err(|error| said("check", &error))?;
    if !report.problems.is_empty() {
        return Err(format!("{:?}", report.problems));
    }
    let (unowned, unknown) = (report.unowned_blocks, report.unknown_blocks);
    if (unowned, unknown) != (0, owned_in_box) {
        return Err(format!(
            "{unowned} blocks are live that nothing owns, {unknown} that no array owns, {owned_in_box} in the box"
        ));
    }
    Ok(())
}

fn observe(heap: &Heap<Sim>, scenario: &Scenario) -> Result<Observed, Error> {
    let (mut roots, mut found, mut values) = (Vec::new(), BTreeMap::new(), [0; CELLS]);
    let guard = heap.pin();
    let mut look = |root, slots: &[&Slot]| {
        for (index, slot) in slots.iter().enumerate() {
            let block = slot.get(&guard);
            let seen = block.map_or(Seen::Empty, |block| threads::classify(block, scenario));
            found.insert((root, index), seen);
        }
    };
    let (slots, cells) = threads::in_box(heap)?;
    look(BOX, &slots);
    for (value, cell) in values.iter_mut().zip(cells) {
        *value = cell.load(heap);
    }
    for root in threads::roots(scenario) {
        // A root is asked for with a wrong length, as no call only looks: the error tells that it exists.
        match heap.slots(root, SLOT_COUNT + 1) {
            Err(Error::RootMismatch { .. }) => roots.push(root),
            Err(error) => return Err(error),
            Ok(_) => continue,
        }
        look(root, &heap.slots(root, SLOT_COUNT)?.iter().collect::<Vec<_>>());
    }
    Ok(Observed { roots, slots: found, cells: values })
}

/// A recovered heap must serve: everything can be freed, and blocks of all kinds be had again.
fn probe(heap: &Heap<Sim>) -> Result<(), String> {
    let slots = heap.slots(SLOTS, SLOT_COUNT).map_err(|error| said("a lookup", &error))?;
    let (in_box, _) = threads::in_box(heap).map_err(|error| said("a lookup", &error))?;
    for slot in slots.iter().chain(in_box) {
        match heap.free_from(slot) {
            Ok(()) | Err(Error::SlotEmpty { .. }) => {}
            Err(error) => return Err(said("a free after recovery", &error)),
        }
    }
    for (slot, bytes) in slots.iter().zip([SMALL, LARGE]) {
        heap.alloc_to(slot, threads::layout(bytes))
            .map_err(|error| said("an allocation after recovery", &error))?;
    }
    check(heap)
}

/// The options of a scenario's heap.
pub fn options(scenario: &Scenario) -> HeapOptions {
    Heap::options().test_geometry(scenario.geometry)
}

/// What went wrong where.
#[must_use]
pub fn said(what: &str, error: &Error) -> String {
    format!("{what} failed: {error}")
}
