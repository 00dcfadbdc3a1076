//! Media that boot after a crash: made from the state of another one, borrowed again and again.

use core::sync::atomic::Ordering;

use super::{
    Sim, SimOptions,
    boot::{Decision, Plan},
    engine::Hook,
    memory::WordAt,
    pages::Pages,
    report::{Crash, ImageId, StoreFate},
    state::State,
    undecided::Undecided,
};
use crate::Medium;

/// One in so many explorations is followed by a search for plain stores that were not announced.
const LOANS_PER_SCAN: u64 = 64;

/// All images that a crash at one moment could leave.
///
/// A snapshot: the medium that it was taken from may go on.
#[derive(Debug, Clone)]
pub struct CrashState {
    /// A post-crash medium with everything still undecided.
    pub(super) sim: Sim,
}

impl CrashState {
    pub(super) fn of(source: &Sim) -> Self {
        let sim = source.new_boot();
        {
            let mut state = source.lock();
            let mut boot = sim.lock();
            boot.memory.copy_all(&state.memory, source.inner.pages.ever_backed());
            sim.take_over(&mut boot, source, &mut state);
        }
        Self { sim }
    }

    /// One image, chosen pseudo-randomly, as an ordinary medium to go on with.
    #[must_use]
    pub fn sample(&self, seed: u64) -> Sim {
        self.boot(Plan::Random(seed))
    }

    /// The image in which every store that was not durable for certain is lost.
    #[must_use]
    pub fn oldest(&self) -> Sim {
        self.boot(Plan::Oldest)
    }

    /// The image in which every store became durable.
    #[must_use]
    pub fn newest(&self) -> Sim {
        self.boot(Plan::Newest)
    }

    /// How many different images there are, before any two are known to be indistinguishable; saturates.
    #[must_use]
    pub fn image_count(&self) -> u64 {
        let state = self.sim.lock();
        state.image.open().fold(1, |product, unit| product.saturating_mul(unit.left_count() as u64))
    }

    fn boot(&self, plan: Plan) -> Sim {
        let Self { sim } = Self::of(&self.sim);
        {
            let mut guard = sim.lock();
            let state = &mut *guard;
            state.begin(Vec::new(), plan, 0);
            state.image.decide_all(&mut state.memory);
            state.image.clear();
            state.memory.drop_undo();
        }
        sim.inner.is_boot.store(false, Ordering::Relaxed);
        sim
    }
}

impl Sim {
    /// A post-crash medium of the same size, of zeroes.
    fn new_boot(&self) -> Self {
        let len_bytes = self.region().len();
        let sim = Self::with_kind(SimOptions { len_bytes, domain: self.domain() }, true);
        {
            let mut state = sim.lock();
            state.memory.keep_undo();
            state.run.pages_at_boot = Some(Pages::new(len_bytes));
        }
        sim
    }

    /// Takes over everything but the contents from the crashed `source`.
    fn take_over(&self, boot: &mut State, source: &Self, state: &mut State) {
        boot.image.boot(state.after_crash());
        boot.mutations.clone_from(&state.mutations);
        let left = source.surviving_pages();
        let pages = boot.run.pages_at_boot.as_ref().expect("made with the medium");
        for pages in [&self.inner.pages, &self.inner.sure_pages, pages] {
            pages.copy_from(left);
        }
        let number = source.inner.boot.load(Ordering::Relaxed) + 1;
        self.inner.boot.store(number, Ordering::Relaxed);
    }

    /// Borrows the post-crash medium kept with this one, as a crash now would leave it. Its `hook` makes
    /// crashes inside recovery explored in turn.
    pub(super) fn lend_boot(&self, crash: Crash, hook: Option<Hook>, step_limit: u64) -> Lent {
        let (sim, token) = self.take_child();
        {
            let mut guard = self.lock();
            let state = &mut *guard;
            let mut boot = sim.lock();
            boot.begin(Vec::new(), Plan::Oldest, 0);
            boot.memory.copy_base(&mut state.memory, self.inner.pages.ever_backed());
            sim.take_over(&mut boot, self, state);
            boot.hook = hook;
            boot.run.origin = Some((crash, self.clone()));
        }
        sim.inner.step_limit.store(step_limit, Ordering::Relaxed);
        Lent { sim, token }
    }

    /// Takes a borrowed medium back, with the sites it has seen. Returns the offset of a word that was
    /// written by plain stores which the simulator was never told of: such stores would leak from one run
    /// into the next. Looks for them only now and then, because it must look everywhere.
    pub(super) fn return_boot(&self, lent: Lent) -> Option<u64> {
        let mut state = self.lock();
        state.child.loans += 1;
        let mut untold = None;
        {
            let mut boot = lent.sim.lock();
            boot.run.origin = None;
            boot.hook = None;
            state.sites.absorb(&mut boot.sites);
            state.untold_words += std::mem::take(&mut boot.untold_words);
            if state.child.loans % LOANS_PER_SCAN == 1 {
                untold = boot.memory.scrub().map(WordAt::bytes);
            }
        }
        if state.child.token == lent.token {
            state.child.sim = Some(lent.sim);
        }
        untold
    }

    fn take_child(&self) -> (Self, u64) {
        let mut state = self.lock();
        if let Some(sim) = state.child.sim.take() {
            return (sim, state.child.token);
        }
        // Also where another thread has borrowed the child: its list of changes is void from now on.
        state.child.token += 1;
        state.memory.forget_changes();
        (self.new_boot(), state.child.token)
    }

    /// Starts a run of the check: contents, pages and counters are as at the boot.
    pub(super) fn begin_run(&self, script: Vec<Decision>, plan: Plan, fresh_from: usize) {
        let mut state = self.lock();
        state.begin(script, plan, fresh_from);
        let pages = state.run.pages_at_boot.as_ref().expect("a run is made on a post-crash medium");
        self.inner.pages.copy_from(pages);
        self.inner.sure_pages.copy_from(pages);
        self.inner.steps.store(0, Ordering::Relaxed);
    }

    /// The name of the image that this run saw so far.
    pub(super) fn image_id(&self) -> ImageId {
        let mut crashes = Vec::new();
        self.walk_crashes(|crash, state| {
            let groups = state.image.decisions.iter().map(|decision| decision.group).collect();
            crashes.push((crash.point, groups));
        });
        crashes.reverse();
        ImageId { crashes }
    }

    /// The crashes that led here and what each did to the stores that were looked at.
    pub(super) fn crashes(&self) -> Vec<(Crash, Vec<StoreFate>)> {
        let mut crashes = Vec::new();
        self.walk_crashes(|crash, state| crashes.push((crash, fates(state))));
        crashes.reverse();
        crashes
    }

    /// Calls `visit` for this medium and all that it descends from, the latest crash first.
    fn walk_crashes(&self, mut visit: impl FnMut(Crash, &State)) {
        let mut sim = self.clone();
        loop {
            let source = {
                let state = sim.lock();
                let Some((crash, source)) = &state.run.origin else { break };
                visit(*crash, &state);
                source.clone()
            };
            sim = source;
        }
    }
}

/// A borrowed post-crash medium.
#[derive(Debug)]
pub(super) struct Lent {
    pub(super) sim: Sim,
    token: u64,
}

fn fates(state: &State) -> Vec<StoreFate> {
    state.image.narrowed().flat_map(Undecided::fates).collect()
}
