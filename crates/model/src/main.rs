//! `pmalloc-model`: explores the scenarios and prints a table; `cargo xtask model` runs it.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use pmalloc_model::{
    Break, Campaign, Case, Limits, Outcome, Trial, Violation, cases, random, trials,
};

/// Explores models of the protocol: all interleavings, all crashes, all broken rules.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask model")]
struct Arguments {
    /// All scenarios, with crashes in the recoveries from crashes in recovery: long.
    #[arg(long)]
    full: bool,
    /// How deep recoveries are cut off: 1, and 2 with --full.
    #[arg(long, value_name = "DEPTH")]
    nesting: Option<u32>,
    /// Only scenarios, or breaks, whose name contains this.
    #[arg(long, value_name = "NAME", default_value = "")]
    scenario: String,
    /// Breaks a rule in those scenarios, and shows what comes of it; exit code 3 if nothing does.
    #[arg(long = "break", value_name = "BREAK")]
    broken: Option<String>,
    /// Explores random scenarios instead, for so many seconds.
    #[arg(long, value_name = "SECONDS")]
    random: Option<u64>,
    /// The first random scenario; the next one has the next seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Lists scenarios and breaks.
    #[arg(long)]
    list: bool,
    /// Shows the shortest way to each break.
    #[arg(long)]
    traces: bool,
}

/// What the exit code says.
const VIOLATED: u8 = 3;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let campaign = if arguments.full { Campaign::Full } else { Campaign::Quick };
    let mut limits = campaign.limits();
    limits.nesting = arguments.nesting.unwrap_or(limits.nesting);
    if arguments.list {
        list();
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    let broken = match arguments.broken.as_deref().map(find_break).transpose() {
        Ok(broken) => broken,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(USAGE);
        }
    };
    let filter = arguments.scenario.as_str();
    let is_known = cases(campaign).iter().any(|case| case.name().contains(filter))
        || Break::ALL.iter().any(|broken| broken.to_string().contains(filter));
    if !is_known {
        eprintln!(
            "no scenario or broken rule is called {filter}, or it is one of --full: see --list"
        );
        return ExitCode::from(USAGE);
    }
    let is_fine = match (broken, arguments.random) {
        (_, Some(seconds)) => run_random(arguments.seed, Duration::from_secs(seconds), broken),
        (Some(broken), _) => show_break(broken, campaign, limits, &arguments.scenario),
        _ => {
            let holds = run_cases(campaign, limits, &arguments.scenario);
            let noticed = run_trials(&arguments.scenario, arguments.traces);
            holds && noticed
        }
    };
    println!("{:.1} s", started.elapsed().as_secs_f64());
    if is_fine { ExitCode::SUCCESS } else { ExitCode::from(VIOLATED) }
}

fn find_break(name: &str) -> Result<Break, String> {
    let mut all = Break::ALL.iter().copied();
    all.find(|broken| broken.to_string() == name)
        .ok_or_else(|| format!("no break is called {name}: see --list"))
}

fn list() {
    for case in cases(Campaign::Full) {
        println!("{:28} {:7} {}", case.name(), case.domain().to_string(), case.about());
    }
    println!();
    for broken in Break::ALL {
        println!("{:28} rule {:2} {}", broken.to_string(), broken.rule(), broken.about());
    }
}

/// Whether every scenario whose name contains `filter` holds.
fn run_cases(campaign: Campaign, limits: Limits, filter: &str) -> bool {
    let mut total = Outcome::default();
    let mut is_fine = true;
    println!(
        "{:28} {:7} {:>9} {:>9} {:>10} {:>6}  verdict",
        "scenario", "domain", "states", "images", "recoveries", "s"
    );
    for case in cases(campaign).iter().filter(|case| case.name().contains(filter)) {
        let started = Instant::now();
        let outcome = case.run(None, limits);
        print_row(case, &outcome, started);
        is_fine &= outcome.is_complete && outcome.violation.is_none();
        if let Some(violation) = &outcome.violation {
            print_violation(violation);
        }
        total.states += outcome.states;
        total.images += outcome.images;
        total.recoveries += outcome.recoveries;
    }
    let Outcome { states, images, recoveries, .. } = total;
    println!("{:28} {:7} {states:>9} {images:>9} {recoveries:>10}\n", "all", "");
    is_fine
}

