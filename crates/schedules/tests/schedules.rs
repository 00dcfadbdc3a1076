//! Goal: whatever the order of the threads' steps, and whenever the power fails, what had returned is there,
//! what had not is there wholly or not at all, and nothing is lost.
//!
//! Method: schedules drawn by seeds, random and by priorities, of all scenarios; each is crashed at two random
//! steps, and the images are recovered and judged, half of them under the policy Batched. Then the same with one fence of the operations left
//! out at a time: each must be missed. Under `--cfg shuttle` a seed fixes a schedule; without it the scenarios
//! run on real threads.

use pmalloc::Policy;
use pmalloc_schedules::{
    campaign::{Campaign, Report},
    scenario,
};

/// Schedules of each policy: 20 000 of both. Under Batched less is durable, so that more images are to be judged.
const EAGER: u64 = if cfg!(shuttle) { 13_000 } else { 200 };
const BATCHED: u64 = if cfg!(shuttle) { 7_000 } else { 75 };

fn run(campaign: &Campaign) -> Report {
    let report = campaign.run(|_| ());
    println!("{report}");
    report
}

fn leaves_a_whole_heap_behind(policy: Policy, schedules: u64) {
    let campaign = Campaign {
        schedules,
        seed: 1,
        policy: Some(policy),
        failures_max: 1,
        ..Campaign::default()
    };
    let report = run(&campaign);
    for failure in &report.failures {
        println!("{failure}");
    }
    assert!(report.failures.is_empty(), "replay with the command above");
    assert_eq!(report.schedules, schedules);
    assert!(report.images >= report.crashes.values().sum());
    assert!(report.second_runs > 0);
}

#[test]
fn every_schedule_leaves_a_whole_heap_behind_and_so_does_every_crash() {
    leaves_a_whole_heap_behind(Policy::Eager, EAGER);
}

#[test]
fn under_the_policy_batched_too() {
    leaves_a_whole_heap_behind(Policy::Batched, BATCHED);
}

#[test]
fn every_scenario_works_and_together_they_reach_what_they_are_for() {
    let mut all = Report::default();
    for scenario in scenario::all() {
        let collects = scenario.name.starts_with("log-collection");
        let schedules = if cfg!(shuttle) { if collects { 200 } else { 40 } } else { 4 };
        let campaign = Campaign {
            schedules,
            seed: 7_000_000,
            scenario: Some(scenario),
            failures_max: 1,
            ..Campaign::default()
        };
        let report = campaign.run(|_| ());
        assert!(report.failures.is_empty(), "{}", report.failures[0]);
        if cfg!(shuttle) && scenario.name.starts_with("typed-parent") {
            // Whoever is first: both happen, or the threads don't meet.
            for outcome in ["children alive", "parent gone"] {
                let found = report.returns.contains_key(outcome);
                assert!(found, "{}: no call returned {outcome:?}", scenario.name);
            }
        }
        all.merge(report);
    }
    println!("{all}");
    // Real threads are too quick for one another to be sure to meet.
    if cfg!(shuttle) {
        assert!(all.collections.0 > 0, "no log dropped a chunk");
        assert!((0..=3).all(|calls| all.crashes.contains_key(&calls)), "{:?}", all.crashes);
        for outcome in ["done", "slot full", "slot empty", "no room", "read"] {
            assert!(all.returns.contains_key(outcome), "no call ever returned {outcome:?}");
        }
    }
}

#[cfg(shuttle)]
mod power {
    use pmalloc::persist::sim::{Domain, SiteCount, SiteKind};
    use pmalloc_schedules::{scenario, schedule::Base};

    use super::*;

    /// Schedules within which a missing persist must show.
    const PATIENCE: u64 = 3_000;

    /// The persists of `kind` that `file` makes in the scenario `name`.
    fn sites(name: &str, policy: Policy, kind: SiteKind, file: &str) -> Vec<SiteCount> {
        let scenario = scenario::find(name).expect("a scenario");
        let base = Base::new(scenario, Domain::Word8, (policy, policy));
        let mut sites = base.sites(scenario, Domain::Word8, policy);
        sites.retain(|site| site.kind == kind && site.location.file().ends_with(file));
        sites
    }

    fn schedules_until_missed(name: &str, policy: Policy, site: SiteCount) -> u64 {
        let report = Campaign {
            schedules: PATIENCE,
            seed: 1,
            scenario: scenario::find(name),
            policy: Some(policy),
            mutation: Some(site),
            failures_max: 1,
        }
        .run(|_| ());
        assert!(!report.failures.is_empty(), "{name}: nobody misses {site:?}");
        report.schedules
    }

    #[test]
    fn each_fence_of_the_operations_is_missed() {
        // One operation per thread where it matters: the lane's next one would make up for its last fence.
        let (eager, batched) = (Policy::Eager, Policy::Batched);
        for (name, policy, file, fences) in [
            ("freed-by-one-used-by-the-other", eager, "op/commit.rs", 3),
            ("free-of-the-other-one-arena", eager, "op/commit.rs", 3),
            ("free-of-the-other-one-arena", eager, "op/alloc.rs", 1),
            ("large-freed-by-one-used-by-the-other", eager, "op/commit.rs", 3),
            ("large-one-log", eager, "op/commit.rs", 3),
            ("replaced-by-one-used-by-the-other", eager, "op/commit.rs", 3),
            ("publish", eager, "core/pending.rs", 1),
            ("alloc-free", batched, "op/commit.rs", 1),
            ("large-one-log", batched, "op/commit.rs", 1),
            ("rounds-at-once", batched, "op/synchronizer.rs", 1),
            ("large-across-rounds", batched, "op/synchronizer.rs", 1),
        ] {
            let sites = sites(name, policy, SiteKind::Fence, file);
            assert_eq!(sites.len(), fences, "{sites:?}");
            for site in sites {
                let schedules = schedules_until_missed(name, policy, site);
                println!(
                    "{name}, {}: the fence at {} is missed after {schedules}",
                    policy.name(),
                    site.location
                );
            }
        }
    }
}
