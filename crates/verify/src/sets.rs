//! Many cases, over threads.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use pmalloc::{
    HeapOptions, Policy,
    persist::sim::{Domain, Report, SiteCount},
};

use crate::{
    alphabet::{Op, Step},
    cache::{self, Deed, Fate, Story},
    explore::{Case, Conditions, Scene, perform},
    owners::Change,
    start::Start,
    world,
};

/// Every domain.
pub const DOMAINS: [Domain; 3] = [Domain::Line64, Domain::Word8, Domain::Eadr];

/// A named set of cases.
#[derive(Debug)]
pub struct Set {
    /// What it is called in reports.
    pub name: &'static str,
    /// Its cases.
    pub cases: Vec<Case>,
}

impl Set {
    /// The sets of CI, some of them thinned, and most for the policy that is not the default: every operation with a crash in
    /// recovery, sequences of two without, and the heap's own life.
    #[must_use]
    pub fn quick(policy: Policy) -> Vec<Self> {
        vec![
            Self { name: "create, open, close", cases: life(policy, 1) },
            Self { name: "1 operation, nesting 1", cases: thin(policy, sequences(policy, 1, 1)) },
            Self {
                name: "1 operation, recovery on a full disk, nesting 1",
                cases: full_disk(policy, 1),
            },
            Self { name: "1 operation on a full disk", cases: no_room(policy, 0) },
            Self {
                name: "memory goes back at once",
                cases: thin(policy, keeping_nothing(policy, 0)),
            },
            Self {
                name: "killed in 1 operation, then 1",
                cases: thin(policy, every(3, killed(policy, 1))),
            },
            Self { name: "declarations and orphans, nesting 1", cases: owners(policy, 1) },
            Self { name: "groups of five and eight", cases: groups(policy, 0) },
            Self { name: "typed blocks, nesting 1", cases: thin(policy, typed(policy, 1)) },
            Self { name: "2 operations", cases: every(13, sequences(policy, 2, 0)) },
            Self { name: "page cache", cases: thin(policy, cached(policy, 1, 8)) },
            Self { name: "pending, then 1 operation", cases: pending(policy, 0, 8) },
            Self { name: "numbers and epochs used up, nesting 1", cases: worn_out(policy, 1) },
        ]
    }

    /// The sets of the campaign: one step further in each direction.
    #[must_use]
    pub fn full(policy: Policy) -> Vec<Self> {
        vec![
            Self { name: "create, open, close, nesting 2", cases: life(policy, 2) },
            Self { name: "1 operation, nesting 2", cases: sequences(policy, 1, 2) },
            Self {
                name: "1 operation, recovery on a full disk, nesting 2",
                cases: full_disk(policy, 2),
            },
            Self { name: "1 operation on a full disk, nesting 1", cases: no_room(policy, 1) },
            Self { name: "memory goes back at once, nesting 1", cases: keeping_nothing(policy, 1) },
            Self { name: "killed in 1 operation, then any of 8", cases: killed(policy, 8) },
            Self { name: "declarations and orphans, nesting 2", cases: owners(policy, 2) },
            Self { name: "groups of five and eight, nesting 1", cases: groups(policy, 1) },
            Self { name: "typed blocks, nesting 2", cases: typed(policy, 2) },
            Self { name: "2 operations, nesting 1", cases: sequences(policy, 2, 1) },
            Self { name: "3 operations", cases: sequences(policy, 3, 0) },
            Self { name: "page cache, nesting 2", cases: cached(policy, 2, 1) },
            Self { name: "pending, then 1 operation, nesting 1", cases: pending(policy, 1, 1) },
            Self { name: "numbers and epochs used up, nesting 2", cases: worn_out(policy, 2) },
        ]
    }

