//! Goal: no operation flushes, fences or reflushes more than the golden table says.
//!
//! Method: the tracer records every flush and fence of a series of equal operations, on slots with a line of their
//! own. A row gives the lines flushed and the fences per operation, as the range over the series; the lines of
//! contents among them; and how many flushes hit a line again that the thread had flushed less than four other
//! lines ago, contents left out. Rows called `making` hold what an operation adds on its way now and then: a slab, a
//! lane, a chunk, growth. The table is a snapshot: a change of any count is a failing diff. Each policy has its own; under
//! Batched, what operations leave to a synchronizer is made durable between two rows, so that no round falls into one: what
//! rounds cost is a test of its own.

use crate::common::shared::{Raw, Shared};
use std::{alloc::Layout, collections::BTreeSet, fmt::Write, ops::RangeInclusive};

use pmalloc::{
    BlockLayout, Heap, PCell, Persistent, Policy, Slot,
    persist::{Anon, Counts, Event, LINE_BYTES, Line, Medium, Span, Traced},
};

/// Operations of a series.
const SERIES: usize = 48;
/// Slots per line.
const PER_LINE: usize = 8;

type Traceable = Heap<Traced<Anon>>;

struct Table<'h> {
    heap: &'h Traceable,
    /// The slot arrays, whose lines are not contents.
    arrays: Vec<Span>,
    text: String,
}

impl<'h> Table<'h> {
    fn new(heap: &'h Traceable) -> Self {
        let mut text = String::new();
        writeln!(
            text,
            "{:<34} {:>7} {:>9} {:>6} {:>10}",
            "operation", "flushes", "contents", "fences", "reflush<4"
        )
        .expect("a string takes all");
        Self { heap, arrays: Vec::new(), text }
    }

    fn slots(&mut self, name: &str) -> &'h [Slot] {
        let slots = self.heap.slots(name, (SERIES * PER_LINE) as u64).expect("room");
        let region = self.heap.raw().region();
        let first = region.span_of(&slots[0]).start;
        self.arrays.push(Span::new(first, (slots.len() * 8) as u64));
        slots
    }

    /// Adds a row for `count` calls of `operation`.
    fn row(&mut self, name: &str, count: usize, mut operation: impl FnMut(usize)) {
        if self.heap.policy() == Policy::Batched {
            // What is freed is at hand again, too.
            self.heap.trim().expect("nothing fails");
        }
        let mut series = Vec::new();
        let (mut flushes, mut contents, mut fences) = (Vec::new(), Vec::new(), Vec::new());
        for at in 0..count {
            self.heap.raw().start_trace();
            operation(at);
            let events = self.heap.raw().take_trace();
            let all = Counts::of(&events, |_| true);
            flushes.push(all.flushes);
            contents
                .push(all.flushes - Counts::of(&events, |line| !self.is_contents(line)).flushes);
            fences.push(all.fences);
            series.extend(events);
        }
        let reflushes = self.metadata(&series).reflushes_below(4);
        writeln!(
            self.text,
            "{name:<34} {:>7} {:>9} {:>6} {reflushes:>10}",
            range(&flushes),
            range(&contents),
            range(&fences),
        )
        .expect("a string takes all");
    }

    fn metadata(&self, events: &[Event]) -> Counts {
        Counts::of(events, |line| !self.is_contents(line))
    }

    /// Whether a line lies in a block that is no slot array.
    fn is_contents(&self, line: Line) -> bool {
        let data = self.heap.blocks().first().map_or(u64::MAX, |block| block.offset);
        line.span().start >= data && !self.arrays.iter().any(|array| array.overlaps(line.span()))
    }
}

fn range(counts: &[u64]) -> String {
    let all: RangeInclusive<u64> =
        *counts.iter().min().expect("a series")..=*counts.iter().max().expect("a series");
    if all.start() == all.end() {
        all.start().to_string()
    } else {
        format!("{}-{}", all.start(), all.end())
    }
}

