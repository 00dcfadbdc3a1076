//! Volatile synchronisation: the standard library's, or shuttle's under `--cfg shuttle`.
//!
//! Locks and atomics that guard *volatile* state come from here, so that the schedule tests can take
//! control of them. On-media words never do: they are [`Word`](crate::Word)s, and the simulator yields to
//! the scheduler before each access to them.

#[cfg(not(shuttle))]
pub use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread,
};

#[cfg(shuttle)]
pub use shuttle::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread,
};

/// Locks `mutex`.
///
/// # Panics
///
/// If a thread panicked while it held the lock: the state it guards is then not to be trusted.
#[inline(always)]
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a thread panicked inside this critical section")
}
