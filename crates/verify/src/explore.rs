//! One case: a start state, a sequence of operations, a domain, a nesting depth.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use pmalloc::{
    Error, Policy,
    persist::{
        Medium, Offset, Word,
        sim::{BackFault, Domain, ExploreOptions, Explorer, ImageId, Report, Sim, SiteCount},
    },
};

use crate::{
    alphabet::Step,
    cache::Story,
    model::{Model, Shared},
    oracle::{self, ABSENT, Oracle},
    owners::{self, Change},
    start::Start,
    world::{self, World},
};

/// What happens while every crash is explored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scene {
    /// Steps from a start state; the last one is explored.
    Steps(Start, Vec<Step>),
    /// The same, and recovery finds the file system full.
    FullDisk(Start, Vec<Step>),
    /// The last step finds the file system full, from its n-th call for memory on.
    NoRoom(Start, Vec<Step>, u64),
    /// Steps from a start state in a heap that gives memory back as soon as it is free; the last one is explored.
    KeepingNothing(Start, Vec<Step>),
    /// A step from a start state, in which the process is killed at the n-th call that changes the medium: power is not lost.
    /// Another process opens the heap, which is explored, and so is the step that follows.
    Killed(Start, Step, u64, Step),
    /// A declaration of slots, or a change of blocks that nothing owns.
    Owners(Change),
    /// Creating a heap, and its first root array.
    Create,
    /// Creating a heap, in which the process is killed at the n-th call that changes the medium. Another process opens it, if
    /// it is one, which is explored.
    KilledCreate(u64),
    /// Closing a heap in a start state.
    Close(Start),
    /// Closing a heap in a start state and opening it again.
    Open(Start),
    /// A heap on a file in the page cache.
    Cached(Story),
}

/// A scene, and how its crashes are explored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Case {
    /// What happens.
    pub scene: Scene,
    /// What a crash preserves.
    pub domain: Domain,
    /// Crashes inside recovery.
    pub nesting: u32,
    /// The policy of the heap.
    pub policy: Policy,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scene {
            Scene::Steps(start, steps) => write_steps(f, *start, steps)?,
            Scene::FullDisk(start, steps) => {
                write!(f, "FullDisk ")?;
                write_steps(f, *start, steps)?;
            }
            Scene::KeepingNothing(start, steps) => {
                write!(f, "KeepingNothing ")?;
                write_steps(f, *start, steps)?;
            }
            Scene::NoRoom(start, steps, nth) => {
                write!(f, "NoRoom {nth} ")?;
                write_steps(f, *start, steps)?;
            }
            Scene::Killed(start, step, nth, then) => {
                write!(f, "{start:?} {step} killed at {nth}, then {then}")?;
            }
            Scene::Owners(change) => write!(f, "Owners {change:?}")?,
            Scene::Create => write!(f, "Create")?,
            Scene::KilledCreate(nth) => write!(f, "Create killed at {nth}")?,
            Scene::Close(start) => write!(f, "Close {start:?}")?,
            Scene::Open(start) => write!(f, "Open {start:?}")?,
            Scene::Cached(story) => write!(f, "{story}")?,
        }
        write!(f, " {:?} nesting {}", self.domain, self.nesting)?;
        if self.policy == Policy::Eager { Ok(()) } else { write!(f, " {:?}", self.policy) }
    }
}

fn write_steps(f: &mut fmt::Formatter<'_>, start: Start, steps: &[Step]) -> fmt::Result {
    write!(f, "{start:?}")?;
    steps.iter().try_for_each(|step| write!(f, " {step}"))
}

/// How a case is run.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    /// A fault to plant.
    pub fault: Option<SiteCount>,
    /// The only image to run.
    pub replay: Option<ImageId>,
    /// How far to explore.
    pub effort: Effort,
    /// Whether the oracle is told a wrong state, or made to see one, to see that it notices.
    pub lie: Option<Lie>,
}

/// How far to explore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effort {
    /// As far as the sets go.
    #[default]
    Full,
    /// Points of many classes are sampled: a fault that leaves stores open makes many, and most find it.
    Brief,
}

impl Effort {
    fn limit(self, options: ExploreOptions) -> ExploreOptions {
        match self {
            Self::Full => options,
            Self::Brief => ExploreOptions { budget: 1 << 6, nested_budget: 1 << 3, ..options },
        }
    }
}

/// A wrong state, for the oracle to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// A block more than there is.
    Lost,
    /// A block less than there is.
    Leaked,
    /// A block with other contents.
    Changed,
    /// A cell with another value.
    Set,
    /// Freed memory does not come back: it waits for a guard.
    Hoarded,
}

