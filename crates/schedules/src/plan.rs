//! Everything that a seed decides.

use pmalloc::{Policy, persist::sim::Domain};

use crate::scenario::{self, Scenario};

/// How the next thread is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turns {
    /// Any thread that can run, at every step.
    Random,
    /// The present thread goes on but for one step in so many.
    Sticky(u32),
    /// The thread of highest priority; at so many random steps the present one gets the lowest (Burckhardt et
    /// al., ASPLOS 2010).
    Priorities(u32),
}

/// A schedule to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Names the plan.
    pub seed: u64,
    /// What the threads do.
    pub scenario: &'static Scenario,
    /// What a power failure preserves.
    pub domain: Domain,
    /// When the heap makes effects durable.
    pub policy: Policy,
    /// The same before the threads, who open it: the heap is switched if it was another.
    pub policy_before: Policy,
    /// Who runs when.
    pub turns: Turns,
    /// The moments of the crashes, in thousandths of the scenario's usual length; beyond it, a crash comes when
    /// all is done.
    pub crashes: Vec<u32>,
    /// Whether recovery is crashed, too.
    pub nested: bool,
    /// Whether what recovery leaves is worked with until a crash, too, and after how many operations that comes.
    pub second_run: Option<usize>,
    /// Images of one crash that are run if it has too many for all.
    pub samples: u64,
}

impl Plan {
    /// What `seed` decides, of one certain scenario or of any, and under one policy or any.
    ///
    /// # Panics
    ///
    /// If there are no scenarios.
    #[must_use]
    pub fn of(seed: u64, scenario: Option<&'static Scenario>, policy: Option<Policy>) -> Self {
        let rng = &mut fastrand::Rng::with_seed(seed);
        let drawn = rng.choice(scenario::all()).expect("there are scenarios");
        let turns = match rng.u32(..4) {
            0 => Turns::Random,
            1 => Turns::Sticky(1 << rng.u32(1..6)),
            _ => Turns::Priorities(rng.u32(1..5)),
        };
        let domain = if rng.bool() { Domain::Line64 } else { Domain::Word8 };
        let crashes = (0..CRASHES).map(|_| rng.u32(..1100)).collect();
        let nested = rng.u32(..16) == 0;
        let any_policy = if rng.bool() { Policy::Batched } else { Policy::Eager };
        let policy = policy.unwrap_or(any_policy);
        let policy_before = if rng.u32(..8) == 0 { other(policy) } else { policy };
        let second_run = (rng.u32(..4) == 0).then(|| rng.usize(..SECOND_RUN_MAX));
        Self {
            seed,
            scenario: scenario.unwrap_or(drawn),
            domain,
            policy,
            policy_before,
            turns,
            crashes,
            nested,
            second_run,
            samples: 6,
        }
    }
}

fn other(policy: Policy) -> Policy {
    if policy == Policy::Eager { Policy::Batched } else { Policy::Eager }
}

/// Crashes of one schedule: each is a snapshot, after which the threads go on.
const CRASHES: usize = 2;

/// Operations of a second run before its crash, at most; not all of them find something to do.
const SECOND_RUN_MAX: usize = 16;
