//! `pmalloc create`: makes an empty heap and says what it is. Volatile.

use std::path::Path;

use pmalloc::{Heap, HeapOptions};

use super::{destroy, info};
use crate::{args::CreateArgs, exit::Failure, output};

/// Creates the heap that `args` describe.
pub(super) fn run(args: &CreateArgs) -> Result<(), Failure> {
    let mut options = args.heap.options();
    if let Some(bytes) = args.capacity {
        options = options.capacity_bytes(bytes);
    }
    if let Some(name) = &args.layout {
        options = options.layout(name);
    }
    let heap = options.create(&args.path).map_err(Failure::heap(&args.path))?;
    output::warn_if_forced(&heap.media());
    close(heap, &args.path)?;
    // What fails from here on leaves the heap there.
    describe(args)
        .map_err(Failure::after(format!("{} was created all the same", args.path.display())))
}

/// Closes a new heap. One that can't be closed may not open again, and goes.
fn close(heap: Heap, path: &Path) -> Result<(), Failure> {
    let made = pmalloc::info(path).map(|info| info.uuid);
    let Err(error) = heap.close() else { return Ok(()) };
    let failure = Failure::heap(path)(error);
    let is_gone =
        made.map_err(Failure::heap(path)).and_then(|made| destroy::remove(path, Some(made)));
    match is_gone {
        Ok(()) => Err(failure),
        Err(undo) => Err(Failure::after(format!(
            "{} was created all the same, and can't be removed: {undo}",
            path.display()
        ))(failure)),
    }
}

/// Says what a new heap is.
fn describe(args: &CreateArgs) -> Result<(), Failure> {
    if args.capacity.is_none() {
        note_if_narrow(&args.path)?;
    }
    info::warn(&args.path);
    info::show(&args.path, args.output)
}

/// Says that a heap got less than the default capacity, if it did.
fn note_if_narrow(path: &Path) -> Result<(), Failure> {
    let capacity = pmalloc::info(path).map_err(Failure::heap(path))?.capacity_bytes;
    if capacity < HeapOptions::CAPACITY_DEFAULT_BYTES {
        eprintln!(
            "pmalloc: note: the capacity is {}, not {}: this process has no addresses for more (see ulimit -v); \
             --capacity chooses another",
            output::bytes(capacity),
            output::bytes(HeapOptions::CAPACITY_DEFAULT_BYTES)
        );
    }
    Ok(())
}
