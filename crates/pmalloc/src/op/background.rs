//! The heap's own thread, if its program wants one: it runs the rounds of the synchronizer, so that operations need not.
//!
//! A session whose lane is half full wakes it, and goes on. One whose lane is full runs the round itself: so nothing waits
//! for this thread, nor is anything amiss where it does not run, as in a forked child.

use pmalloc_persist::sync::{AtomicBool, Condvar, Mutex, Ordering, lock};

/// How the thread is told what to do.
#[derive(Debug, Default)]
pub(crate) struct Background {
    /// Whether the heap has such a thread.
    runs: AtomicBool,
    /// Whether a round is wanted: so a second wish costs a load.
    wanted: AtomicBool,
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_woken: bool,
    has_ended: bool,
}

impl Background {
    /// Says that the heap is to have such a thread.
    pub(crate) fn want(&self) {
        self.runs.store(true, Ordering::Relaxed);
    }

    /// Whether it is.
    pub(crate) fn is_wanted(&self) -> bool {
        self.runs.load(Ordering::Relaxed)
    }

    /// Asks for a round, and says whether there is a thread to run it.
    #[inline]
    pub(super) fn wake(&self) -> bool {
        // Relaxed: written before the heap is handed out.
        if !self.runs.load(Ordering::Relaxed) {
            return false;
        }
        if !self.wanted.load(Ordering::Relaxed) && !self.wanted.swap(true, Ordering::Relaxed) {
            lock(&self.state).is_woken = true;
            self.woken.notify_one();
        }
        true
    }

    /// Waits until a round is wanted; false when the heap ends.
    pub(crate) fn wait(&self) -> bool {
        let mut state = lock(&self.state);
        while !state.is_woken && !state.has_ended {
            state = self.woken.wait(state).expect("a thread panicked while it woke another");
        }
        state.is_woken = false;
        // Before the round: what is wished for during it is the next one's.
        self.wanted.store(false, Ordering::Relaxed);
        !state.has_ended
    }

    /// Ends the thread, which may be in the midst of a round.
    pub(crate) fn end(&self) {
        lock(&self.state).has_ended = true;
        self.woken.notify_one();
    }
}
