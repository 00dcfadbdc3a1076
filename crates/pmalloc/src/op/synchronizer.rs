//! The synchronizer: makes the effects of all operations of an epoch durable at once, under the policy Batched.
//!
//! A round ends the present epoch, waits until no lane has an operation inside that it stamps, flushes each line that
//! operations have left, and says that the epoch is durable. Any thread may run one between two operations; whoever holds
//! the lock is the synchronizer (rules 3 and 4).

#[cfg(not(shuttle))]
use std::time::Instant;

use core::time::Duration;

use pmalloc_persist::{
    Medium,
    sync::{Arc, Mutex, MutexGuard, thread},
};

use super::{Result, commit::flush_line, epochs::Epochs, line_set::LineSet};
use crate::{
    error::Error,
    lane::{Board, Lanes},
    layout::state::EPOCH_MAX,
    recovery::state,
};

/// What keeps a round from being two, and what a round needs.
#[derive(Debug, Default)]
pub(super) struct Synchronizer(Mutex<Round>);

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Every operation that had returned before is durable with all its effects.
    Done,
    /// A thread has not come out of its operation: the round goes on with the next attempt.
    Stalled,
}

/// How long an attempt waits: for another synchronizer, and for a thread that is inside an operation, which takes less than
/// a microsecond unless the thread is stopped or has lost its processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Looks a few times.
    Little,
    /// Waits as long as that.
    For(Duration),
}

/// Looks before an attempt gives its processor up between two, or has lost its little patience.
const LOOKS: u32 = 100;

#[derive(Debug, Default)]
struct Round {
    /// The epoch that was ended and is not durable yet.
    ending: Option<u64>,
    /// What is seen of each lane.
    boards: Vec<Arc<Board>>,
    /// How many lines each has noted.
    noted: Vec<u64>,
    /// Lines that this round has flushed.
    flushed: LineSet,
}

impl Synchronizer {
    /// Runs a round, or first goes on with one that was stalled.
    ///
    /// The caller has [entered](super::Engine::enter).
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if the epochs are used up: they start again when the heap is opened.
    ///
    /// # Crash consistency
    ///
    /// All effects of the epoch are durable before its number is, and that before anything is reused that it frees.
    pub(super) fn synchronize<M: Medium>(
        &self,
        m: &M,
        epochs: &Epochs,
        lanes: &Lanes,
        patience: Patience,
    ) -> Result<Outcome> {
        let waiting = &mut Waiting::new(patience);
        let Some(mut round) = self.begin(waiting) else { return Ok(Outcome::Stalled) };
        // What had returned before this call is of the epoch that is ending, or of the one that ends then.
        while let Some(epoch) = round.ending {
            if round.finish(m, (epochs, lanes), epoch, waiting)? == Outcome::Stalled {
                return Ok(Outcome::Stalled);
            }
        }
        if epochs.present() >= EPOCH_MAX {
            return Err(Error::Limit {
                what: "epochs of an open heap (they begin again when it is opened again)",
                limit: EPOCH_MAX,
            }
            .into());
        }
        let epoch = epochs.begin_next();
        round.ending = Some(epoch);
        round.finish(m, (epochs, lanes), epoch, waiting)
    }

    /// Becomes the synchronizer, unless another thread is it for longer than this one waits.
    fn begin(&self, waiting: &mut Waiting) -> Option<MutexGuard<'_, Round>> {
        loop {
            match self.0.try_lock() {
                Ok(round) => return Some(round),
                Err(_) if waiting.is_over() => return None,
                // Poisoned or not: a thread that panicked in a round has stopped the durable epoch for good.
                Err(_) => thread::yield_now(),
            }
        }
    }
}

impl Round {
    fn finish<M: Medium>(
        &mut self,
        m: &M,
        (epochs, lanes): (&Epochs, &Lanes),
        epoch: u64,
        waiting: &mut Waiting,
    ) -> Result<Outcome> {
        // Behind the end of the epoch: who marks a lane that is not among these looks at the epoch later still.
        lanes.boards(&mut self.boards);
        if !self.boards.iter().all(|board| has_left(board, waiting)) {
            return Ok(Outcome::Stalled);
        }
        let Self { boards, noted, flushed, .. } = self;
        // Before the first flush: what is stored in a line behind its flush is noted anew, for the next round. Lines of the
        // next epoch may be among these: they were stored behind their record's fence, too.
        noted.clear();
        noted.extend(boards.iter().map(|board| board.noted()));
        for (board, noted) in boards.iter().zip(noted) {
            board.take(*noted, |line| {
                if flushed.insert(line) {
                    flush_line(m, line);
                }
            });
        }
        flushed.clear();
        // CRASH: until here the records of the epoch are live, and recovery redoes what may not be durable. Behind the fence
        // all of it is.
        m.fence();
        state::set_durable_epoch(m, epoch)?;
        self.ending = None;
        epochs.set_durable(epoch);
        Ok(Outcome::Done)
    }
}

/// Waits until the operation that is inside a lane, if there is one, has left; whether it has.
fn has_left(board: &Board, waiting: &mut Waiting) -> bool {
    let Some(mark) = board.inside() else { return true };
    for _ in 0..LOOKS {
        if board.has_left(mark) {
            return true;
        }
        core::hint::spin_loop();
    }
    while !board.has_left(mark) {
        if waiting.is_over() {
            return false;
        }
        thread::yield_now();
    }
    true
}

/// How long an attempt still waits.
///
/// Schedule tests repeat schedules, where time does not repeat: there it is a number of looks.
#[derive(Debug)]
struct Waiting {
    #[cfg(not(shuttle))]
    until: Option<Instant>,
    #[cfg(shuttle)]
    looks: u32,
}

#[cfg(not(shuttle))]
impl Waiting {
    fn new(patience: Patience) -> Self {
        let until = match patience {
            Patience::Little => None,
            Patience::For(time) => Some(Instant::now() + time),
        };
        Self { until }
    }

    fn is_over(&mut self) -> bool {
        self.until.is_none_or(|until| Instant::now() > until)
    }
}

#[cfg(shuttle)]
impl Waiting {
    fn new(patience: Patience) -> Self {
        Self { looks: if patience == Patience::Little { 0 } else { 1000 } }
    }

    fn is_over(&mut self) -> bool {
        let is_over = self.looks == 0;
        self.looks = self.looks.saturating_sub(1);
        is_over
    }
}
