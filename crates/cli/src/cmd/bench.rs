//! `pmalloc bench`: measures what operations cost, and compares results. Volatile, but for results that are kept.

use std::{
    fs,
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pmalloc_bench::{Launcher, Plan, Watcher, compare::Comparison, report::Report, run_cell};

use crate::{
    args::{BenchArgs, BenchCellArgs, BenchCommand, BenchHeapFlags, CompareArgs},
    exit::Failure,
    interrupt::Interrupt,
    output::{json_text, parse_json, print_either, print_text},
};

/// The hidden command that measures one cell.
pub(crate) const CELL_COMMAND: &str = "bench-cell";

/// Results in a directory, for programs.
const JSON_FILE: &str = "bench.json";

/// Results in a directory, for people.
const TEXT_FILE: &str = "bench.txt";

/// Measures or compares what `args` ask for.
pub(super) fn run(args: &BenchArgs) -> Result<(), Failure> {
    match &args.command {
        Some(BenchCommand::Compare(args)) => compare(args),
        None => measure(args),
    }
}

/// Measures one cell: what a child of [`run`] does.
pub(super) fn run_child(args: &BenchCellArgs) -> Result<(), Failure> {
    let launcher = launcher(args.heap)?;
    let outcome = run_cell(&args.cell, &args.heap.options(), &launcher);
    print_text(&outcome.map_err(Failure::Bench)?)
}

fn measure(args: &BenchArgs) -> Result<(), Failure> {
    let plan = Plan {
        names: args.names.clone(),
        scale: args.scale.scale(),
        threads: args.threads.iter().copied().map(usize::from).collect(),
        rounds: args.rounds.map(usize::from),
        policies: args.policy.iter().copied().map(Into::into).collect(),
        background_thread: args.heap.background_thread,
        peers: args.peers.clone(),
        seed: args.seed,
        directory: args.heaps.clone(),
    };
    let launcher = launcher(args.heap)?;
    let mut progress = Progress::new(Interrupt::listen()?);
    let report = pmalloc_bench::run(&plan, &args.heap.options(), &launcher, &mut progress)
        .map_err(Failure::Bench)?;
    drop(progress);
    if let Some(directory) = &args.out {
        keep(&report, directory)?;
    }
    print_either(args.output, &report, |report| print_text(&report.to_text()))
}

/// How this program starts itself to measure one cell.
fn launcher(flags: BenchHeapFlags) -> Result<Launcher, Failure> {
    let program = std::env::current_exe().map_err(Failure::io("find this program"))?;
    let args = [CELL_COMMAND.to_owned()].into_iter().chain(flags.to_args());
    Ok(Launcher { program, args: args.map(Into::into).collect() })
}

/// Writes the results into `directory`.
fn keep(report: &Report, directory: &Path) -> Result<(), Failure> {
    let write = || {
        fs::create_dir_all(directory)?;
        fs::write(directory.join(JSON_FILE), json_text(report))?;
        fs::write(directory.join(TEXT_FILE), report.to_text())
    };
    write().map_err(Failure::io(format!("write results into {}", directory.display())))
}

fn compare(args: &CompareArgs) -> Result<(), Failure> {
    let comparison = Comparison::of(&read(&args.old)?, &read(&args.new)?);
    print_either(args.output, &comparison, |comparison| print_text(&comparison.to_text()))?;
    if comparison.rows.is_empty() {
        return Err(Failure::Usage("the results have no row in common".into()));
    }
    match comparison.regressions {
        0 => Ok(()),
        count => Err(Failure::Inconsistent(format!("{count} regressions"))),
    }
}

/// Reads results from a file, or from that of a directory.
fn read(path: &Path) -> Result<Report, Failure> {
    let file: PathBuf = if path.is_dir() { path.join(JSON_FILE) } else { path.to_owned() };
    let text = fs::read_to_string(&file)
        .map_err(Failure::io(format!("read results from {}", file.display())))?;
    parse_json(&text).map_err(|error| Failure::Results { path: file, error })
}

/// A bar that counts children, on a terminal only.
struct Progress {
    bar: ProgressBar,
    interrupt: Interrupt,
}

impl Progress {
    fn new(interrupt: Interrupt) -> Self {
        let style = ProgressStyle::with_template("{wide_msg} {pos}/{len} {elapsed}");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4))
            .with_style(style.expect("a valid template"));
        Self { bar, interrupt }
    }
}

impl Watcher for Progress {
    fn begin(&mut self, children: usize) {
        self.bar.set_length(children as u64);
    }

    fn step(&mut self, what: &str) {
        self.bar.set_message(what.to_owned());
        self.bar.inc(1);
    }

    fn note(&mut self, text: &str) {
        self.bar.suspend(|| eprintln!("pmalloc: {text}"));
    }

    fn is_stopped(&self) -> bool {
        self.interrupt.is_raised()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
