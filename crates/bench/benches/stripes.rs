//! How many bitmap stripes are best: time per operation, and lines flushed again soon, counted exactly.
//!
//! Method: heaps with 1 to 12 stripes in /dev/shm, forced to power-fail durability, are measured in turn in every round:
//! pairs over 2 000 blocks with packed slots, freed in the order of their allocation or in a shuffled one. The heaps are
//! made anew in every round, for where their pages happen to lie is worth some percent. The ratio is that to one stripe
//! in the same round. The same operations run on traced heaps; of the flushes of bitmap lines those are counted that hit
//! a line which the thread had flushed less than 4, or less than 8, other lines ago, per 1 000 operations. Other lines
//! (records, marks, slots) count as distance, and are the same for any number of stripes. A slab of small blocks has but
//! three bitmap lines, and takes the largest number of stripes that fits and divides the heap's.
//!
//! What such a flush costs on this machine comes first: bare persists over 1 to 64 lines in turn.
//!
//! Run with `cargo bench -p pmalloc-bench --bench stripes`; `STRIPES_ROUNDS` sets the rounds, default 9.

use std::{alloc::Layout, env};

use pmalloc::{
    Heap, HeapOptions, Slot,
    persist::{Anon, DurabilityChoice, Event, Line, Medium, Span, Traced},
};
use pmalloc_bench::{alloc::BareLines, clock::cpu_ns_per_op, stats::Samples};

const STRIPES: [u32; 6] = [1, 2, 4, 6, 8, 12];
const SIZES: [usize; 4] = [16, 64, 256, 1024];
/// Blocks of a pass.
const LIVE: usize = 2_000;
/// Passes of a sample.
const PASSES: usize = 10;
/// Numbers of lines that bare persists go over.
const LINES: [usize; 6] = [1, 2, 4, 8, 16, 64];

/// In which order blocks are freed.
#[derive(Debug, Clone, Copy)]
enum Order {
    Allocation,
    Shuffled,
}

/// The measured variants.
const VARIANTS: [(usize, Order); SIZES.len() * 2] = {
    let mut variants = [(0, Order::Allocation); SIZES.len() * 2];
    let mut at = 0;
    while at < SIZES.len() {
        variants[2 * at] = (SIZES[at], Order::Allocation);
        variants[2 * at + 1] = (SIZES[at], Order::Shuffled);
        at += 1;
    }
    variants
};

fn main() {
    let setting = env::var("STRIPES_ROUNDS").ok().and_then(|text| text.parse().ok());
    let rounds = setting.unwrap_or(9);
    let mut bare = LINES.map(|_| Samples::default());
    let mut samples = VARIANTS.map(|_| STRIPES.map(|_| Samples::default()));
    for round in 0..rounds {
        measure(round, &mut bare, &mut samples);
    }
    report_bare(&bare);
    report(&samples);
}

/// Adds a sample to each quantity.
fn measure(round: usize, bare: &mut [Samples], samples: &mut [[Samples; STRIPES.len()]]) {
    let dir = tempfile::tempdir_in("/dev/shm").expect("/dev/shm can be written");
    let heaps = STRIPES.map(|stripes| {
        let path = dir.path().join(format!("{stripes} stripes"));
        let options = Heap::options().stripes(stripes).durability(DurabilityChoice::PowerFail);
        options.unsafe_force_durability().create(&path).expect("a new heap")
    });
    for (count, samples) in LINES.into_iter().zip(bare) {
        let mut lines = BareLines::with_lines(&heaps[0], 0, count);
        samples.push(cpu_ns_per_op(|| lines.persists::<1>(50_000)));
    }
    for ((size, order), samples) in VARIANTS.into_iter().zip(samples) {
        for turn in 0..heaps.len() {
            // Each heap is the first one now and then.
            let at = (turn + round) % heaps.len();
            let slots = heaps[at].slots("slots", LIVE as u64).expect("room");
            samples[at].push(pairs(&heaps[at], slots, size, order, round as u64));
        }
    }
}

