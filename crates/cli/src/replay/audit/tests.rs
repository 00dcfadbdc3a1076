//! Faults are planted in heaps behind the journal's back: the audit must find each, and nothing in a sound heap.
//!
//! A thread does one large publish in its heap, whole, in part or not at all, or something is done to the heap afterwards;
//! the journal is left as a kill would leave it.

#![allow(unsafe_code, reason = "the stand damages a heap")]

use pmalloc_persist::{Anon, Offset, Word};
use tempfile::TempDir;

use super::*;
use crate::{
    args::flags::{DurabilityArg, HeapFlags, MediaFlags, ModelArg, PolicyArg},
    replay::{
        caller::Caller,
        engine::Engine,
        heap,
        journal::Shape,
        medium::Plain,
        mix::Mix,
        request::{Act, Request},
        slots::Purse,
    },
    trace::{Event, Operation, Trace},
};

const MANNER: Manner =
    Manner { verification: Verification::Full, mix: Mix { percent: 100, seed: 1 } };

const FLAGS: HeapFlags = HeapFlags {
    policy: PolicyArg::DEFAULT,
    media: MediaFlags { model: ModelArg::Log, durability: DurabilityArg::Process, stripes: None },
};

/// Sizes of the blocks: small ones, large ones, one of a single byte.
const SIZES: [u64; 6] = [24, 40_000, 1, 5000, 100, 70_000];

const fn block(id: u32) -> BlockId {
    BlockId::new(id)
}

const fn slot(number: u32) -> SlotId {
    SlotId::new(number)
}

/// Before these, blocks 0 to 3 are in the slots of their numbers, and the cell holds 7.
const GROUP: [Act; 5] = [
    Act::Alloc { block: block(4), to: slot(4) },
    Act::Free { block: block(0), from: slot(0) },
    Act::Move { block: block(1), from: slot(1), to: slot(5) },
    Act::Swap { one: (block(2), slot(2)), other: (block(3), slot(3)) },
    Act::Set { value: 9 },
];

const REPLACEMENT: [Act; 2] =
    [Act::Free { block: block(1), from: slot(1) }, Act::Alloc { block: block(5), to: slot(1) }];

/// A heap and its journal, with four blocks and a value in the cell.
struct Stand {
    _directory: TempDir,
    heap: Heap<Plain>,
    journal: Journal<Anon>,
    plan: Plan,
}

impl Stand {
    fn new() -> Self {
        let event = |id| Event { block: block(id), thread: 0, operation: Operation::Alloc };
        let events = (0..6).map(event).collect();
        let plan = Plan::of(Trace { threads: 1, events, sizes: SIZES.to_vec() });
        let directory = tempfile::tempdir().expect("a temporary directory");
        let heap = heap::create(&directory.path().join("heap"), &plan, FLAGS).expect("created");
        let shape = Shape::of(&plan);
        let journal = Journal::create(Anon::new(shape.len_bytes()), shape);
        let stand = Self { _directory: directory, heap, journal, plan };
        stand.engine().refill(&mut Purse::default()).expect("an array of slots");
        let allocs = (0..4).map(|id| Act::Alloc { block: block(id), to: slot(id) });
        let acts: Vec<_> = allocs.chain([Act::Set { value: 7 }]).collect();
        stand.begin(Kind::Publish, &acts);
        stand.perform(Kind::Publish, &acts);
        stand.journal.complete(0, |_| {});
        stand
    }

    fn engine(&self) -> Engine<'_, Plain, Anon> {
        Engine::new(&self.heap, &self.journal, &self.plan, MANNER).expect("an engine")
    }

    /// Lays down an operation of one step.
    fn begin(&self, kind: Kind, acts: &[Act]) {
        let position = self.journal.position(0) + 1;
        self.journal.begin(0, &Request { kind, acts, position });
    }

    /// Does something to the heap, without a word to the journal.
    fn perform(&self, kind: Kind, acts: &[Act]) {
        let engine = self.engine();
        let request = Request { kind, acts, position: 0 };
        Caller::new(&engine, 0).perform(&request).expect("the heap agrees");
    }

    fn audit(&self) -> Findings {
        audit(&self.heap, &self.journal, &self.plan, MANNER, Stage::AfterKill).expect("an audit")
    }

    fn medium(&self) -> &Plain {
        // SAFETY: the stand stores to slots, which nobody sees as bytes, and opens no other heap on the file.
        unsafe { self.heap.medium() }
    }

    /// The slot's word, as it lies in the heap.
    fn word(&self, slot: SlotId) -> &Word {
        let (array, index) = slot.place();
        let len = array_len(0);
        assert_eq!(array, 0);
        let slots = self.heap.slots(&array_name(0), u64::from(len)).expect("made before");
        let place = self.heap.offset_of((&raw const slots[index]).cast());
        self.medium().at(Offset::new(place.expect("in the heap"))).expect("aligned")
    }

    fn load(&self, slot: SlotId) -> u64 {
        self.medium().load(self.word(slot))
    }

    fn store(&self, slot: SlotId, word: u64) {
        self.medium().store(self.word(slot), word);
    }

    /// Where the six blocks are, by the journal.
    fn entries(&self) -> [Entry; 6] {
        std::array::from_fn(|id| self.journal.entry(block(u32::try_from(id).expect("of six"))))
    }
}