impl Case {
    /// Explores the case; `sites` gets every place that stored, flushed or fenced.
    #[must_use]
    pub fn run(&self, conditions: &Conditions) -> (Report, Vec<SiteCount>) {
        let sim = world::medium(self.domain);
        if let Some(fault) = conditions.fault {
            sim.mutate(fault);
        }
        let expected = Shared::default();
        let report = match &self.scene {
            Scene::Steps(start, steps) | Scene::FullDisk(start, steps) => {
                let world = start.empty(sim.clone(), self.policy);
                self.steps(world, &expected, (*start, steps, BackFault::Never), conditions)
            }
            Scene::KeepingNothing(start, steps) => {
                let world = World::keeping_nothing(sim.clone(), self.policy);
                self.steps(world, &expected, (*start, steps, BackFault::Never), conditions)
            }
            Scene::NoRoom(start, steps, nth) => {
                let (world, fault) = (start.empty(sim.clone(), self.policy), BackFault::From(*nth));
                self.steps(world, &expected, (*start, steps, fault), conditions)
            }
            Scene::Killed(start, step, nth, then) => {
                let world = start.world(sim.clone(), self.policy);
                self.killed(world, &expected, (*step, *nth, *then), conditions)
            }
            Scene::Owners(change) => {
                owners::explore((&sim, self.policy), *change, self.options(conditions))
            }
            Scene::Create => self.create(&sim, conditions),
            Scene::KilledCreate(nth) => self.killed_create(&sim, *nth, conditions),
            Scene::Close(start) => self.close(&sim, &expected, *start, conditions),
            Scene::Open(start) => self.open(&sim, &expected, *start, conditions),
            Scene::Cached(story) => story.run(&sim, self.policy, self.options(conditions)),
        };
        (report, sim.sites())
    }

    fn watch(&self, sim: &Sim, expected: &Shared, conditions: &Conditions) -> Explorer {
        let mut oracle = Oracle::new(expected.clone(), conditions.lie);
        if matches!(self.scene, Scene::FullDisk(..)) {
            oracle = oracle.on_full_disk();
        }
        let oracle = Arc::new(oracle);
        Explorer::watch(sim, self.options(conditions), move |sim: &Sim| oracle.check(sim))
    }

    /// Records of long groups multiply, and what is not durable yet.
    fn budget(&self) -> u64 {
        use Start::{LongRings, Pending, Typed};
        match self.scene {
            Scene::Steps(LongRings | Pending | Typed, _)
            | Scene::Killed(LongRings | Pending | Typed, ..) => 1 << 16,
            _ if self.policy == Policy::Batched => 1 << 16,
            _ => 1 << 10,
        }
    }

    /// No point of a heap without a fault has as many classes as the budgets allow: nothing is sampled.
    fn options(&self, conditions: &Conditions) -> ExploreOptions {
        conditions.effort.limit(ExploreOptions {
            nesting: self.nesting,
            budget: self.budget(),
            nested_budget: self.budget(),
            samples: 16,
            max_violations: 1,
            replay: conditions.replay.clone(),
            ..ExploreOptions::default()
        })
    }

    fn steps(
        &self,
        mut world: World,
        expected: &Shared,
        (start, steps, fault): (Start, &[Step], BackFault),
        conditions: &Conditions,
    ) -> Report {
        let sim = world.sim.clone();
        start.build(&mut world);
        let (last, before) = steps.split_last().expect("a sequence has a step");
        for step in before {
            perform(&mut world, *step, |_, _| {});
        }
        let explorer = self.watch(&sim, expected, conditions);
        sim.fail_backs(fault);
        perform_explored(&mut world, *last, (&explorer, 1), expected, conditions.lie);
        let report = explorer.finish();
        // The heap is closed only now that nobody watches.
        drop(world);
        report
    }

    /// What recovery finds of the step stays, whatever happens then: its words may be in caches only.
    fn killed(
        &self,
        mut world: World,
        expected: &Shared,
        (step, nth, then): (Step, u64, Step),
        conditions: &Conditions,
    ) -> Report {
        let sim = world.sim.clone();
        let plan = step.plan(&world);
        let after = plan.after(&world.model);
        assert!(world.kill_in(nth, |world| plan.perform(world)), "{step} makes so many calls");
        let explorer = self.watch(&sim, expected, conditions);
        explorer.set_oracle(1);
        expected.either(&told(&world.model, conditions.lie), &told(&after, conditions.lie));
        world.reopen();
        check_read_words(&world);
        if oracle::matches(world.heap(), &world.model).is_err() {
            world.model = after;
        }
        expected.only(&told(&world.model, conditions.lie));
        explorer.set_oracle(2);
        explorer.crash_point("opened");
        perform_explored(&mut world, then, (&explorer, 3), expected, conditions.lie);
        let report = explorer.finish();
        drop(world);
        report
    }

    /// A heap in the making is absent or opens empty.
    fn create(&self, sim: &Sim, conditions: &Conditions) -> Report {
        let explorer =
            Explorer::watch(sim, self.options(conditions), |sim: &Sim| oracle::check_creation(sim));
        let heap = world::create(sim.clone(), self.policy).expect("a fresh medium has room");
        explorer.crash_point("created");
        let report = explorer.finish();
        drop(heap);
        report
    }

