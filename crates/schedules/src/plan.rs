//! Everything that a seed decides.

use pmalloc::persist::sim::Domain;

use crate::scenario::{SCENARIOS, Scenario};

/// How the next thread is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
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
    /// Who runs when.
    pub policy: Policy,
    /// The moments of the crashes, in thousandths of the scenario's usual length; beyond it, a crash comes when
    /// all is done.
    pub crashes: Vec<u32>,
    /// Whether recovery is crashed, too.
    pub nested: bool,
    /// Images of one crash that are run if it has too many for all.
    pub samples: u64,
}

impl Plan {
    /// What `seed` decides, of one certain scenario or of any.
    #[must_use]
    pub fn of(seed: u64, scenario: Option<&'static Scenario>) -> Self {
        let rng = &mut fastrand::Rng::with_seed(seed);
        let drawn = &SCENARIOS[rng.usize(..SCENARIOS.len())];
        let policy = match rng.u32(..4) {
            0 => Policy::Random,
            1 => Policy::Sticky(1 << rng.u32(1..6)),
            _ => Policy::Priorities(rng.u32(1..5)),
        };
        let domain = if rng.bool() { Domain::Line64 } else { Domain::Word8 };
        let crashes = (0..CRASHES).map(|_| rng.u32(..1100)).collect();
        let nested = rng.u32(..16) == 0;
        Self {
            seed,
            scenario: scenario.unwrap_or(drawn),
            domain,
            policy,
            crashes,
            nested,
            samples: 6,
        }
    }
}

/// Crashes of one schedule: each is a snapshot, after which the threads go on.
const CRASHES: usize = 2;
