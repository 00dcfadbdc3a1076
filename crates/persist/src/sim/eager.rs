//! The plain product of all prefixes, for checking the explorer that leaves most of it out.

use core::panic::Location;

use super::{
    CrashState, Digest, ExploreOptions, PointKind, Report, Sim, engine::Engine, report::Crash,
};

/// A crash state has more images than one wants to enumerate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{images} images, and the limit is {limit}")]
pub struct TooManyImages {
    /// Images of the state.
    pub images: u64,
    /// Images that were allowed.
    pub limit: u64,
}

/// Runs `check` on every single image of `state`.
///
/// [`explore_state`](super::explore_state) finds the same set of recovered states in far fewer runs; this is
/// how one makes sure of that.
///
/// # Errors
///
/// [`TooManyImages`] if there are more than `limit`.
#[track_caller]
pub fn explore_eagerly<C>(state: &CrashState, limit: u64, check: C) -> Result<Report, TooManyImages>
where
    C: Fn(&Sim) -> Result<Digest, String> + Send + Sync + 'static,
{
    let images = state.image_count();
    if images > limit {
        return Err(TooManyImages { images, limit });
    }
    let crash = Crash { point: 0, kind: PointKind::Named("state"), site: Location::caller() };
    let engine = Engine::new(ExploreOptions::default(), Box::new(check));
    engine.explore_eagerly(&state.sim, crash);
    Ok(Report { points: 1, ..engine.report() })
}
