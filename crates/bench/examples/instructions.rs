//! What `cargo xtask instructions` runs under callgrind: each operation many times, in steady state.
//!
//! Method: callgrind counts between the beginning and the end of [`measured`] and writes what it counted to a file of its
//! own each time; the program prints a line for each, the operation's name and how often it was done. Everything is warm
//! by then: as many operations have run before, and as many other blocks stay live, so that no slab is made or given
//! back. Slots have lines of their own. The figures contain the loop around the operations, a handful of instructions.
//!
//! The heap lies in the directory that is given, with power-fail durability, forced where the memory has it not.

use std::{alloc::Layout, env, hint::black_box, path::Path};

use pmalloc::{Heap, PCell, Persistent, Slot, persist::DurabilityChoice};

/// Operations of a series.
const SERIES: usize = 512;
/// Passes of allocations and frees before the one that counts.
const WARM_UP: usize = 8;
/// Slots in a line.
const PER_LINE: usize = 8;

fn main() {
    let directory = env::args_os().nth(1).expect("a directory for the heap");
    let options = Heap::options().capacity_bytes(1 << 30).arenas(1);
    let options = options.durability(DurabilityChoice::PowerFail).unsafe_force_durability();
    let heap = options.create(Path::new(&directory).join("heap")).expect("a new heap");
    let series = Series {
        heap: &heap,
        slots: heap.slots("slots", (SERIES * PER_LINE) as u64).expect("room"),
        others: heap.slots("others", (SERIES * PER_LINE) as u64).expect("room"),
    };
    for (name, bytes) in [("16 B", 16), ("64 B", 64), ("1 KiB", 1 << 10), ("8 KiB", 8 << 10)] {
        series.blocks(name, layout(bytes));
    }
    series.large_blocks("64 KiB", layout(64 << 10));
    series.contents(layout(64));
    series.slots_and_cells(layout(64));
    series.session(layout(64));
    for count in [1, 8, 32] {
        series.publishes(count, layout(64));
    }
    typed(&heap);
    report("pin", SERIES, || (0..SERIES).for_each(|_| drop(black_box(heap.pin()))));
}

/// What is counted: the tool knows this function by its name.
#[inline(never)]
fn measured(work: impl FnOnce()) {
    work();
}

/// Has the `work` counted, which does `count` operations of this `name`.
fn report(name: &str, count: usize, work: impl FnOnce()) {
    measured(work);
    println!("{name}\t{count}");
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).expect("a valid layout")
}

/// Slots that operations go over, and others whose blocks stay.
struct Series<'h> {
    heap: &'h Heap,
    slots: &'h [Slot],
    others: &'h [Slot],
}

