//! Who runs next, by a plan; and when the world is frozen.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

use crate::plan::Turns;

/// A scheduler for one execution.
pub(crate) struct Planned {
    turns: Turns,
    rng: fastrand::Rng,
    has_begun: bool,
    /// Steps of the threads so far.
    steps: u64,
    /// Highest first: which task was demoted longest ago, or never.
    demoted: Vec<TaskId>,
    /// Steps at which the present task is demoted.
    demotions: Vec<u64>,
    /// Whether the threads are at work, so that steps count.
    is_at_work: Arc<AtomicBool>,
    on_step: Box<dyn FnMut(u64)>,
}

impl Planned {
    /// A scheduler of `turns` for an execution of about `length` steps, which calls `on_step` with the number of
    /// each step that is made while `is_at_work` is set.
    pub(crate) fn new(
        turns: Turns,
        seed: u64,
        length: u64,
        is_at_work: Arc<AtomicBool>,
        on_step: impl FnMut(u64) + 'static,
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let demotions = match turns {
            Turns::Priorities(depth) => (0..depth).map(|_| rng.u64(1..=length.max(1))).collect(),
            Turns::Random | Turns::Sticky(_) => Vec::new(),
        };
        let on_step = Box::new(on_step);
        let demoted = Vec::new();
        Self { turns, rng, has_begun: false, steps: 0, demoted, demotions, is_at_work, on_step }
    }

    fn choose(&mut self, runnable: &[&Task], current: Option<TaskId>) -> TaskId {
        let any = self.rng.usize(..runnable.len());
        let stays = current.filter(|current| runnable.iter().any(|task| task.id() == *current));
        match self.turns {
            Turns::Random => runnable[any].id(),
            Turns::Sticky(runs) => match stays {
                Some(current) if self.rng.u32(..runs) != 0 => current,
                _ => runnable[any].id(),
            },
            Turns::Priorities(_) => self.highest(runnable),
        }
    }

    fn highest(&mut self, runnable: &[&Task]) -> TaskId {
        for task in runnable {
            if !self.demoted.contains(&task.id()) {
                // A new task gets any place.
                let place = self.rng.usize(..=self.demoted.len());
                self.demoted.insert(place, task.id());
            }
        }
        let mut in_order = self.demoted.iter();
        let highest = in_order.find(|id| runnable.iter().any(|task| task.id() == **id));
        *highest.expect("every runnable task was entered")
    }
}

impl Scheduler for Planned {
    fn new_execution(&mut self) -> Option<Schedule> {
        (!std::mem::replace(&mut self.has_begun, true)).then(|| Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        // Relaxed: all tasks run on one thread, this one.
        if self.is_at_work.load(Ordering::Relaxed) {
            self.steps += 1;
            (self.on_step)(self.steps);
        }
        // A task that spins for another one says so, and must not keep it from running for ever.
        if (is_yielding || self.demotions.contains(&self.steps))
            && let Some(current) = current
        {
            self.demoted.retain(|task| *task != current);
            self.demoted.push(current);
        }
        Some(self.choose(runnable, current))
    }

    fn next_u64(&mut self) -> u64 {
        self.rng.u64(..)
    }
}