fn pairs<M: Medium + 'static>(
    heap: &Heap<M>,
    slots: &[Slot],
    size: usize,
    order: Order,
    seed: u64,
) -> f64 {
    let orders: Vec<Vec<usize>> =
        (0..PASSES as u64).map(|pass| frees(order, seed << 32 | pass)).collect();
    // The first pass makes slabs.
    pass(heap, slots, size, &orders[0]);
    cpu_ns_per_op(|| orders.iter().map(|frees| pass(heap, slots, size, frees)).sum())
}

/// The order in which a pass frees the slots.
fn frees(order: Order, seed: u64) -> Vec<usize> {
    let mut frees: Vec<usize> = (0..LIVE).collect();
    if let Order::Shuffled = order {
        fastrand::Rng::with_seed(seed).shuffle(&mut frees);
    }
    frees
}

/// Fills all slots, and empties them in the order of `frees`.
fn pass<M: Medium + 'static>(heap: &Heap<M>, slots: &[Slot], size: usize, frees: &[usize]) -> u64 {
    let layout = Layout::from_size_align(size, 8).expect("valid");
    for slot in slots {
        heap.alloc_to(slot, layout).expect("room");
    }
    for &at in frees {
        heap.free_from(&slots[at]).expect("full");
    }
    2 * LIVE as u64
}

/// Flushes of bitmap lines less than 4 and less than 8 other lines after the last one, per 1 000 operations.
fn near_reflushes(stripes: u32, size: usize, order: Order) -> [f64; 2] {
    let options: HeapOptions = Heap::options().capacity_bytes(1 << 28).arenas(1).stripes(stripes);
    let areas = options.areas().expect("valid");
    let (_, bitmaps) = areas.into_iter().find(|area| area.0 == "descriptors").expect("listed");
    let medium = Traced::new(Anon::new(options.heap_bytes().expect("valid")));
    let heap = options.create_on(medium).expect("created");
    let slots = heap.slots("slots", LIVE as u64).expect("room");
    pass(&heap, slots, size, &frees(order, 0));
    heap.start_trace();
    let operations: u64 = (1..=3).map(|seed| pass(&heap, slots, size, &frees(order, seed))).sum();
    let distances = distances_in(&heap.take_trace(), bitmaps);
    [4, 8].map(|below| {
        let near = distances.iter().filter(|distance| **distance < below).count();
        near as f64 * 1000.0 / operations as f64
    })
}

/// Of each flush in `area`, the number of distinct other lines flushed since the line's last flush.
fn distances_in(events: &[Event], area: Span) -> Vec<usize> {
    /// Lines further back are as good as never flushed.
    const REMEMBERED: usize = 16;
    let mut recent: Vec<Line> = Vec::new();
    let mut distances = Vec::new();
    for event in events {
        let Event::Flush { line, .. } = event else { continue };
        let found = recent.iter().position(|other| other == line);
        if let Some(distance) = found {
            recent.remove(distance);
            if area.overlaps(line.span()) {
                distances.push(distance);
            }
        }
        recent.insert(0, *line);
        recent.truncate(REMEMBERED);
    }
    distances
}

fn report_bare(bare: &[Samples]) {
    println!("{:<34} {:<26} to 64 lines", "bare persist", "ns");
    for (count, samples) in LINES.into_iter().zip(bare) {
        let ratio = samples.over(&bare[LINES.len() - 1]);
        println!(
            "{:<34} {:<26.1} {:.2}",
            format!("over {count} lines in turn"),
            samples.spread(),
            ratio.spread()
        );
    }
}

fn report(samples: &[[Samples; STRIPES.len()]]) {
    println!(
        "{:<34} {:<26} {:<22} {:>10} {:>10}",
        "pair, packed slots", "ns per operation", "to 1 stripe", "reflush<4", "reflush<8"
    );
    for ((size, order), row) in VARIANTS.into_iter().zip(samples) {
        let order_name = match order {
            Order::Allocation => "freed in order",
            Order::Shuffled => "shuffled",
        };
        for (stripes, samples) in STRIPES.into_iter().zip(row) {
            let [below_4, below_8] = near_reflushes(stripes, size, order);
            println!(
                "{:<34} {:<26.1} {:<22.2} {below_4:>10.1} {below_8:>10.1}",
                format!("{size} B, {order_name}, stripes {stripes}"),
                samples.spread(),
                samples.over(&row[0]).spread(),
            );
        }
    }
}
