//! A few scenarios hold, and a few broken rules are noticed: the quickest of what `cargo xtask model` explores.

use pmalloc_model::{Break, Campaign, Case, Domain, cases, trials};

const HELD: &[&str] = &[
    "alloc, free",
    "both alloc",
    "node",
    "hand-over",
    "policy: to Eager",
    "policy: to Batched",
    "two synchronizers, large",
    "slab given back",
    "copy",
    "Eager: large",
    "Eager: slab",
];

const NOTICED: &[Break] = &[
    Break::NoSlotLock,
    Break::StampBeforeLook,
    Break::NoMark,
    Break::UnmarkEarly,
    Break::NoWait,
    Break::TwoAtOnce,
    Break::NoBitFlush,
    Break::NoSlotFlush,
    Break::NoEntryFlush,
    Break::OneFence,
    Break::SlabInLimbo,
    Break::FreesFirst,
    Break::DurableKept,
    Break::ZeroWithEffects,
    Break::SlabUnfenced,
    Break::SlabEntryUnfenced,
    Break::EntriesByEpoch,
    Break::CopyInFlight,
    Break::LandBeforeRecord,
    Break::CopyAsOfDurable,
    Break::SwitchUnfenced,
    Break::SwitchKeepsRings,
    Break::NoWriteBack,
    Break::FreeEarly,
    Break::LikeEntryExists,
    Break::BehindLastValid,
];

fn find(name: &str, domain: Domain) -> Case {
    let mut all = cases(Campaign::Full).into_iter();
    all.find(|case| case.name() == name && case.domain() == domain)
        .unwrap_or_else(|| panic!("there is no scenario `{name}`"))
}

#[test]
fn every_crash_of_these_scenarios_leaves_all_or_nothing_of_each_operation() {
    for name in HELD {
        let outcome = find(name, Domain::Word8).run(None, Campaign::Quick.limits());
        assert!(outcome.is_complete, "{name}: cut off");
        assert!(outcome.violation.is_none(), "{name}: {:#?}", outcome.violation);
        assert!(outcome.recoveries > outcome.images, "{name}: no crash in a recovery");
    }
}

#[test]
fn these_broken_rules_are_noticed() {
    let trials = trials();
    for &broken in NOTICED {
        let trial = trials.iter().find(|trial| trial.broken == broken).expect("all are tried");
        let is_noticed = trial.cases.iter().any(|case| {
            let violation = case.run(Some(broken), Campaign::Quick.limits()).violation;
            violation.is_some_and(|violation| !violation.is_too_small())
        });
        assert!(is_noticed, "{broken} ({}) was not noticed", broken.about());
    }
}

#[test]
fn every_break_has_a_trial_and_every_scenario_its_own_name() {
    assert_eq!(trials().len(), Break::ALL.len());
    let mut names: Vec<_> =
        cases(Campaign::Full).iter().map(|case| (case.name(), case.domain().to_string())).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
