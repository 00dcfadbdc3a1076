//! `pmalloc check`: verifies a heap without changing its file; or, if asked to, makes it whole again. Volatile.

use std::{path::PathBuf, time::Instant};

use serde::Serialize;

use super::notes::note_if_not_closed;
use crate::{
    args::CheckArgs,
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
    /// Live blocks that nothing owns.
    unowned_blocks: u64,
    /// Live blocks that a slot may own in something of which nothing is known.
    unknown_owner_blocks: u64,
    /// The first of those that nothing owns.
    orphans: Vec<Orphan>,
    ms: f64,
    #[serde(flatten)]
    salvage: Option<Salvage>,
}

/// A block that nothing owns.
#[derive(Debug, Serialize)]
struct Orphan {
    offset: u64,
    bytes: u64,
    tag: u8,
}

/// Most orphans that are listed.
const ORPHANS_MAX: usize = 1000;

/// What a salvage did besides.
#[derive(Debug, Serialize)]
struct Salvage {
    repaired: Vec<Problem>,
    /// Where the damaged file is.
    kept: Option<PathBuf>,
    /// The file that keeps what was lost.
    report: Option<PathBuf>,
}

/// Something that is wrong with a heap.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    kind: &'static str,
    offset: u64,
    text: String,
}

impl Orphan {
    fn of(block: &pmalloc::Block) -> Self {
        Self { offset: block.offset, bytes: block.usable_bytes, tag: block.tag }
    }
}

impl Problem {
    /// A line that tells it, as a case of `what`.
    fn line(&self, what: &str) -> String {
        format!("{what}: at {:#x}: {}\n", self.offset, self.text)
    }
}

/// A line for each of `problems`.
pub(super) fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| problem.line(problem.kind)).collect()
}

impl From<pmalloc::Problem> for Problem {
    fn from(problem: pmalloc::Problem) -> Self {
        Self { kind: problem.kind.name(), offset: problem.offset, text: problem.text }
    }
}

/// Checks the heap that `args` name.
pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let (check, lost, salvage) = look(args)?;
    // What a salvage lost is a problem, although it is not one of the heap any more.
    let problems: Vec<_> = lost.into_iter().chain(check.problems).map(Problem::from).collect();
    let shown = Shown {
        ok: problems.is_empty(),
        problems,
        blocks: check.blocks,
        live_bytes: check.live_bytes,
        unowned_blocks: check.unowned_blocks,
        unknown_owner_blocks: check.unknown_blocks,
        orphans: check.orphans.iter().take(ORPHANS_MAX).map(Orphan::of).collect(),
        ms: start.elapsed().as_secs_f64() * 1e3,
        salvage,
    };
    print_either(args.output, &shown, print)?;
    if shown.ok {
        return Ok(());
    }
    let count = shown.problems.len();
    Err(Failure::Inconsistent(format!("{}: {count} problems", args.path.display())))
}

/// The state of the heap, what was lost in bringing it there, and what else a salvage did.
type Look = (pmalloc::CheckReport, Vec<pmalloc::Problem>, Option<Salvage>);

fn look(args: &CheckArgs) -> Result<Look, Failure> {
    if !args.salvage {
        let check = pmalloc::check_file(&args.path).map_err(Failure::heap(&args.path))?;
        note_if_not_closed(&args.path);
        return Ok((check, Vec::new(), None));
    }
    let report = pmalloc::salvage_file(&args.path).map_err(Failure::heap(&args.path))?;
    let repaired = report.repaired.into_iter().map(Problem::from).collect();
    Ok((
        report.check,
        report.lost,
        Some(Salvage { repaired, kept: report.kept, report: report.report }),
    ))
}

fn print(shown: &Shown) -> Result<(), Failure> {
    let repaired = shown.salvage.iter().flat_map(|salvage| &salvage.repaired);
    let lines: String = repaired.map(|problem| problem.line("repaired")).collect();
    let lines = lines + &self::lines(&shown.problems);
    print_text(&lines)?;
    if let Some(kept) = shown.salvage.as_ref().and_then(|salvage| salvage.kept.as_ref()) {
        print_text(&format!("the damaged heap is in {}\n", kept.display()))?;
    }
    if let Some(report) = shown.salvage.as_ref().and_then(|salvage| salvage.report.as_ref()) {
        print_text(&format!(
            "all this is kept in {}, and told again until that is removed\n",
            report.display()
        ))?;
    }
    print_rows(&[
        ("ok", if shown.ok { "yes" } else { "no" }.to_owned()),
        ("blocks", shown.blocks.to_string()),
        ("live", bytes(shown.live_bytes)),
        ("owners", owners(shown)),
        ("time", format!("{:.1} ms", shown.ms)),
    ])
}

/// Who owns the blocks, as far as that is known.
fn owners(shown: &Shown) -> String {
    const SHOWN: usize = 3;
    let known = shown.blocks.saturating_sub(shown.unowned_blocks + shown.unknown_owner_blocks);
    let mut text = match known == shown.blocks {
        true => format!("all {known} blocks are owned"),
        false => format!("{known} blocks are owned"),
    };
    if shown.unknown_owner_blocks > 0 {
        text += &format!(
            "; {} not known: slots in bytes may own them, and the program has not declared where it has slots",
            shown.unknown_owner_blocks
        );
    }
    if shown.unowned_blocks > 0 {
        let places = shown.orphans.iter().take(SHOWN).map(|orphan| format!("{:#x}", orphan.offset));
        let places: Vec<String> = places.collect();
        let more = if shown.unowned_blocks > SHOWN as u64 { ", .." } else { "" };
        text +=
            &format!("; {} that nothing owns: {}{more}", shown.unowned_blocks, places.join(", "));
    }
    text
}
