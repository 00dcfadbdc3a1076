//! The command of the crash exploration.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use pmalloc::{Policy, persist::sim::ImageId};
use pmalloc_verify::{
    alphabet::Op,
    explore::Conditions,
    place::Place,
    power::{self, Judge, Mutant, Verdict},
    sets::{self, Outcome, Set},
    start::Start,
    survivors::{self, Differences},
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
        /// Only heaps of this policy, eager or batched.
        #[arg(long, value_parser = parse_policy)]
        policy: Option<Policy>,
        /// Only the sets whose names start with this, such as "3 operations".
        #[arg(long, default_value = "")]
        set: String,
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
    /// Plants a fault at each flush, fence and store, one at a time, and compares what no set finds with survivors.txt.
    ///
    /// Ends with 3 if they differ, with 4 if time was up for one that is not listed.
    Power {
        /// Only every N-th site, from I on: I/N.
        #[arg(long, value_parser = parse_shard, default_value = "0/1")]
        shard: (usize, usize),
        /// Only this place, as --list prints it.
        #[arg(long, conflicts_with = "shard")]
        site: Option<Place>,
        /// Seconds for each fault.
        #[arg(long, default_value_t = 360)]
        patience: u64,
        /// Prints the places and plants nothing.
        #[arg(long)]
        list: bool,
    },
}

fn parse_shard(text: &str) -> Result<(usize, usize), String> {
    let parse = |part: &str| part.parse::<usize>().map_err(|error| error.to_string());
    let (index, count) = text.split_once('/').ok_or("a shard is written I/N")?;
    let (index, count) = (parse(index)?, parse(count)?);
    if index < count { Ok((index, count)) } else { Err("I is less than N".into()) }
}

fn parse_policy(text: &str) -> Result<Policy, String> {
    Policy::from_name(text).ok_or_else(|| "a policy is eager or batched".into())
}

/// The policy that was asked for, or both.
fn policies(wanted: Option<Policy>) -> Vec<Policy> {
    wanted.map_or_else(|| vec![Policy::Eager, Policy::Batched], |policy| vec![policy])
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Planted faults and damaged images make recovery panic; a violation says so, once.
    std::panic::set_hook(Box::new(|_| {}));
    match arguments.command {
        Command::Explore { full, set, policy, shard } => {
            let of = |policy| if full { Set::full(policy) } else { Set::quick(policy) };
            let sets = policies(policy).into_iter().flat_map(of).collect();
            explore(chosen(sets, &set), shard, arguments.threads)
        }
        Command::Replay { case, image } => replay(&case, image),
        Command::Power { shard, site, patience, list } => {
            let judge = Judge::new(Duration::from_secs(patience), arguments.threads);
            let what = if list { list_places(&judge) } else { find_survivors(judge, site, shard) };
            what.unwrap_or_else(|error| {
                eprintln!("{error}");
                ExitCode::from(2)
            })
        }
    }
}

/// The sets whose names start with `prefix`.
fn chosen(sets: Vec<Set>, prefix: &str) -> Vec<Set> {
    sets.into_iter().filter(|set| set.name.starts_with(prefix)).collect()
}

fn explore(sets: Vec<Set>, (index, count): (usize, usize), threads: usize) -> ExitCode {
    if sets.is_empty() {
        eprintln!("no set has a name that starts like this");
        return ExitCode::from(2);
    }
    println!("operations, by either of two sessions: {:?}", Op::ALL);
    println!("start states: {:?}", Start::ALL);
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
        if !outcome.report.is_exhaustive() {
            println!("NOT EXHAUSTIVE: some points have more classes than the budget allows, of:");
            outcome.sampled.iter().for_each(|case| println!("  {case}"));
            return ExitCode::from(3);
        }
    }
    ExitCode::SUCCESS
}

fn replay(name: &str, image: ImageId) -> ExitCode {
    let sets = policies(None)
        .into_iter()
        .flat_map(|policy| Set::quick(policy).into_iter().chain(Set::full(policy)));
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
        "{} ({}): {} cases, {} points ({} sampled), {} classes; in recovery {} points ({} sampled), {} classes; \
         {} distinct states; {} violations; {:.1} s",
        outcome.name,
        outcome.policy.map_or("no case", Policy::name),
        outcome.cases,
        report.points,
        report.sampled_points,
        report.classes,
        report.nested_points,
        report.nested_sampled_points,
        report.nested_classes,
        report.states.len(),
        usize::from(outcome.failure.is_some()),
        outcome.elapsed_s,
    );
}

fn list_places(judge: &Judge) -> io::Result<ExitCode> {
    let sites = judge.sites()?;
    for site in &sites {
        println!("{}  ({})", site.place, site.count.location);
    }
    power::unreached(&sites)?.iter().for_each(|mutant| println!("{mutant}"));
    Ok(ExitCode::SUCCESS)
}

fn find_survivors(
    mut judge: Judge,
    only: Option<Place>,
    (index, count): (usize, usize),
) -> io::Result<ExitCode> {
    let mut listed = survivors::known()?;
    let (sites, mut mutants) = match only {
        None => {
            let sites = judge.sites()?;
            let unreached = power::unreached(&sites)?;
            (sites, unreached)
        }
        Some(place) => {
            listed.retain(|survivor| survivor.place == place);
            (vec![judge.find(&place)?], Vec::new())
        }
    };
    println!("{} places are reached, {} are not:", sites.len(), mutants.len());
    mutants.iter().for_each(|mutant| println!("{mutant}"));
    let unreached: Vec<Place> = mutants.iter().map(|mutant| mutant.place.clone()).collect();
    for site in sites.iter().skip(index).step_by(count) {
        let mutant = judge.judge(site);
        println!("{mutant}");
        // The campaign may be cut off: what is known so far must be on paper.
        io::stdout().flush()?;
        mutants.push(mutant);
    }
    let places: Vec<Place> = sites.into_iter().map(|site| site.place).chain(unreached).collect();
    Ok(print_verdict(&mutants, &survivors::compare(&listed, &places, &mutants)))
}

fn print_verdict(mutants: &[Mutant], differences: &Differences) -> ExitCode {
    let count =
        |is: fn(&Verdict) -> bool| mutants.iter().filter(|mutant| is(&mutant.verdict)).count();
    println!(
        "{} faults: {} killed, {} survived, {} undecided, {} unreached",
        mutants.len(),
        count(|verdict| matches!(verdict, Verdict::Killed(_))),
        count(|verdict| matches!(verdict, Verdict::Survived)),
        count(|verdict| matches!(verdict, Verdict::Undecided(_))),
        count(|verdict| matches!(verdict, Verdict::Unreached)),
    );
    let Differences { unknown, stale, undecided } = differences;
    for (what, places) in [
        ("survived or is not reached, and is not listed", unknown),
        ("is listed, but was killed or is not there any more", stale),
        ("undecided and not listed", undecided),
    ] {
        places.iter().for_each(|place| println!("{what}:\n{place}"));
    }
    match () {
        () if !unknown.is_empty() || !stale.is_empty() => ExitCode::from(3),
        () if !undecided.is_empty() => ExitCode::from(4),
        () => ExitCode::SUCCESS,
    }
}
