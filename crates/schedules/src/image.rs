//! Recovers an image and judges it.

#![allow(unsafe_code, reason = "schedule and heap share the simulator")]

use std::collections::BTreeMap;

use pmalloc::{
    Error, Heap, HeapOptions, Policy, Slot,
    persist::sim::{Digest, Sim},
};

use crate::{
    history::{Contents, History, Observed, Seen},
    nodes,
    scenario::{BOX, CELLS, LARGE, SLOT_COUNT, SLOTS, SMALL, Scenario},
    threads,
};

/// What is done with a recovered heap before the power fails again.
#[derive(Debug, Clone, Copy)]
pub struct SecondRun {
    /// Operations that return before.
    pub operations: usize,
    /// Decides which.
    pub seed: u64,
}

/// Opens the image on `sim` and checks that `history` explains what is in it, beginning from `start`, and that it can be
/// worked with.
///
/// # Errors
///
/// What is wrong, in words.
pub fn judge(
    sim: &Sim,
    scenario: &Scenario,
    (start, history): (&Contents, &History),
    second: Option<SecondRun>,
) -> Result<Digest, String> {
    let heap = open(sim, None).map_err(|error| said("open", &error))?;
    sim.recovered();
    let observed = judge_open(&heap, scenario, start, history)?;
    if let Some(second) = second {
        run_again((sim, &heap), scenario, &observed, second)?;
    }
    probe(&heap, scenario)?;
    Ok(Digest::of(&observed))
}

/// Opens the heap on a simulator of which the schedule has handles, and switches it to `policy` if it has another.
///
/// # Errors
///
/// As [`HeapOptions::open_on`].
pub fn open(sim: &Sim, policy: Option<Policy>) -> Result<Heap<Sim>, Error> {
    let options = policy.map_or_else(Heap::options, |policy| Heap::options().policy(policy));
    // SAFETY:
    // 1. the schedule looks at the memory, and stores through heaps only;
    // 2. it opens one heap at a time.
    unsafe { options.open_on_shared(sim.clone()) }
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
    check(heap, scenario)?;
    let live_blocks = heap.blocks().len();
    let observed = observe(heap, scenario).map_err(|error| said("a lookup", &error))?;
    let owned = observed.slots.values().filter(|&&seen| seen != Seen::Empty).count();
    // The root of bytes with slots and cells is a block as well.
    let of_nodes = usize::from(nodes::are_in(scenario));
    if live_blocks != owned + observed.roots.len() + 1 + of_nodes {
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
fn check(heap: &Heap<Sim>, scenario: &Scenario) -> Result<(), String> {
    let (in_box, _) = threads::in_box(heap).map_err(|error| said("a lookup", &error))?;
    let owned_in_box = {
        let guard = heap.pin();
        in_box.iter().filter(|slot| !slot.is_empty(&guard)).count() as u64
    };
    let report = heap.check().map_err(|error| said("check", &error))?;
    if !report.problems.is_empty() {
        return Err(format!("{:?}", report.problems));
    }
    let mut in_nodes = 0;
    if nodes::are_in(scenario) {
        let guard = heap.pin();
        let count = |_, seen| in_nodes += u64::from(seen != Seen::Empty);
        let looked = nodes::observe(heap, &guard, |_| Seen::Other, count);
        looked.map_err(|error| said("a lookup", &error))?;
    }
    let (unowned, unknown) = (report.unowned_blocks, report.unknown_blocks);
    // Whether the check follows typed slots is its own affair; how many blocks live is compared above.
    if unowned != 0 || ![owned_in_box, owned_in_box + in_nodes].contains(&unknown) {
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
    if nodes::are_in(scenario) {
        let bytes = |block: &[u8]| threads::classify(block, scenario);
        nodes::observe(heap, &guard, bytes, |place, seen| {
            found.insert(place, seen);
        })?;
    }
    Ok(Observed { roots, slots: found, cells: values })
}

/// Works with a recovered heap in which there is what was `observed`, and judges what a crash leaves of it then.
fn run_again(
    (sim, heap): (&Sim, &Heap<Sim>),
    scenario: &Scenario,
    observed: &Observed,
    second: SecondRun,
) -> Result<(), String> {
    let rng = &mut fastrand::Rng::with_seed(second.seed);
    let slots = heap.slots(SLOTS, SLOT_COUNT).map_err(|error| said("a lookup", &error))?;
    let mut expected = observed.clone();
    for _ in 0..second.operations {
        let at = rng.usize(..slots.len());
        let seen = expected.slots.get_mut(&(SLOTS, at)).expect("all were observed");
        let (result, then) = if *seen == Seen::Empty {
            let bytes = [SMALL, SMALL, LARGE][rng.usize(..3)];
            (heap.alloc_to(&slots[at], threads::layout(bytes)), Seen::Other)
        } else {
            (heap.free_from(&slots[at]), Seen::Empty)
        };
        match result {
            Ok(()) => *seen = then,
            Err(Error::OutOfMemory { .. }) => {}
            Err(error) => return Err(said("an operation after recovery", &error)),
        }
    }
    let state = sim.crash_state();
    for image in [state.oldest(), state.sample(second.seed)] {
        judge_again(&image, scenario, &expected)
            .map_err(|problem| format!("after {second:?} of {observed:?}: {problem}"))?;
    }
    Ok(())
}

fn judge_again(sim: &Sim, scenario: &Scenario, expected: &Observed) -> Result<(), String> {
    let heap = open(sim, None).map_err(|error| said("open", &error))?;
    check(&heap, scenario)?;
    let observed = observe(&heap, scenario).map_err(|error| said("a lookup", &error))?;
    // What is in a block that was allocated bare, nobody knows.
    let same = |(found, expected): (&Seen, &Seen)| match expected {
        Seen::Other => *found != Seen::Empty,
        _ => found == expected,
    };
    let are_same = observed.slots.values().zip(expected.slots.values()).all(same);
    if !are_same || (&observed.roots, &observed.cells) != (&expected.roots, &expected.cells) {
        return Err(format!("{expected:?} was to be there, but {observed:?} is"));
    }
    probe(&heap, scenario)
}

/// A recovered heap must serve: everything can be freed, and blocks of all kinds be had again.
fn probe(heap: &Heap<Sim>, scenario: &Scenario) -> Result<(), String> {
    if nodes::are_in(scenario) {
        nodes::free_all(heap).map_err(|error| said("a free of nodes after recovery", &error))?;
    }
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
    check(heap, scenario)
}

/// The options of a scenario's heap under `policy`. Who opens it asks for none: it has one.
pub fn options(scenario: &Scenario, policy: Policy) -> HeapOptions {
    Heap::options().test_geometry(scenario.geometry).policy(policy)
}

/// What went wrong where.
#[must_use]
pub fn said(what: &str, error: &Error) -> String {
    format!("{what} failed: {error}")
}
