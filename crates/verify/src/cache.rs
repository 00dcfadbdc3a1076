//! A heap on a file in the page cache of a disk: what its flag promises, and when.
//!
//! Only a sync makes anything durable there, and the kernel may have written any page before: what a power loss leaves of
//! a heap that was being changed is a mixture. The heap has to know. After a power loss at any moment it opens as it was
//! closed or synchronized last, if nothing that has returned changed it since; or it is refused
//! ([`Error::PowerLoss`]). It is refused only if it was not closed or synchronized, or is being opened or changed. The
//! death of a process alone loses nothing.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pmalloc::{
    Error, Policy,
    persist::{
        Medium,
        sim::{BackFault, Digest, Domain, ExploreOptions, Explorer, Report, Sim},
    },
};

use crate::{
    alphabet::{Op, Plan, Step},
    model::{Expected, Model, Shared},
    oracle::{self, ABSENT, Oracle, Verdict},
    start::Start,
    world::{self, World},
};

/// What is done while every crash is explored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deed {
    /// The heap is created.
    Create,
    /// The heap, which is closed, is opened.
    Open,
    /// The heap, whose process was killed in the midst of its work, is opened.
    OpenLeft,
    /// It is synchronized.
    Sync,
    /// It is closed.
    Close,
    /// The first step after a sync.
    First(Step),
    /// A step when the heap is open and not synchronized.
    Later(Step),
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It returns.
    Returns,
    /// The process is killed at the n-th call that changes the medium.
    Killed(u64),
    /// The n-th sync fails.
    Fails(u64),
    /// The n-th sync and all later ones fail.
    AllFail(u64),
}

/// A deed from a start state, and what happens then: the heap is opened again if need be, changed, synchronized, changed
/// again, closed and opened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Story {
    /// The state before; of a creation, nothing.
    pub start: Start,
    /// What is done.
    pub deed: Deed,
    /// What becomes of it.
    pub fate: Fate,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, deed, fate } = self;
        write!(f, "cached {start:?} ")?;
        match deed {
            Deed::First(step) => write!(f, "First {step}")?,
            Deed::Later(step) => write!(f, "Later {step}")?,
            deed => write!(f, "{deed:?}")?,
        }
        match fate {
            Fate::Returns => Ok(()),
            Fate::Killed(nth) => write!(f, " killed at {nth}"),
            Fate::Fails(nth) => write!(f, " sync {nth} fails"),
            Fate::AllFail(nth) => write!(f, " syncs fail from {nth}"),
        }
    }
}

/// The step that changes a heap whose story goes on.
const CHANGE: Step = Step { op: Op::AllocContents, lane: 0 };

/// Every deed from every start state; the process killed in it at each call, and each of its syncs failing.
#[must_use]
pub fn stories(policy: Policy) -> Vec<Story> {
    let mut stories = Vec::new();
    for start in Start::ALL {
        let lives = [Deed::Open, Deed::OpenLeft, Deed::Sync, Deed::Close];
        let ops = [Op::AllocContents, Op::FreePages, Op::PublishBlocks, Op::Trim, Op::RemoveRoot];
        let firsts = ops.map(|op| Deed::First(Step { op, lane: 0 }));
        for deed in lives.into_iter().chain(firsts) {
            stories.extend(fates(policy, start, deed).map(|fate| Story { start, deed, fate }));
        }
        let others = Step::all(Policy::Eager)
            .into_iter()
            .filter(|step| !(step.lane == 0 && ops.contains(&step.op)));
        let steps =
            others.map(Deed::First).chain(Step::all(Policy::Eager).into_iter().map(Deed::Later));
        stories.extend(steps.map(|deed| Story { start, deed, fate: Fate::Returns }));
    }
    for deed in [Deed::Open, Deed::OpenLeft, Deed::Sync] {
        let start = Start::WornOut;
        stories.extend(fates(policy, start, deed).map(|fate| Story { start, deed, fate }));
    }
    let (start, deed) = (Start::Fresh, Deed::Create);
    stories.extend(fates(policy, start, deed).map(|fate| Story { start, deed, fate }));
    stories
}

/// What can become of a deed.
fn fates(policy: Policy, start: Start, deed: Deed) -> impl Iterator<Item = Fate> {
    let mut stage = Stage::set(world::medium(Domain::Page4096), policy, (start, deed));
    let sim = stage.sim.clone();
    sim.fail_syncs(BackFault::Never);
    let calls = stage.calls_of(deed);
    let syncs = sim.sync_calls();
    let killed = (0..calls).map(Fate::Killed);
    let failing = (0..syncs).flat_map(|nth| [Fate::Fails(nth), Fate::AllFail(nth)]);
    // A heap of which a part may not have been written is not to be opened; a file of such a heap gets no name.
    let failing = failing.filter(move |fate| {
        deed != Deed::Create || [Fate::Fails(0), Fate::Fails(syncs - 1)].contains(fate)
    });
    std::iter::once(Fate::Returns).chain(killed).chain(failing)
}

