//! Runs many schedules and says what they covered.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use pmalloc::{
    Policy,
    persist::sim::{Domain, SiteCount},
};
use pmalloc_verify::place::Place;

use crate::{
    history,
    plan::Plan,
    scenario::Scenario,
    schedule::{self, Base, Outcome},
};

/// Which schedules to run.
#[derive(Debug, Clone, Default)]
pub struct Campaign {
    /// How many.
    pub schedules: u64,
    /// Seed of the first; the others follow.
    pub seed: u64,
    /// The only scenario, or all.
    pub scenario: Option<&'static Scenario>,
    /// The only policy, or both.
    pub policy: Option<Policy>,
    /// A persist that is left out, to see that it is missed.
    pub mutation: Option<SiteCount>,
    /// Failures after which it ends.
    pub failures_max: usize,
}

/// A schedule that went wrong.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Everything about it.
    pub plan: Plan,
    /// What is wrong.
    pub problems: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { seed, scenario, policy, turns, domain, .. } = &self.plan;
        let (name, policy) = (scenario.name, policy.name());
        writeln!(f, "FAILED: {name} with seed {seed} ({policy}, {turns:?}, {domain:?})")?;
        writeln!(f, "  again: --scenario {name} --policy {policy} --seed {seed} --schedules 1")?;
        self.problems.iter().try_for_each(|problem| writeln!(f, "  {problem}"))
    }
}

/// What a campaign came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Schedules run.
    pub schedules: u64,
    /// Of these, under the policy Batched.
    pub batched: u64,
    /// Images that were worked with until a second crash.
    pub second_runs: u64,
    /// Crashes, by the number of calls in flight.
    pub crashes: BTreeMap<usize, u64>,
    /// Images recovered and judged.
    pub images: u64,
    /// Images of crashes inside recovery.
    pub nested_images: u64,
    /// Points at which a scheduler had a choice.
    pub steps: u64,
    /// Calls that returned, by what they returned.
    pub returns: BTreeMap<&'static str, u64>,
    /// Schedules in which a log dropped chunks, and in which one was copied.
    pub collections: (u64, u64),
    /// What went wrong.
    pub failures: Vec<Failure>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Campaign {
    /// Runs the schedules, calling `progress` after each.
    pub fn run(&self, mut progress: impl FnMut(&Report)) -> Report {
        let mut bases = Bases::default();
        let mut report = Report::default();
        let started = Instant::now();
        for plan in self.plans() {
            let outcome = schedule::run(&plan, bases.of(&plan), self.mutation);
            report.add(plan, outcome);
            report.elapsed = started.elapsed();
            progress(&report);
            if report.failures.len() >= self.failures_max {
                break;
            }
        }
        report
    }

    /// The site at `place`: runs the schedules, without a fault, until one reaches it.
    #[must_use]
    pub fn find(&self, place: &Place) -> Option<SiteCount> {
        let mut bases = Bases::default();
        let is_there = |site: &SiteCount| matches!(Place::of(site), Ok(Some(at)) if at == *place);
        self.plans()
            .find_map(|plan| schedule::survey(&plan, bases.of(&plan)).into_iter().find(is_there))
    }

    fn plans(&self) -> impl Iterator<Item = Plan> {
        (0..self.schedules)
            .map(|nth| Plan::of(self.seed.wrapping_add(nth), self.scenario, self.policy))
    }
}

/// The heaps that schedules begin with, made when they are needed.
#[derive(Default)]
struct Bases(BTreeMap<(&'static str, [bool; 3]), Base>);

impl Bases {
    fn of(&mut self, plan: &Plan) -> &Base {
        let are_batched = [plan.policy_before, plan.policy].map(|one| one == Policy::Batched);
        let key =
            (plan.scenario.name, [plan.domain == Domain::Word8, are_batched[0], are_batched[1]]);
        self.0.entry(key).or_insert_with(|| {
            Base::new(plan.scenario, plan.domain, (plan.policy_before, plan.policy))
        })
    }
}

impl Report {
    /// Adds what `other` came to.
    pub fn merge(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.batched += other.batched;
        self.second_runs += other.second_runs;
        self.images += other.images;
        self.nested_images += other.nested_images;
        self.steps += other.steps;
        for (in_flight, count) in other.crashes {
            *self.crashes.entry(in_flight).or_default() += count;
        }
        for (outcome, count) in other.returns {
            *self.returns.entry(outcome).or_default() += count;
        }
        self.collections.0 += other.collections.0;
        self.collections.1 += other.collections.1;
        self.failures.extend(other.failures);
        self.elapsed += other.elapsed;
    }

    fn add(&mut self, plan: Plan, outcome: Outcome) {
        self.schedules += 1;
        self.batched += u64::from(plan.policy == Policy::Batched);
        self.second_runs += outcome.second_runs;
        self.images += outcome.images;
        self.nested_images += outcome.nested_images;
        self.steps += outcome.steps;
        for in_flight in outcome.in_flight {
            *self.crashes.entry(in_flight).or_default() += 1;
        }
        for call in outcome.history.calls() {
            let Some((_, outcome)) = call.returned else { continue };
            *self.returns.entry(name_of(outcome)).or_default() += 1;
        }
        if let Some(stats) = outcome.stats {
            self.collections.0 += u64::from(stats.log.fast_gc > 0);
            self.collections.1 += u64::from(stats.log.slow_gc > 0);
        }
        if !outcome.problems.is_empty() {
            self.failures.push(Failure { plan, problems: outcome.problems });
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            schedules, batched, images, nested_images, second_runs, steps, failures, ..
        } = self;
        let crashes: u64 = self.crashes.values().sum();
        let in_flight: Vec<String> =
            self.crashes.iter().map(|(calls, count)| format!("{calls}: {count}")).collect();
        let returns: Vec<String> =
            self.returns.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(
            f,
            "{schedules} schedules, {batched} of them batched, {steps} steps, {crashes} crashes, {images} images and \
             {nested_images} of crashes in recovery, {second_runs} second runs, {} failures, {:.1} s",
            failures.len(),
            self.elapsed.as_secs_f64()
        )?;
        writeln!(f, "  crashes by calls in flight: {}", in_flight.join(", "))?;
        writeln!(f, "  calls returned: {}", returns.join(", "))?;
        let (fast, slow) = self.collections;
        write!(f, "  schedules in which a log dropped chunks: {fast}, was copied: {slow}")
    }
}

fn name_of(outcome: history::Outcome) -> &'static str {
    match outcome {
        history::Outcome::Done => "done",
        history::Outcome::SlotFull => "slot full",
        history::Outcome::SlotEmpty => "slot empty",
        history::Outcome::NoRoom => "no room",
        history::Outcome::ChildrenAlive => "children alive",
        history::Outcome::ParentGone => "parent gone",
        history::Outcome::Saw(_) => "read",
    }
}