    /// What was opened once does not become absent.
    fn killed_create(&self, sim: &Sim, nth: u64, conditions: &Conditions) -> Report {
        let first = sim.new_process();
        let created = first.kill_in(nth, || world::create(first.clone(), self.policy));
        assert!(created.is_none(), "creation makes so many calls");
        let is_opened = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_opened);
        let explorer = Explorer::watch(sim, self.options(conditions), move |sim: &Sim| {
            match oracle::check_creation(sim) {
                Ok(ABSENT) if seen.load(Ordering::Relaxed) => {
                    Err("it was opened, and is gone".into())
                }
                found => found,
            }
        });
        explorer.set_oracle(1);
        let opened = world::open(first.new_process());
        if opened.is_ok() {
            is_opened.store(true, Ordering::Relaxed);
            explorer.set_oracle(2);
            explorer.crash_point("opened");
        }
        let report = explorer.finish();
        assert!(matches!(opened, Ok(_) | Err(Error::NotAHeap { .. })), "{opened:?}");
        report
    }

    fn close(&self, sim: &Sim, expected: &Shared, start: Start, conditions: &Conditions) -> Report {
        let world = start.world(sim.clone(), self.policy);
        let (heap, model) = world.into_heap();
        expected.only(&told(&model, conditions.lie));
        let explorer = self.watch(sim, expected, conditions);
        explorer.set_oracle(1);
        heap.close().expect("the simulator never fails to sync");
        explorer.crash_point("closed");
        explorer.finish()
    }

    fn open(&self, sim: &Sim, expected: &Shared, start: Start, conditions: &Conditions) -> Report {
        let world = start.world(sim.clone(), self.policy);
        let (heap, model) = world.into_heap();
        heap.close().expect("the simulator never fails to sync");
        expected.only(&told(&model, conditions.lie));
        let explorer = self.watch(sim, expected, conditions);
        explorer.set_oracle(1);
        let heap = world::open(sim.clone()).expect("it was closed");
        explorer.crash_point("opened");
        let report = explorer.finish();
        drop(heap);
        report
    }
}

/// What recovery reads in place and does not write again must be durable when the heap is open: a killed process may have
/// left it in the caches, and what is done from then on rests on it, if only when many sessions work at once.
///
/// # Panics
///
/// If a word could still be lost.
fn check_read_words(world: &World) {
    let (now, oldest) = (world.process(), world.sim.crash_state().oldest());
    for name in ["state", "lane directory"] {
        let area = world::options().area(name).expect("heaps have it");
        for at in (area.start..area.end()).step_by(8) {
            let [newest, durable] = [now, &oldest]
                .map(|sim| sim.load(sim.at::<Word>(Offset::new(at)).expect("it lies in the heap")));
            assert_eq!(newest, durable, "recovery read what is not durable, at {at:#x} ({name})");
        }
    }
}

/// Performs a step while `explorer` watches, with the oracle in the state `oracle`; then in the next one, with the step
/// returned.
fn perform_explored(
    world: &mut World,
    step: Step,
    (explorer, oracle): (&Explorer, u64),
    expected: &Shared,
    lie: Option<Lie>,
) {
    // Equal images under an equal expectation are judged once, also those that recovery leaves.
    explorer.set_oracle(oracle);
    perform(world, step, |before, after| expected.either(&told(before, lie), &told(after, lie)));
    world.sim.fail_backs(BackFault::Never);
    expected.only(&told(&world.model, lie));
    explorer.set_oracle(oracle + 1);
    explorer.crash_point("returned");
}

/// Performs a step and updates the model; `in_flight` is called with the states before and after it.
pub(crate) fn perform(world: &mut World, step: Step, in_flight: impl FnOnce(&Model, &Model)) {
    let plan = step.plan(world);
    let after = plan.after(&world.model);
    in_flight(&world.model, &after);
    match plan.perform(world) {
        Ok(()) => world.model = after,
        // A refused operation changes nothing; the oracle holds it to that.
        Err(error) if error.is_out_of_space() => {}
        Err(error) => panic!("{step} failed: {error}"),
    }
}

/// What the oracle is told of a state.
fn told(model: &Model, lie: Option<Lie>) -> Model {
    let mut told = model.clone();
    let full = told.slots.iter().position(Option::is_some);
    match (lie, full) {
        (Some(Lie::Lost), _) => {
            let empty = told.slots.iter().position(Option::is_none).expect("a slot is empty");
            told.slots[empty] =
                Some(crate::model::Held { id: 0, size: 16, tag: 0, filled: false, lane: 0 });
        }
        (Some(Lie::Leaked), Some(full)) => told.slots[full] = None,
        (Some(Lie::Changed), _) => {
            let filled = told.slots.iter_mut().flatten().find(|held| held.filled);
            if let Some(held) = filled {
                held.id += 1000;
            }
        }
        (Some(Lie::Set), _) => told.cells[1] ^= 1 << 43,
        _ => {}
    }
    told
}
