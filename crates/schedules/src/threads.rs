//! Carries out the operations of a scenario on a heap, and writes down what was called and what returned.

#![allow(unsafe_code, reason = "slots and cells in a root of bytes")]

use std::{
    alloc::Layout,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pmalloc::{
    Error, Heap, Slot, VersionedCell,
    persist::{sim::Sim, sync::thread::sleep},
};

use crate::{
    history::{History, Outcome, Seen},
    nodes,
    scenario::{
        Act, BOX, BOX_BYTES, BOX_SLOTS, CELLS, Op, Place, SLOT_COUNT, SLOTS, Scenario, content_of,
    },
};

/// What the threads of a schedule leave for its judge. The locks are the standard library's: they are no part
/// of what is tested, so that taking them must be no point where another thread may go on.
#[derive(Debug, Default)]
pub struct Record {
    history: Mutex<History>,
    problems: Mutex<Vec<String>>,
}

impl Record {
    /// The history so far.
    #[must_use]
    pub fn history(&self) -> History {
        guard(&self.history).clone()
    }

    /// Notes that something is wrong.
    pub fn blame(&self, problem: impl Into<String>) {
        guard(&self.problems).push(problem.into());
    }

    /// What was found to be wrong so far.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        guard(&self.problems).clone()
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The identity of the `nth` operation of a thread; the setup is thread zero, the first worker thread one.
#[must_use]
pub fn id_of(thread: usize, nth: usize) -> u64 {
    (thread * 16 + nth + 1) as u64
}

/// Carries out `ops` as thread `thread`.
pub fn run(heap: &Heap<Sim>, thread: usize, ops: &[Op], record: &Record, scenario: &Scenario) {
    for (nth, &op) in ops.iter().enumerate() {
        let id = id_of(thread, nth);
        guard(&record.history).call(id, op);
        let outcome = perform(heap, id, op, record, scenario);
        match outcome {
            Ok(outcome) => guard(&record.history).returned(id, outcome),
            Err(error) => return record.blame(format!("{op:?} failed: {error}")),
        }
    }
}

fn perform(
    heap: &Heap<Sim>,
    id: u64,
    op: Op,
    record: &Record,
    scenario: &Scenario,
) -> Result<Outcome, Error> {
    let result = match op {
        Op::Alloc(place, bytes) => heap.alloc_to(slot(heap, place)?, layout(bytes)),
        Op::Fill(place, bytes) => {
            heap.alloc_init(slot(heap, place)?, layout(bytes), |block| write_contents(id, block))
        }
        Op::Free(place) => heap.free_from(slot(heap, place)?),
        Op::Replace(place, bytes) => {
            heap.replace(slot(heap, place)?, layout(bytes), |block| write_contents(id, block))
        }
        Op::Move(from, to) => heap.move_to(slot(heap, from)?, slot(heap, to)?),
        Op::Swap(a, b) => heap.swap(slot(heap, a)?, slot(heap, b)?),
        Op::Set(at, value) => heap.set(cell(heap, at)?, value),
        Op::SetInside(place, value) => set_inside(heap, place, value),
        Op::Publish(acts) => publish(heap, id, acts),
        Op::Reserve(bytes) => heap.reserve(layout(bytes)).map(drop),
        Op::Read(place, steps) => return read(heap, place, steps, record, scenario),
        Op::Root(name) => heap.slots(name, SLOT_COUNT).map(drop),
        Op::Trim => heap.trim().map(drop),
        Op::Sync => heap.sync(),
        Op::MakeNode(_)
        | Op::ReplaceNode(_)
        | Op::FreeNode(_)
        | Op::FillInside(..)
        | Op::FreeInside(_) => nodes::perform(heap, id, op).expect("it is on nodes"),
    };
    match result {
        Ok(()) => Ok(Outcome::Done),
        Err(Error::SlotFull { .. }) => Ok(Outcome::SlotFull),
        Err(Error::SlotEmpty { .. }) => Ok(Outcome::SlotEmpty),
        Err(Error::OutOfMemory { .. }) => Ok(Outcome::NoRoom),
        Err(Error::ChildrenAlive { .. }) => Ok(Outcome::ChildrenAlive),
        Err(Error::SlotForeign) => Ok(Outcome::ParentGone),
        Err(error) => Err(error),
    }
}

fn publish(heap: &Heap<Sim>, id: u64, acts: &[Act]) -> Result<(), Error> {
    let mut publish = heap.publish();
    for (nth, act) in acts.iter().enumerate() {
        match *act {
            Act::Fill(place, bytes) => {
                let mut block = heap.reserve(layout(bytes))?;
                block.write(|block| write_contents(content_of(id, nth), block));
                publish.alloc(slot(heap, place)?, block);
            }
            Act::Free(place) => {
                publish.free(slot(heap, place)?);
            }
            Act::Move(from, to) => {
                publish.move_to(slot(heap, from)?, slot(heap, to)?);
            }
            Act::Swap(a, b) => {
                publish.swap(slot(heap, a)?, slot(heap, b)?);
            }
            Act::Set(at, value) => {
                publish.set(cell(heap, at)?, value);
            }
        }
    }
    publish.commit()
}

/// Sets the cell at the start of the block at `place`, unless the block is free by then.
fn set_inside(heap: &Heap<Sim>, place: Place, value: u64) -> Result<(), Error> {
    let guard = heap.pin();
    let Some(block) = slot(heap, place)?.offset(&guard) else { return Ok(()) };
    match cell_inside(heap, block).and_then(|cell| heap.set(cell, value)) {
        Err(Error::SlotForeign) => Ok(()),
        result => result,
    }
}

/// The cell at the start of a block that a guard keeps.
fn cell_inside(heap: &Heap<Sim>, block: u64) -> Result<&VersionedCell, Error> {
    // SAFETY: only cells are made of these words, blocks whose cell is set are not read as bytes meanwhile, and the caller
    // has a guard.
    unsafe { heap.cell_at(block) }
}

/// Reads a slot, and sees that the block does not change while the guard lives.
fn read(
    heap: &Heap<Sim>,
    place: Place,
    steps: usize,
    record: &Record,
    scenario: &Scenario,
) -> Result<Outcome, Error> {
    let guard = heap.pin();
    let Some(block) = slot(heap, place)?.get(&guard) else { return Ok(Outcome::Saw(Seen::Empty)) };
    let before = block.to_vec();
    for _ in 0..steps {
        // A switch and not a yield, which would send the thread to the end of the queue.
        sleep(Duration::ZERO);
    }
    if block != before {
        record.blame(format!("the block that {place:?} owned was changed under a guard"));
    }
    Ok(Outcome::Saw(classify(&before, scenario)))
}

/// The slot at `place`, whose root exists.
///
/// # Errors
///
/// As [`Heap::slots`].
pub fn slot(heap: &Heap<Sim>, (root, index): Place) -> Result<&Slot, Error> {
    if root == BOX {
        return slot_in_box(heap, index as u64);
    }
    Ok(&heap.slots(root, SLOT_COUNT)?[index])
}

/// The cell `at`.
///
/// # Errors
///
/// As [`Heap::root_bytes`].
pub fn cell(heap: &Heap<Sim>, at: usize) -> Result<&VersionedCell, Error> {
    cell_in_box(heap, at as u64)
}

/// The slots and cells of the root of bytes.
///
/// # Errors
///
/// As [`Heap::root_bytes`].
pub fn in_box(heap: &Heap<Sim>) -> Result<(Vec<&Slot>, Vec<&VersionedCell>), Error> {
    let slots = (0..BOX_SLOTS).map(|nth| slot_in_box(heap, nth)).collect::<Result<_, _>>()?;
    Ok((slots, (0..CELLS as u64).map(|at| cell_in_box(heap, at)).collect::<Result<_, _>>()?))
}

fn slot_in_box(heap: &Heap<Sim>, nth: u64) -> Result<&Slot, Error> {
    let start = heap.root_bytes(BOX, BOX_BYTES, 0)?.offset;
    // SAFETY: these words of the root are slots, nothing shows them as bytes, and the root is never removed.
    unsafe { heap.slot_at(start + 8 * nth) }
}

fn cell_in_box(heap: &Heap<Sim>, at: u64) -> Result<&VersionedCell, Error> {
    let start = heap.root_bytes(BOX, BOX_BYTES, 0)?.offset;
    // SAFETY: as above; those behind them are cells.
    unsafe { heap.cell_at(start + 8 * (BOX_SLOTS + at)) }
}

/// The layout of a block of `bytes` bytes.
///
/// # Panics
///
/// If there is no such layout.
#[must_use]
pub fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).expect("scenarios ask for small blocks")
}

