//! `pmalloc create`: makes an empty heap and says what it is. Volatile.

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
    output::warn_if_forced(heap.medium());
    heap.close().map_err(Failure::heap(&args.path))?;
    info::show(&args.path, args.output)
}