fn layout(size: usize) -> BlockLayout {
    Layout::from_size_align(size, 8).expect("valid").into()
}

fn traced(policy: Policy) -> Traceable {
    let options = Heap::options().policy(policy).capacity_bytes(1 << 30).arenas(1).stripes(6);
    let medium = Traced::new(Anon::new(options.heap_bytes().expect("valid")));
    options.create_shared(medium).expect("created")
}

#[test]
fn golden_persist_counts() {
    insta::assert_snapshot!(persist_counts(Policy::Eager));
}

#[test]
fn golden_persist_counts_of_batched() {
    insta::assert_snapshot!(persist_counts(Policy::Batched));
}

fn persist_counts(policy: Policy) -> String {
    let heap = traced(policy);
    let mut table = Table::new(&heap);
    let slots = table.slots("slots");
    let others = table.slots("others");

    let tagged = layout(64).with_tag(7);
    for (name, layout) in [
        ("16 B", layout(16)),
        ("64 B", layout(64)),
        ("64 B with a tag", tagged),
        ("1 KiB", layout(1024)),
        ("8 KiB", layout(8192)),
    ] {
        // Every other block stays live, so that the series finds slabs with room and leaves none empty.
        for at in 0..SERIES {
            heap.alloc_to(&slots[at * PER_LINE], layout).expect("room");
            heap.alloc_to(&others[at * PER_LINE], layout).expect("room");
        }
        for slot in slots.iter().step_by(PER_LINE) {
            heap.free_from(slot).expect("full");
        }
        let slot = |at: usize| &slots[at * PER_LINE];
        table.row(&format!("alloc_to {name}, steady"), SERIES, |at| {
            heap.alloc_to(slot(at), layout).expect("room");
        });
        table.row(&format!("free_from {name}, steady"), SERIES, |at| {
            heap.free_from(slot(at)).expect("full");
        });
        table.row(&format!("alloc_init {name}, steady"), SERIES, |at| {
            heap.alloc_init(slot(at), layout, |bytes| bytes.fill(1)).expect("room");
        });
        for slot in slots.iter().chain(others).step_by(PER_LINE) {
            heap.free_from(slot).expect("full");
        }
    }
    publish_rows(&heap, &mut table, slots, others);
    typed_rows(&heap, &mut table);
    large_rows(&heap, &mut table, slots);
    making_rows(&heap, &mut table, others);
    table.text
}

fn publish_rows(heap: &Traceable, table: &mut Table<'_>, slots: &[Slot], others: &[Slot]) {
    let slot = |at: usize| &slots[at * PER_LINE];
    let layout = layout(64);
    // One cell per line, in a block that counts as an array.
    heap.alloc_init(slot(SERIES - 1), self::layout(4096), |bytes| bytes.fill(0)).expect("room");
    let block = slot(SERIES - 1).pptr(&heap.pin()).offset();
    table.arrays.push(Span::new(block, 4096));
    let cell = |at: usize| heap.cell_in(block + (at * PER_LINE * 8) as u64).expect("inside");
    table.row("set, steady", SERIES, |at| {
        heap.set(cell(at), at as u64).expect("it fits");
    });
    // Leaves slabs with room, as the series of single allocations does.
    others.iter().step_by(PER_LINE).for_each(|slot| heap.alloc_to(slot, layout).expect("room"));
    for count in [1, 8, 32] {
        for contents in ["bare", "written"] {
            table.row(&format!("publish {count} x 64 B, {contents}"), 1, |_| {
                let mut publish = heap.publish();
                for at in 0..count {
                    let mut block = heap.reserve(layout).expect("room");
                    if contents == "written" {
                        block.write(|bytes| bytes.fill(1));
                    }
                    publish.alloc(slot(at), block);
                }
                publish.commit().expect("room");
            });
            table.row(&format!("publish {count} frees, {contents}"), 1, |_| {
                let mut publish = heap.publish();
                for at in 0..count {
                    publish.free(slot(at));
                }
                publish.commit().expect("full");
            });
        }
    }
    (0..16).for_each(|at| heap.alloc_to(slot(at), layout).expect("room"));
    table.row("replace 64 B, steady", 16, |at| {
        heap.replace(slot(at), layout, |bytes| bytes.fill(1)).expect("full");
    });
    table.row("move_to, steady", 16, |at| {
        heap.move_to(slot(at), slot(16 + at)).expect("full, and empty");
    });
    table.row("swap, steady", 16, |at| {
        heap.swap(slot(16 + at), slot(at)).expect("in the heap");
    });
    for slot in slots.iter().chain(others).step_by(PER_LINE) {
        if !slot.is_empty(&heap.pin()) {
            heap.free_from(slot).expect("full");
        }
    }
    table.arrays.pop();
}

