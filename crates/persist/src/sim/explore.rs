//! The explorer: runs recovery and oracle on every image of every crash point.

use core::panic::Location;
use std::sync::Arc;

use super::{
    CrashState, Digest, ImageId, PointKind, Report, Sim,
    engine::{Engine, Hook},
    report::Crash,
};

/// How far to explore.
#[derive(Debug, Clone)]
pub struct ExploreOptions {
    /// Crashes inside recovery: none, one, one inside the recovery from that one, and so on.
    pub nesting: u32,
    /// Classes per crash point; a point with more is sampled, and the report says so.
    pub budget: u64,
    /// Classes per crash point inside a recovery.
    pub nested_budget: u64,
    /// Random images of a point that is sampled, beside the extreme ones.
    pub samples: u64,
    /// Seed of the random images.
    pub seed: u64,
    /// Accesses that one run of the check may make; more is taken for a hang.
    pub step_limit: u64,
    /// Violations after which nothing more is explored. Each point is left at its first one.
    pub max_violations: usize,
    /// The only image to run, from [`Violation::image`](super::Violation::image).
    pub replay: Option<ImageId>,
}

impl Default for ExploreOptions {
    fn default() -> Self {
        Self {
            nesting: 0,
            budget: 1 << 16,
            nested_budget: 1 << 12,
            samples: 256,
            seed: 0,
            step_limit: 1 << 24,
            max_violations: 8,
            replay: None,
        }
    }
}

/// Watches a [`Sim`] and explores every crash point that it reaches.
///
/// Crash points are: before each fence that makes something durable; before pages are backed or punched and
/// before a sync; where the driver calls [`Explorer::crash_point`]; and in [`Domain::Eadr`](super::Domain)
/// after each store. Between two such points the set of images only grows, so no image is missed.
///
/// The check recovers the medium that it is given and judges what it finds. It runs on the thread that
/// reached the point, in the midst of the operation; what it compares with, it shares with the driver. It
/// returns a digest of the recovered state, or what is wrong with it. A panic is a violation as well, and so
/// is an access to a page without memory.
#[derive(Debug)]
pub struct Explorer {
    engine: Arc<Engine>,
    sim: Sim,
}

impl Explorer {
    /// Starts to explore the crashes of `sim`.
    ///
    /// With [nesting](ExploreOptions::nesting), each fence inside the check is a crash point in turn,
    /// judged by the same check, until the check calls [`Sim::recovered`]. Such checks run inside the outer
    /// one, so a check must not hold a lock while it recovers.
    pub fn watch<C>(sim: &Sim, options: ExploreOptions, check: C) -> Self
    where
        C: Fn(&Sim) -> Result<Digest, String> + Send + Sync + 'static,
    {
        let engine = Engine::new(options, Box::new(check));
        sim.lock().hook = Some(Hook { engine: engine.clone(), level: 0 });
        Self { engine, sim: sim.clone() }
    }

    /// Makes this moment a crash point: an operation has returned, the oracle's answer changes.
    #[track_caller]
    pub fn crash_point(&self, name: &'static str) {
        let site = Location::caller();
        self.engine.reached(&self.sim, 0, PointKind::Named(name), site);
    }

    /// Tells in which state the oracle is from now on. A point whose images were judged in the same state
    /// before is skipped; without this call no two points of the driver are taken for the same.
    pub fn set_oracle(&self, state: u64) {
        self.engine.set_oracle(state);
    }

    /// Explores nothing until [`Explorer::resume`].
    pub fn pause(&self) {
        self.engine.set_paused(true);
    }

    /// Explores again.
    pub fn resume(&self) {
        self.engine.set_paused(false);
    }

    /// Whether nothing more is explored, because enough violations were found.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.engine.is_over()
    }

    /// Stops watching and tells what was found.
    #[must_use]
    pub fn finish(self) -> Report {
        let mut report = self.engine.report();
        let mut state = self.sim.lock();
        state.hook = None;
        report.untold_words = std::mem::take(&mut state.untold_words);
        report
    }
}

/// Explores all images of `state`, as an [`Explorer`] does those of one crash point.
#[track_caller]
pub fn explore_state<C>(state: &CrashState, options: ExploreOptions, check: C) -> Report
where
    C: Fn(&Sim) -> Result<Digest, String> + Send + Sync + 'static,
{
    let crash = Crash { point: 0, kind: PointKind::Named("state"), site: Location::caller() };
    let engine = Engine::new(options, Box::new(check));
    engine.explore(&state.sim, 0, crash);
    Report { points: 1, ..engine.report() }
}