    /// A few cases of each kind, for a test that takes seconds.
    #[must_use]
    pub fn smoke(policy: Policy) -> Self {
        let mut cases: Vec<Case> = sequences(policy, 1, 1).into_iter().step_by(17).collect();
        cases.extend(sequences(policy, 2, 0).into_iter().step_by(397));
        cases.extend(life(policy, 1).into_iter().step_by(3));
        cases.extend(full_disk(policy, 1).into_iter().step_by(7));
        cases.extend(no_room(policy, 0).into_iter().step_by(11));
        cases.extend(keeping_nothing(policy, 0).into_iter().step_by(23));
        cases.extend(killed(policy, 1).into_iter().step_by(397));
        cases.extend(owners(policy, 1).into_iter().step_by(2));
        cases.extend(cached(policy, 1, 8).into_iter().step_by(61));
        cases.extend(groups(policy, 0).into_iter().take(1));
        cases.extend(typed(policy, 1).into_iter().step_by(13));
        cases.extend(worn_out(policy, 1).into_iter().step_by(7));
        Self { name: "smoke", cases }
    }

    /// The cases of shard `index` of `count`.
    #[must_use]
    pub fn shard(self, index: usize, count: usize) -> Self {
        let cases = self.cases.into_iter().skip(index).step_by(count).collect();
        Self { cases, ..self }
    }
}

/// Every `stride`-th case. Where that has no divisor in common with the numbers of operations and domains that take turns
/// among them, each of these is there.
fn every(stride: usize, cases: Vec<Case>) -> Vec<Case> {
    cases.into_iter().step_by(stride).collect()
}

/// All `cases` of the default policy, and of the other one so many that each kind is there.
fn thin(policy: Policy, cases: Vec<Case>) -> Vec<Case> {
    /// No divisor of the numbers of operations, start states and domains.
    const STRIDE: usize = 5;
    if policy == HeapOptions::POLICY_DEFAULT { cases } else { every(STRIDE, cases) }
}

fn sequences(policy: Policy, length: u32, nesting: u32) -> Vec<Case> {
    let mut all: Vec<Vec<Step>> = vec![Vec::new()];
    for _ in 0..length {
        all = all
            .into_iter()
            .flat_map(|steps| {
                Step::all(policy).into_iter().map(move |step| [steps.clone(), vec![step]].concat())
            })
            .collect();
    }
    let case = |start, steps: &Vec<Step>, domain| Case {
        scene: Scene::Steps(start, steps.clone()),
        domain,
        nesting,
        policy,
    };
    let mut cases = Vec::new();
    for domain in DOMAINS {
        for start in Start::ALL {
            cases.extend(all.iter().map(|steps| case(start, steps, domain)));
        }
    }
    cases
}

/// Every declaration and every change of what nothing owns.
fn owners(policy: Policy, nesting: u32) -> Vec<Case> {
    let case = |domain| {
        let scenes = Change::ALL.into_iter().map(Scene::Owners);
        scenes.map(move |scene| Case { scene, domain, nesting, policy })
    };
    DOMAINS.into_iter().flat_map(case).collect()
}

/// Operations that append to the bookkeeping log: what they tear is copied away, or emptied where there is no room for a
/// copy.
fn full_disk(policy: Policy, nesting: u32) -> Vec<Case> {
    let ops = [Op::AllocPages, Op::AllocFewPerSlab, Op::FreePages, Op::FreeFewPerSlab];
    let mut cases = Vec::new();
    for domain in DOMAINS {
        for start in Start::ALL {
            for op in ops {
                let scene = Scene::FullDisk(start, vec![Step { op, lane: 0 }]);
                cases.push(Case { scene, domain, nesting, policy });
            }
        }
    }
    cases
}

/// Operations that ask for memory, each refused at its first, second or third call for it: before anything is reserved, or
/// when only the bookkeeping log still wants a chunk. A process that made the chunk before asks for no memory: so all is tried
/// in one that has just opened the heap, too.
fn no_room(policy: Policy, nesting: u32) -> Vec<Case> {
    let ops =
        [Op::AllocPages, Op::AllocFewPerSlab, Op::FreePages, Op::PublishBlocks, Op::PublishPages];
    let step = |op| Step { op, lane: 0 };
    let sequences =
        ops.into_iter().flat_map(|op| [vec![step(op)], vec![step(Op::Reopen), step(op)]]);
    let sequences: Vec<Vec<Step>> = sequences.collect();
    let mut cases = Vec::new();
    for domain in DOMAINS {
        for start in Start::ALL {
            for steps in &sequences {
                for nth in 0..3 {
                    let scene = Scene::NoRoom(start, steps.clone(), nth);
                    cases.push(Case { scene, domain, nesting, policy });
                }
            }
        }
    }
    cases
}