/// A stand whose journal has `GROUP` in flight, and what `acts` do done to the heap.
fn cut_off(acts: &[Act]) -> Stand {
    let stand = Stand::new();
    stand.begin(Kind::Publish, &GROUP);
    if !acts.is_empty() {
        stand.perform(Kind::Publish, acts);
    }
    stand
}

#[test]
fn a_group_that_did_not_happen_is_undone() {
    let stand = cut_off(&[]);
    let before = (stand.entries(), stand.journal.position(0), stand.journal.cell(0));
    let findings = stand.audit();
    assert_eq!((findings.violations, findings.in_flight[Kind::Publish.index()]), (0, 1));
    assert_eq!((stand.entries(), stand.journal.position(0), stand.journal.cell(0)), before);
    assert_eq!((stand.journal.pending(0), stand.journal.count(Kind::Publish)), (None, 1));
    assert_eq!(stand.audit().in_flight, [0; Kind::COUNT], "it is resolved");
}

#[test]
fn a_group_that_happened_is_done() {
    let stand = cut_off(&GROUP);
    let findings = stand.audit();
    assert_eq!((findings.violations, findings.in_flight[Kind::Publish.index()]), (0, 1));
    let live = |number| Entry::Live(slot(number));
    let expected = [Entry::Freed, live(5), live(3), live(2), live(4), Entry::Untouched];
    assert_eq!((stand.entries(), stand.journal.position(0)), (expected, 2));
    assert_eq!((stand.journal.cell(0), stand.journal.count(Kind::Publish)), (9, 2));
}

#[test]
fn a_replacement_is_told_by_contents() {
    for (acts, expected) in [
        (&[][..], [Entry::Live(slot(1)), Entry::Untouched]),
        (&REPLACEMENT[..], [Entry::Freed, Entry::Live(slot(1))]),
    ] {
        let stand = Stand::new();
        stand.begin(Kind::Replace, &REPLACEMENT);
        if !acts.is_empty() {
            stand.perform(Kind::Replace, acts);
        }
        let findings = stand.audit();
        assert_eq!((findings.violations, findings.in_flight[Kind::Replace.index()]), (0, 1));
        assert_eq!([stand.journal.entry(block(1)), stand.journal.entry(block(5))], expected);
    }
}

#[test]
fn each_action_that_is_missing_or_alone_is_found() {
    for (at, act) in GROUP.into_iter().enumerate() {
        let (front, rest) = GROUP.split_at(at);
        assert!(
            cut_off(&[front, &rest[1..]].concat()).audit().violations > 0,
            "{:?} is missing",
            GROUP[at]
        );
        assert!(cut_off(&[act]).audit().violations > 0, "{act:?} is alone");
    }
    let stand = Stand::new();
    stand.begin(Kind::Replace, &REPLACEMENT);
    stand.perform(Kind::Free, &REPLACEMENT[..1]);
    assert!(stand.audit().violations > 0, "half of a replacement");
}

#[test]
fn a_group_that_had_returned_must_be_there() {
    let stand = cut_off(&GROUP);
    stand.journal.complete(0, |_| {});
    let findings = stand.audit();
    assert_eq!((findings.violations, findings.in_flight), (0, [0; Kind::COUNT]));
    for acts in [&[][..], &GROUP[1..], &GROUP[..4]] {
        let stand = cut_off(acts);
        stand.journal.complete(0, |_| {});
        assert!(stand.audit().violations > 0, "{acts:?}");
    }
}

#[test]
fn a_moved_block_in_both_slots_or_none_is_found() {
    let stand = Stand::new();
    let word = stand.load(slot(1));
    stand.begin(Kind::Publish, &GROUP);
    stand.perform(Kind::Publish, &GROUP);
    stand.store(slot(1), word);
    assert!(stand.audit().violations > 0, "in both");

    let stand = cut_off(&GROUP);
    stand.store(slot(5), 0);
    assert!(stand.audit().violations > 0, "in none");

    for kept in [slot(1), slot(5)] {
        let stand = Stand::new();
        stand.begin(Kind::Move, &[Act::Move { block: block(1), from: slot(1), to: slot(5) }]);
        let word = stand.load(slot(1));
        stand.store(slot(1), 0);
        stand.store(kept, word);
        assert_eq!(stand.audit().violations, 0, "in one of them");
        assert_eq!(stand.journal.entry(block(1)), Entry::Live(kept));
    }
}

#[test]
fn contents_that_are_not_whole_are_found() {
    let stand = cut_off(&GROUP);
    let bytes = usize::try_from(SIZES[4]).expect("small");
    let layout = std::alloc::Layout::from_size_align(bytes, 16).expect("a layout");
    let (array, index) = slot(4).place();
    let slots = stand.heap.slots(&array_name(0), u64::from(array_len(0))).expect("made before");
    assert_eq!(array, 0);
    let torn = |bytes: &mut [u8]| {
        Pattern::of(block(4)).fill(bytes);
        bytes[99] ^= 1;
    };
    stand.heap.replace(&slots[index], layout, torn).expect("replaced");
    assert!(stand.audit().violations > 0);
}

#[test]
fn a_cell_that_nobody_set_is_found() {
    let stand = Stand::new();
    assert_eq!(stand.audit().violations, 0);
    stand.perform(Kind::Set, &[Act::Set { value: 8 }]);
    assert!(stand.audit().violations > 0);
}

#[test]
fn what_is_missing_is_found_at_both_ends() {
    assert_eq!(missing_from(&[2, 3], &[1, 2, 3, 4]).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(missing_from(&[1, 2], &[]).count(), 0);
}
