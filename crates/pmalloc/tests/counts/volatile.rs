//! Goal: no operation allocates more volatile memory than the golden table says.
//!
//! Method: the global allocator counts. Each operation runs in steady state, on slots with a line of their own, while
//! every other block stays live: neither a slab nor a lane is made. A row gives the calls for memory per operation, as
//! the range over a series, and so much of it as was asked for. The table is a snapshot: a change is a failing diff.

use std::{alloc::Layout, fmt::Write, hint::black_box};

use allocation_counter::measure;
use pmalloc::{Heap, PCell, Persistent, Policy, Slot, persist::Anon};

/// Operations of a series.
const SERIES: usize = 64;
/// Slots per line.
const PER_LINE: usize = 8;
/// Passes before the one that counts.
const WARM_UP: usize = 8;

type Memory = Heap<Anon>;

fn heap(policy: Policy) -> Memory {
    let options = Heap::options().policy(policy).capacity_bytes(1 << 30).arenas(1);
    let medium = Anon::new(options.heap_bytes().expect("valid options"));
    options.create_on(medium).expect("created")
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).expect("valid")
}

/// The rows so far.
struct Table(String);

impl Table {
    fn new() -> Self {
        Self(format!("{:<34} {:>7} {:>10}\n", "operation", "calls", "bytes"))
    }

    /// Adds a row for `count` calls of `operation`; those before it are not counted.
    fn row(&mut self, name: &str, count: usize, mut operation: impl FnMut(usize)) {
        let counted: Vec<_> = (0..count).map(|at| measure(|| operation(at))).collect();
        let calls = range(counted.iter().map(|seen| seen.count_total));
        let bytes = range(counted.iter().map(|seen| seen.bytes_total));
        writeln!(self.0, "{name:<34} {calls:>7} {bytes:>10}").expect("a string takes all");
    }
}

fn range(counts: impl Iterator<Item = u64> + Clone) -> String {
    let (least, most) = (counts.clone().min(), counts.max());
    let (least, most) = (least.expect("a series"), most.expect("a series"));
    if least == most { least.to_string() } else { format!("{least}-{most}") }
}

#[test]
fn golden_volatile_allocations() {
    insta::assert_snapshot!(golden(Policy::Eager));
}

#[test]
fn golden_volatile_allocations_batched() {
    insta::assert_snapshot!(golden(Policy::Batched));
}

/// The table of a heap of this policy.
fn golden(policy: Policy) -> String {
    let heap = heap(policy);
    let slots = heap.slots("slots", (SERIES * PER_LINE) as u64).expect("room");
    let others = heap.slots("others", (SERIES * PER_LINE) as u64).expect("room");
    // The lists of a session grow with the first operation that needs them.
    heap.alloc_to(&slots[0], layout(64)).expect("room");
    for _ in 0..SERIES {
        heap.replace(&slots[0], layout(64), |bytes| bytes.fill(1)).expect("room");
    }
    heap.free_from(&slots[0]).expect("full");
    drop(heap.pin());
    // What waits for its epoch to end has had its largest number.
    for at in (0..4).cycle().take(4000) {
        heap.alloc_to(&slots[0], layout([16, 64, 8 << 10, 64 << 10][at])).expect("room");
        heap.free_from(&slots[0]).expect("full");
    }
    let mut table = Table::new();
    for (name, bytes) in [("16 B", 16), ("64 B", 64), ("8 KiB", 8 << 10), ("64 KiB", 64 << 10)] {
        block_rows(&heap, &mut table, (slots, others), name, layout(bytes));
    }
    others.iter().step_by(PER_LINE).for_each(|slot| heap.alloc_to(slot, layout(64)).expect("room"));
    slot_rows(&heap, &mut table, slots);
    publish_rows(&heap, &mut table, slots);
    typed_rows(&heap, &mut table);
    table.0
}

fn block_rows(
    heap: &Memory,
    table: &mut Table,
    (slots, others): (&[Slot], &[Slot]),
    name: &str,
    layout: Layout,
) {
    let slot = |at: usize| &slots[at * PER_LINE];
    let mut session = heap.session();
    for at in 0..SERIES {
        heap.alloc_to(slot(at), layout).expect("room");
        heap.alloc_to(&others[at * PER_LINE], layout).expect("room");
    }
    (0..SERIES).for_each(|at| heap.free_from(slot(at)).expect("full"));
    for _ in 0..WARM_UP {
        (0..SERIES).for_each(|at| heap.alloc_to(slot(at), layout).expect("room"));
        (0..SERIES).for_each(|at| heap.free_from(slot(at)).expect("full"));
        (0..SERIES).for_each(|at| session.alloc_to(slot(at), layout).expect("room"));
        (0..SERIES).for_each(|at| session.free_from(slot(at)).expect("full"));
    }
    table.row(&format!("alloc_to {name}"), SERIES, |at| {
        heap.alloc_to(slot(at), layout).expect("room");
    });
    table.row(&format!("free_from {name}"), SERIES, |at| {
        heap.free_from(slot(at)).expect("full");
    });
    table.row(&format!("alloc_to {name}, session"), SERIES, |at| {
        session.alloc_to(slot(at), layout).expect("room");
    });
    table.row(&format!("free_from {name}, session"), SERIES, |at| {
        session.free_from(slot(at)).expect("full");
    });
    table.row(&format!("alloc_init {name}"), SERIES, |at| {
        heap.alloc_init(slot(at), layout, |bytes| bytes.fill(1)).expect("room");
    });
    table.row(&format!("replace {name}"), SERIES, |at| {
        heap.replace(slot(at), layout, |bytes| bytes.fill(1)).expect("room");
    });
    for slot in slots.iter().chain(others).step_by(PER_LINE) {
        heap.free_from(slot).expect("full");
    }
}

