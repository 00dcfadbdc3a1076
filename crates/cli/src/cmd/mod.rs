//! The commands, one file each. Volatile.

mod bench;
mod check;
mod create;
mod destroy;
mod exposition;
mod info;
mod map;
mod recover;
mod replay;
mod stats;

use crate::{args::Command, exit::Failure, replay::run_worker};

/// Runs `command`.
pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Create(args) => create::run(args),
        Command::Info(args) => info::run(args),
        Command::Check(args) => check::run(args),
        Command::Stats(args) => stats::run(args),
        Command::Map(args) => map::run(args),
        Command::Recover(args) => recover::run(args),
        Command::Destroy(args) => destroy::run(args),
        Command::Replay(args) => replay::run(args),
        Command::ReplayWorker(args) => run_worker(args),
        Command::Bench(args) => bench::run(args),
        Command::BenchCell(args) => bench::run_child(args),
    }
}
