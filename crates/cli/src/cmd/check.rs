//! `pmalloc check`: verifies a heap without changing its file. Volatile.

use std::time::Instant;

use serde::Serialize;

use crate::{
    args::HeapArgs,
    exit::Failure,
    output::{bytes, print_either, print_rows, print_text},
};

/// What a check found.
#[derive(Debug, Serialize)]
struct Shown {
    ok: bool,
    problems: Vec<Problem>,
    blocks: u64,
    live_bytes: u64,
    unowned_blocks: u64,
    ms: f64,
}

#[derive(Debug, Serialize)]
struct Problem {
    kind: &'static str,
    offset: u64,
    text: String,
}

/// Checks the heap that `args` name.
pub(super) fn run(args: &HeapArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let report = pmalloc::check_file(&args.path).map_err(Failure::heap(&args.path))?;
    let problems = report.problems.into_iter().map(|problem| Problem {
        kind: problem.kind.name(),
        offset: problem.offset,
        text: problem.text,
    });
    let problems: Vec<_> = problems.collect();
    let shown = Shown {
        ok: problems.is_empty(),
        problems,
        blocks: report.blocks,
        live_bytes: report.live_bytes,
        unowned_blocks: report.unowned_blocks,
        ms: start.elapsed().as_secs_f64() * 1e3,
    };
    print_either(args.output, &shown, print)?;
    if shown.ok {
        return Ok(());
    }
    let count = shown.problems.len();
    Err(Failure::Inconsistent(format!("{}: {count} problems", args.path.display())))
}

fn print(shown: &Shown) -> Result<(), Failure> {
    let lines = shown
        .problems
        .iter()
        .map(|problem| format!("{}: at {:#x}: {}\n", problem.kind, problem.offset, problem.text));
    print_text(&lines.collect::<String>())?;
    print_rows(&[
        ("ok", if shown.ok { "yes" } else { "no" }.to_owned()),
        ("blocks", shown.blocks.to_string()),
        ("live", bytes(shown.live_bytes)),
        ("unowned", format!("{} blocks that no root array's slot owns", shown.unowned_blocks)),
        ("time", format!("{:.1} ms", shown.ms)),
    ])
}
