//! The sessions of a thread: one with each open heap that it calls, begun by the first call and ended with the thread.
//!
//! Volatile. [`Implicit`] is how a call comes by the session of its thread; a program that runs its own scheduler has
//! [sessions](crate::Session) of its own.

use std::cell::RefCell;

#[cfg(not(shuttle))]
use pmalloc_persist::AtThreadEnd;
use pmalloc_persist::{
    Medium,
    sync::{Arc, Weak},
};

use super::open_heap::Core;
use crate::op::{SessionAccess, SessionState};

/// The calling thread's implicit session.
pub(crate) struct Implicit<'a, M: Medium + 'static>(pub(crate) &'a Arc<Core<M>>);

impl<M: Medium + 'static> SessionAccess for Implicit<'_, M> {
    #[inline(always)]
    fn with<T>(&mut self, operation: impl FnOnce(&mut SessionState) -> T) -> T {
        let mut operation = Some(operation);
        let done = SESSIONS.try_with(
            #[inline(always)]
            |sessions| {
                let sessions = &mut *sessions.try_borrow_mut().ok()?;
                // Most threads use one heap.
                let session = match sessions.first_mut() {
                    Some(first) if first.heap_id == self.0.id => first,
                    _ => find_or_begin(sessions, self.0),
                };
                operation.take().map(|operation| operation(&mut session.state))
            },
        );
        match done {
            Ok(Some(result)) => result,
            Ok(None) | Err(_) => in_passing(self.0, operation.expect("it did not run")),
        }
    }
}

/// The session with a heap among those of a thread, which begins it if there is none.
#[cold]
fn find_or_begin<'s, M: Medium + 'static>(
    sessions: &'s mut Vec<ThreadSession>,
    core: &Arc<Core<M>>,
) -> &'s mut ThreadSession {
    let found = sessions.iter().position(|session| session.heap_id == core.id);
    let at = found.unwrap_or_else(|| begin(sessions, core));
    &mut sessions[at]
}

/// Runs an operation of a thread whose sessions can't be had: they have ended, and a destructor runs at the thread's very
/// end; or an operation uses them, and its medium calls another heap, as the simulator does to judge a recovered one.
#[cold]
fn in_passing<M: Medium + 'static, T>(
    core: &Arc<Core<M>>,
    operation: impl FnOnce(&mut SessionState) -> T,
) -> T {
    let mut sessions = Vec::new();
    let at = begin(&mut sessions, core);
    operation(&mut sessions[at].state)
}

/// Gives back what the calling thread holds of a heap: its lane, and the free blocks at hand.
pub(crate) fn release<M: Medium>(core: &Core<M>) {
    // Who has no sessions at this moment (see `in_passing`) has nothing to give back.
    let released = SESSIONS.try_with(|sessions| {
        let mut sessions = sessions.try_borrow_mut().ok()?;
        let own = |session: &ThreadSession| session.heap_id == core.id;
        sessions.iter().position(own).map(|at| sessions.swap_remove(at))
    });
    drop(released);
}

/// What a session's end needs of its heap, whatever the medium.
trait EndSession: Send + Sync {
    fn end(&self, state: &mut SessionState);
}

impl<M: Medium> EndSession for Core<M> {
    fn end(&self, state: &mut SessionState) {
        self.end_session(state);
    }
}

/// The session of this thread with one heap.
struct ThreadSession {
    heap_id: u64,
    state: SessionState,
    /// Weak: an exited thread must not keep a heap mapped.
    heap: Weak<dyn EndSession>,
}

impl Drop for ThreadSession {
    fn drop(&mut self) {
        if let Some(heap) = self.heap.upgrade() {
            heap.end(&mut self.state);
        }
    }
}

#[cfg(not(shuttle))]
thread_local! {
    /// The sessions of this thread, one per open heap that it used.
    static SESSIONS: RefCell<Vec<ThreadSession>> = const { RefCell::new(Vec::new()) };
}
#[cfg(shuttle)]
shuttle::thread_local! {
    /// The sessions of this thread, one per open heap that it used.
    static SESSIONS: RefCell<Vec<ThreadSession>> = RefCell::new(Vec::new());
}

/// Ends the sessions of a thread that has begun its first one in the destructor of a POSIX key, when those of its
/// thread-local values had run.
#[cfg(not(shuttle))]
static LATE_END: AtThreadEnd = AtThreadEnd::new(|| {
    // Other threads' sessions have ended before.
    let sessions = SESSIONS
        .try_with(|sessions| sessions.try_borrow_mut().map(|mut all| std::mem::take(&mut *all)));
    drop(sessions);
});

#[cold]
fn begin<M: Medium + 'static>(sessions: &mut Vec<ThreadSession>, core: &Arc<Core<M>>) -> usize {
    #[cfg(not(shuttle))]
    LATE_END.arm();
    sessions.retain(|session| session.heap.strong_count() > 0);
    let weak: Weak<Core<M>> = Arc::downgrade(core);
    sessions.push(ThreadSession { heap_id: core.id, state: core.begin_session(), heap: weak });
    sessions.len() - 1
}