/// Who reads a slot that a publish has stored may look at the block at once: what the publish writes to the block comes
/// before, however the actions were ordered.
#[test]
fn slots_of_new_blocks_are_stored_before_those_that_lead_there() {
    for (policy, size) in
        [Policy::Eager, Policy::Batched].into_iter().flat_map(|p| [64, 20_000].map(|s| (p, s)))
    {
        let heap = traced(policy);
        let slots = heap.slots("slots", 4).expect("room");
        (1..3).for_each(|at| heap.alloc_to(&slots[at], layout(64)).expect("room"));
        let new = |size| {
            let mut block = heap.reserve(layout(size)).expect("room");
            block.write(|bytes| bytes.fill(0));
            block
        };
        let (outer, inner, innermost) = (new(size), new(size), new(64));
        let places = [
            heap.offset_of((&raw const slots[0]).cast()).expect("in the heap"),
            outer.offset() + 16,
            inner.offset(),
        ];
        let into_outer = outer.new_block();
        let into_inner = inner.new_block();
        heap.start_trace();
        let mut publish = heap.publish();
        publish.alloc(&slots[0], outer).alloc(into_outer.slot(16), inner);
        publish.alloc(into_inner.slot(0), innermost).swap(&slots[1], into_outer.slot(24));
        publish.move_to(&slots[2], into_inner.slot(8)).commit().expect("room");
        let trace = heap.take_trace();
        let stored = |place: u64| {
            let is_there =
                |event: &Event| matches!(event, Event::Store { span, .. } if span.start == place);
            trace.iter().position(is_there).expect("it is stored")
        };
        let [first, outer_at, inner_at] = places;
        for place in [outer_at, outer_at + 8, inner_at, inner_at + 8] {
            assert!(stored(place) < stored(first), "{place:#x}, {size} bytes: {trace:#?}");
        }
        heap.free_from(&slots[0]).expect("full");
    }
}

/// A value of a line and a half with a slot, each owner on a line of its own.
#[derive(Persistent)]
#[repr(C)]
struct Node {
    next: Slot<Self>,
    count: PCell<u64>,
    filling: [u64; 10],
}

fn node() -> Node {
    Node { next: Slot::new(), count: PCell::new(0), filling: [0; 10] }
}

/// A slot on a line of its own.
#[derive(Persistent)]
#[repr(C)]
struct Owner {
    slot: Slot<Node>,
    filling: [u64; 7],
}