/// The scenario's root arrays, the one of the setup first.
#[must_use]
pub fn roots(scenario: &Scenario) -> Vec<&'static str> {
    let mut roots = vec![SLOTS];
    for op in scenario.threads.iter().copied().flatten() {
        if let Op::Root(name) = op
            && !roots.contains(name)
        {
            roots.push(name);
        }
    }
    roots
}

/// Fills `block` with bytes that tell the operation `id` and any missing part.
pub fn write_contents(id: u64, block: &mut [u8]) {
    for (at, byte) in block.iter_mut().enumerate() {
        *byte = content(id, at);
    }
}

/// What the bytes of a block tell.
#[must_use]
pub fn classify(block: &[u8], scenario: &Scenario) -> Seen {
    let writes = |(thread, ops): (usize, &'static [Op])| {
        ops.iter().enumerate().flat_map(move |(nth, op)| op.writes(id_of(thread, nth)))
    };
    let all = std::iter::once(scenario.setup).chain(scenario.threads.iter().copied());
    let is_whole = |&(id, bytes): &(u64, usize)| {
        block.len() >= bytes && (0..bytes).all(|at| block[at] == content(id, at))
    };
    all.enumerate()
        .flat_map(writes)
        .find(is_whole)
        .map_or(Seen::Other, |(id, _)| Seen::Contents(id))
}

/// The byte at `at` of what operation `id` writes: never zero in every word, never the same in two.
fn content(id: u64, at: usize) -> u8 {
    let word = (at / 8) as u64;
    let mixed = (id << 32 | word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_le_bytes()[7] ^ (at.to_le_bytes()[0] & 7) ^ id.to_le_bytes()[0]
}
