//! Runs schedules from the command line.
//!
//! `pmalloc-schedules --schedules N [--seed S] [--scenario NAME] [--policy eager|batched] [--failures MAX] [--site PLACE]`
//!
//! With a place, as `pmalloc-verify power` prints it, the flush or fence there is left out, or the store delayed, and the
//! question is whether a schedule notices.

use std::process::ExitCode;

use pmalloc::Policy;
use pmalloc_schedules::{campaign::Campaign, scenario};
use pmalloc_verify::place::Place;

const USAGE: &str = "--schedules N [--seed S] [--scenario NAME] [--policy eager|batched] [--failures MAX] [--site PLACE]";

/// Schedules between two lines of progress.
const PROGRESS: u64 = 5_000;

fn main() -> ExitCode {
    let (campaign, place) = match parse(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(message) => {
            eprintln!("{message}\nusage: {USAGE}");
            return ExitCode::FAILURE;
        }
    };
    if !cfg!(shuttle) {
        eprintln!("compiled without --cfg shuttle: real threads, which no seed controls");
    }
    println!("seeds from {} on", campaign.seed);
    match place {
        None => run(&campaign),
        Some(place) => plant(&campaign, &place),
    }
}

fn run(campaign: &Campaign) -> ExitCode {
    let report = campaign.run(|report| {
        if report.schedules.is_multiple_of(PROGRESS) {
            println!("{} schedules, {} failures", report.schedules, report.failures.len());
        }
    });
    for failure in &report.failures {
        println!("{failure}");
    }
    println!("{report}");
    if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Succeeds if a schedule notices the fault at `place`.
fn plant(campaign: &Campaign, place: &Place) -> ExitCode {
    let Some(site) = campaign.find(place) else {
        println!("NOT REACHED by {} schedules: {place}", campaign.schedules);
        return ExitCode::FAILURE;
    };
    let campaign = Campaign { mutation: Some(site), failures_max: 1, ..*campaign };
    let report = campaign.run(|_| ());
    match report.failures.first() {
        Some(failure) => {
            println!("{failure}\nkilled by schedule {}: {place}", report.schedules);
            ExitCode::SUCCESS
        }
        None => {
            println!("SURVIVED {} schedules: {place}", report.schedules);
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<(Campaign, Option<Place>), String> {
    let mut place = None;
    let mut campaign =
        Campaign { schedules: 2_000, seed: 1, failures_max: 4, ..Campaign::default() };
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{value} is no number"));
        match flag.as_str() {
            "--schedules" => campaign.schedules = number()?,
            "--failures" => {
                campaign.failures_max =
                    value.parse().map_err(|_| format!("{value} is no number"))?;
            }
            "--seed" => campaign.seed = number()?,
            "--site" => place = Some(value.parse()?),
            "--scenario" => campaign.scenario = Some(named(&value)?),
            "--policy" => {
                let policy = Policy::from_name(&value).ok_or("a policy is eager or batched")?;
                campaign.policy = Some(policy);
            }
            _ => return Err(format!("there is no {flag}")),
        }
    }
    Ok((campaign, place))
}

fn named(name: &str) -> Result<&'static scenario::Scenario, String> {
    scenario::find(name).ok_or_else(|| {
        let names: Vec<&str> = scenario::all().map(|scenario| scenario.name).collect();
        format!("there is no scenario {name}, but {}", names.join(", "))
    })
}
