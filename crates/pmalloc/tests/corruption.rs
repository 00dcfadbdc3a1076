//! Goal: whatever the bytes of a heap's metadata are, every call returns: with a typed error, or having done
//! something to a heap that goes on working. No panic, no hang, no access out of bounds, no unbounded memory.
//!
//! Method: a small heap, closed and as crashes leave it with a live record of each kind; every byte of its metadata
//! (areas in front of the data, and the slots of its roots) is changed in five ways; the heap is opened, checked,
//! listed, read, every slot freed and filled, the heap closed and opened once more. Lines that hold nothing are
//! sampled. `PMALLOC_CORRUPTION=full` takes every byte and every bit. Panics are caught and listed with what to change
//! to see them again; a watchdog ends a hang; the peak of the process's memory is bounded, which is why this is a
//! program of its own.

mod common;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use common::{
    Outcome, exercise,
    image::{self, Image, Interrupted},
    watchdog::{Watchdog, peak_memory_bytes},
};
use pmalloc::{Policy, persist::Anon};

/// The most memory that the whole test may take, in bytes.
const MEMORY_MAX_BYTES: u64 = 512 << 20;

/// Among lines that hold nothing, bytes from one that is changed to the next.
const UNUSED_STRIDE: u64 = 61;

/// A byte to change, and what to.
#[derive(Debug, Clone, Copy)]
struct Mutant {
    offset: u64,
    byte: u8,
}

fn is_full_run() -> bool {
    std::env::var("PMALLOC_CORRUPTION").is_ok_and(|value| value == "full")
}

fn mutants(image: &Image) -> Vec<Mutant> {
    let full = is_full_run();
    let mut all = Vec::new();
    for offset in image.metadata().into_iter().flat_map(|span| span.start..span.end()) {
        if !full && !image.is_line_used(offset) && offset % UNUSED_STRIDE != 0 {
            continue;
        }
        let old = image.byte(offset);
        let mut rng = fastrand::Rng::with_seed(offset);
        let mut bytes = vec![0x00, 0xff, old.wrapping_add(1), rng.u8(..)];
        if full {
            bytes.extend((0..8).map(|bit| old ^ 1 << bit));
        } else {
            bytes.push(old ^ 1 << rng.u32(..8));
        }
        bytes.sort_unstable();
        bytes.dedup();
        all.extend(bytes.iter().filter(|b| **b != old).map(|&byte| Mutant { offset, byte }));
    }
    all
}

/// Tries all mutants of `image` on all CPUs and returns how many had which outcome.
fn try_all(image: &Image) -> BTreeMap<Outcome, u64> {
    let mutants = mutants(image);
    let next = AtomicUsize::new(0);
    let counts: Mutex<BTreeMap<Outcome, u64>> = Mutex::default();
    let failures: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let watchdog = Watchdog::new(image.name);
                let mut medium = Arc::new(Anon::new(image::heap_bytes()));
                let mut own: BTreeMap<Outcome, u64> = BTreeMap::new();
                while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    watchdog.begin(mutant.offset);
                    image.restore(&medium);
                    image::set_byte(&*medium, mutant.offset, mutant.byte);
                    let tried =
                        catch_unwind(AssertUnwindSafe(|| exercise(&medium, image.contents)));
                    match tried {
                        Ok(outcome) => *own.entry(outcome).or_default() += 1,
                        Err(_) => {
                            failures.lock().expect("unpoisoned").push(format!("{mutant:x?}"));
                            medium = Arc::new(Anon::new(image::heap_bytes()));
                        }
                    }
                    if failures.lock().expect("unpoisoned").len() > 20 {
                        break;
                    }
                }
                let mut counts = counts.lock().expect("unpoisoned");
                own.into_iter().for_each(|(outcome, n)| *counts.entry(outcome).or_default() += n);
            });
        }
    });
    let failures = failures.into_inner().expect("unpoisoned");
    assert!(failures.is_empty(), "{}: panics with {failures:#?}", image.name);
    counts.into_inner().expect("unpoisoned")
}

fn run(image: &Image) {
    let started = Instant::now();
    let counts = try_all(image);
    let all: u64 = counts.values().sum();
    println!("{}: {all} mutants in {:.1?}: {counts:?}", image.name, started.elapsed());
    let of = |outcome| counts.get(&outcome).copied().unwrap_or(0);
    assert!(all > 10_000, "the image has metadata");
    assert!(of(Outcome::Refused) > 0 && of(Outcome::Reported) > 0 && of(Outcome::Harmless) > 0);
    let peak = peak_memory_bytes();
    assert!(peak < MEMORY_MAX_BYTES, "{peak} bytes of memory");
}

#[test]
fn every_metadata_byte_of_a_closed_heap_may_be_anything() {
    run(&image::closed());
}

#[test]
fn every_metadata_byte_of_a_crashed_heap_may_be_anything() {
    for (name, interrupted, seed) in [
        ("crashed in alloc, small, oldest", Interrupted::AllocSmall, None),
        ("crashed in free, small, newest", Interrupted::FreeSmall, Some(0)),
        ("crashed in alloc, large, sampled", Interrupted::AllocLarge, Some(7)),
        ("crashed in free, large, oldest", Interrupted::FreeLarge, None),
    ] {
        run(&image::crashed(name, interrupted, seed));
    }
}

#[test]
fn every_metadata_byte_of_a_heap_that_crashed_under_batched_may_be_anything() {
    for (name, interrupted, seed) in [
        ("crashed behind an alloc, small, sampled, batched", Interrupted::AllocSmall, Some(3)),
        ("crashed behind a free, large, oldest, batched", Interrupted::FreeLarge, None),
    ] {
        run(&image::crashed_under(Policy::Batched, name, interrupted, seed));
    }
}
