//! The search: depth first over the decisions that reads force, by running the check again and again.

use core::sync::atomic::{AtomicBool, Ordering};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    ExploreOptions, Sim,
    boot::{Decision, Plan},
    model::Site,
    quiet,
    report::{Crash, Digest, ImageId, PointKind, Report, Violation},
    undecided::Undecided,
};

/// Recovery and oracle.
pub(super) type Check = dyn Fn(&Sim) -> Result<Digest, String> + Send + Sync;

/// What has been judged: the set of images, and the oracle's state.
type Judged = (u128, u64);

/// Ties a medium to the engine that explores its crashes.
#[derive(Debug, Clone)]
pub(super) struct Hook {
    pub(super) engine: Arc<Engine>,
    /// Crashes before this medium booted.
    pub(super) level: u32,
}

impl Hook {
    pub(super) fn reached(&self, sim: &Sim, kind: PointKind, site: Site) {
        self.engine.reached(sim, self.level, kind, site);
    }
}

/// An exploration under way.
pub(super) struct Engine {
    options: ExploreOptions,
    check: Box<Check>,
    is_paused: AtomicBool,
    is_over: AtomicBool,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    report: Report,
    /// The least depth at which each was judged. What is judged at one depth is explored as far at every
    /// greater one.
    judged: HashMap<Judged, u32>,
    /// The oracle's state, if the driver tells it; without, no two points are taken for the same.
    oracle: Option<u64>,
}

impl Engine {
    pub(super) fn new(options: ExploreOptions, check: Box<Check>) -> Arc<Self> {
        Arc::new(Self {
            options,
            check,
            is_paused: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            progress: Mutex::default(),
        })
    }

    pub(super) fn set_paused(&self, is_paused: bool) {
        self.is_paused.store(is_paused, Ordering::Relaxed);
    }

