//! The command of the crash exploration.

use std::{io::Write, process::ExitCode};

use clap::{Parser, Subcommand};
use pmalloc::persist::sim::ImageId;
use pmalloc_verify::{
    alphabet::{Op, Start},
    explore::Conditions,
    power,
    sets::{self, Outcome, Set},
};

/// Explores every crash of short operation sequences.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Threads; cases are independent.
    #[arg(long, global = true, default_value_t = 2)]
    threads: usize,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the sets of CI, or with --full those of the campaign.
    Explore {
        /// One operation or one nested crash more; hours.
        #[arg(long)]
        full: bool,
        /// Only every N-th case, from I on: I/N.
        #[arg(long, value_parser = parse_shard, default_value = "0/1")]
        shard: (usize, usize),
    },
    /// Runs one image of one case again, both as a violation prints them.
    Replay {
        /// The case, as in "Fresh AllocSmallest@0 Line64 nesting 1".
        case: String,
        /// The image, as in "point=7 image=1.1.1.1 nested=0:0.0".
        image: ImageId,
    },
    /// Plants a fault at each flush, fence and store, one at a time, and lists those that no set finds.
    Power {
        /// Only every N-th site, from I on: I/N.
        #[arg(long, value_parser = parse_shard, default_value = "0/1")]
        shard: (usize, usize),
    },
}

fn parse_shard(text: &str) -> Result<(usize, usize), String> {
    let parse = |part: &str| part.parse::<usize>().map_err(|error| error.to_string());
    let (index, count) = text.split_once('/').ok_or("a shard is written I/N")?;
    let (index, count) = (parse(index)?, parse(count)?);
    if index < count { Ok((index, count)) } else { Err("I is less than N".into()) }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Planted faults and damaged images make recovery panic; a violation says so, once.
    std::panic::set_hook(Box::new(|_| {}));
    match arguments.command {
        Command::Explore { full, shard } => explore(full, shard, arguments.threads),
        Command::Replay { case, image } => replay(&case, image),
        Command::Power { shard } => find_survivors(shard, arguments.threads),
    }
}

fn explore(full: bool, (index, count): (usize, usize), threads: usize) -> ExitCode {
    println!("operations, by either of two sessions: {:?}", Op::ALL);
    println!("start states: {:?}", Start::ALL);
    let sets = if full { Set::full() } else { Set::quick() };
    for set in sets {
        let outcome = sets::run(&set.shard(index, count), &Conditions::default(), threads);
        print(&outcome);
        if let Some((case, violation)) = outcome.failure {
            println!("VIOLATION in {case}\n{violation}");
            println!(
                "run it again with: replay {:?} 'point=...', the line after `replay:`",
                case.to_string()
            );
            return ExitCode::from(3);
        }
    }
    ExitCode::SUCCESS
}

fn replay(name: &str, image: ImageId) -> ExitCode {
    let sets = Set::quick().into_iter().chain(Set::full());
    let Some(case) = sets.flat_map(|set| set.cases).find(|case| case.to_string() == name) else {
        eprintln!("no set has a case {name:?}");
        return ExitCode::from(2);
    };
    let conditions = Conditions { replay: Some(image), ..Conditions::default() };
    let (report, _) = case.run(&conditions);
    println!("{report}");
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) }
}

fn print(outcome: &Outcome) {
    let report = &outcome.report;
    println!(
        "{}: {} cases, {} points ({} sampled), {} classes; in recovery {} points, {} classes; {} distinct states; \
         {} violations; {:.1} s",
        outcome.name,
        outcome.cases,
        report.points,
        report.sampled_points,
        report.classes,
        report.nested_points,
        report.nested_classes,
        report.states.len(),
        usize::from(outcome.failure.is_some()),
        outcome.elapsed_s,
    );
}

fn find_survivors((index, count): (usize, usize), threads: usize) -> ExitCode {
    let sites = power::sites(threads);
    println!("{} sites", sites.len());
    let (mut killed, mut survivors) = (0, Vec::new());
    for site in sites.into_iter().skip(index).step_by(count) {
        let mutant = power::judge(site, threads);
        let verdict = mutant
            .killed_by
            .as_deref()
            .map_or("SURVIVED".to_owned(), |case| format!("killed by {case}"));
        println!("{:6.1} s  {}: {verdict}", mutant.elapsed_s, mutant.describe());
        // The campaign may be cut off: what is known so far must be on paper.
        std::io::stdout().flush().ok();
        if mutant.killed_by.is_some() { killed += 1 } else { survivors.push(mutant.describe()) }
    }
    println!("{killed} killed, {} survived", survivors.len());
    for survivor in survivors {
        println!("survivor: {survivor}");
    }
    ExitCode::SUCCESS
}
