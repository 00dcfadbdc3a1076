//! What a child of the supervisor does: runs one cell, and says what it found out. Volatile, but for the heap that it makes.

use std::{panic, process};

use pmalloc::HeapOptions;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::{bench, cell::Cell, context::Context, error::Error, launcher::Launcher};

/// Runs the cell that `description` describes, and returns what to print: what a child does.
///
/// `options` are those of the cell's heap, `launcher` starts further children.
///
/// # Errors
///
/// [`Error::Description`] if `description` is not one of a cell; [`Error::UnknownBench`]; [`Error::Io`].
///
/// # Panics
///
/// If the benchmark does. The process is aborted then, also by a panic of a thread that others wait for.
pub fn run_cell(
    description: &str,
    options: &HeapOptions,
    launcher: &Launcher,
) -> Result<String, Error> {
    let cell: Cell = serde_json::from_str(description).map_err(Error::Description)?;
    // A supervisor that is killed leaves nothing running.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| Error::io("follow the supervisor")(errno.into()))?;
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        report(info);
        process::abort();
    }));
    let outcome = bench::find(&cell.bench)?.run(&Context { cell: &cell, options, launcher });
    Ok(serde_json::to_string(&outcome).expect("an outcome has string keys"))
}
