//! The cost of the Eager policy, in ratios to the bare cost of its fences.
//!
//! Method: DRAM stands in for persistent memory (a file in /dev/shm, power-fail durability forced). All rows are
//! measured in one process, interleaved round by round; a row is the median over the rounds of CPU time (user and
//! system, all threads) per operation, with minimum and maximum. *Bare persist* is an 8-byte store, a flush and a
//! fence over 64 lines of the same heap file, per persist.
//!
//! Run with `cargo bench -p pmalloc --bench eager`; `EAGER_ROUNDS` sets the rounds, default 9.

use std::{alloc::Layout, hint::black_box, time::Instant};

use pmalloc::{
    Heap, Slot,
    persist::{DurabilityChoice, Medium, Offset, Word},
};

/// Slots per thread of the small rows.
const SLOTS: usize = 10_000;
/// Most threads of a row.
const THREADS_MAX: usize = 8;
/// Slots per line.
const PER_LINE: usize = 8;

/// One measured quantity: nanoseconds of CPU time per operation, a sample per round.
struct Row {
    name: &'static str,
    fences: f64,
    samples: Vec<f64>,
}

fn main() {
    let rounds = std::env::var("EAGER_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(9);
    let dir = tempfile::tempdir_in("/dev/shm").expect("/dev/shm can be written");
    let heap = Heap::options()
        .durability(DurabilityChoice::PowerFail)
        .unsafe_force_durability()
        .create(dir.path().join("heap"))
        .expect("a new heap");
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
    report(&mut rows);
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
        let row = |name, fences| Row { name, fences, samples: Vec::new() };
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
        let area = heap.slots("bare persist area", 1024).expect("room");
        let base = heap.medium().region().span_of(&area[0]).start;
        let word = |line: u64| heap.medium().at(Offset::new(base + line * 64)).expect("inside");
        Self { heap, slots: slots.collect(), bare: (0..128).map(word).collect() }
    }

    fn bare(&self, half: usize) -> u64 {
        const PERSISTS: usize = 100_000;
        let m = self.heap.medium();
        let lines = &self.bare[half * 64..][..64];
        for count in 0..PERSISTS {
            let word = lines[count % 64];
            m.store(word, 0);
            m.flush_of(word);
            m.fence();
        }
        PERSISTS as u64
    }

    fn bare_1(&self) -> f64 {
        per_operation(|| self.bare(0))
    }

    fn bare_2(&self) -> f64 {
        per_operation(|| on_threads(2, |thread| self.bare(thread)))
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
        per_operation(|| on_threads(2, |thread| self.small(thread, PER_LINE)))
    }

    fn small_own_line_8(&self) -> f64 {
        per_operation(|| on_threads(THREADS_MAX, |thread| self.small(thread, PER_LINE)))
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
        let layout = |at: usize| {
            let kib = 32 + (at * 37) % 481;
            Layout::from_size_align(kib << 10, 8).expect("valid")
        };
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

/// Runs `work` on `count` threads and adds up what they did.
fn on_threads(count: usize, work: impl Fn(usize) -> u64 + Sync) -> u64 {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|thread| {
                scope.spawn({
                    let work = &work;
                    move || work(thread)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    })
}

/// CPU time of this process per operation, in nanoseconds.
fn per_operation(work: impl FnOnce() -> u64) -> f64 {
    let (cpu, wall) = (cpu_ns(), Instant::now());
    let operations = work();
    black_box(wall.elapsed());
    (cpu_ns() - cpu) as f64 / operations as f64
}

fn cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec).expect("positive") * 1_000_000_000
        + u64::try_from(time.tv_nsec).expect("positive")
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn report(rows: &mut [Row]) {
    println!(
        "{:<48} {:>8} {:>8} {:>8}  {:>22}",
        "row", "median", "min", "max", "ratio to fences x bare"
    );
    let bare: Vec<Vec<f64>> = rows[..2].iter().map(|row| row.samples.clone()).collect();
    for row in rows.iter() {
        let bare = &bare[usize::from(row.name.contains("2 threads"))];
        let mut ratios: Vec<f64> =
            row.samples.iter().zip(bare).map(|(ns, bare)| ns / (row.fences * bare)).collect();
        ratios.sort_by(f64::total_cmp);
        let min = row.samples.iter().copied().fold(f64::INFINITY, f64::min);
        let max = row.samples.iter().copied().fold(0.0, f64::max);
        println!(
            "{:<48} {:>8.1} {:>8.1} {:>8.1}  {:>6.2} ({:.2} to {:.2})",
            row.name,
            median(&row.samples),
            min,
            max,
            median(&ratios),
            ratios[0],
            ratios[ratios.len() - 1],
        );
    }
}