fn typed_rows(heap: &Traceable, table: &mut Table<'_>) {
    let owners = heap.root("owners", || {
        std::array::from_fn::<_, SERIES, _>(|_| Owner { slot: Slot::new(), filling: [0; 7] })
    });
    let owners = owners.expect("room");
    let array = heap.root_find("owners").expect("whole").expect("just made");
    table.arrays.push(Span::new(array.offset, array.size_bytes()));
    for owner in owners {
        heap.alloc_value(&owner.slot, node()).expect("room");
    }
    for owner in &owners[2..] {
        heap.free_from(&owner.slot).expect("full");
    }
    let slot = |at: usize| &owners[2 + at].slot;
    table.row("alloc_value 96 B, steady", SERIES - 2, |at| {
        heap.alloc_value(slot(at), node()).expect("room");
    });
    table.row("replace_value 96 B, steady", SERIES - 2, |at| {
        heap.replace_value(slot(at), node()).expect("room");
    });
    let guard = heap.pin();
    let cell = &owners[0].slot.get(&guard).expect("full").count;
    table.row("flush of 64 B", SERIES, |at| {
        heap.flush(Span::new(array.offset + at as u64 * 64, 64)).expect("inside the heap");
    });
    table.row("PCell::store", SERIES, |at| cell.store(heap, at as u64).expect("live"));
    table.row("PCell::fetch_add", SERIES, |_| drop(cell.fetch_add(heap, 1)));
    table.row("PCell::fetch_update, unchanged", SERIES, |_| {
        drop(cell.fetch_update(heap, |_| None));
    });
    drop(guard);
    table.row("free_from a typed slot, steady", SERIES - 2, |at| {
        heap.free_from(slot(at)).expect("full");
    });
    for owner in &owners[..2] {
        heap.free_from(&owner.slot).expect("full");
    }
}

fn large_rows(heap: &Traceable, table: &mut Table<'_>, slots: &[Slot]) {
    let slot = |at: usize| &slots[at * PER_LINE];
    let layout = layout(64 << 10);
    for round in 0..2 {
        let (name, count) = if round == 0 { ("making", 8) } else { ("steady", 8) };
        table.row(&format!("alloc_to 64 KiB, {name}"), count, |at| {
            heap.alloc_to(slot(at), layout).expect("room");
        });
        table.row(&format!("free_from 64 KiB, {name}"), count, |at| {
            heap.free_from(slot(at)).expect("full");
        });
    }
}

fn making_rows(heap: &Traceable, table: &mut Table<'_>, slots: &[Slot]) {
    let slot = |at: usize| &slots[at * PER_LINE];
    table.row("alloc_to 512 B, making a slab", 1, |_| {
        heap.alloc_to(slot(0), layout(512)).expect("room");
    });
    table.row("alloc_to 64 MiB, growing", 1, |_| {
        heap.alloc_to(slot(1), layout(64 << 20)).expect("room");
    });
    let mut session = heap.session();
    table.row("alloc_to 512 B, making a lane", 1, |_| {
        session.alloc_to(slot(2), layout(512)).expect("room");
    });
    table.row("slots, making a root", 1, |_| {
        heap.slots("a new root", 8).expect("room");
    });
    table.row("slots, found", 1, |_| {
        heap.slots("a new root", 8).expect("there");
    });
    for (name, size) in [("64 B", 64), ("64 KiB", 64 << 10)] {
        table.row(&format!("root_bytes {name}, making a root"), 8, |at| {
            heap.root_bytes(&format!("{name} {at}"), size, 0).expect("room");
        });
        table.row(&format!("root_remove {name}"), 8, |at| {
            heap.root_remove(&format!("{name} {at}")).expect("there");
        });
    }
    table.row("64 large pairs, making chunks", 1, |_| {
        // A pair frees what an earlier one allocated: the slot's own line is not the question here.
        for at in 0..72 {
            if at < 64 {
                heap.alloc_to(slot(3 + at % 16), layout(64 << 10)).expect("room");
            }
            if at >= 8 {
                heap.free_from(slot(3 + (at - 8) % 16)).expect("full");
            }
        }
    });
}

/// Lines flushed before each fence.
fn flushes_by_fence(events: &[Event]) -> Vec<usize> {
    let mut counts = vec![0];
    for event in events {
        match event {
            Event::Flush { .. } => *counts.last_mut().expect("begins with one") += 1,
            Event::Fence { .. } => counts.push(0),
            Event::Store { .. } | Event::Sync { .. } => {}
        }
    }
    assert_eq!(counts.pop(), Some(0), "nothing is flushed behind the last fence");
    counts
}

