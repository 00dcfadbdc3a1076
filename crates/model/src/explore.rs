//! Every interleaving, breadth first; in every state every image of a crash; in every recovery every crash.

use std::{collections::HashSet, fmt};

use crate::{
    fingerprint::fingerprint,
    layout::{Domain, Layout},
    memory::Image,
    recovery::Recovery,
    rule::Break,
    scenario::{Between, Op, Policy, Run, Scenario},
    thread::At,
    world::{Model, Truth, World},
};

/// Who makes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Actor {
    Thread(usize),
    Synchronizer(usize),
    /// The crash, or the close, between two runs.
    End,
}

/// What a step is called in a trace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label {
    pub(crate) actor: Actor,
    pub(crate) op: Option<Op>,
    pub(crate) what: &'static str,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.actor {
            Actor::Thread(nth) => write!(f, "T{nth} ")?,
            Actor::Synchronizer(nth) => write!(f, "S{nth} ")?,
            Actor::End => {}
        }
        if let Some(op) = self.op {
            write!(f, "{op:?}: ")?;
        }
        f.write_str(self.what)
    }
}

/// A successor of a state.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) world: World,
    pub(crate) label: Label,
}

/// How far an exploration goes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// States at which it gives up.
    pub states: usize,
    /// Crashes inside recoveries from crashes.
    pub nesting: u32,
}

/// What an exploration came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Distinct states.
    pub states: usize,
    /// Distinct images of crashes.
    pub images: u64,
    /// Recoveries, those from crashes in recoveries included.
    pub recoveries: u64,
    /// Whether no state was left out.
    pub is_complete: bool,
    /// The shortest way to a violation.
    pub violation: Option<Violation>,
}

/// A state in which a crash loses something, and how to get there.
#[derive(Debug)]
pub struct Violation {
    /// The steps.
    pub trace: Vec<String>,
    /// What is wrong.
    pub what: String,
}

impl Violation {
    /// Whether nothing is wrong but the scenario: there are no chunks left.
    #[must_use]
    pub fn is_too_small(&self) -> bool {
        self.what.contains("the scenario is too small")
    }
}

struct Explorer<'a> {
    model: Model<'a>,
    limits: Limits,
    outcome: Outcome,
    crashes: HashSet<u128>,
    judged: HashSet<u128>,
    nested: HashSet<u128>,
}

/// A state to be looked at, and its number.
type Found = (World, usize);

/// Explores a scenario, perhaps with a broken rule.
pub(crate) fn explore(
    scenario: &Scenario,
    domain: Domain,
    broken: Option<Break>,
    limits: Limits,
) -> Outcome {
    let model = Model { scenario, layout: Layout::new(scenario.shape, domain), broken };
    let mut explorer = Explorer {
        model,
        limits,
        outcome: Outcome::default(),
        crashes: HashSet::new(),
        judged: HashSet::new(),
        nested: HashSet::new(),
    };
    explorer.run();
    explorer.outcome
}

