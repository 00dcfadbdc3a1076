//! `pmalloc replay`: replays an allocation trace and prints its figures. Volatile.

use crate::{
    args::ReplayArgs,
    exit::Failure,
    output::print_either,
    replay::{self, Report},
};

/// Replays what `args` ask for.
pub(super) fn run(args: &ReplayArgs) -> Result<(), Failure> {
    let report = replay::run(args)?;
    print_either(args.output, &report, Report::print)?;
    match report.violations {
        0 => Ok(()),
        count => Err(Failure::Inconsistent(format!("{count} violations"))),
    }
}