fn print_row(case: &Case, outcome: &Outcome, started: Instant) {
    let Outcome { states, images, recoveries, is_complete, violation } = outcome;
    let verdict = match violation {
        Some(_) => "VIOLATED",
        None if *is_complete => "holds",
        None => "CUT OFF",
    };
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{:28} {:7} {states:>9} {images:>9} {recoveries:>10} {seconds:>6.1}  {verdict}",
        case.name(),
        case.domain().to_string()
    );
}

fn print_violation(violation: &Violation) {
    for (nth, step) in (1..).zip(&violation.trace) {
        println!("    {nth:3}. {step}");
    }
    println!("         CRASH: {}", violation.what);
}

/// Whether every break is noticed by a scenario whose name contains `filter`.
fn run_trials(filter: &str, has_traces: bool) -> bool {
    let mut is_fine = true;
    println!(
        "{:20} {:>4}  {:28} {:>5}  what a crash leaves",
        "break", "rule", "noticed in", "steps"
    );
    for trial in trials() {
        let is_meant = trial.cases.iter().any(|case| case.name().contains(filter))
            || trial.broken.to_string().contains(filter);
        if is_meant {
            is_fine &= run_trial(&trial, has_traces);
        }
    }
    println!();
    is_fine
}

fn run_trial(trial: &Trial, has_traces: bool) -> bool {
    let name = trial.broken.to_string();
    let rule = trial.broken.rule();
    for case in &trial.cases {
        let outcome = case.run(Some(trial.broken), Campaign::Quick.limits());
        let Some(violation) = outcome.violation.filter(|violation| !violation.is_too_small())
        else {
            continue;
        };
        let what = violation.what.split(" | ").next().unwrap_or_default();
        println!("{name:20} {rule:>4}  {:28} {:>5}  {what}", case.name(), violation.trace.len());
        if has_traces {
            print_violation(&violation);
        }
        return true;
    }
    println!("{name:20} {rule:>4}  NOT NOTICED: {}", trial.broken.about());
    false
}

/// Shows what a break comes to in all scenarios whose names contain `filter`: whether one violates it, as it should.
fn show_break(broken: Break, campaign: Campaign, limits: Limits, filter: &str) -> bool {
    let mut is_noticed = false;
    for case in cases(campaign).iter().filter(|case| case.name().contains(filter)) {
        let started = Instant::now();
        let outcome = case.run(Some(broken), limits);
        print_row(case, &outcome, started);
        if let Some(violation) = &outcome.violation {
            print_violation(violation);
            is_noticed = true;
        }
    }
    is_noticed
}

/// How far a random scenario is explored: those that are larger, or run out of chunks, are cut off and counted.
const RANDOM: Limits = Limits { states: 150_000, nesting: 1 };

/// Explores random scenarios from `seed` on, until one is violated or time is up.
fn run_random(seed: u64, time: Duration, broken: Option<Break>) -> bool {
    let started = Instant::now();
    let mut total = Outcome::default();
    let (mut count, mut cut) = (0_u64, 0_u64);
    let mut is_fine = true;
    while is_fine && started.elapsed() < time {
        let case = random(seed + count);
        let outcome = case.run(broken, RANDOM);
        let violation = outcome.violation.as_ref().filter(|violation| !violation.is_too_small());
        cut += u64::from(!outcome.is_complete && violation.is_none());
        if let Some(violation) = violation {
            println!("seed {}: {} {}", seed + count, case.domain(), case.details());
            print_violation(violation);
            is_fine = false;
        }
        count += 1;
        total.states += outcome.states;
        total.images += outcome.images;
        total.recoveries += outcome.recoveries;
    }
    let Outcome { states, images, recoveries, .. } = total;
    let last = seed + count.saturating_sub(1);
    println!("seeds {seed} to {last}: {count} scenarios, {cut} of them cut off");
    println!("{states} states, {images} images, {recoveries} recoveries");
    is_fine
}
