//! Declarations of slots, and blocks that nothing owns: each change of them, with every crash.
//!
//! These have scenes of their own, apart from the alphabet: what a step of that leaves, a slot of one array owns.

use std::{
    alloc::Layout,
    sync::{Arc, Mutex, PoisonError},
};

use pmalloc::{
    BlockLayout, Error, Heap, Policy, Slot, SlotLayout, SlotScope,
    persist::sim::{Digest, ExploreOptions, Explorer, Report, Sim},
};

use crate::world;

/// Tag of the blocks that nothing owns.
const TAG: u8 = 0x5a;
/// Bytes of a block of which a slab holds many.
const SMALL: usize = 40;
/// Bytes of a page-granular block.
const LARGE: usize = 16 << 10;

/// A change that is explored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// The first declaration of a heap.
    Declare,
    /// One more, and another in the place of one.
    DeclareMore,
    /// A small block that nothing owns is given to a slot.
    Adopt,
    /// Likewise a page-granular one.
    AdoptLarge,
    /// A small block that nothing owns is freed.
    Free,
    /// Likewise a page-granular one.
    FreeLarge,
    /// All that nothing owns is freed: two small blocks and a page-granular one.
    FreeAll,
}

impl Change {
    /// Every change.
    pub const ALL: [Self; 7] = [
        Self::Declare,
        Self::DeclareMore,
        Self::Adopt,
        Self::AdoptLarge,
        Self::Free,
        Self::FreeLarge,
        Self::FreeAll,
    ];

    /// Sizes of the blocks that nothing owns before it.
    const fn orphans(self) -> &'static [usize] {
        match self {
            Self::Declare | Self::DeclareMore => &[],
            Self::Adopt | Self::Free => &[SMALL],
            Self::AdoptLarge | Self::FreeLarge => &[LARGE],
            Self::FreeAll => &[SMALL, SMALL, LARGE],
        }
    }
}

/// What a heap says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    declared: Vec<(SlotScope, SlotLayout)>,
    orphans: usize,
    adopted: bool,
    /// The program's live blocks: what is freed is not merely owned by the heap itself.
    blocks: usize,
}

/// Explores every crash of a change on the heap that is made on `sim`.
pub(crate) fn explore(
    (sim, policy): (&Sim, Policy),
    change: Change,
    options: ExploreOptions,
) -> Report {
    let heap = build((sim, policy), change).expect("a fresh heap has room");
    // What it took to build is not what is explored.
    heap.sync().expect("the simulator never fails to sync");
    let accepted: Arc<Mutex<Vec<State>>> = Arc::default();
    let seen = Arc::clone(&accepted);
    let explorer = Explorer::watch(sim, options, move |sim: &Sim| {
        let accepted = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        judge(sim, &accepted)
    });
    let expect = |states| *accepted.lock().unwrap_or_else(PoisonError::into_inner) = states;
    for step in 0.. {
        let before = state(&heap).expect("a whole heap");
        let Some(after) = expected(change, step, &before) else { break };
        let mut between = vec![before.clone()];
        // Each is freed by itself.
        between.extend((1..before.orphans).map(|orphans| {
            let blocks = before.blocks - before.orphans + orphans;
            State { orphans, blocks, ..before.clone() }
        }));
        between.push(after.clone());
        expect(between);
        explorer.set_oracle(2 * step + 1);
        perform(&heap, change, step).expect("the heap has room");
        expect(vec![after]);
        explorer.set_oracle(2 * step + 2);
        explorer.crash_point("returned");
    }
    let report = explorer.finish();
    drop(heap);
    report
}

fn slots(heap: &Heap<Sim>) -> Result<&[Slot], Error> {
    heap.slots("slots", 4)
}

/// What is said of blocks in each step.
fn declaration(step: u64) -> (SlotScope, SlotLayout) {
    match step {
        0 => (SlotScope::Tag(TAG), SlotLayout::none()),
        1 => (SlotScope::RootType(7), SlotLayout::none().at(8).every(16, 24, 3)),
        _ => (SlotScope::Tag(TAG), SlotLayout::none().to_the_end(0, 8)),
    }
}

