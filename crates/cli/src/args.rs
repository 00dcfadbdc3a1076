//! The command line. Volatile.

mod bench;
pub(crate) mod flags;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::{
    bench::{BenchArgs, BenchCellArgs, BenchCommand, CompareArgs},
    flags::{BenchHeapFlags, HeapFlags, OutputFlags, PolicyArg, name_of},
};

/// Creates, inspects, checks and exercises persistent heaps.
#[derive(Debug, Parser)]
#[command(name = "pmalloc", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 ok; 1 run-time error; 2 usage; 3 inconsistent heap, violation or regression; \
                        4 in use; 5 not a heap, wrong version or layout."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create an empty heap
    Create(CreateArgs),
    /// Show what a heap is; works on one that is open elsewhere, or damaged
    Info(HeapArgs),
    /// Verify everything a heap says about itself; the file is changed by `--salvage` only
    Check(CheckArgs),
    /// Show how full a heap is; the file is not changed
    Stats(StatsArgs),
    /// Show what each part of a heap is, as text or as a picture
    Map(MapArgs),
    /// Copy a heap that no program has open to a new file, and check the copy before it is there
    Copy(CopyArgs),
    /// Recover a heap that was not closed, and close it
    Recover(HeapArgs),
    /// Give a heap's free memory back to the file system; recovers a heap that was not closed first
    Trim(HeapArgs),
    /// Delete a heap that nobody has open
    Destroy(HeapArgs),
    /// Replay an allocation trace of a real program, and kill it if asked to
    Replay(ReplayArgs),
    /// Write the manual and the completions, for the installation
    #[command(hide = true)]
    Documents(DocumentsArgs),
    /// What `replay --kills` starts and kills
    #[command(hide = true)]
    ReplayWorker(WorkerArgs),
    /// Measure what operations cost, beside bare persists and other allocators
    // What is not flushed says nothing about persistent memory, whatever the heaps lie on.
    #[command(mut_arg("durability", |arg| arg.default_value("powerfail")))]
    Bench(BenchArgs),
    /// What `bench` starts for each cell
    #[command(hide = true)]
    BenchCell(BenchCellArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// File to create
    pub(crate) path: PathBuf,
    /// Most bytes it may ever hold, such as 64M, 1.5G or 2T: addresses, not memory [default: 256G, or less where the
    /// process has no addresses for that]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) capacity: Option<u64>,
    /// Name of the data's layout, checked at every open
    #[arg(long, value_name = "NAME")]
    pub(crate) layout: Option<String>,
    #[command(flatten)]
    pub(crate) heap: HeapFlags,
    #[command(flatten)]
    pub(crate) output: OutputFlags,
}

#[derive(Debug, Args)]
pub(crate) struct HeapArgs {
    /// The heap's file
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputFlags,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The heap's file
    pub(crate) path: PathBuf,
    /// Make a damaged heap whole again: what can't be trusted is dropped and reported, the damaged file is
    /// kept with `.damaged` behind its name
    #[arg(long)]
    pub(crate) salvage: bool,
    #[command(flatten)]
    pub(crate) output: OutputFlags,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// The heap's file
    pub(crate) path: PathBuf,
    /// Print the figures in the text format of Prometheus
    #[arg(long, conflicts_with = "json")]
    pub(crate) prom: bool,
    #[command(flatten)]
    pub(crate) output: OutputFlags,
}

#[derive(Debug, Args)]
pub(crate) struct MapArgs {
    /// The heap's file; it is not changed
    pub(crate) path: PathBuf,
    /// Draw a picture into this file; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputFlags,
}

#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// The heap's file; it is not changed, and no program can open it meanwhile
    pub(crate) source: PathBuf,
    /// File to create. It has the bytes of the heap, its identity included; after an error nothing is there, unless
    /// the error says so
    pub(crate) copy: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputFlags,
}