/// Every operation in a heap that gives memory back as soon as it is free: pages are punched when they are freed. A session looks
/// after the heap at its first operation: also then, the first one of a session that follows another, or that finds what another
/// process had freed, which is not known to have memory.
fn keeping_nothing(policy: Policy, nesting: u32) -> Vec<Case> {
    let first = |op| vec![Step { op, lane: 0 }];
    let before = [vec![], first(Op::RenewSession), first(Op::Kill)];
    let mut cases = Vec::new();
    for domain in DOMAINS {
        for start in Start::ALL {
            for before in &before {
                for op in Op::ALL {
                    let steps = [before.clone(), vec![Step { op, lane: 0 }]].concat();
                    let scene = Scene::KeepingNothing(start, steps);
                    cases.push(Case { scene, domain, nesting, policy });
                }
            }
        }
    }
    cases
}

/// Every operation, killed at every call that changes the medium, and `count` operations of those that then work on what it
/// left; the next ones after the next call. Where every store is durable at once, a kill is a crash like others.
fn killed(policy: Policy, count: usize) -> Vec<Case> {
    let ops = [Op::AllocSmallest, Op::AllocPages, Op::FreeFewPerSlab, Op::PublishBlocks];
    let then: Vec<Step> =
        [0, 1].into_iter().flat_map(|lane| ops.map(|op| Step { op, lane })).collect();
    let mut cases = Vec::new();
    for start in Start::ALL {
        for step in Step::all(policy) {
            for (nth, first) in (0..calls(policy, start, step)).zip((0..then.len()).cycle()) {
                for then in then.iter().cycle().skip(first).take(count) {
                    let scene = Scene::Killed(start, step, nth, *then);
                    for domain in [Domain::Line64, Domain::Word8] {
                        cases.push(Case { scene: scene.clone(), domain, nesting: 0, policy });
                    }
                }
            }
        }
    }
    cases
}

/// Groups of more records than the usual rings have room for: of five, and as many as can be. Where every store is durable
/// at once, or no power is lost, a group is a prefix of its records.
fn groups(policy: Policy, nesting: u32) -> Vec<Case> {
    let start = Start::LongRings;
    let [five, eight] = [Op::PublishFive, Op::PublishEight].map(|op| Step { op, lane: 0 });
    let case = |scene, domain| Case { scene, domain, nesting, policy };
    let steps = |steps: &[Step], domain| case(Scene::Steps(start, steps.to_vec()), domain);
    let mut cases: Vec<Case> = DOMAINS.map(|domain| steps(&[five], domain)).into();
    cases.extend([Domain::Line64, Domain::Eadr].map(|domain| steps(&[eight], domain)));
    // The ring's end comes in the midst of the group.
    cases.extend(
        [Domain::Line64, Domain::Eadr]
            .map(|domain| steps(&[eight, eight, eight, eight, five], domain)),
    );
    let then = Step { op: Op::AllocSmallest, lane: 0 };
    let killed = |nth| case(Scene::Killed(start, five, nth, then), Domain::Line64);
    cases.extend((0..calls(policy, start, five)).map(killed));
    cases
}

/// Every operation where many before it are not durable yet, and every one killed then, at every `stride`-th call: for the
/// policy Batched.
fn pending(policy: Policy, nesting: u32, stride: usize) -> Vec<Case> {
    if policy == Policy::Eager {
        return Vec::new();
    }
    let mut cases = Vec::new();
    for step in Step::all(policy) {
        for domain in DOMAINS {
            let scene = Scene::Steps(Start::Pending, vec![step]);
            cases.push(Case { scene, domain, nesting, policy });
        }
        let then = Step { op: Op::AllocSmallest, lane: 1 };
        let killed = |nth| {
            let scene = Scene::Killed(Start::Pending, step, nth, then);
            Case { scene, domain: Domain::Line64, nesting: 0, policy }
        };
        cases.extend((0..calls(policy, Start::Pending, step)).step_by(stride).map(killed));
    }
    cases
}