    pub(super) fn set_oracle(&self, oracle: u64) {
        self.lock().oracle = Some(oracle);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub(super) fn report(&self) -> Report {
        std::mem::take(&mut self.lock().report)
    }

    /// A medium `level` crashes deep has reached a crash point: explores it.
    pub(super) fn reached(self: &Arc<Self>, sim: &Sim, level: u32, kind: PointKind, site: Site) {
        if self.is_over() || (level == 0 && self.is_paused.load(Ordering::Relaxed)) {
            return;
        }
        let Some(point) = self.next_point(sim, level) else { return };
        if !self.is_wanted(level, point) || self.is_judged(sim, level) {
            return;
        }
        self.explore(sim, level, Crash { point, kind, site });
    }

    /// Explores all images that a crash of `sim` now could leave.
    pub(super) fn explore(self: &Arc<Self>, sim: &Sim, level: u32, crash: Crash) {
        let nested = Hook { engine: self.clone(), level: level + 1 };
        let hook = (level < self.options.nesting).then_some(nested);
        let lent = sim.lend_boot(crash, hook, self.options.step_limit);
        match self.replayed(level) {
            Some(script) => drop(self.run(&lent.sim, level, script, Plan::Oldest, 0)),
            None => self.search(&lent.sim, level),
        }
        let untold = sim.return_boot(lent);
        let report = &mut self.lock().report;
        report.nested_points += u64::from(level > 0);
        if let Some(at) = untold {
            let message = format!("plain stores to {at:#x} were never announced by `stored`");
            let image = ImageId { crashes: vec![(crash.point, Vec::new())] };
            report.violations.push(Violation {
                message,
                image,
                crashes: vec![(crash, Vec::new())],
            });
        }
    }

    /// Runs the check on every image of the product, whether or not it can tell them apart.
    pub(super) fn explore_eagerly(self: &Arc<Self>, sim: &Sim, crash: Crash) {
        let lent = sim.lend_boot(crash, None, self.options.step_limit);
        let counts: Vec<usize> =
            lent.sim.lock().image.units().iter().map(Undecided::content_count).collect();
        let mut contents = vec![0; counts.len()];
        loop {
            self.run(&lent.sim, 0, Vec::new(), Plan::Fixed(contents.clone()), 0);
            if !advance(&mut contents, &counts) || self.is_over() {
                break;
            }
        }
        sim.return_boot(lent);
    }

    /// Depth-first search over the decisions; above the budget, a sample.
    fn search(self: &Arc<Self>, boot: &Sim, level: u32) {
        let budget = if level == 0 { self.options.budget } else { self.options.nested_budget };
        let mut script = Vec::new();
        let mut classes = 0;
        loop {
            let fresh_from = script.len();
            let ran = self.run(boot, level, script, Plan::Oldest, fresh_from);
            classes += 1;
            let Some(next) = ran.and_then(next_script) else { break };
            if classes >= budget {
                classes += self.sample(boot, level);
                break;
            }
            script = next;
        }
        if level == 0 {
            let report = &mut self.lock().report;
            report.max_classes = report.max_classes.max(classes);
        }
    }

    /// Runs the check on the extreme images and on random ones; returns how many.
    fn sample(self: &Arc<Self>, boot: &Sim, level: u32) -> u64 {
        {
            let report = &mut self.lock().report;
            *(if level == 0 {
                &mut report.sampled_points
            } else {
                &mut report.nested_sampled_points
            }) += 1;
        }
        let units = boot.lock().image.units().len();
        let singles = (0..units).flat_map(|unit| [Plan::OnlyNewest(unit), Plan::OnlyOldest(unit)]);
        let random = (0..self.options.samples).map(|n| Plan::Random(self.options.seed ^ n));
        let plans = [Plan::Oldest, Plan::Newest].into_iter().chain(singles).chain(random);
        let mut classes = 0;
        for plan in plans {
            classes += 1;
            if self.run(boot, level, Vec::new(), plan, 0).is_none() {
                break;
            }
        }
        classes
    }

    /// Runs the check once. Returns the decisions it forced, or `None` if it failed or nothing more is to
    /// be explored.
    fn run(
        self: &Arc<Self>,
        boot: &Sim,
        level: u32,
        script: Vec<Decision>,
        plan: Plan,
        fresh_from: usize,
    ) -> Option<Vec<Decision>> {
        let is_eager = matches!(plan, Plan::Fixed(_));
        boot.begin_run(script, plan, fresh_from);
        if is_eager {
            let state = &mut *boot.lock();
            state.image.decide_all(&mut state.memory);
        }
        let outcome =
            quiet::catch(|| (self.check)(boot)).map_err(|panic| format!("panic: {panic}"));
        let verdict = outcome.flatten().and_then(|digest| confirm(boot, digest));
        if self.is_prelude(level) {
            boot.lock().memory.scrub();
            return None;
        }
        self.record(boot, level, verdict)
    }

    fn record(
        &self,
        boot: &Sim,
        level: u32,
        verdict: Result<Digest, String>,
    ) -> Option<Vec<Decision>> {
        let mut progress = self.lock();
        let report = &mut progress.report;
        *(if level == 0 { &mut report.classes } else { &mut report.nested_classes }) += 1;
        match verdict {
            Ok(digest) => {
                report.states.insert(digest);
                let decisions = std::mem::take(&mut boot.lock().image.decisions);
                (!self.is_over()).then_some(decisions)
            }
            Err(message) => {
                let (image, crashes) = (boot.image_id(), boot.crashes());
                report.violations.push(Violation { message, image, crashes });
                if report.violations.len() >= self.options.max_violations {
                    self.is_over.store(true, Ordering::Relaxed);
                }
                drop(progress);
                let state = &mut *boot.lock();
                state.violations.clear();
                state.memory.scrub();
                None
            }
        }
    }

    /// Numbers the crash point; `None` if an earlier run has explored it.
    fn next_point(&self, sim: &Sim, level: u32) -> Option<u64> {
        if level == 0 {
            let report = &mut self.lock().report;
            report.points += 1;
            return Some(report.points - 1);
        }
        let state = &mut *sim.lock();
        state.run.points += 1;
        let is_fresh = state.image.decisions.len() >= state.run.fresh_from;
        (is_fresh && !state.run.recovered).then_some(state.run.points - 1)
    }

    /// Whether `point` is to be explored: all are, unless one image is replayed.
    fn is_wanted(&self, level: u32, point: u64) -> bool {
        let Some(image) = &self.options.replay else { return true };
        image.crashes.get(level as usize).is_some_and(|(wanted, _)| *wanted == point)
    }

    /// Whether runs at `level` only lead to the image to replay.
    fn is_prelude(&self, level: u32) -> bool {
        self.options.replay.as_ref().is_some_and(|image| (level as usize) + 1 < image.crashes.len())
    }

    /// The script of the image to replay, if any. What was read only by an earlier crash's run keeps its
    /// meaning, because the decisions are in the order of the reads.
    fn replayed(&self, level: u32) -> Option<Vec<Decision>> {
        let (_, groups) = self.options.replay.as_ref()?.crashes.get(level as usize)?;
        let decision = |&group| Decision { word: None, group, group_count: 0 };
        Some(groups.iter().map(decision).collect())
    }

    /// Whether the same images were judged by the same oracle before, or are being judged.
    fn is_judged(&self, sim: &Sim, level: u32) -> bool {
        if self.options.replay.is_some() {
            return false;
        }
        let fingerprint = sim.lock().fingerprint(sim.surviving_pages());
        let mut progress = self.lock();
        // Inside a point the oracle stands still, so its number stands for the oracle's state.
        let oracle = progress.oracle.unwrap_or(progress.report.points);
        let depth = progress.judged.entry((fingerprint, oracle)).or_insert(u32::MAX);
        let is_judged = *depth <= level;
        *depth = level.min(*depth);
        if is_judged && level == 0 {
            progress.report.repeated_points += 1;
        }
        is_judged
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl core::fmt::Debug for Engine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Engine").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Turns what the simulator noticed during a run that the check accepted into a failure.
fn confirm(boot: &Sim, digest: Digest) -> Result<Digest, String> {
    let state = boot.lock();
    if state.image.diverged {
        return Err("recovery is not deterministic: the same image led to other reads".into());
    }
    if let Some(first) = state.violations.first() {
        return Err(first.clone());
    }
    Ok(digest)
}

/// The decisions of the next run in depth-first order.
fn next_script(mut decisions: Vec<Decision>) -> Option<Vec<Decision>> {
    while let Some(last) = decisions.last_mut() {
        if last.group + 1 < last.group_count {
            last.group += 1;
            return Some(decisions);
        }
        decisions.pop();
    }
    None
}

/// Moves `odometer` to the next number whose digits are below `counts`.
fn advance(odometer: &mut [usize], counts: &[usize]) -> bool {
    for (digit, count) in odometer.iter_mut().zip(counts) {
        *digit += 1;
        if *digit < *count {
            return true;
        }
        *digit = 0;
    }
    false
}