impl Explorer<'_> {
    fn run(&mut self) {
        let first = self.model.first();
        let mut seen = HashSet::from([fingerprint(&first)]);
        let mut parents: Vec<Option<(usize, Label)>> = vec![None];
        let mut frontier: Vec<Found> = vec![(first, 0)];
        while !frontier.is_empty() {
            let mut behind = Vec::new();
            for (world, number) in frontier {
                let mut steps = Vec::new();
                if let Err(what) = self.visit(&world, &mut steps) {
                    let trace = trace(&parents, number);
                    self.outcome.states = seen.len();
                    self.outcome.violation = Some(Violation { trace, what });
                    return;
                }
                for Step { world, label } in steps {
                    if seen.insert(fingerprint(&world)) {
                        parents.push(Some((number, label)));
                        behind.push((world, parents.len() - 1));
                    }
                }
                if seen.len() > self.limits.states {
                    self.outcome.states = seen.len();
                    return;
                }
            }
            frontier = behind;
        }
        self.outcome.states = seen.len();
        self.outcome.is_complete = true;
    }

    /// Judges all crashes in a state, and finds its successors.
    fn visit(&mut self, world: &World, steps: &mut Vec<Step>) -> Result<(), String> {
        self.crash(world, steps)?;
        for thread in 0..self.model.layout.shape().lanes {
            self.model.step(world, thread, steps);
        }
        for nth in 0..self.model.scenario.synchronizers {
            self.model.synchronize(world, nth, steps);
        }
        if let Some(world) = self.close(world)? {
            let label = Label { actor: Actor::End, op: None, what: "CLOSE, open" };
            steps.push(Step { world, label });
        }
        Ok(())
    }

    fn crash(&mut self, world: &World, steps: &mut Vec<Step>) -> Result<(), String> {
        let allowed = self.model.allowed(world);
        let key = fingerprint(&(world.memory.crash_state(), &allowed, world.run));
        if !self.crashes.insert(key) {
            return Ok(());
        }
        let killed = self.recover_killed(world, &allowed)?;
        world.memory.images(|image, survivors| {
            let judged = self.judge(world, image, &allowed).and_then(|recovered| {
                self.lose_power(world, image, killed.as_ref()).map(|()| recovered)
            });
            let recovered = judged.map_err(|what| {
                let pending = survivors.describe(&self.model.layout);
                let durable = image.get(self.model.layout.durable());
                format!("{what} | D = {durable} | of what was pending: {pending}")
            })?;
            if let Some((image, truth)) = recovered
                && self.has_second_run(world, Between::Crash)
            {
                let world = self.model.begin(Run::Second, &image, truth)?;
                let label = Label { actor: Actor::End, op: None, what: "CRASH, recovery" };
                steps.push(Step { world, label });
            }
            Ok(())
        })
    }

    fn has_second_run(&self, world: &World, end: Between) -> bool {
        let between = self.model.scenario.between;
        let has = between == end || between == Between::CrashOrClose;
        world.run == Run::First && !self.model.scenario.second.is_empty() && has
    }

    /// Recovers an image and finds the truth that it shows; `None` if it was judged before.
    fn judge(
        &mut self,
        world: &World,
        image: &Image,
        allowed: &[Truth],
    ) -> Result<Option<(Image, Truth)>, String> {
        if !self.judged.insert(fingerprint(&(image, allowed, world.run))) {
            return Ok(None);
        }
        self.outcome.images += 1;
        self.outcome.recoveries += 1;
        let policy = self.model.policy(world);
        let recovered = self.model.recover(image, policy)?.image;
        let mut wrong = Vec::new();
        for truth in allowed {
            match self.model.judge(&recovered, truth) {
                Ok(()) => {
                    self.nest(image, policy, truth, self.limits.nesting)?;
                    return Ok(Some((recovered, *truth)));
                }
                Err(what) => wrong.push(what),
            }
        }
        Err(wrong.join("; or "))
    }

    /// Crashes in each phase of the recovery from an image, and recovers again.
    fn nest(
        &mut self,
        image: &Image,
        policy: Policy,
        truth: &Truth,
        depth: u32,
    ) -> Result<(), String> {
        let key = fingerprint(&(image, truth, policy == Policy::Eager, depth));
        if depth == 0 || !self.nested.insert(key) {
            return Ok(());
        }
        let recovery = self.model.recover(image, policy)?;
        self.cut_off(image, &recovery, policy, truth, depth)
    }

    /// Crashes in each phase of a recovery that begins when `durable` is what media hold.
    fn cut_off(
        &mut self,
        durable: &Image,
        recovery: &Recovery,
        policy: Policy,
        truth: &Truth,
        depth: u32,
    ) -> Result<(), String> {
        let mut before = durable.clone();
        for (number, phase) in recovery.phases.iter().enumerate() {
            for cut in phase.cuts(&before) {
                self.recover_again(&cut, policy, truth, depth)
                    .map_err(|what| format!("a crash in phase {number} of recovery: {what}"))?;
            }
            phase.finish(&mut before);
        }
        self.model.judge(&before, truth).map_err(|what| format!("a crash behind recovery: {what}"))
    }

    fn recover_again(
        &mut self,
        image: &Image,
        policy: Policy,
        truth: &Truth,
        depth: u32,
    ) -> Result<(), String> {
        self.outcome.recoveries += 1;
        let recovered = self.model.recover(image, policy)?.image;
        self.model.judge(&recovered, truth)?;
        self.nest(image, policy, truth, depth - 1)
    }

    /// Recovers a heap whose process was killed: caches are as they were.
    fn recover_killed(
        &mut self,
        world: &World,
        allowed: &[Truth],
    ) -> Result<Option<(Recovery, Truth)>, String> {
        if !self.model.scenario.is_killed {
            return Ok(None);
        }
        let policy = self.model.policy(world);
        let recovery = self.model.recover(world.memory.cache(), policy)?;
        let fits = |truth: &&Truth| self.model.judge(&recovery.image, truth).is_ok();
        let truth = allowed.iter().find(fits).copied();
        Ok(Some((recovery, truth.ok_or("a killed process leaves none of what may be")?)))
    }

    /// Loses power in the recovery of a killed process's heap: `image` is what was durable when it was killed.
    fn lose_power(
        &mut self,
        world: &World,
        image: &Image,
        killed: Option<&(Recovery, Truth)>,
    ) -> Result<(), String> {
        let Some((recovery, truth)) = killed else { return Ok(()) };
        let mut written = image.clone();
        if !self.model.breaks(Break::NoWriteBack) {
            for word in self.model.layout.metadata() {
                written.set(word, world.memory.load(word));
            }
        }
        let key = fingerprint(&(&written, world.memory.cache(), truth, world.run));
        if !self.nested.insert(key) {
            return Ok(());
        }
        let policy = self.model.policy(world);
        self.cut_off(&written, recovery, policy, truth, 1)
            .map_err(|what| format!("killed, then power is lost: {what}"))
    }

    /// Closes the heap where no operation runs and all is durable, and opens it again.
    fn close(&self, world: &World) -> Result<Option<World>, String> {
        let ends = [Between::CrashOrClose, Between::SwitchPolicy];
        let is_end = ends.into_iter().any(|end| self.has_second_run(world, end));
        if !is_end || !self.is_closable(world) {
            return Ok(None);
        }
        let model = &self.model;
        let mut image = world.memory.crash_state().0.clone();
        let is_kept = model.breaks(Break::RingsKept) || model.breaks(Break::SwitchKeepsRings);
        if !is_kept {
            model.layout.ring_words().for_each(|word| image.set(word, 0));
        }
        model.begin(Run::Second, &image, world.truth).map(Some)
    }

    fn is_closable(&self, world: &World) -> bool {
        let is_quiet =
            world.threads.iter().all(|thread| thread.at == At::Start) && !world.is_synchronizing;
        if self.model.policy(world) == Policy::Eager {
            return is_quiet && world.memory.is_settled();
        }
        let newest = world.lanes.iter().flat_map(|lane| &lane.epochs).max().copied().unwrap_or(0);
        if self.model.breaks(Break::CloseOneShort) {
            return is_quiet && newest <= world.durable + 1;
        }
        is_quiet && newest <= world.durable && world.memory.is_settled()
    }
}

fn trace(parents: &[Option<(usize, Label)>], last: usize) -> Vec<String> {
    let mut steps = Vec::new();
    let mut number = last;
    while let Some((before, label)) = &parents[number] {
        steps.push(label.to_string());
        number = *before;
    }
    steps.reverse();
    steps
}