/// Operations that leave all blocks where they are.
fn slot_rows(heap: &Memory, table: &mut Table, slots: &[Slot]) {
    let slot = |at: usize| &slots[at * PER_LINE];
    let neighbour = |at: usize| &slots[at * PER_LINE + 1];
    (0..SERIES).for_each(|at| heap.alloc_to(slot(at), layout(64)).expect("room"));
    table.row("move_to", SERIES, |at| heap.move_to(slot(at), neighbour(at)).expect("full"));
    table.row("swap", SERIES, |at| heap.swap(slot(at), neighbour(at)).expect("in the heap"));
    let root = heap.root_bytes("cells", SERIES * PER_LINE * 8, 0).expect("room");
    let cell = |at| heap.root_cell(&root, (at * PER_LINE * 8) as u64).expect("inside");
    let cells: Vec<_> = (0..SERIES).map(cell).collect();
    table.row("set", SERIES, |at| heap.set(cells[at], 7).expect("it fits"));
    table.row("pin", SERIES, |_| drop(heap.pin()));
    (0..SERIES).for_each(|at| heap.free_from(slot(at)).expect("full"));
}

/// Whole publishes: made, filled and committed.
fn publish_rows(heap: &Memory, table: &mut Table, slots: &[Slot]) {
    for count in [1, 8, 32] {
        let chunks: Vec<Vec<&Slot>> = {
            let slots: Vec<&Slot> = slots.iter().step_by(PER_LINE).collect();
            slots.chunks(count).map(<[&Slot]>::to_vec).collect()
        };
        let alloc = |at: usize| {
            let mut publish = heap.publish();
            for &slot in &chunks[at] {
                publish.alloc(slot, heap.reserve(layout(64)).expect("room"));
            }
            publish.commit().expect("room");
        };
        let free = |at: usize| {
            let mut publish = heap.publish();
            for &slot in &chunks[at] {
                publish.free(slot);
            }
            publish.commit().expect("full");
        };
        for _ in 0..WARM_UP {
            (0..chunks.len()).for_each(alloc);
            (0..chunks.len()).for_each(free);
        }
        table.row(&format!("publish {count} x 64 B"), chunks.len(), alloc);
        table.row(&format!("publish {count} frees"), chunks.len(), free);
    }
}

/// A value of a line and a half with a slot.
#[derive(Persistent)]
#[repr(C)]
struct Node {
    next: Slot<Self>,
    count: PCell<u64>,
    filling: [u64; 10],
}

/// A slot on a line of its own.
#[derive(Persistent)]
#[repr(C)]
struct Owner {
    slot: Slot<Node>,
    filling: [u64; PER_LINE - 1],
}

fn node() -> Node {
    Node { next: Slot::new(), count: PCell::new(0), filling: [0; 10] }
}

fn typed_rows(heap: &Memory, table: &mut Table) {
    let owners = |name| {
        let empty = || Owner { slot: Slot::new(), filling: [0; PER_LINE - 1] };
        heap.root(name, || [(); SERIES].map(|()| empty())).expect("room")
    };
    let (owners, others) = (owners("owners"), owners("other owners"));
    for owner in others {
        heap.alloc_value(&owner.slot, node()).expect("room");
    }
    let slot = |at: usize| &owners[at].slot;
    let alloc = |at| heap.alloc_value(slot(at), node()).expect("room");
    let replace = |at| heap.replace_value(slot(at), node()).expect("room");
    let free = |at| heap.free_from(slot(at)).expect("full");
    for _ in 0..WARM_UP {
        (0..SERIES).for_each(alloc);
        (0..SERIES).for_each(replace);
        (0..SERIES).for_each(free);
    }
    table.row("alloc_value 96 B", SERIES, alloc);
    table.row("replace_value 96 B", SERIES, replace);
    let guard = heap.pin();
    let count = |at: usize| &slot(at).get(&guard).expect("full").count;
    table.row("Slot::get", SERIES, |at| _ = black_box(count(at)));
    table.row("PCell::store", SERIES, |at| count(at).store(heap, 1).expect("live"));
    drop(guard);
    table.row("free_from 96 B, typed", SERIES, free);
}

#[test]
fn what_is_allocated_is_counted() {
    let mut table = Table::new();
    table.row("a box", 2, |at| drop(black_box(vec![0_u8; 8 + at])));
    assert!(table.0.ends_with("       1        8-9\n"), "{}", table.0);
}