#[test]
fn a_publish_writes_its_records_under_one_fence_and_contents_under_one_more() {
    for policy in [Policy::Eager, Policy::Batched] {
        let heap = traced(policy);
        let slots = heap.slots("slots", 64 * PER_LINE as u64).expect("room");
        // Makes the slab and the lane.
        heap.alloc_to(&slots[1], layout(64)).expect("room");
        for (written, count) in
            [false, true].into_iter().flat_map(|w| [1, 2, 63, 64].map(|c| (w, c)))
        {
            let mut publish = heap.publish();
            for slot in slots.iter().step_by(PER_LINE).take(count) {
                let mut block = heap.reserve(layout(64)).expect("room");
                if written {
                    block.write(|bytes| bytes.fill(1));
                }
                publish.alloc(slot, block);
            }
            heap.raw().start_trace();
            publish.commit().expect("room");
            let mut flushes = flushes_by_fence(&heap.raw().take_trace());
            if written {
                assert_eq!(flushes.remove(0), count, "a line of contents each");
            }
            assert_eq!(flushes.remove(0), count, "a record each");
            match policy {
                Policy::Batched => assert_eq!(flushes, [], "the rest is left to a synchronizer"),
                _ => {
                    let [effects, mark] = flushes[..] else { panic!("{flushes:?}") };
                    // A line per slot, and those of the bits: neighbouring blocks have theirs in different lines, up to six.
                    assert!((count + 1..=count + 6).contains(&effects), "{effects} for {count}");
                    assert_eq!(mark, 1);
                }
            }
            for slot in slots.iter().step_by(PER_LINE).take(count) {
                heap.free_from(slot).expect("full");
            }
            heap.sync().expect("nothing fails");
        }
    }
}

/// The lines of a span.
fn lines_of(span: Span) -> RangeInclusive<u64> {
    span.start / LINE_BYTES..=(span.end() - 1) / LINE_BYTES
}

/// Lines that events have left: stored to and not flushed since, and flushed and not fenced since.
fn left_by(events: &[Event]) -> [BTreeSet<u64>; 2] {
    let (mut dirty, mut on_the_way) = (BTreeSet::new(), BTreeSet::new());
    for event in events {
        match event {
            Event::Store { span, .. } => lines_of(*span).for_each(|line| {
                on_the_way.remove(&line);
                dirty.insert(line);
            }),
            Event::Flush { line, .. } => {
                let line = line.span().start / LINE_BYTES;
                dirty.remove(&line);
                on_the_way.insert(line);
            }
            Event::Fence { .. } => on_the_way.clear(),
            Event::Sync { .. } => {}
        }
    }
    [dirty, on_the_way]
}

/// Changes slots of two arrays, those of one packed and those of the other on lines of their own, in all ways.
fn change_all(heap: &Traceable, packed: &[Slot], apart: &[Slot]) {
    for at in 0..16 {
        let apart = &apart[at * PER_LINE..];
        heap.alloc_to(&packed[at], layout(64)).expect("room");
        heap.alloc_init(&apart[0], layout(200), |bytes| bytes.fill(1)).expect("room");
        heap.replace(&packed[at], layout(1024), |bytes| bytes.fill(2)).expect("room");
        heap.swap(&packed[at], &apart[0]).expect("in the heap");
        heap.move_to(&apart[0], &apart[1]).expect("full, and empty");
        heap.alloc_to(&apart[0], layout(20_000)).expect("room");
        if at % 3 == 0 {
            for slot in [&packed[at], &apart[0], &apart[1]] {
                heap.free_from(slot).expect("full");
            }
        }
    }
}

