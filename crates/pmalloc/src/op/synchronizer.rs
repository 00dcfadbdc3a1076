//! The synchronizer: makes the effects of all operations of an epoch durable at once, under the policy Batched.
//!
//! A round ends the present epoch, waits until no lane has an operation inside that it stamps, flushes each line that
//! operations have left, and says that the epoch is durable. Any thread may run one between two operations; whoever holds
//! the lock is the synchronizer (rules 3 and 4).

use std::time::Instant;

use core::time::Duration;

use pmalloc_persist::{
    LINE_BYTES, Medium, Span,
    sync::{Arc, Mutex, lock, thread},
};

use super::{epochs::Epochs, line_set::LineSet};
use crate::{
    error::{Error, Result},
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

/// How long an attempt waits for a thread that is inside an operation, which takes less than a microsecond unless the thread
/// is stopped or has lost its processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Looks a few times.
    Little,
    /// Waits as long as that.
    For(Duration),
    /// Waits for ever.
    Endless,
}

/// Looks before an attempt gives its processor up between two, or has lost its little patience.
const LOOKS: u32 = 100;

#[derive(Debug, Default)]
struct Round {
    /// The epoch that was ended and is not durable yet.
    ending: Option<u64>,
    /// What is seen of each lane.
    boards: Vec<Arc<Board>>,
    /// Lines that this round has flushed.
    flushed: LineSet,
}

impl Synchronizer {
    /// Runs a round, or goes on with one that was stalled, unless another thread does and `patience` is little.
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
        let mut round = if patience == Patience::Little {
            match self.0.try_lock() {
                Ok(round) => round,
                Err(_) => return Ok(Outcome::Stalled),
            }
        } else {
            lock(&self.0)
        };
        // What had returned before this call is of the epoch that is ending, or of the one that ends then.
        while let Some(epoch) = round.ending {
            if round.finish(m, epochs, lanes, epoch, patience)? == Outcome::Stalled {
                return Ok(Outcome::Stalled);
            }
        }
        if epochs.present() >= EPOCH_MAX {
            return Err(Error::Limit { what: "epochs of an open heap", limit: EPOCH_MAX });
        }
        let epoch = epochs.begin_next();
        round.ending = Some(epoch);
        round.finish(m, epochs, lanes, epoch, patience)
    }
}

impl Round {
    fn finish<M: Medium>(
        &mut self,
        m: &M,
        epochs: &Epochs,
        lanes: &Lanes,
        epoch: u64,
        patience: Patience,
    ) -> Result<Outcome> {
        // Behind the end of the epoch: who marks a lane that is not among these looks at the epoch later still.
        lanes.boards(&mut self.boards);
        if !self.boards.iter().all(|board| has_left(board, patience)) {
            return Ok(Outcome::Stalled);
        }
        let Self { boards, flushed, .. } = self;
        for board in &*boards {
            // Lines of the next epoch may be among them: they were stored behind their record's fence, too.
            board.take(|line| {
                if flushed.insert(line) {
                    m.flush(Span::new(line * LINE_BYTES, LINE_BYTES));
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

/// Waits until the operation that is inside a lane, if there is one, has left.
fn has_left(board: &Board, patience: Patience) -> bool {
    let Some(mark) = board.inside() else { return true };
    for _ in 0..LOOKS {
        if board.has_left(mark) {
            return true;
        }
        core::hint::spin_loop();
    }
    let started = Instant::now();
    while !board.has_left(mark) {
        match patience {
            Patience::Little => return false,
            Patience::For(time) if started.elapsed() > time => return false,
            Patience::For(_) | Patience::Endless => thread::yield_now(),
        }
    }
    true
}
