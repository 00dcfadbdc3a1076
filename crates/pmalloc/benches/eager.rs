//! The cost of the Eager policy, in ratios to the bare cost of its fences.
//!
//! Method: DRAM stands in for persistent memory (a file in /dev/shm, power-fail durability forced). All rows are
//! measured in one process, interleaved round by round; a row is the median over the rounds of CPU time (user and
//! system, all threads) per operation, with minimum and maximum. *Bare persist* is an 8-byte store, a flush and a
//! fence over 64 lines of the same heap file, per persist.
//!
//! Run with `cargo bench -p pmalloc --bench eager`; `EAGER_ROUNDS` sets the rounds, default 9.

mod common;

use std::{alloc::Layout, hint::black_box};

use common::{PER_LINE, Samples, large_size, on_threads, per_operation};
use pmalloc::{Heap, Slot, persist::Word};

/// Slots per thread of the small rows.
const SLOTS: usize = 10_000;
/// Most threads of a row.
const THREADS_MAX: usize = 8;

/// One measured quantity: nanoseconds of CPU time per operation, a sample per round.
struct Row {
    name: &'static str,
    fences: f64,
    samples: Samples,
}

fn main() {
    let rounds = common::setting("EAGER_ROUNDS", 9);
    let dir = common::directory();
    let heap = common::power_fail_heap(Heap::options(), &dir.path().join("heap"));
    let bench = Bench::new(&heap);
    let only = std::env::var("EAGER_ONLY").unwrap_or_default();
    let (mut rows, measures): (Vec<Row>, Vec<Measure<'_>>) = Bench::rows()
        .into_iter()
        .zip(Bench::MEASURES)
        .filter(|(row, _)| row.name.starts_with("bare") || row.name.contains(&only))
        .unzip();
    for round in 0..=rounds {
        for (row, measure) in rows.iter_mut().zip(&measures) {
            let ns = measure(&bench);
            // The first round warms up: it makes slabs and lanes.
            if round > 0 {
                row.samples.push(ns);
            }
        }
    }
    report(&rows);
}

struct Bench<'h> {
    heap: &'h Heap,
    slots: Vec<&'h [Slot]>,
    bare: Vec<&'h Word>,
}

type Measure<'h> = fn(&Bench<'h>) -> f64;

impl<'h> Bench<'h> {
    const MEASURES: [Measure<'h>; 8] = [
        Self::bare_1,
        Self::bare_2,
        Self::small_own_line_1,
        Self::small_packed_1,
        Self::small_own_line_2,
        Self::small_own_line_8,
        Self::small_contents_1,
        Self::large_1,
    ];

    fn rows() -> Vec<Row> {
        let row = |name, fences| Row { name, fences, samples: Samples::default() };
        vec![
            row("bare persist, 1 thread", 1.0),
            row("bare persist, 2 threads", 1.0),
            row("64 B bare, own-line slots, 1 thread", 3.0),
            row("64 B bare, packed slots, 1 thread", 3.0),
            row("64 B bare, own-line slots, 2 threads", 3.0),
            row("64 B bare, own-line slots, 8 threads on 2 threads' bare", 3.0),
            row("64 B with contents, own-line slots, 1 thread", 3.5),
            row("32-512 KiB bare, own-line slots, 1 thread", 3.0),
        ]
    }

    fn new(heap: &'h Heap) -> Self {
        let slots = (0..THREADS_MAX).map(|thread| {
            heap.slots(&format!("slots {thread}"), (SLOTS * PER_LINE) as u64).expect("room")
        });
        Self {
            heap,
            slots: slots.collect(),
            bare: common::own_lines(heap, "bare persist area", 128),
        }
    }

    fn bare(&self, half: usize) -> u64 {
        common::bare_persists(self.heap.medium(), &self.bare[half * 64..][..64], 100_000)
    }

    fn bare_1(&self) -> f64 {
        per_operation(|| self.bare(0))
    }

    fn bare_2(&self) -> f64 {
        per_operation(|| on_threads(2, |thread| self.bare(thread)).iter().sum())
    }

    fn small(&self, thread: usize, stride: usize) -> u64 {
        let layout = Layout::from_size_align(64, 8).expect("valid");
        let slots = self.slots[thread];
        for at in 0..SLOTS {
            self.heap.alloc_to(&slots[at * stride], layout).expect("room");
        }
        for at in 0..SLOTS {
            self.heap.free_from(&slots[at * stride]).expect("full");
        }
        2 * SLOTS as u64
    }

    fn small_own_line_1(&self) -> f64 {
        per_operation(|| self.small(0, PER_LINE))
    }

    fn small_packed_1(&self) -> f64 {
        per_operation(|| self.small(0, 1))
    }

    fn small_own_line_2(&self) -> f64 {
        per_operation(|| on_threads(2, |thread| self.small(thread, PER_LINE)).iter().sum())
    }

    fn small_own_line_8(&self) -> f64 {
        per_operation(|| {
            on_threads(THREADS_MAX, |thread| self.small(thread, PER_LINE)).iter().sum()
        })
    }

    fn small_contents_1(&self) -> f64 {
        let layout = Layout::from_size_align(64, 8).expect("valid");
        let slots = self.slots[0];
        per_operation(|| {
            for at in 0..SLOTS {
                let init = |bytes: &mut [u8]| bytes.fill(black_box(7));
                self.heap.alloc_init(&slots[at * PER_LINE], layout, init).expect("room");
            }
            for at in 0..SLOTS {
                self.heap.free_from(&slots[at * PER_LINE]).expect("full");
            }
            2 * SLOTS as u64
        })
    }

    fn large_1(&self) -> f64 {
        const LIVE: usize = 64;
        let slots = self.slots[0];
        let layout = |at: usize| Layout::from_size_align(large_size(at), 8).expect("valid");
        per_operation(|| {
            for _ in 0..100 {
                for at in 0..LIVE {
                    self.heap.alloc_to(&slots[at * PER_LINE], layout(at)).expect("room");
                }
                for at in 0..LIVE {
                    self.heap.free_from(&slots[at * PER_LINE]).expect("full");
                }
            }
            200 * LIVE as u64
        })
    }
}

fn report(rows: &[Row]) {
    println!(
        "{:<48} {:>8} {:>8} {:>8}  {:>22}",
        "row", "median", "min", "max", "ratio to fences x bare"
    );
    let bare = [rows[0].samples.clone(), rows[1].samples.clone()];
    for row in rows {
        let bare = &bare[usize::from(row.name.contains("2 threads"))];
        let ns = row.samples.spread();
        let ratio = row.samples.over(&bare.times(row.fences)).spread();
        println!(
            "{:<48} {:>8.1} {:>8.1} {:>8.1}    {ratio:.2}",
            row.name, ns.median, ns.min, ns.max
        );
    }
}