#[derive(Debug, Args)]
pub(crate) struct DocumentsArgs {
    /// The folder for what doesn't depend on the machine, such as /usr/share
    pub(crate) share: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Trace to replay, `.mtr` or `.mtr.zst` [default: the bundled one]
    pub(crate) trace: Option<PathBuf>,
    /// Heap to create; must not exist [default: a temporary one, removed at the end]
    #[arg(long, value_name = "PATH")]
    pub(crate) heap: Option<PathBuf>,
    /// Whether threads run freely, or one after the other as in the trace
    #[arg(long, value_enum, default_value_t = Order::Threads)]
    pub(crate) order: Order,
    /// Kill the process this many times, and check what is found after each
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) kills: u32,
    /// Keep the heap
    #[arg(long)]
    pub(crate) keep: bool,
    /// Don't compare the contents of blocks
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// So many in a hundred operations publish, replace, move, exchange or set a cell [default: 25 with kills,
    /// else 0]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) publish: Option<u8>,
    /// Seed of the moments at which the process is killed, and of what is published [default: random, shown]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) heap_flags: HeapFlags,
    #[command(flatten)]
    pub(crate) output: OutputFlags,
}

/// Share of operations of the publish family if there are kills: enough of each kind is in flight then.
const PUBLISH_PERCENT: u8 = 25;

impl ReplayArgs {
    /// So many in a hundred operations are of the publish family. A replay without kills is for figures, which stay
    /// those of allocations and frees.
    pub(crate) fn publish_percent(&self) -> u8 {
        self.publish.unwrap_or(if self.kills > 0 { PUBLISH_PERCENT } else { 0 })
    }
}

/// The supervisor's orders to a worker.
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[arg(long)]
    pub(crate) heap: PathBuf,
    #[arg(long)]
    pub(crate) journal: PathBuf,
    #[arg(long)]
    pub(crate) trace: PathBuf,
    #[arg(long, value_enum)]
    pub(crate) order: Order,
    #[arg(long, value_enum)]
    pub(crate) verification: Verification,
    #[arg(long)]
    pub(crate) publish: u8,
    #[arg(long)]
    pub(crate) seed: u64,
    /// Step after which the kill switch is armed.
    #[arg(long)]
    pub(crate) arm_at: Option<u64>,
    /// Persist calls from then on until the process kills itself.
    #[arg(long, default_value_t = 1)]
    pub(crate) countdown: u64,
    /// Which persist calls count.
    #[arg(long, value_enum, default_value_t = Calls::All)]
    pub(crate) calls: Calls,
    /// Seed of the persist call of recovery at which the process kills itself; it does nothing else then.
    #[arg(long, conflicts_with = "arm_at")]
    pub(crate) die_in_recovery: Option<u64>,
    #[command(flatten)]
    pub(crate) heap_flags: HeapFlags,
}

/// Which persist calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Calls {
    /// Flushes and fences.
    All,
    /// Fences: most flushes are of contents, and between fences lies what recovery can find.
    Fences,
}

/// In which order the events of a trace are replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// Program order per thread; a free waits for its allocation
    Threads,
    /// The global order of the trace
    Trace,
}

/// Whether the contents of blocks are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verification {
    /// In full, before the free and after recovery.
    Full,
    /// Not at all.
    Off,
}

/// Reads a number of bytes. All units are powers of 1024, with and without `i`: what the command prints, it reads.
fn parse_size(text: &str) -> Result<u64, String> {
    let sizes = parse_size::Config::new().with_binary();
    sizes
        .parse_size(text)
        .map_err(|error| format!("{error}; a size is written 64M, 1.5G or '16 GiB'"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_declaration_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_read_as_people_and_this_command_write_them() {
        for (text, bytes) in [
            ("4096", 4096),
            ("3K", 3 << 10),
            ("3m", 3 << 20),
            ("16G", 16 << 30),
            ("1T", 1 << 40),
            ("1.5G", 3 << 29),
            ("16GiB", 16 << 30),
            ("16.0 GiB", 16 << 30),
            ("64 MB", 64 << 20),
            ("512 B", 512),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text:?}");
            // To the tenth that is printed.
            let printed =
                parse_size(&crate::output::bytes(bytes)).expect("what is printed is read");
            assert!(printed.abs_diff(bytes) <= bytes / 20, "{text:?}");
        }
        for wrong in ["", "K", "-1", "1X", "1,5G", "99999999999G", "é", "1.5.2G"] {
            let error = parse_size(wrong).expect_err(wrong);
            assert!(error.contains("1.5G"), "{error}");
        }
    }
}
