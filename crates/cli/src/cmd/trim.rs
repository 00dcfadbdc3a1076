//! `pmalloc trim`: opens a heap as a program does, gives its free memory back, and closes it. Volatile.

use pmalloc::Heap;
use serde::Serialize;

use crate::{
    args::HeapArgs,
    exit::Failure,
    output::{bytes, print_either, print_rows},
};

/// What was given back, and what is left.
#[derive(Debug, Serialize)]
struct Shown {
    freed_bytes: u64,
    heap_bytes: u64,
}

/// Trims the heap that `args` name.
pub(super) fn run(args: &HeapArgs) -> Result<(), Failure> {
    let path = &args.path;
    let was_closed = pmalloc::info(path).is_ok_and(|info| info.clean != Some(false));
    let shown = trim(args).map_err(Failure::heap(path))?;
    if !was_closed {
        eprintln!("pmalloc: note: the heap was not closed; it was recovered, and is closed now");
    }
    print_either(args.output, &shown, |shown| {
        print_rows(&[("given back", bytes(shown.freed_bytes)), ("heap", bytes(shown.heap_bytes))])
    })
}

/// What the heap itself counts as given back may have had no memory: the file tells.
fn trim(args: &HeapArgs) -> pmalloc::Result<Shown> {
    let heap = Heap::open(&args.path)?;
    let before = heap.stats()?.heap_bytes;
    heap.trim()?;
    let heap_bytes = heap.stats()?.heap_bytes;
    heap.close()?;
    Ok(Shown { freed_bytes: before.saturating_sub(heap_bytes), heap_bytes })
}
