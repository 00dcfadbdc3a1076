//! The plain product of all images against the explorer, which leaves most of it out.
//!
//! Every moment of a step at which a crash is worth exploring is frozen, together with what may be found after it. Each is
//! then explored twice: all classes of images that recovery and oracle can tell apart, and every single image. Both must
//! come to the same recovered states.

use std::sync::{Arc, Mutex, PoisonError};

use pmalloc::{
    Policy,
    persist::sim::{
        CrashState, Digest, Domain, ExploreOptions, Explorer, Report, Sim, SiteCount,
        explore_eagerly, explore_state,
    },
};

use crate::{
    alphabet::Step,
    explore::perform,
    model::{Expected, Shared},
    oracle::Oracle,
    start::Start,
    world::{self, World},
};

/// A moment of a step: all that a crash could leave then, and what may be found in it.
#[derive(Debug, Clone)]
pub struct Moment {
    state: CrashState,
    expected: Expected,
}

/// Performs `steps` from `start` and freezes every crash point of the last one, in which `fault` is planted: what it leaves
/// open adds up, and from the beginning there would be too many images.
///
/// # Panics
///
/// If there is no step, or the heap refuses one for another reason than want of room.
#[must_use]
pub fn moments(
    domain: Domain,
    start: Start,
    steps: &[Step],
    fault: Option<SiteCount>,
) -> Vec<Moment> {
    let sim = world::medium(domain);
    let mut world = World::new(sim.clone(), Policy::Eager);
    start.build(&mut world);
    let (last, before) = steps.split_last().expect("a sequence has a step");
    for step in before {
        perform(&mut world, *step, |_, _| {});
    }
    if let Some(fault) = fault {
        sim.mutate(fault);
    }
    let (expected, moments) = (Shared::default(), Arc::<Mutex<Vec<Moment>>>::default());
    let explorer = freezer(&sim, expected.clone(), moments.clone());
    perform(&mut world, *last, |before, after| expected.either(before, after));
    expected.only(&world.model);
    explorer.crash_point("returned");
    drop(explorer.finish());
    std::mem::take(&mut *moments.lock().unwrap_or_else(PoisonError::into_inner))
}

/// An explorer whose check looks at nothing: it runs once per crash point, and there keeps the state of the medium that
/// crashes.
fn freezer(sim: &Sim, expected: Shared, moments: Arc<Mutex<Vec<Moment>>>) -> Explorer {
    let crashing = sim.clone();
    Explorer::watch(sim, ExploreOptions::default(), move |_| {
        let moment = Moment { state: crashing.crash_state(), expected: expected.get() };
        moments.lock().unwrap_or_else(PoisonError::into_inner).push(moment);
        Ok(Digest(0))
    })
}

impl Moment {
    /// Images, before any two are known to be alike.
    #[must_use]
    pub fn images(&self) -> u64 {
        self.state.image_count()
    }

    /// Judges every class of images.
    #[must_use]
    pub fn lazily(&self) -> Report {
        let options = ExploreOptions { max_violations: 1, ..ExploreOptions::default() };
        explore_state(&self.state, options, self.check())
    }

    /// Judges every image; `None` if there are more than `limit`.
    #[must_use]
    pub fn eagerly(&self, limit: u64) -> Option<Report> {
        explore_eagerly(&self.state, limit, self.check()).ok()
    }

    fn check(&self) -> impl Fn(&Sim) -> Result<Digest, String> + Send + Sync + use<> {
        let expected = Shared::default();
        expected.set(self.expected.clone());
        let oracle = Oracle::new(expected, None);
        move |sim: &Sim| oracle.check(sim)
    }
}
