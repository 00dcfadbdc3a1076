//! What a second thread adds: wall-clock speed-up of the heap, beside that of a bare ring.
//!
//! Method: one heap in /dev/shm, forced to power-fail durability. *Bare ring* is what no allocator can do without: each
//! thread stores a 32-byte record, flushes its line and fences, over 64 lines of its own in the heap's file. Throughput
//! is the operations of all threads over the time from the first one's start to the last one's end; threads start
//! together, warmed up. All are measured in every round, and the speed-up is that within the round: throughput of two
//! threads over that of one, or of eight over that of two.
//!
//! Run with `cargo bench -p pmalloc --bench speedup`; `SPEEDUP_ROUNDS` sets the rounds, default 9. The machine has to be
//! idle: what others take from a processor is missing in the wall clock.

mod common;

use std::{alloc::Layout, sync::Barrier, time::Instant};

use common::{PER_LINE, Samples, large_size, on_threads};
use pmalloc::{
    Heap, Slot,
    persist::{Medium, Offset, Word},
};

/// Most threads of a measurement.
const THREADS_MAX: usize = 8;
/// Lines of a thread's bare ring.
const RING_LINES: usize = 64;
/// Records of a thread's measurement on the bare ring.
const RECORDS: usize = 400_000;
/// Small blocks that a thread has at once.
const SMALL_LIVE: usize = 2_000;
/// Large blocks that a thread has at once.
const LARGE_LIVE: usize = 16;
/// Allocations, and frees, of a thread's measurement.
const PAIRS: usize = 50_000;

struct Bench<'h> {
    heap: &'h Heap,
    slots: Vec<&'h [Slot]>,
    rings: Vec<Vec<&'h Word>>,
}

/// What a thread does: the number of operations.
type Work<'h> = fn(&Bench<'h>, usize) -> u64;

/// A kind of work, and its throughput on one, two and many threads.
struct Row<'h> {
    name: &'static str,
    work: Work<'h>,
    throughput: [Samples; COUNTS.len()],
}

/// Numbers of threads.
const COUNTS: [usize; 3] = [1, 2, THREADS_MAX];

fn main() {
    let rounds = common::setting("SPEEDUP_ROUNDS", 9);
    let dir = common::directory();
    let heap = common::power_fail_heap(Heap::options(), &dir.path().join("heap"));
    let bench = Bench::new(&heap);
    let row = |name, work| Row { name, work, throughput: Default::default() };
    let mut rows = [
        row("bare ring", Bench::ring as Work<'_>),
        row("64 B pair, own-line slots", |bench, thread| bench.small(thread, PER_LINE)),
        row("64 B pair, packed slots", |bench, thread| bench.small(thread, 1)),
        row("32-512 KiB pair, own-line slots", Bench::large),
    ];
    for _ in 0..rounds {
        for Row { work, throughput, .. } in &mut rows {
            for (count, samples) in COUNTS.into_iter().zip(throughput) {
                samples.push(bench.throughput(count, *work));
            }
        }
    }
    report(&rows);
}

impl<'h> Bench<'h> {
    fn new(heap: &'h Heap) -> Self {
        let slots = |thread| {
            heap.slots(&format!("slots {thread}"), (SMALL_LIVE * PER_LINE) as u64).expect("room")
        };
        let ring = |thread| common::own_lines(heap, &format!("ring {thread}"), RING_LINES);
        Self {
            heap,
            slots: (0..THREADS_MAX).map(slots).collect(),
            rings: (0..THREADS_MAX).map(ring).collect(),
        }
    }

    /// Operations per microsecond of `count` threads that do `work`.
    fn throughput(&self, count: usize, work: Work<'h>) -> f64 {
        let barrier = Barrier::new(count);
        let runs = on_threads(count, |thread| {
            work(self, thread);
            barrier.wait();
            let start = Instant::now();
            let operations = work(self, thread);
            (start, operations, Instant::now())
        });
        let start = runs.iter().map(|run| run.0).min().expect("a thread");
        let end = runs.iter().map(|run| run.2).max().expect("a thread");
        let operations: u64 = runs.iter().map(|run| run.1).sum();
        operations as f64 / (end - start).as_secs_f64() / 1e6
    }

    fn ring(&self, thread: usize) -> u64 {
        let m = self.heap.medium();
        for line in self.rings[thread].iter().cycle().take(RECORDS) {
            let first = m.region().span_of(*line).start;
            let words: &[Word; 4] = m.at(Offset::new(first)).expect("inside");
            words.iter().for_each(|word| m.store(word, 1));
            m.flush_of(words);
            m.fence();
        }
        RECORDS as u64
    }

    fn small(&self, thread: usize, stride: usize) -> u64 {
        self.pairs(thread, stride, SMALL_LIVE, |_| 64)
    }

    fn large(&self, thread: usize) -> u64 {
        self.pairs(thread, PER_LINE, LARGE_LIVE, large_size)
    }

    fn pairs(
        &self,
        thread: usize,
        stride: usize,
        live: usize,
        size: impl Fn(usize) -> usize,
    ) -> u64 {
        let slots = self.slots[thread];
        let passes = PAIRS.div_ceil(live);
        for _ in 0..passes {
            for at in 0..live {
                let layout = Layout::from_size_align(size(at), 8).expect("valid");
                self.heap.alloc_to(&slots[at * stride], layout).expect("room");
            }
            for at in 0..live {
                self.heap.free_from(&slots[at * stride]).expect("full");
            }
        }
        (passes * live * 2) as u64
    }
}

fn report(rows: &[Row<'_>]) {
    println!(
        "{:<34} {:<24} {:<22} {:<22} {:<22} 8 threads to 2",
        "row", "1 thread, per us", "2 threads", "speed-up", "to the ring's"
    );
    let speed_up = |row: &Row<'_>| row.throughput[1].over(&row.throughput[0]);
    for row in rows {
        let [one, two, many] = &row.throughput;
        println!(
            "{:<34} {:<24.2} {:<22.2} {:<22.2} {:<22.2} {:.2}",
            row.name,
            one.spread(),
            two.spread(),
            speed_up(row).spread(),
            speed_up(row).over(&speed_up(&rows[0])).spread(),
            many.over(two).spread()
        );
    }
}
