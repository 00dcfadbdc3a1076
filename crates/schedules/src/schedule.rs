//! Runs one schedule: boot, threads, crashes, and the judgement of every image.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use pmalloc::{
    Heap, Policy, Slot, Stats,
    persist::{
        sim::{CrashState, Domain, ExploreOptions, Sim, SimOptions, SiteCount, explore_state},
        sync::thread,
    },
};

use crate::{
    history::{Contents, History},
    image::{SecondRun, judge, judge_open, open, options, said},
    nodes,
    plan::{Plan, Turns},
    scenario::{SLOT_COUNT, SLOTS, SMALL, Scenario},
    threads::{self, Record},
};

/// Images that one crash is explored for exhaustively if it has no more.
const BUDGET: u64 = 24;

/// Accesses after which recovery is taken for hanging.
const STEP_LIMIT: u64 = 1 << 20;

/// A heap as a scenario's threads find it.
#[derive(Debug, Clone)]
pub struct Base {
    state: CrashState,
    start: Contents,
    /// Steps of a run in which the threads take turns.
    pub length: u64,
}

/// What a schedule came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What is wrong; empty if all is well.
    pub problems: Vec<String>,
    /// Calls and returns of the whole run.
    pub history: History,
    /// Per crash, how many calls were in flight.
    pub in_flight: Vec<usize>,
    /// Images that were recovered and judged, and of those in nested crashes.
    pub images: u64,
    /// Images of crashes inside recovery.
    pub nested_images: u64,
    /// Images that were worked with until a second crash.
    pub second_runs: u64,
    /// Steps at which the scheduler had a choice.
    pub steps: u64,
    /// The heap's figures at the end, if it came to that.
    pub stats: Option<Stats>,
}

impl Base {
    /// Formats a heap of the first policy, does what the scenario's setup says, and closes it. It is opened with the second.
    ///
    /// # Panics
    ///
    /// If that fails: then there is nothing to schedule yet.
    #[must_use]
    pub fn new(
        scenario: &'static Scenario,
        domain: Domain,
        (before, policy): (Policy, Policy),
    ) -> Self {
        let len_bytes = options(scenario, before).heap_bytes().expect("a valid geometry");
        let sim = Sim::new(SimOptions { len_bytes, domain });
        let on = sim.clone();
        let start = alone(move || setup((scenario, before), on));
        let mut base = Self { state: sim.crash_state(), start, length: 0 };
        base.length = base.measure(scenario, (domain, policy));
        base
    }

    /// The places where a scenario's threads store, flush or fence.
    #[must_use]
    pub fn sites(
        &self,
        scenario: &'static Scenario,
        domain: Domain,
        policy: Policy,
    ) -> Vec<SiteCount> {
        survey(&calm(scenario, (domain, policy)), self)
    }

    fn measure(&self, scenario: &'static Scenario, on: (Domain, Policy)) -> u64 {
        let outcome = execute(&calm(scenario, on), self, &self.state.newest(), None);
        assert_eq!(outcome.problems, Vec::<String>::new(), "{} does not work", scenario.name);
        outcome.steps
    }
}

/// The plan without a crash.
fn calm(scenario: &'static Scenario, (domain, policy): (Domain, Policy)) -> Plan {
    let plan = Plan::of(0, Some(scenario), Some(policy));
    Plan { domain, crashes: Vec::new(), turns: Turns::Random, ..plan }
}

fn setup((scenario, policy): (&Scenario, Policy), sim: Sim) -> Contents {
    // SAFETY: as for `open`.
    let heap =
        unsafe { options(scenario, policy).create_on_shared(sim) }.expect("a valid geometry");
    let slots = heap.slots(SLOTS, SLOT_COUNT).expect("an empty heap has room");
    threads::cell(&heap, 0).expect("an empty heap has room");
    if nodes::are_in(scenario) {
        nodes::slots(&heap).expect("an empty heap has room");
    }
    make_lanes(&heap, &slots[0], scenario.lanes_made);
    let record = Record::default();
    threads::run(&heap, 0, scenario.setup, &record, scenario);
    assert_eq!(record.problems(), Vec::<String>::new());
    heap.close().expect("no other handle is left");
    let mut start = Contents::of_root(SLOTS);
    for (nth, &op) in scenario.setup.iter().enumerate() {
        let outcome = start.apply(threads::id_of(0, nth), op);
        assert_eq!(outcome, crate::history::Outcome::Done, "the setup of {}", scenario.name);
    }
    start
}

