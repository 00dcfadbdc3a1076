//! How long a heap takes to open: after a kill and after a close, with ten thousand and with a million live blocks.
//!
//! An operation is an open. Another process fills a heap with blocks of 64 bytes, and then closes it or kills itself.
//! Timed is the call that opens it; the latencies are those of a few opens in a row, so their high quantiles are the
//! slowest one.

use std::{fs, hint::black_box, time::Instant};

use pmalloc::{
    Heap, HeapOptions,
    persist::{Mapped, Medium, Traced},
};
use rustix::process::{Signal, getpid, kill_process};

use super::benchmark::Bench;
use crate::{
    alloc::{BareLines, Subject, layout},
    cell::{Cell, Mode, Outcome, PerOp, Scale, Timing},
    clock::{cpu_ns, cpu_ns_per_op, per_op},
    context::Context,
    measure::{Effort, histogram, latency_of},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Reopen;

/// Numbers of blocks, and their names.
const COUNTS: [(&str, u64); 2] = [("10k", 10_000), ("1M", 1_000_000)];
/// How the heap was left.
const ENDS: [(&str, Mode); 2] = [("kill", Mode::LeaveOpen), ("close", Mode::LeaveClosed)];
/// Bytes of a block.
const BLOCK_BYTES: usize = 64;
/// Slots of a root array.
const ARRAY: u64 = 100_000;
/// Opens whose latencies are told.
const OPENS: [usize; 3] = [2, 5, 9];

impl Bench for Reopen {
    fn name(&self) -> &'static str {
        "reopen"
    }

    fn about(&self) -> &'static str {
        "opening a heap of ten thousand or a million blocks after a kill or a close; an operation is an open"
    }

    fn variants(&self, scale: Scale) -> Vec<String> {
        let counts = &COUNTS[..scale.choose(1, 2, 2)];
        let names = |end| counts.iter().map(move |(count, _)| format!("{end}-{count}"));
        ENDS.into_iter().flat_map(|(end, _)| names(end)).collect()
    }

    fn fits(&self, subject: Subject, threads: usize) -> bool {
        threads == 1 && subject.is_heap()
    }

    fn run(&self, context: &Context<'_>) -> Outcome {
        let heap = LeftHeap::of(context);
        match context.cell.mode {
            Mode::LeaveClosed | Mode::LeaveOpen => heap.leave(),
            Mode::Time => Outcome::Timed(heap.time()),
            Mode::Count => Outcome::Counted(heap.count()),
            Mode::Latency => heap.latency(),
        }
    }
}

/// A heap that another process leaves.
struct LeftHeap<'a> {
    context: &'a Context<'a>,
    blocks: u64,
    end: Mode,
}

impl<'a> LeftHeap<'a> {
    fn of(context: &'a Context<'a>) -> Self {
        let variant = &*context.cell.variant;
        let parts = variant.split_once('-').and_then(|(end, count)| {
            let end = ENDS.into_iter().find(|(name, _)| *name == end)?.1;
            Some((end, COUNTS.into_iter().find(|(name, _)| *name == count)?.1))
        });
        let (end, blocks) = parts.expect("a variant of this benchmark");
        Self { context, blocks, end }
    }

    /// Fills a heap and leaves it, by closing it or by dying.
    fn leave(&self) -> Outcome {
        let heap = self.context.make_heap(|mapped| mapped);
        for first in (0..self.blocks).step_by(usize::try_from(ARRAY).expect("small")) {
            let count = ARRAY.min(self.blocks - first);
            for slot in heap.slots(&format!("slots {first}"), count).expect("the heap has room") {
                // Blocks have contents: tmpfs can't tell a page that nobody wrote from one without memory.
                let fill = |bytes: &mut [u8]| bytes.fill(black_box(7));
                heap.alloc_init(slot, layout(BLOCK_BYTES), fill).expect("the heap has room");
            }
        }
        if self.context.cell.mode == Mode::LeaveOpen {
            kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
        }
        heap.close().expect("the heap closes");
        Outcome::Left
    }

    /// Has another process leave a heap, and opens it with `open`.
    fn opened<T>(&self, open: impl FnOnce(&HeapOptions, &Cell) -> T) -> T {
        let Context { cell, options, launcher } = *self.context;
        let child = Cell { mode: self.end, ..cell.clone() };
        let left = if self.end == Mode::LeaveOpen {
            launcher.run_to_death(&child)
        } else {
            launcher.run(&child).map(|outcome| assert_eq!(outcome, Outcome::Left))
        };
        left.unwrap_or_else(|error| panic!("{error}"));
        let out = open(options, cell);
        fs::remove_file(cell.heap_path()).expect("the heap's file goes");
        out
    }

    fn check<M: Medium + 'static>(&self, heap: &Heap<M>) {
        let arrays = self.blocks.div_ceil(ARRAY);
        let found = heap.stats().expect("the file can be asked").live_blocks;
        assert_eq!(found, self.blocks + arrays, "every block is there");
    }

    /// Nanoseconds of processor and of wall-clock time that the open took, and what `then` makes of the heap.
    fn open_timed<T>(&self, then: impl FnOnce(&Heap<Mapped>) -> T) -> (u64, u64, T) {
        self.opened(|options, cell| {
            let (cpu, wall) = (cpu_ns(), Instant::now());
            let heap = options.open(cell.heap_path()).expect("the heap opens");
            let wall_ns = u64::try_from(wall.elapsed().as_nanos()).expect("an open ends");
            let cpu_ns = cpu_ns() - cpu;
            self.check(&heap);
            (cpu_ns, wall_ns, then(&heap))
        })
    }

    fn time(&self) -> Timing {
        let persists = Effort::of(self.context.cell.scale, OPENS).bare_persists;
        let (cpu_ns, wall_ns, bare_ns) = self.open_timed(|heap| {
            let mut bare = BareLines::new(heap, 0);
            // Warms up the lines.
            bare.persists::<1>(persists);
            cpu_ns_per_op(|| bare.persists::<1>(persists))
        });
        let (cpu_ns, wall_ns) = (per_op(cpu_ns, 1), per_op(wall_ns, 1));
        Timing { cpu_ns, wall_ns, bare_ns, speedup: None }
    }

    fn count(&self) -> PerOp {
        self.opened(|options, cell| {
            let heap = options.open_with(cell.heap_path(), Traced::new).expect("the heap opens");
            let counts = heap.counts();
            self.check(&heap);
            PerOp::of(&counts, 1)
        })
    }

    fn latency(&self) -> Outcome {
        let [quick, usual, full] = OPENS;
        let mut latencies = histogram();
        for _ in 0..self.context.cell.scale.choose(quick, usual, full) {
            let (_, wall_ns, ()) = self.open_timed(|_| ());
            latencies.record(wall_ns).expect("the histogram grows");
        }
        Outcome::Latency(latency_of(&latencies))
    }
}