impl<'h> Series<'h> {
    fn slots(&self) -> impl Iterator<Item = &'h Slot> + Clone {
        self.slots.iter().step_by(PER_LINE)
    }

    fn others(&self) -> impl Iterator<Item = &'h Slot> + Clone {
        self.others.iter().step_by(PER_LINE)
    }

    fn alloc(&self, slot: &Slot, layout: Layout) {
        self.heap.alloc_to(slot, layout).expect("room");
    }

    fn free(&self, slot: &Slot) {
        self.heap.free_from(slot).expect("the slot is full");
    }

    /// Calls `work` while every other block of the slabs is live, whatever becomes of the rest.
    fn beside_others(&self, layout: Layout, work: impl FnOnce()) {
        self.slots().zip(self.others()).for_each(|(slot, other)| {
            self.alloc(slot, layout);
            self.alloc(other, layout);
        });
        self.slots().for_each(|slot| self.free(slot));
        for _ in 0..WARM_UP {
            self.slots().for_each(|slot| self.alloc(slot, layout));
            self.slots().for_each(|slot| self.free(slot));
        }
        work();
        self.others().for_each(|slot| self.free(slot));
    }

    fn blocks(&self, name: &str, layout: Layout) {
        self.beside_others(layout, || {
            report(&format!("alloc_to {name}"), SERIES, || {
                self.slots().for_each(|slot| self.alloc(slot, layout));
            });
            report(&format!("free_from {name}"), SERIES, || {
                self.slots().for_each(|slot| self.free(slot));
            });
        });
    }

    /// No more blocks at once than an arena keeps at hand.
    fn large_blocks(&self, name: &str, layout: Layout) {
        let few = || self.slots().take(64);
        for round in 0..=WARM_UP {
            let alloc = || few().for_each(|slot| self.alloc(slot, layout));
            let free = || few().for_each(|slot| self.free(slot));
            if round < WARM_UP {
                alloc();
                free();
            } else {
                report(&format!("alloc_to {name}"), 64, alloc);
                report(&format!("free_from {name}"), 64, free);
            }
        }
    }

    /// Operations that write the block.
    fn contents(&self, layout: Layout) {
        let fill = |bytes: &mut [u8]| bytes.fill(black_box(1));
        self.beside_others(layout, || {
            report("alloc_init 64 B", SERIES, || {
                let mut slots = self.slots();
                slots.try_for_each(|slot| self.heap.alloc_init(slot, layout, fill)).expect("room");
            });
            let replace = || {
                let mut slots = self.slots();
                slots.try_for_each(|slot| self.heap.replace(slot, layout, fill)).expect("room");
            };
            replace();
            report("replace 64 B", SERIES, replace);
            self.slots().for_each(|slot| self.free(slot));
        });
    }

    /// Operations that leave all blocks where they are.
    fn slots_and_cells(&self, layout: Layout) {
        self.beside_others(layout, || {
            self.slots().for_each(|slot| self.alloc(slot, layout));
            // The neighbours of the slots, on the same lines, are empty.
            let pairs = || self.slots().zip(self.slots[1..].iter().step_by(PER_LINE));
            for round in 0..=WARM_UP {
                let to = || {
                    pairs().for_each(|(from, to)| self.heap.move_to(from, to).expect("full"));
                };
                let back = || {
                    pairs().for_each(|(from, to)| self.heap.swap(from, to).expect("full"));
                };
                if round < WARM_UP {
                    to();
                    back();
                } else {
                    report("move_to", SERIES, to);
                    report("swap", SERIES, back);
                }
            }
            self.slots().for_each(|slot| self.free(slot));
        });
        let bytes = SERIES * PER_LINE * 8;
        let root = self.heap.root_bytes("cells", bytes, 0).expect("room");
        let cell = |at| self.heap.root_cell(&root, (at * PER_LINE * 8) as u64).expect("inside");
        let cells: Vec<_> = (0..SERIES).map(cell).collect();
        let set = || cells.iter().for_each(|cell| self.heap.set(cell, 7).expect("it fits"));
        set();
        report("set", SERIES, set);
    }

    /// The same operations through a session.
    fn session(&self, layout: Layout) {
        let mut session = self.heap.session();
        let mut alloc = |slot| session.alloc_to(slot, layout).expect("room");
        self.others().for_each(&mut alloc);
        for round in 0..=WARM_UP {
            let mut alloc = || {
                let mut slots = self.slots();
                slots.try_for_each(|slot| session.alloc_to(slot, layout)).expect("room");
            };
            if round < WARM_UP {
                alloc();
            } else {
                report("alloc_to 64 B, session", SERIES, alloc);
            }
            let mut free = || {
                let mut slots = self.slots();
                slots.try_for_each(|slot| session.free_from(slot)).expect("full");
            };
            if round < WARM_UP { free() } else { report("free_from 64 B, session", SERIES, free) }
        }
        self.others().for_each(|slot| session.free_from(slot).expect("full"));
    }

    /// Blocks that are reserved and published `count` at a time, and freed likewise; an operation is a block.
    fn publishes(&self, count: usize, layout: Layout) {
        let slots: Vec<&Slot> = self.slots().collect();
        let alloc = || {
            for slots in slots.chunks(count) {
                let mut publish = self.heap.publish();
                for &slot in slots {
                    publish.alloc(slot, self.heap.reserve(layout).expect("room"));
                }
                publish.commit().expect("room");
            }
        };
        let free = || {
            for slots in slots.chunks(count) {
                let mut publish = self.heap.publish();
                for &slot in slots {
                    publish.free(slot);
                }
                publish.commit().expect("full");
            }
        };
        self.beside_others(layout, || {
            alloc();
            free();
            report(&format!("reserve and publish, {count} at once"), SERIES, alloc);
            report(&format!("publish a free, {count} at once"), SERIES, free);
        });
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

fn typed(heap: &Heap) {
    let owners = |name| {
        let empty = || Owner { slot: Slot::new(), filling: [0; PER_LINE - 1] };
        heap.root(name, || [(); SERIES].map(|()| empty())).expect("room")
    };
    let (owners, others) = (owners("owners"), owners("other owners"));
    let alloc = || {
        let mut owners = owners.iter();
        owners.try_for_each(|owner| heap.alloc_value(&owner.slot, node())).expect("room");
    };
    let replace = || {
        let mut owners = owners.iter();
        owners.try_for_each(|owner| heap.replace_value(&owner.slot, node())).expect("room");
    };
    let free = || {
        let mut owners = owners.iter();
        owners.try_for_each(|owner| heap.free_from(&owner.slot)).expect("full");
    };
    for owner in others {
        heap.alloc_value(&owner.slot, node()).expect("room");
    }
    for _ in 0..WARM_UP {
        alloc();
        replace();
        free();
    }
    report("alloc_value 96 B", SERIES, alloc);
    report("replace_value 96 B", SERIES, replace);
    let guard = heap.pin();
    report("get of a slot", SERIES, || {
        for owner in owners {
            black_box(owner.slot.get(&guard));
        }
    });
    report("PCell::store", SERIES, || {
        for owner in owners {
            owner.slot.get(&guard).expect("full").count.store(heap, 1).expect("live");
        }
    });
    drop(guard);
    report("free_from 96 B, typed", SERIES, free);
}