/// Makes lanes beforehand: most of the many steps of making one are like each other, and a crash would rarely
/// fall on anything else.
fn make_lanes(heap: &Heap<Sim>, slot: &Slot, count: usize) {
    let mut sessions: Vec<_> = (0..count).map(|_| heap.session()).collect();
    for session in &mut sessions {
        session.alloc_to(slot, threads::layout(SMALL)).expect("an empty heap has room");
        session.free_from(slot).expect("it was just filled");
    }
}

/// Runs the schedule of `plan`, leaving out the persist at `mutation` if there is one.
#[must_use]
pub fn run(plan: &Plan, base: &Base, mutation: Option<SiteCount>) -> Outcome {
    let sim = base.state.newest();
    if let Some(site) = mutation {
        sim.mutate(site);
    }
    execute(plan, base, &sim, None)
}

/// The places where the schedule of `plan` stores, flushes or fences, recoveries included; one may be there twice.
#[must_use]
pub fn survey(plan: &Plan, base: &Base) -> Vec<SiteCount> {
    let sim = base.state.newest();
    let in_recovery = Sites::default();
    drop(execute(plan, base, &sim, Some(in_recovery.clone())));
    let in_recovery = std::mem::take(&mut *held(&in_recovery));
    [sim.sites(), in_recovery].concat()
}

/// Places that several threads find.
type Sites = Arc<Mutex<Vec<SiteCount>>>;

fn execute(plan: &Plan, base: &Base, sim: &Sim, in_recovery: Option<Sites>) -> Outcome {
    let world = Arc::new(World {
        plan: plan.clone(),
        start: base.start.clone(),
        sim: sim.clone(),
        record: Record::default(),
        in_recovery,
        is_at_work: Arc::default(),
        crashes: Mutex::default(),
        outcome: Mutex::default(),
    });
    let running = world.clone();
    let ran = catch_unwind(AssertUnwindSafe(|| under_plan(&running, base.length)));
    let mut outcome = std::mem::take(&mut *held(&world.outcome));
    match ran {
        Ok(steps) => outcome.steps = steps,
        Err(payload) => outcome.problems.push(format!("a panic: {}", message_of(&*payload))),
    }
    outcome.problems.extend(world.record.problems());
    outcome.problems.extend(sim.violations());
    outcome.history = world.record.history();
    outcome
}