/// A round of the synchronizer flushes each line that operations have left, once, fences, and then says so, with a flush and
/// a fence more.
#[test]
fn a_sync_flushes_each_line_that_operations_left_once_and_then_the_durable_epoch() {
    let heap = traced(Policy::Batched);
    let [packed, apart] =
        ["packed", "apart"].map(|name| heap.slots(name, (SERIES * PER_LINE) as u64).expect("room"));
    change_all(&heap, &packed[16..], &apart[16 * PER_LINE..]);
    heap.sync().expect("nothing fails");
    heap.raw().start_trace();
    change_all(&heap, packed, apart);
    let [left, on_the_way] = left_by(&heap.raw().take_trace());
    assert!(left.len() > 30 && on_the_way.is_empty(), "{left:?}");
    heap.raw().start_trace();
    heap.sync().expect("nothing fails");
    let events = heap.raw().take_trace();
    assert_eq!(flushes_by_fence(&events), [left.len(), 1]);
    let flushed = events.iter().filter_map(|event| match event {
        Event::Flush { line, .. } => Some(line.span().start / LINE_BYTES),
        _ => None,
    });
    let mut flushed: Vec<u64> = flushed.collect();
    let last = flushed.pop().expect("the durable epoch");
    assert_eq!(flushed.into_iter().collect::<BTreeSet<u64>>(), left);
    let stored = events.iter().filter_map(|event| match event {
        Event::Store { span, .. } => Some(lines_of(*span)),
        _ => None,
    });
    assert_eq!(stored.flatten().collect::<Vec<_>>(), [last], "nothing else is stored");
    // Nothing is left.
    heap.raw().start_trace();
    heap.sync().expect("nothing fails");
    assert_eq!(flushes_by_fence(&heap.raw().take_trace()), [0, 1]);
}

/// Whatever the heap stores from its first operation on, in blocks only what it was given, is flushed behind that and fenced
/// when a sync has returned.
#[test]
fn a_sync_leaves_nothing_that_is_not_durable() {
    for policy in [Policy::Eager, Policy::Batched] {
        let heap = traced(policy);
        heap.raw().start_trace();
        let [packed, apart] = ["packed", "apart"]
            .map(|name| heap.slots(name, (SERIES * PER_LINE) as u64).expect("room"));
        (0..3).for_each(|part| {
            change_all(&heap, &packed[16 * part..], &apart[16 * part * PER_LINE..]);
        });
        heap.sync().expect("nothing fails");
        let nothing = [const { BTreeSet::new() }; 2];
        assert_eq!(left_by(&heap.raw().take_trace()), nothing, "{policy:?}");
    }
}

/// With the lines of rounds, an operation in a long series costs little more than two flushes and one fence, and no line is
/// flushed again soon.
#[test]
fn operations_of_batched_cost_two_flushes_and_a_fence_with_their_rounds() {
    const OPERATIONS: usize = 8000;
    let heap = traced(Policy::Batched);
    let slots = heap.slots("slots", OPERATIONS as u64).expect("room");
    slots[..OPERATIONS / 2].iter().for_each(|slot| heap.alloc_to(slot, layout(64)).expect("room"));
    slots[..OPERATIONS / 2].iter().for_each(|slot| heap.free_from(slot).expect("full"));
    heap.raw().start_trace();
    slots[..OPERATIONS / 2].iter().for_each(|slot| heap.alloc_to(slot, layout(64)).expect("room"));
    slots[..OPERATIONS / 2].iter().for_each(|slot| heap.free_from(slot).expect("full"));
    heap.sync().expect("nothing fails");
    let counts = Counts::of(&heap.raw().take_trace(), |_| true);
    let most = |percent: u64| percent * OPERATIONS as u64 / 100;
    assert!(counts.flushes <= most(220), "{counts:?}");
    assert!(counts.fences <= most(105), "{counts:?}");
    assert_eq!(counts.reflushes_below(8), 0, "{counts:?}");
}
