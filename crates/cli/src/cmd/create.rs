//! `pmalloc create`: makes an empty heap and says what it is. Volatile.

use std::path::Path;

use pmalloc::HeapOptions;

use crate::{args::CreateArgs, cmd::info, exit::Failure, output};

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
    heap.close().map_err(Failure::heap(&args.path))?;
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
