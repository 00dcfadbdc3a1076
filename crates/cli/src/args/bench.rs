//! The command line of the benchmarks. Volatile.

use std::path::PathBuf;

use clap::{Args, Subcommand, value_parser};
use pmalloc_bench::{Peer, Peers, Scale};

use super::flags::{BenchHeapFlags, OutputFlags, PolicyArg};

/// Most threads of a row: as many as a heap has lanes.
const THREADS_MAX: i64 = 1024;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: Option<BenchCommand>,
    /// Benchmarks to run, or single variants as NAME/VARIANT [default: all]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) scale: ScaleFlags,
    /// Numbers of threads, separated by commas [default: 1,2; with --full 1,2,8]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    #[arg(value_parser = value_parser!(u16).range(1..=THREADS_MAX))]
    pub(crate) threads: Vec<u16>,
    /// Rounds, each a sample of every row [default: 7; with --quick 3, with --full 9]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..))]
    pub(crate) rounds: Option<u16>,
    /// Rivals to measure: auto for those that are installed, none, or names separated by commas
    #[arg(long, value_name = "auto|none|LIST", default_value = "auto", value_parser = parse_peers)]
    pub(crate) peers: Peers,
    /// Write the results into this directory as well, as bench.json and bench.txt
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Make the heaps in this directory
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub(crate) heaps: PathBuf,
    /// Seed of what is random
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Policies of the heaps to measure, separated by commas: rows of their own each
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    #[arg(default_values_t = PolicyArg::ALL)]
    pub(crate) policy: Vec<PolicyArg>,
    #[command(flatten)]
    pub(crate) heap: BenchHeapFlags,
    #[command(flatten)]
    pub(crate) output: OutputFlags,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Compare two results; exit code 3 if the new one is slower or flushes more
    Compare(CompareArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The older results: what --json printed, or the directory of --out
    pub(crate) old: PathBuf,
    /// The newer ones
    pub(crate) new: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputFlags,
}

/// How much is run.
#[derive(Debug, Clone, Copy, Args)]
#[group(multiple = false)]
pub(crate) struct ScaleFlags {
    /// Run so little that it shows no more than that everything works
    #[arg(long)]
    quick: bool,
    /// Run as much as published figures need, and the largest heaps
    #[arg(long)]
    full: bool,
}

impl ScaleFlags {
    /// The scale that was asked for.
    pub(crate) fn scale(self) -> Scale {
        match (self.quick, self.full) {
            (true, _) => Scale::Quick,
            (_, true) => Scale::Full,
            _ => Scale::Usual,
        }
    }
}

/// The supervisor's orders to a child.
#[derive(Debug, Args)]
pub(crate) struct BenchCellArgs {
    #[command(flatten)]
    pub(crate) heap: BenchHeapFlags,
    /// The cell, as JSON.
    pub(crate) cell: String,
}

/// Reads which rivals are measured.
fn parse_peers(text: &str) -> Result<Peers, String> {
    let peer = |name: &str| {
        Peer::from_name(name).ok_or_else(|| {
            let known = Peer::ALL.map(Peer::name).join(", ");
            format!("no rival is called {name}: there are {known}")
        })
    };
    match text {
        "auto" => Ok(Peers::Auto),
        "none" => Ok(Peers::None),
        list => list.split(',').map(peer).collect::<Result<_, _>>().map(Peers::These),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command, flags::DurabilityArg};

    fn parsed(args: &[&str]) -> BenchArgs {
        let cli = Cli::try_parse_from([&["pmalloc", "bench"], args].concat()).expect("valid");
        let Command::Bench(args) = cli.command else { panic!("another command") };
        args
    }

    #[test]
    fn rivals_are_listed_by_name() {
        assert_eq!(parse_peers("auto"), Ok(Peers::Auto));
        assert_eq!(parse_peers("none"), Ok(Peers::None));
        let both = Peers::These(vec![Peer::Glibc, Peer::Mimalloc]);
        assert_eq!(parse_peers("glibc,mimalloc"), Ok(both));
        let error = parse_peers("glibc,tcmalloc").expect_err("there is none");
        assert!(error.contains("tcmalloc") && error.contains("mimalloc"), "{error}");
    }

    #[test]
    fn benchmarks_flush_unless_they_are_told_otherwise() {
        assert_eq!(parsed(&[]).heap.media.durability, DurabilityArg::Powerfail);
        let args = parsed(&["--durability", "process"]);
        assert_eq!(args.heap.media.durability, DurabilityArg::Process);
    }

    #[test]
    fn heaps_of_both_policies_are_measured_unless_some_are_named() {
        let all = parsed(&[]).policy;
        assert_eq!((all.len(), all[0]), (2, PolicyArg::DEFAULT));
        assert_eq!(parsed(&["--policy", "eager"]).policy, [PolicyArg::Eager]);
        let both = parsed(&["--policy", "eager,batched"]).policy;
        assert_eq!(both, [PolicyArg::Eager, PolicyArg::Batched]);
        Cli::try_parse_from(["pmalloc", "bench", "--policy", "lazy"]).expect_err("unknown");
    }

    #[test]
    fn names_and_a_comparison_are_told_apart() {
        let args = parsed(&["threadtest", "small/packed", "--threads", "1,4", "--quick"]);
        assert_eq!(args.names, ["threadtest", "small/packed"]);
        assert_eq!((args.threads, args.scale.scale()), (vec![1, 4], Scale::Quick));
        let args = parsed(&["compare", "old", "new", "--json"]);
        let Some(BenchCommand::Compare(args)) = args.command else { panic!("no comparison") };
        assert!(args.output.json && args.new.ends_with("new"));
    }
}
