//! What an operation costs in heaps with more and more live data.
//!
//! Method: heaps in /dev/shm, forced to power-fail durability, are filled with blocks until the requested bytes of the
//! live ones reach 1 MiB, 64 MiB, 1 GiB and 8 GiB: a quarter of it, but at most 256 MiB, in 64-byte blocks, the rest in
//! blocks of 32 to 512 KiB. Then every sixteenth block of either kind is freed, so that there are holes all over. The
//! measured pairs allocate and free 2 000 small blocks (slots on lines of their own), or 8 large ones, in order; they
//! add at most 3 MiB. All heaps are measured in every round; the ratio is that to the smallest heap in the same round.
//!
//! Run with `cargo bench -p pmalloc --bench heap_size`; `HEAP_SIZE_ROUNDS` sets the rounds, default 9, and
//! `HEAP_SIZE_GIB` the largest heap, default 8. One that the machine has no memory for is left out.

mod common;

use std::{alloc::Layout, path::Path};

use common::{PER_LINE, Samples, large_size, per_operation};
use pmalloc::{Heap, Slot};

/// Requested bytes of a small block.
const SMALL_BYTES: usize = 64;
/// Most bytes of small blocks that a heap is filled with.
const SMALL_SUM_MAX: usize = 256 << 20;
/// Blocks that are freed after filling: one in so many.
const HOLE_EVERY: usize = 16;
/// Small blocks of a measured pair.
const SMALL_LIVE: usize = 2_000;
/// Large blocks of a measured pair.
const LARGE_LIVE: usize = 8;
/// Operations of a sample, at least.
const OPERATIONS: usize = 100_000;
/// Memory that is left to others, in bytes.
const MEMORY_LEFT: usize = 2 << 30;

/// A filled heap, and its samples.
struct Filled {
    name: String,
    heap: Heap,
    small: Samples,
    large: Samples,
}

fn main() {
    let rounds = common::setting("HEAP_SIZE_ROUNDS", 9);
    let largest = common::setting("HEAP_SIZE_GIB", 8) << 30;
    let dir = common::directory();
    let mut heaps = Vec::new();
    for live_bytes in [1 << 20, 64 << 20, 1 << 30, largest] {
        let name = name_of(live_bytes);
        if available_bytes() < live_bytes + live_bytes / 8 + MEMORY_LEFT {
            println!("{name}: left out, there is no memory for it");
            continue;
        }
        let heap = filled(&dir.path().join(&name), live_bytes);
        heaps.push(Filled { name, heap, small: Samples::default(), large: Samples::default() });
    }
    for _ in 0..rounds {
        for filled in &mut heaps {
            let slots =
                filled.heap.slots("measured", (SMALL_LIVE * PER_LINE) as u64).expect("room");
            let heap = &filled.heap;
            filled.small.push(pairs(heap, slots, SMALL_LIVE, |_| SMALL_BYTES));
            filled.large.push(pairs(heap, slots, LARGE_LIVE, large_size));
        }
    }
    report("64 B pair", &heaps, |filled| &filled.small);
    report("32-512 KiB pair", &heaps, |filled| &filled.large);
}

/// A heap with `live_bytes` in live blocks, and holes.
fn filled(path: &Path, live_bytes: usize) -> Heap {
    let heap = common::power_fail_heap(Heap::options(), path);
    let small_count = (live_bytes / 4).min(SMALL_SUM_MAX) / SMALL_BYTES;
    let large_bytes = live_bytes - small_count * SMALL_BYTES;
    let large: Vec<usize> = (0..)
        .scan(0, |sum, at| {
            *sum += large_size(at);
            (*sum <= large_bytes).then(|| large_size(at))
        })
        .collect();
    fill(&heap, "small", small_count, |_| SMALL_BYTES);
    fill(&heap, "large", large.len(), |at| large[at]);
    heap
}

/// Fills `count` slots, and then empties some.
fn fill(heap: &Heap, name: &str, count: usize, size: impl Fn(usize) -> usize) {
    let slots = heap.slots(name, count.max(1) as u64).expect("room");
    for (at, slot) in slots.iter().enumerate().take(count) {
        heap.alloc_to(slot, layout(size(at))).expect("room");
    }
    for slot in slots.iter().take(count).skip(1).step_by(HOLE_EVERY) {
        heap.free_from(slot).expect("full");
    }
}

/// CPU time per operation of pairs over `live` blocks.
fn pairs(heap: &Heap, slots: &[Slot], live: usize, size: impl Fn(usize) -> usize) -> f64 {
    let pass = || {
        for at in 0..live {
            heap.alloc_to(&slots[at * PER_LINE], layout(size(at))).expect("room");
        }
        for at in 0..live {
            heap.free_from(&slots[at * PER_LINE]).expect("full");
        }
    };
    let passes = OPERATIONS.div_ceil(2 * live);
    // The heap before has left its lines in the processor's caches.
    (0..passes.div_ceil(10)).for_each(|_| pass());
    per_operation(|| {
        (0..passes).for_each(|_| pass());
        (passes * live * 2) as u64
    })
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("valid")
}

fn name_of(bytes: usize) -> String {
    if bytes >> 30 > 0 { format!("{} GiB", bytes >> 30) } else { format!("{} MiB", bytes >> 20) }
}

/// Memory that the kernel has to give.
fn available_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").expect("readable");
    let line = text.lines().find(|line| line.starts_with("MemAvailable:")).expect("listed");
    let kib: usize =
        line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number");
    kib << 10
}

fn report(what: &str, heaps: &[Filled], samples: impl Fn(&Filled) -> &Samples) {
    println!("{what:<16} {:>10}  {:<28} to the smallest", "heap MiB", "ns per operation");
    for filled in heaps {
        let heap_mib = filled.heap.stats().expect("figures").heap_bytes >> 20;
        let (ns, first) = (samples(filled), samples(&heaps[0]));
        println!(
            "{:<16} {heap_mib:>10}  {:<28.1} {:.2}",
            format!("{} live", filled.name),
            ns.spread(),
            ns.over(first).spread()
        );
    }
}