/// What begins to count again: the epochs when the heap is opened, a lane's operations in the midst of their work.
fn worn_out(policy: Policy, nesting: u32) -> Vec<Case> {
    let start = Start::WornOut;
    let step = |op| Step { op, lane: 0 };
    let opened = [Op::Kill, Op::Reopen].map(|op| vec![step(op)]);
    let ops = [Op::AllocSmallest, Op::FreePages, Op::PublishBlocks, Op::SetCell];
    let after = ops.map(|op| vec![step(Op::Kill), step(op)]);
    // The first one that finds no number left, and the one behind it. Under the policy Batched lanes do not count.
    let used_up = [Op::AllocSmallest, Op::PublishBlocks, Op::SetCell]
        .into_iter()
        .filter(|_| policy == Policy::Eager)
        .flat_map(|op| [3, 4].map(|times| vec![step(op); times]));
    let scenes = opened.into_iter().chain(after).chain(used_up);
    let scenes: Vec<Scene> = scenes
        .map(|steps| Scene::Steps(start, steps))
        .chain([Scene::Open(start), Scene::Close(start)])
        .collect();
    let case = |domain| {
        let scenes = scenes.clone().into_iter();
        scenes.map(move |scene| Case { scene, domain, nesting, policy })
    };
    DOMAINS.into_iter().flat_map(case).collect()
}

/// A typed block and what its slot owns, made by one publish and freed by another; and a process that is killed in either.
fn typed(policy: Policy, nesting: u32) -> Vec<Case> {
    let start = Start::Typed;
    let mut cases = Vec::new();
    for step in [Op::PublishNode, Op::PublishLargeNode].map(|op| Step { op, lane: 0 }) {
        for domain in DOMAINS {
            let case = |steps: &[Step], nesting| {
                let scene = Scene::Steps(start, steps.to_vec());
                Case { scene, domain, nesting, policy }
            };
            cases.push(case(&[step], nesting));
            cases.push(case(&[step, step], nesting - 1));
            // What moved out of the block is freed by itself.
            let free = Step { op: Op::FreeOwn, lane: 0 };
            let sync = (policy == Policy::Batched).then_some(Step { op: Op::Sync, lane: 0 });
            let before: Vec<Step> = [step, step].into_iter().chain(sync).chain([free]).collect();
            cases.push(case(&[before, vec![step]].concat(), nesting - 1));
        }
        let killed = |nth| Case {
            scene: Scene::Killed(start, step, nth, step),
            domain: Domain::Word8,
            nesting: nesting - 1,
            policy,
        };
        cases.extend((0..calls(policy, start, step)).map(killed));
    }
    cases
}

/// A heap on a file in the page cache, of which only a sync makes anything durable: its life, and what may go wrong in it. Every
/// `stride`-th story of those in which the process is killed. Whatever whole pages can be, torn ones can: whole ones are
/// there to see that, where nothing goes wrong.
fn cached(policy: Policy, nesting: u32, stride: usize) -> Vec<Case> {
    let is_step = |story: &Story| matches!(story.deed, Deed::First(_) | Deed::Later(_));
    let case = |domain, story: Story| {
        // Steps do not change how a heap opens.
        let nesting = if is_step(&story) { nesting - 1 } else { nesting };
        Case { scene: Scene::Cached(story), domain, nesting, policy }
    };
    let (killed, others): (Vec<Story>, Vec<Story>) =
        cache::stories(policy).into_iter().partition(|story| matches!(story.fate, Fate::Killed(_)));
    let lives = others.iter().filter(|story| story.fate == Fate::Returns && !is_step(story));
    let mut cases: Vec<Case> = lives.cloned().map(|story| case(Domain::Page4096, story)).collect();
    let killed = killed.into_iter().step_by(stride);
    cases.extend(others.into_iter().chain(killed).map(|story| case(Domain::PageTorn, story)));
    cases
}