fn build((sim, policy): (&Sim, Policy), change: Change) -> Result<Heap<Sim>, Error> {
    let heap = world::create(sim.clone(), policy)?;
    let parent = &slots(&heap)?[0];
    if change != Change::Declare {
        // Of all that is live the check knows what is in it: it reads no word that nobody wrote.
        heap.declare_slots(SlotScope::Tag(TAG), &SlotLayout::none())?;
    }
    for size in change.orphans() {
        heap.alloc_init(parent, Layout::new::<[u64; 8]>(), |bytes| bytes.fill(0))?;
        let block = heap.block_of(parent)?.expect("just allocated");
        let child = world::slot_at(&heap, block.offset + 8)?;
        let layout = Layout::from_size_align(*size, 8).expect("a valid size");
        heap.alloc_to(child, BlockLayout::new(layout).with_tag(TAG))?;
        // It is not looked into.
        heap.free_from(parent)?;
    }
    Ok(heap)
}

/// The state after a step, `None` if there is no such step.
fn expected(change: Change, step: u64, before: &State) -> Option<State> {
    match change {
        Change::Declare if step == 0 => {
            Some(State { declared: vec![declaration(0)], ..before.clone() })
        }
        Change::DeclareMore if step < 2 => {
            let (scope, layout) = declaration(step + 1);
            let mut declared = before.declared.clone();
            match declared.iter_mut().find(|(known, _)| *known == scope) {
                Some((_, known)) => *known = layout,
                None => declared.push((scope, layout)),
            }
            Some(State { declared, ..before.clone() })
        }
        Change::Adopt | Change::AdoptLarge if step == 0 => {
            Some(State { orphans: 0, adopted: true, ..before.clone() })
        }
        Change::Free | Change::FreeLarge | Change::FreeAll if step == 0 => {
            Some(State { orphans: 0, blocks: before.blocks - before.orphans, ..before.clone() })
        }
        _ => None,
    }
}

fn perform(heap: &Heap<Sim>, change: Change, step: u64) -> Result<(), Error> {
    let orphan = |heap: &Heap<Sim>| Ok::<u64, Error>(heap.orphans()?[0].offset);
    match change {
        Change::Declare | Change::DeclareMore => {
            let nth = if change == Change::Declare { step } else { step + 1 };
            let (scope, layout) = declaration(nth);
            heap.declare_slots(scope, &layout)
        }
        Change::Adopt | Change::AdoptLarge => heap.adopt(orphan(heap)?, &slots(heap)?[1]),
        Change::Free | Change::FreeLarge => heap.free_orphan(orphan(heap)?),
        Change::FreeAll => heap.free_orphans_with_tag(TAG).map(drop),
    }
}

fn state(heap: &Heap<Sim>) -> Result<State, String> {
    let told = |error: Error| error.to_string();
    let report = heap.check().map_err(told)?;
    if let Some(problem) = report.problems.first() {
        return Err(format!("check found {problem:?}"));
    }
    if report.unknown_blocks > 0 {
        return Err(format!("{} blocks have an unknown owner", report.unknown_blocks));
    }
    let declared = heap.declared_slots().map_err(told)?;
    let adopted = heap.block_of(&slots(heap).map_err(told)?[1]).map_err(told)?.is_some();
    Ok(State { declared, orphans: report.orphans.len(), adopted, blocks: heap.iter().count() })
}

/// Whether the heap on `sim` opens in one of the states, also when it is opened again.
fn judge(sim: &Sim, accepted: &[State]) -> Result<Digest, String> {
    let open = || world::open(sim.clone()).map_err(|error| format!("it does not open: {error}"));
    let heap = open()?;
    sim.recovered();
    let found = state(&heap)?;
    if !accepted.contains(&found) {
        return Err(format!("{found:?} is none of {accepted:?}"));
    }
    let again = open()?;
    let second = state(&again)?;
    if second != found {
        return Err(format!("recovered again: {second:?}, not {found:?}"));
    }
    // Kept until here: dropping a handle closes the heap.
    drop((heap, again));
    Ok(Digest::of(&found))
}