/// What may be found after a power loss.
#[derive(Debug, Clone)]
struct Promise {
    /// The heap as it may be found; `None` if it must not open.
    whole: Option<Model>,
    /// Whether it may be refused.
    is_refusable: bool,
    /// Whether there may be no heap.
    is_absent: bool,
}

impl Promise {
    /// It was closed or synchronized, and nothing has happened since.
    fn kept(model: &Model) -> Self {
        Self { whole: Some(model.clone()), is_refusable: false, is_absent: false }
    }

    /// It is being closed, synchronized or opened, or changed for the first time.
    fn either(model: &Model) -> Self {
        Self { is_refusable: true, ..Self::kept(model) }
    }

    /// It was changed.
    const fn refused() -> Self {
        Self { whole: None, is_refusable: true, is_absent: false }
    }
}

/// What a check says of a heap that is refused, as it may be.
const REFUSED: Digest = Digest(2);

/// What an explorer compares with.
#[derive(Debug)]
struct Judge {
    promise: Mutex<Promise>,
    oracle: Oracle,
}

impl Judge {
    fn promise(&self) -> MutexGuard<'_, Promise> {
        self.promise.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, sim: &Sim) -> Verdict {
        let Promise { whole, is_refusable, is_absent } = self.promise().clone();
        // A heap that was whole is being opened when power is lost for the second time.
        let is_second = sim.boot().is_ok_and(|boot| boot > 1);
        match world::open(sim.clone()) {
            Err(Error::PowerLoss) if is_refusable || is_second => Ok(REFUSED),
            Err(Error::PowerLoss) => Err("it was whole, and is refused".into()),
            Err(Error::NotAHeap { .. }) if is_absent => Ok(ABSENT),
            Err(error) => Err(format!("neither whole nor refused: {error}")),
            Ok(heap) => match whole {
                None => Err("it opens, and was changed since it was whole".into()),
                Some(model) if model.slots.is_empty() => oracle::judge_new(sim, &heap),
                Some(model) => self.oracle.judge(sim, heap, &Expected { states: vec![model] }),
            },
        }
    }
}

/// A world, and what is known of its flag.
struct Stage {
    sim: Sim,
    /// `None` before the heap is created.
    world: Option<World>,
}

impl Stage {
    /// The state in which `deed` begins.
    fn set(sim: Sim, policy: Policy, (start, deed): (Start, Deed)) -> Self {
        if deed == Deed::Create {
            return Self { sim, world: None };
        }
        let mut world = World::new(sim.clone(), policy);
        start.build(&mut world);
        match deed {
            Deed::Open => world.close().expect("no sync fails yet"),
            Deed::OpenLeft => {
                world.process().kill();
                world.abandon();
            }
            Deed::First(_) => world.heap().sync().expect("no sync fails yet"),
            Deed::Create | Deed::Sync | Deed::Close | Deed::Later(_) => {}
        }
        Self { sim, world: Some(world) }
    }

    fn world(&mut self) -> &mut World {
        self.world.as_mut().expect("the heap was created")
    }

    /// The heap before and after `deed`.
    fn models(&mut self, deed: Deed) -> (Model, Model) {
        let Some(world) = &self.world else { return (Model::default(), Model::default()) };
        let before = world.model.clone();
        let after = match deed {
            Deed::First(step) | Deed::Later(step) => step.plan(world).after(&before),
            _ => before.clone(),
        };
        (before, after)
    }

    fn perform(&mut self, deed: Deed) -> Result<(), Error> {
        match deed {
            Deed::Create => {
                self.world = Some(World::created(self.sim.clone())?);
                Ok(())
            }
            Deed::Open | Deed::OpenLeft => self.world().open(),
            Deed::Sync => self.world().heap().sync(),
            Deed::Close => self.world().close(),
            Deed::First(step) | Deed::Later(step) => {
                let world = self.world();
                let plan = step.plan(world);
                let after = plan.after(&world.model);
                plan.perform(world)?;
                world.model = after;
                Ok(())
            }
        }
    }

    /// How many calls of `deed` change the medium.
    fn calls_of(&mut self, deed: Deed) -> u64 {
        // A process of its own makes them when the heap is opened or created.
        let is_new = matches!(deed, Deed::Create | Deed::Open | Deed::OpenLeft);
        let before = if is_new { 0 } else { self.world().process().persist_calls() };
        match self.perform(deed) {
            Ok(()) | Err(Error::OutOfMemory { .. }) => {}
            Err(error) => panic!("{deed:?} failed: {error}"),
        }
        self.world().process().persist_calls() - before
    }
}

