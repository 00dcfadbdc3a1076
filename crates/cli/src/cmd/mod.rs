//! The commands, one file each. Volatile.

mod bench;
mod check;
mod copy;
mod create;
mod destroy;
mod documents;
mod exposition;
mod figures;
mod info;
mod map;
mod notes;
mod recover;
mod replay;
mod stats;
mod trim;

use crate::{args::Command, exit::Failure, replay::run_worker};

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