fn message_of(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the threads of one schedule share with its scheduler and its judge.
struct World {
    plan: Plan,
    start: Contents,
    sim: Sim,
    record: Record,
    /// Gets the places that recoveries reach, if anybody asked for them.
    in_recovery: Option<Sites>,
    /// Whether the threads are at work.
    is_at_work: Arc<AtomicBool>,
    crashes: Mutex<Vec<(History, CrashState)>>,
    outcome: Mutex<Outcome>,
}

impl World {
    /// Freezes what a power failure would find now.
    fn crash(&self) {
        // Between these two only real threads can go on: what returns meanwhile counts as in flight.
        let before = self.record.history();
        let state = self.sim.crash_state();
        let history = self.record.history().with_returns_of(&before);
        held(&self.crashes).push((history, state));
    }

    /// The body of a schedule: opens the heap, lets the threads work, and judges what is left and what each
    /// crash would have left.
    fn play(self: &Arc<Self>) {
        match open(&self.sim, Some(self.plan.policy)) {
            Ok(heap) => self.play_on(heap),
            Err(error) => self.record.blame(said("open", &error)),
        }
        if self.plan.crashes.iter().any(|at| *at > 1000) {
            self.crash();
        }
        let crashes = std::mem::take(&mut *held(&self.crashes));
        for (history, state) in crashes {
            self.explore(history, &state);
        }
    }

    fn play_on(self: &Arc<Self>, heap: Heap<Sim>) {
        let scenario = self.plan.scenario;
        // Relaxed, here and below: the schedulers run on this thread.
        self.is_at_work.store(true, Ordering::Relaxed);
        let workers: Vec<_> = (1..)
            .zip(scenario.threads)
            .map(|(thread, ops)| {
                let (world, heap) = (self.clone(), heap.clone());
                thread::spawn(move || threads::run(&heap, thread, ops, &world.record, scenario))
            })
            .collect();
        for worker in workers {
            if let Err(payload) = worker.join() {
                self.record.blame(format!("a thread panicked: {}", message_of(&*payload)));
                return;
            }
        }
        self.is_at_work.store(false, Ordering::Relaxed);
        if let Err(problem) = judge_open(&heap, scenario, &self.start, &self.record.history()) {
            self.record.blame(format!("after all threads ended: {problem}"));
        }
        held(&self.outcome).stats = heap.stats().ok();
        if let Err(error) = heap.close() {
            self.record.blame(said("close", &error));
        }
    }

    fn explore(&self, history: History, state: &CrashState) {
        let (scenario, start) = (self.plan.scenario, self.start.clone());
        held(&self.outcome).in_flight.push(history.in_flight());
        let options = ExploreOptions {
            nesting: u32::from(self.plan.nested),
            budget: BUDGET,
            nested_budget: 4,
            samples: self.plan.samples,
            seed: self.plan.seed,
            step_limit: STEP_LIMIT,
            max_violations: 1,
            replay: None,
        };
        let in_recovery = self.in_recovery.clone();
        let seed = self.plan.seed;
        let second = self.plan.second_run.map(|operations| SecondRun { operations, seed });
        let check = move |sim: &Sim| {
            let verdict = judge(sim, scenario, (&start, &history), second);
            if let Some(sites) = &in_recovery {
                held(sites).extend(sim.sites());
            }
            verdict
        };
        let report = explore_state(state, options, check);
        let mut outcome = held(&self.outcome);
        outcome.images += report.classes;
        outcome.nested_images += report.nested_classes;
        outcome.second_runs += if second.is_some() { report.classes } else { 0 };
        outcome.problems.extend(report.violations.iter().map(ToString::to_string));
    }
}

#[cfg(shuttle)]
fn under_plan(world: &Arc<World>, length: u64) -> u64 {
    let plan = &world.plan;
    let crashes: Vec<u64> =
        plan.crashes.iter().map(|&at| 1 + length * u64::from(at) / 1000).collect();
    let steps = Arc::new(Mutex::new(0));
    let (frozen, counted) = (world.clone(), steps.clone());
    let on_step = move |step: u64| {
        *held(&counted) = step;
        crashes.iter().filter(|at| **at == step).for_each(|_| frozen.crash());
    };
    let scheduler = crate::scheduler::Planned::new(
        plan.turns.clone(),
        plan.seed,
        length,
        world.is_at_work.clone(),
        on_step,
    );
    let world = world.clone();
    shuttle::Runner::new(scheduler, config()).run(move || world.play());
    *held(&steps)
}

/// Runs `body` where volatile locks work, with nobody else.
#[cfg(shuttle)]
fn alone<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (input, output) = (Arc::new(Mutex::new(Some(body))), Arc::new(Mutex::new(None)));
    let result = output.clone();
    let scheduler = crate::scheduler::Planned::new(Turns::Random, 0, 1, Arc::default(), |_| {});
    shuttle::Runner::new(scheduler, config()).run(move || {
        let body = held(&input).take().expect("there is one execution");
        *held(&result) = Some(body());
    });
    held(&output).take().expect("the execution ended")
}

#[cfg(shuttle)]
fn config() -> shuttle::Config {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    config.failure_persistence = shuttle::FailurePersistence::None;
    config.silence_warnings = true;
    // Recovering many images counts as well.
    config.max_steps = shuttle::MaxSteps::FailAfter(1 << 28);
    config
}

#[cfg(not(shuttle))]
fn under_plan(world: &Arc<World>, _length: u64) -> u64 {
    let crashing = world.clone();
    let crasher = thread::spawn(move || {
        for &at in &crashing.plan.crashes {
            thread::sleep(std::time::Duration::from_micros(u64::from(at) / 4));
            crashing.crash();
        }
    });
    world.play();
    crasher.join().expect("a snapshot can be taken at any time");
    0
}

#[cfg(not(shuttle))]
fn alone<T>(body: impl FnOnce() -> T) -> T {
    body()
}
