//! What the benches share: heaps on DRAM that stands in for persistent memory, clocks, and samples.

#![allow(dead_code, reason = "each bench uses its part")]

use std::{fmt, path::Path};

use pmalloc::{
    Heap, HeapOptions, Slot,
    persist::{DurabilityChoice, Medium, Offset, Word},
};

/// Slots per line: every so many-th slot has a line of its own.
pub(crate) const PER_LINE: usize = 8;

/// The number in the environment variable `name`.
pub(crate) fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A directory in memory.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("/dev/shm can be written")
}

/// A new heap that flushes as if its file were persistent memory.
pub(crate) fn power_fail_heap(options: HeapOptions, path: &Path) -> Heap {
    let options = options.durability(DurabilityChoice::PowerFail).unsafe_force_durability();
    options.create(path).expect("a new heap")
}

/// The first word of each of `count` lines of the heap, which nothing else uses.
pub(crate) fn own_lines<'h>(heap: &'h Heap, name: &str, count: usize) -> Vec<&'h Word> {
    let slots: &[Slot] = heap.slots(name, (count * PER_LINE) as u64).expect("room");
    let base = heap.medium().region().span_of(&slots[0]).start;
    let word = |line: u64| heap.medium().at(Offset::new(base + line * 64)).expect("inside");
    (0..count as u64).map(word).collect()
}

/// Size in bytes of block `at` of a series between 32 and 512 KiB.
pub(crate) fn large_size(at: usize) -> usize {
    (32 + (at * 37) % 481) << 10
}

/// Stores, flushes and fences each of `lines` in turn, `persists` times in all.
pub(crate) fn bare_persists<M: Medium>(m: &M, lines: &[&Word], persists: usize) -> u64 {
    for word in lines.iter().copied().cycle().take(persists) {
        m.store(word, 0);
        m.flush_of(word);
        m.fence();
    }
    persists as u64
}

/// Runs `work` on `count` threads and returns what each returned.
pub(crate) fn on_threads<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

/// CPU time of this process per operation, in nanoseconds.
pub(crate) fn per_operation(work: impl FnOnce() -> u64) -> f64 {
    let cpu = cpu_ns();
    let operations = work();
    (cpu_ns() - cpu) as f64 / operations as f64
}

fn cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec).expect("positive") * 1_000_000_000
        + u64::try_from(time.tv_nsec).expect("positive")
}

/// One measured quantity: a sample per round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// The quotients of the samples of each round.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(sample, other)| sample / other).collect())
    }

    /// The samples, each times `factor`.
    pub(crate) fn times(&self, factor: f64) -> Self {
        Self(self.0.iter().map(|sample| sample * factor).collect())
    }

    pub(crate) fn spread(&self) -> Spread {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (sorted[0], sorted[sorted.len() - 1]);
        Spread { median: sorted[sorted.len() / 2], min, max }
    }
}

/// Median, minimum and maximum; prints as `1.23 (1.13 to 1.28)` with the precision asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        let Self { median, min, max } = self;
        f.pad_integral(true, "", &format!("{median:.digits$} ({min:.digits$} to {max:.digits$})"))
    }
}