/// A stage that an explorer watches.
struct Play {
    stage: Stage,
    explorer: Explorer,
    judge: Arc<Judge>,
    oracle_state: u64,
}

impl Story {
    /// Explores the story.
    pub(crate) fn run(&self, sim: &Sim, policy: Policy, options: ExploreOptions) -> Report {
        let deed = self.deed;
        let mut stage = Stage::set(sim.clone(), policy, (self.start, deed));
        let (before, after) = stage.models(deed);
        let judge = Arc::new(Judge {
            promise: Mutex::new(in_flight(deed, &before)),
            oracle: Oracle::new(Shared::default(), None),
        });
        if let Fate::Killed(nth) = self.fate {
            kill_in(&mut stage, policy, (deed, nth));
        }
        let watching = Arc::clone(&judge);
        let explorer = Explorer::watch(sim, options, move |sim: &Sim| watching.check(sim));
        let mut play = Play { stage, explorer, judge, oracle_state: 1 };
        play.explorer.set_oracle(1);
        match self.fate {
            Fate::Returns => play.returns(deed, &after),
            Fate::Killed(_) => play.comes_back([&before, &after]),
            Fate::Fails(nth) => play.fails(deed, BackFault::Once(nth), [&before, &after]),
            Fate::AllFail(nth) => play.fails(deed, BackFault::From(nth), [&before, &after]),
        }
        play.goes_on();
        let Play { stage, explorer, .. } = play;
        let report = explorer.finish();
        drop(stage);
        report
    }
}

/// What may be found while `deed` is in flight.
fn in_flight(deed: Deed, before: &Model) -> Promise {
    match deed {
        Deed::Create => Promise { is_absent: true, ..Promise::either(before) },
        // To open it again it is closed, and so kept for a moment.
        Deed::Open
        | Deed::Sync
        | Deed::Close
        | Deed::First(_)
        | Deed::Later(Step { op: Op::Reopen, .. }) => Promise::either(before),
        Deed::OpenLeft | Deed::Later(_) => Promise::refused(),
    }
}

/// Kills the process at the `nth` call of `deed`, which is not watched.
fn kill_in(stage: &mut Stage, policy: Policy, (deed, nth): (Deed, u64)) {
    match deed {
        Deed::Create | Deed::Open | Deed::OpenLeft => {
            let process = stage.sim.new_process();
            let open = || match deed {
                Deed::Create => world::create(process.clone(), policy).map(drop),
                _ => world::open(process.clone()).map(drop),
            };
            assert!(process.kill_in(nth, open).is_none(), "{deed:?} makes so many calls");
        }
        _ => {
            let process = stage.world().process().clone();
            let killed = process.kill_in(nth, || stage.perform(deed)).is_none();
            assert!(killed, "{deed:?} makes so many calls");
        }
    }
}

impl Play {
    /// From now on this may be found.
    fn promise(&mut self, promise: Promise) {
        *self.judge.promise() = promise;
        self.oracle_state += 1;
        self.explorer.set_oracle(self.oracle_state);
    }

    fn model(&mut self) -> Model {
        self.stage.world().model.clone()
    }

    /// The deed is done.
    fn returns(&mut self, deed: Deed, after: &Model) {
        let is_nothing = self.does_nothing(deed);
        match self.stage.perform(deed) {
            Ok(()) => {
                let promise = match deed {
                    Deed::Sync | Deed::Close => Promise::kept(after),
                    Deed::First(_) if is_nothing => Promise::either(after),
                    _ => Promise::refused(),
                };
                self.promise(promise);
            }
            // There is no room: nothing has changed.
            Err(Error::OutOfMemory { .. }) => {}
            Err(error) => panic!("{deed:?} failed: {error}"),
        }
        self.explorer.crash_point("returned");
    }

    /// Whether the step changes nothing, and may leave the heap as it was synchronized.
    fn does_nothing(&mut self, deed: Deed) -> bool {
        let Deed::First(step) = deed else { return false };
        matches!(step.plan(self.stage.world()), Plan::Nothing | Plan::Refused(..))
    }

    /// The process was killed: nothing is lost, and the next one finds all of it.
    fn comes_back(&mut self, [before, after]: [&Model; 2]) {
        if self.stage.world.is_none() && !self.is_created() {
            return;
        }
        let world = self.stage.world();
        if !world.is_open() || world.process().forked() {
            world.open().expect("a kill loses nothing");
        }
        self.settle([before, after]);
        self.promise(Promise::refused());
        self.explorer.crash_point("opened");
    }

    /// Opens the heap whose creation was cut short, if there is one.
    fn is_created(&mut self) -> bool {
        match World::found(self.stage.sim.clone()) {
            Ok(world) => self.stage.world = Some(world),
            Err(Error::NotAHeap { .. }) => return false,
            Err(error) => panic!("neither absent nor whole: {error}"),
        }
        true
    }

