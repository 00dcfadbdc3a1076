//! The commands, one file each. Volatile.

mod bench;
mod check;
mod copy;
mod create;
mod destroy;
mod documents;
mod exposition;
mod info;
mod map;
mod recover;
mod replay;
mod stats;
mod trim;

use std::path::Path;

use crate::{args::Command, exit::Failure, replay::run_worker};

/// Says that what is shown of the heap at `path` is not what its file holds, if that is so.
fn note_if_not_closed(path: &Path) {
    // Whoever looks at the heap says what is wrong with it.
    if pmalloc::info(path).is_ok_and(|info| info.clean == Some(false)) {
        eprintln!(
            "pmalloc: note: the heap was not closed; this is what its next open, or `pmalloc recover`, makes of it. \
             The file is as it was"
        );
    }
}

/// Runs `command`.
pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Create(args) => create::run(args),
        Command::Info(args) => info::run(args),
        Command::Check(args) => check::run(args),
        Command::Stats(args) => stats::run(args),
        Command::Map(args) => map::run(args),
        Command::Copy(args) => copy::run(args),
        Command::Recover(args) => recover::run(args),
        Command::Trim(args) => trim::run(args),
        Command::Destroy(args) => destroy::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Documents(args) => documents::run(args),
        Command::ReplayWorker(args) => run_worker(args),
        Command::Bench(args) => bench::run(args),
        Command::BenchCell(args) => bench::run_child(args),
    }
}
