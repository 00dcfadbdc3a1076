//! Cases and trials: scenarios that must hold, and breaks that must be noticed.

use crate::{
    explore::{Limits, Outcome, explore},
    layout::Domain,
    rule::Break,
    scenario::Scenario,
    scenarios,
};

/// How much is explored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Campaign {
    /// What CI runs.
    Quick,
    /// All scenarios, and crashes in recoveries from crashes in recovery.
    Full,
}

impl Campaign {
    /// How far each exploration goes.
    #[must_use]
    pub fn limits(self) -> Limits {
        match self {
            Self::Quick => Limits { states: 2_000_000, nesting: 1 },
            Self::Full => Limits { states: 20_000_000, nesting: 2 },
        }
    }
}

/// A scenario in a domain.
#[derive(Debug)]
pub struct Case {
    scenario: Scenario,
    domain: Domain,
}

impl Case {
    /// The scenario's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.scenario.name
    }

    /// Its threads, and what the heap consists of.
    #[must_use]
    pub fn details(&self) -> String {
        format!("{:#?}", self.scenario)
    }

    /// What happens in it.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.scenario.about
    }

    /// What survives a crash in it.
    #[must_use]
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// Explores it, perhaps with a broken rule.
    #[must_use]
    pub fn run(&self, broken: Option<Break>, limits: Limits) -> Outcome {
        explore(&self.scenario, self.domain, broken, limits)
    }
}

/// The cases of a campaign.
#[must_use]
pub fn cases(campaign: Campaign) -> Vec<Case> {
    let mut cases = Vec::new();
    for scenario in scenarios::all() {
        if scenario.is_long && campaign == Campaign::Quick {
            continue;
        }
        for &domain in scenario.domains {
            cases.push(Case { scenario: scenario.clone(), domain });
        }
    }
    cases
}

/// A case drawn by a seed: other operations, other shapes, the same questions.
#[must_use]
pub fn random(seed: u64) -> Case {
    let mut random = fastrand::Rng::with_seed(seed);
    let scenario = scenarios::random(&mut random);
    let domain = if random.u8(..4) == 0 { Domain::Line64 } else { Domain::Word8 };
    Case { scenario, domain }
}

/// A break, and the cases of which one has to notice it.
#[derive(Debug)]
pub struct Trial {
    /// What is broken.
    pub broken: Break,
    /// Tried in this order.
    pub cases: Vec<Case>,
}

/// One trial for each break.
///
/// # Panics
///
/// If a scenario is named that does not exist.
#[must_use]
pub fn trials() -> Vec<Trial> {
    let all = scenarios::all();
    let case = |name: &str| {
        let scenario = all.iter().find(|scenario| scenario.name == name);
        let scenario = scenario.unwrap_or_else(|| panic!("there is no scenario `{name}`")).clone();
        Case { scenario, domain: Domain::Word8 }
    };
    let trial = |&broken: &Break| {
        let names = scenarios::scenarios_for(broken);
        Trial { broken, cases: names.iter().map(|name| case(name)).collect() }
    };
    Break::ALL.iter().map(trial).collect()
}
