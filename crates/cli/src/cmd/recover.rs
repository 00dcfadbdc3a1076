//! `pmalloc recover`: does what opening does after a crash, and says what that was. Volatile.

use serde::Serialize;

use crate::{
    args::HeapArgs,
    cmd::info,
    exit::Failure,
    output::{as_f64, duration, print_either, print_rows, print_text},
};

/// What recovery did.
#[derive(Debug, Serialize)]
struct Shown {
    was_closed: bool,
    ms: f64,
    replayed: u64,
    reclaimed: u64,
    rolled_back: u64,
    rolled_forward: u64,
}

/// Recovers and closes the heap that `args` name.
pub(super) fn run(args: &HeapArgs) -> Result<(), Failure> {
    let report = pmalloc::recover_file(&args.path).map_err(Failure::heap(&args.path))?;
    info::warn(&args.path);
    let shown = Shown {
        was_closed: report.was_closed,
        ms: as_f64(report.elapsed_ns) / 1e6,
        replayed: report.replayed,
        reclaimed: report.reclaimed,
        rolled_back: report.rolled_back,
        rolled_forward: report.rolled_forward,
    };
    print_either(args.output, &shown, |shown| {
        if shown.was_closed {
            return print_text("the heap was closed: there was nothing to do\n");
        }
        print_rows(&[
            ("recovered in", duration(report.elapsed_ns)),
            ("replayed", format!("{} records", shown.replayed)),
            ("rolled forward", format!("{} operations", shown.rolled_forward)),
            ("rolled back", format!("{} operations", shown.rolled_back)),
            ("reclaimed", format!("{} torn places of the log", shown.reclaimed)),
        ])
    })
}