    /// Finds out which of the two states the heap is in.
    fn settle(&mut self, models: [&Model; 2]) {
        let world = self.stage.world();
        let is_found = |model: &&&Model| {
            model.slots.is_empty() || oracle::matches(world.heap(), model).is_ok()
        };
        let found = models.iter().find(is_found).expect("all or nothing of what was in flight");
        let found = (*found).clone();
        world.model = found;
    }

    /// A sync fails in the deed: nothing has changed, or all that can be known is said.
    fn fails(&mut self, deed: Deed, fault: BackFault, [before, after]: [&Model; 2]) {
        let sim = self.stage.sim.clone();
        sim.fail_syncs(fault);
        let done = self.stage.perform(deed);
        sim.fail_syncs(BackFault::Never);
        let Err(error) = done else { panic!("{deed:?} hides that a sync failed") };
        assert!(matches!(error, Error::Io { .. }), "{error}");
        self.explorer.crash_point("failed");
        match deed {
            Deed::Create => {
                if self.is_created() {
                    self.promise(Promise::refused());
                }
            }
            // What the kernel could not write before is lost, and is known to be.
            Deed::OpenLeft => self.is_given_up(),
            Deed::Open => {
                self.stage.perform(deed).expect("nothing has changed");
                self.settle([before, after]);
                self.promise(Promise::refused());
            }
            Deed::First(_) => {
                let world = self.stage.world();
                oracle::matches(world.heap(), before).expect("what fails changes nothing");
            }
            Deed::Close => self.is_opened_or_given_up(before),
            Deed::Sync | Deed::Later(_) => {}
        }
    }

    /// A close failed. Either all but its flag is on the disk, or nobody vouches for it.
    fn is_opened_or_given_up(&mut self, before: &Model) {
        match self.stage.world().open() {
            Ok(()) => {
                self.settle([before, before]);
                self.promise(Promise::refused());
            }
            Err(Error::PowerLoss) => {
                self.promise(Promise::refused());
                self.explorer.crash_point("given up");
            }
            Err(error) => panic!("neither whole nor refused: {error}"),
        }
    }

    /// The heap is refused, power lost or not.
    fn is_given_up(&mut self) {
        let refused = self.stage.world().open();
        assert!(matches!(refused, Err(Error::PowerLoss)), "{refused:?}");
    }

    /// What a program does then, each step watched.
    fn goes_on(&mut self) {
        if !self.stage.world.as_ref().is_some_and(World::is_open) {
            return self.begins_again();
        }
        self.changes();
        let model = self.model();
        self.promise(Promise::either(&model));
        if self.stage.perform(Deed::Sync).is_err() {
            // It was said before, and is said again.
            assert!(self.stage.perform(Deed::Close).is_err(), "a closed heap is whole");
            self.promise(Promise::refused());
            self.is_given_up();
            return self.explorer.crash_point("given up");
        }
        self.promise(Promise::kept(&model));
        self.explorer.crash_point("synchronized");
        self.changes();
        self.closes();
        self.begins_again();
    }

    /// Opens the heap if it is closed, changes it and closes it again.
    fn begins_again(&mut self) {
        let Some(world) = &mut self.stage.world else { return };
        let model = world.model.clone();
        self.promise_in_flight(&model);
        match self.stage.world().open() {
            Ok(()) => {}
            Err(Error::PowerLoss) => return,
            Err(error) => panic!("it does not open: {error}"),
        }
        self.promise(Promise::refused());
        self.explorer.crash_point("opened again");
        self.changes();
        self.closes();
    }

    fn promise_in_flight(&mut self, model: &Model) {
        // What was found before the step may be found in it; a heap that was kept may be refused from here on.
        let is_findable = self.judge.promise().whole.is_some();
        self.promise(if is_findable { Promise::either(model) } else { Promise::refused() });
    }

    /// A step that changes the heap.
    fn changes(&mut self) {
        let model = self.model();
        if model.slots.is_empty() {
            // A heap that was just created has no slots: that is made first.
            self.promise_in_flight(&model);
            self.stage.world().furnish();
            self.promise(Promise::refused());
        }
        let model = self.model();
        self.promise_in_flight(&model);
        let is_nothing = matches!(CHANGE.plan(self.stage.world()), Plan::Nothing);
        match self.stage.perform(Deed::Later(CHANGE)) {
            Ok(()) if !is_nothing => self.promise(Promise::refused()),
            Ok(()) | Err(Error::OutOfMemory { .. }) => {}
            Err(error) => panic!("a change failed: {error}"),
        }
        self.explorer.crash_point("changed");
    }

    fn closes(&mut self) {
        let model = self.model();
        self.promise(Promise::either(&model));
        self.stage.perform(Deed::Close).expect("no sync fails any more");
        self.promise(Promise::kept(&model));
        self.explorer.crash_point("closed");
    }
}
