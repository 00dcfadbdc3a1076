//! `pmalloc copy`: copies a heap that no program has open, and checks the copy before it is there. Volatile.

use std::{io, ops::ControlFlow, time::Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pmalloc::{CopyReport, persist::MapError};
use serde::Serialize;

use super::check::{self, Problem};
use crate::{
    args::CopyArgs,
    exit::Failure,
    interrupt::Interrupt,
    output::{bytes, print_either, print_rows, print_text},
};

/// What a copy came to.
#[derive(Debug, Serialize)]
struct Shown {
    ok: bool,
    problems: Vec<Problem>,
    /// Of the copy, as the next one: of a heap with problems there is none.
    bytes_copied: Option<u64>,
    heap_bytes: Option<u64>,
    blocks: u64,
    live_bytes: u64,
    ms: f64,
}

/// Copies as `args` say.
pub(super) fn run(args: &CopyArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let report = copy(args)?;
    let ok = report.check.problems.is_empty();
    let shown = Shown {
        ok,
        problems: report.check.problems.into_iter().map(Problem::from).collect(),
        bytes_copied: ok.then_some(report.copied_bytes),
        heap_bytes: ok.then_some(report.heap_bytes),
        blocks: report.check.blocks,
        live_bytes: report.check.live_bytes,
        ms: start.elapsed().as_secs_f64() * 1e3,
    };
    if shown.ok && pmalloc::info(&args.copy).is_ok_and(|info| info.clean == Some(false)) {
        eprintln!(
            "pmalloc: note: the heap was not closed; the copy is recovered when it is opened"
        );
    }
    let printed = print_either(args.output, &shown, print);
    if shown.ok {
        let done = format!("{} is a whole copy all the same", args.copy.display());
        return printed.map_err(Failure::after(done));
    }
    printed?;
    Err(Failure::Inconsistent(format!(
        "{}: {} problems; nothing was copied: make the heap whole (`pmalloc check --salvage`), and copy it then",
        args.source.display(),
        shown.problems.len()
    )))
}

fn copy(args: &CopyArgs) -> Result<CopyReport, Failure> {
    let interrupt = Interrupt::listen()?;
    let bar = bar();
    let report = pmalloc::copy_file_with(&args.source, &args.copy, |progress| {
        bar.set_length(progress.data_bytes);
        bar.set_position(progress.copied_bytes);
        match interrupt.is_raised() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    bar.finish_and_clear();
    match report {
        // What else has failed is said, whatever the user did meanwhile.
        Err(pmalloc::Error::Map(MapError::Io { ref source, .. }))
            if source.kind() == io::ErrorKind::Interrupted =>
        {
            Err(Failure::Interrupted)
        }
        report => report.map_err(Failure::heap(&args.source)),
    }
}

/// A bar that counts bytes; invisible where standard error is no terminal.
fn bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{wide_bar} {binary_bytes}/{binary_total_bytes} {eta}");
    ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10))
        .with_style(style.expect("a valid template"))
}

fn print(shown: &Shown) -> Result<(), Failure> {
    print_text(&check::lines(&shown.problems))?;
    let mut rows = vec![("ok", if shown.ok { "yes" } else { "no" }.to_owned())];
    let of_copy = [("copied", shown.bytes_copied), ("size", shown.heap_bytes)];
    rows.extend(of_copy.into_iter().filter_map(|(name, value)| Some((name, bytes(value?)))));
    rows.push(("live", format!("{} in {} blocks", bytes(shown.live_bytes), shown.blocks)));
    rows.push(("time", format!("{:.1} ms", shown.ms)));
    print_rows(&rows)
}
