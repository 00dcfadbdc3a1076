//! How long a heap takes to open: after a crash and after a close, with ten thousand and with a million live blocks.
//!
//! Method: a child process fills a heap in /dev/shm with 64-byte blocks and then closes it, or aborts; the parent opens
//! it and reads what opening took, by the heap's own figure. Median, minimum and maximum over the rounds.
//!
//! Run with `cargo bench -p pmalloc --bench reopen`; `REOPEN_ROUNDS` sets the rounds, default 7.

use std::{
    alloc::Layout,
    path::Path,
    process::{Command, exit},
};

use pmalloc::{Heap, persist::DurabilityChoice};

/// Slots per root array.
const ARRAY: u64 = 100_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, task, path, blocks] = arguments.as_slice()
        && (task == "close" || task == "abort")
    {
        fill(Path::new(path), blocks.parse().expect("a number"), task == "abort");
    }
    let rounds =
        std::env::var("REOPEN_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    println!("{:<36} {:>9} {:>9} {:>9}", "reopen, ms", "median", "min", "max");
    for (task, name) in [("abort", "after a crash"), ("close", "after a close")] {
        for blocks in [10_000, 1_000_000] {
            let mut samples: Vec<f64> = (0..rounds).map(|_| reopen(task, blocks)).collect();
            samples.sort_by(f64::total_cmp);
            println!(
                "{:<36} {:>9.2} {:>9.2} {:>9.2}",
                format!("{blocks} blocks, {name}"),
                samples[samples.len() / 2],
                samples[0],
                samples[samples.len() - 1]
            );
        }
    }
}

/// Fills a new heap and leaves it, by closing it or by dying.
fn fill(path: &Path, blocks: u64, dies: bool) -> ! {
    let layout = Layout::from_size_align(64, 8).expect("valid");
    let heap = Heap::options().durability(DurabilityChoice::ProcessCrash).create(path);
    let heap = heap.expect("a new heap");
    for first in (0..blocks).step_by(usize::try_from(ARRAY).expect("small")) {
        let slots = heap.slots(&format!("slots {first}"), ARRAY.min(blocks)).expect("room");
        for slot in slots {
            heap.alloc_to(slot, layout).expect("room");
        }
    }
    if dies {
        exit(0); // Without destructors of the main thread's values: the heap is not closed.
    }
    heap.close().expect("closed");
    exit(0)
}

fn reopen(task: &str, blocks: u64) -> f64 {
    let dir = tempfile::tempdir_in("/dev/shm").expect("/dev/shm can be written");
    let path = dir.path().join("heap");
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args([task, path.to_str().expect("a plain path"), &blocks.to_string()])
        .status()
        .expect("a child");
    assert!(child.success());
    let heap = Heap::open(&path).expect("it opens");
    let stats = heap.stats().expect("figures");
    let arrays = blocks.div_ceil(ARRAY);
    assert_eq!(stats.live_blocks, blocks + arrays, "every block is there");
    #[allow(clippy::cast_precision_loss, reason = "nanoseconds of a bench")]
    let ms = stats.recovery_ns as f64 / 1e6;
    ms
}