/// How many calls of `step` from `start` change the medium: at each, the process can be killed.
///
/// # Panics
///
/// If the step fails for another reason than want of room.
#[must_use]
pub fn calls(policy: Policy, start: Start, step: Step) -> u64 {
    let mut world = start.world(world::medium(Domain::Eadr), policy);
    let process = world.process().clone();
    let before = process.persist_calls();
    perform(&mut world, step, |_, _| {});
    process.persist_calls() - before
}

fn life(policy: Policy, nesting: u32) -> Vec<Case> {
    let creator = world::medium(Domain::Eadr);
    let heap = world::create(creator.clone(), policy).expect("a fresh medium has room");
    let creating = creator.persist_calls();
    drop(heap);
    let mut cases = Vec::new();
    for domain in DOMAINS {
        let mut add = |scene| cases.push(Case { scene, domain, nesting, policy });
        add(Scene::Create);
        for start in Start::ALL {
            add(Scene::Close(start));
            add(Scene::Open(start));
        }
        if domain != Domain::Eadr {
            (0..creating).map(Scene::KilledCreate).for_each(add);
        }
    }
    cases
}

/// What running a set came to.
#[derive(Debug)]
pub struct Outcome {
    /// The set.
    pub name: &'static str,
    /// The policy of its first case.
    pub policy: Option<Policy>,
    /// Cases that were run.
    pub cases: usize,
    /// All their reports together.
    pub report: Report,
    /// The first case with a violation, and its report.
    pub failure: Option<(Case, String)>,
    /// The cases of which not every image was tried.
    pub sampled: Vec<Case>,
    /// Places that stored, flushed or fenced.
    pub sites: Vec<SiteCount>,
    /// Seconds of wall time.
    pub elapsed_s: f64,
}

/// Runs the cases of `set` on `threads` threads, up to the first violation.
#[must_use]
pub fn run(set: &Set, conditions: &Conditions, threads: usize) -> Outcome {
    run_until(set, conditions, threads, None)
}

/// As [`run`], but begins no case after `deadline`: fewer cases may be run then than the set has.
#[must_use]
pub fn run_until(
    set: &Set,
    conditions: &Conditions,
    threads: usize,
    deadline: Option<Instant>,
) -> Outcome {
    let started = Instant::now();
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Total::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while deadline.is_none_or(|deadline| Instant::now() < deadline) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = set.cases.get(at) else { return };
                    let (report, sites) = run_guarded(case, conditions);
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    if total.add(case, report, sites) {
                        next.store(set.cases.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    Outcome {
        name: set.name,
        policy: set.cases.first().map(|case| case.policy),
        cases: total.cases,
        report: total.report,
        failure: total.failure,
        sampled: total.sampled,
        sites: total.sites,
        elapsed_s: started.elapsed().as_secs_f64(),
    }
}

/// Runs a case; a panic outside recovery, as a planted fault may cause, counts as a violation.
fn run_guarded(case: &Case, conditions: &Conditions) -> (Result<Report, String>, Vec<SiteCount>) {
    let run = std::panic::AssertUnwindSafe(|| case.run(conditions));
    match std::panic::catch_unwind(run) {
        Ok((report, sites)) => (Ok(report), sites),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".into());
            (Err(text), Vec::new())
        }
    }
}

#[derive(Default)]
struct Total {
    cases: usize,
    report: Report,
    failure: Option<(Case, String)>,
    sampled: Vec<Case>,
    sites: Vec<SiteCount>,
}

impl Total {
    /// Adds a case and returns whether it failed.
    fn add(&mut self, case: &Case, report: Result<Report, String>, sites: Vec<SiteCount>) -> bool {
        self.cases += 1;
        for site in sites {
            let known =
                |other: &SiteCount| other.kind == site.kind && other.location == site.location;
            if !self.sites.iter().any(known) {
                self.sites.push(site);
            }
        }
        let failure = match &report {
            Ok(report) => report.violations.first().map(ToString::to_string),
            Err(panic) => Some(panic.clone()),
        };
        if let Ok(report) = report {
            if !report.is_exhaustive() {
                self.sampled.push(case.clone());
            }
            self.report.merge(report);
        }
        if let Some(failure) = failure {
            self.failure.get_or_insert_with(|| (case.clone(), failure));
            return true;
        }
        false
    }
}
