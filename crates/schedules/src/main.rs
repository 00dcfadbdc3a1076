//! Runs schedules from the command line.
//!
//! `pmalloc-schedules --schedules N [--seed S] [--scenario NAME] [--failures MAX]`

use std::process::ExitCode;

use pmalloc_schedules::{
    campaign::Campaign,
    scenario::{self, SCENARIOS},
};

/// Schedules between two lines of progress.
const PROGRESS: u64 = 5_000;

fn main() -> ExitCode {
    let campaign = match parse(std::env::args().skip(1)) {
        Ok(campaign) => campaign,
        Err(message) => {
            eprintln!(
                "{message}\nusage: --schedules N [--seed S] [--scenario NAME] [--failures MAX]"
            );
            return ExitCode::FAILURE;
        }
    };
    if !cfg!(shuttle) {
        eprintln!("compiled without --cfg shuttle: real threads, which no seed controls");
    }
    println!("seeds from {} on", campaign.seed);
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

fn parse(mut args: impl Iterator<Item = String>) -> Result<Campaign, String> {
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
            "--scenario" => campaign.scenario = Some(named(&value)?),
            _ => return Err(format!("there is no {flag}")),
        }
    }
    Ok(campaign)
}

fn named(name: &str) -> Result<&'static scenario::Scenario, String> {
    scenario::find(name).ok_or_else(|| {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        format!("there is no scenario {name}, but {}", names.join(", "))
    })
}
