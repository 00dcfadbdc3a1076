//! What is done when a thread ends, as late as anything is. Volatile.
//!
//! The destructors of Rust's thread-local values run before those of POSIX keys, and what the latter make is never
//! destroyed. A program may use a heap in the destructor of a key of its own, and may do so for the first time there. So
//! who has something to give back at a thread's end asks for it here: by a key, whose destructor runs once more after a
//! round in which it was asked for again.

use std::{ffi::c_void, sync::OnceLock};

/// Calls a function in each thread that asked for it, when that thread ends.
///
/// The main thread does not end: the process does.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// use pmalloc_persist::AtThreadEnd;
///
/// static ENDED: AtomicU32 = AtomicU32::new(0);
/// static END: AtThreadEnd = AtThreadEnd::new(|| _ = ENDED.fetch_add(1, Ordering::Relaxed));
///
/// std::thread::spawn(|| END.arm()).join().expect("no panic");
/// std::thread::spawn(|| {}).join().expect("no panic");
/// assert_eq!(ENDED.load(Ordering::Relaxed), 1);
/// ```
#[derive(Debug)]
pub struct AtThreadEnd {
    /// What is called.
    hook: fn(),
    /// The key whose destructor calls it, once it was made; `None` in it if the system had none left.
    key: OnceLock<Option<libc::pthread_key_t>>,
}

impl AtThreadEnd {
    /// What calls `hook`, which must not panic. It may be called several times for one thread: after each round of
    /// destructors in which it was asked for again.
    #[must_use]
    pub const fn new(hook: fn()) -> Self {
        Self { hook, key: OnceLock::new() }
    }

    /// Asks for the call, for the calling thread.
    ///
    /// Where the system has no key left, and in the last of the rounds of destructors that it makes (four, with glibc),
    /// the call is not made.
    pub fn arm(&'static self) {
        let Some(key) = self.key() else { return };
        let value = std::ptr::from_ref(self).cast::<c_void>();
        // SAFETY: a key that was made and is never deleted; its destructor takes what is stored here.
        let _ = unsafe { libc::pthread_setspecific(key, value) };
    }

    fn key(&'static self) -> Option<libc::pthread_key_t> {
        *self.key.get_or_init(|| {
            let mut made = 0;
            // SAFETY: a place for the key, and a destructor that takes what `arm` stores.
            let refused = unsafe { libc::pthread_key_create(&raw mut made, Some(call)) };
            (refused == 0).then_some(made)
        })
    }
}

/// Calls the hook of an [`AtThreadEnd`].
///
/// # Safety
///
/// `value` is what `arm` stored.
unsafe extern "C" fn call(value: *mut c_void) {
    // SAFETY: `arm` stored a reference that lives for ever, and the caller hands it on.
    let end = unsafe { value.cast::<AtThreadEnd>().cast_const().as_ref() };
    if let Some(end) = end {
        (end.hook)();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        sync::atomic::{AtomicU32, Ordering},
        thread,
    };

    use super::*;

    static ENDED: AtomicU32 = AtomicU32::new(0);
    static END: AtThreadEnd = AtThreadEnd::new(|| _ = ENDED.fetch_add(1, Ordering::Relaxed));

    /// A key of the program's own, in whose destructor something is asked for that ends the thread anew.
    static LATE: AtThreadEnd = AtThreadEnd::new(|| {
        ROUNDS.with(|rounds| {
            rounds.set(rounds.get() + 1);
            if rounds.get() < 3 {
                LATE.arm();
            }
        });
        END.arm();
    });

    thread_local! {
        static ROUNDS: Cell<u32> = const { Cell::new(0) };
    }

    #[test]
    fn what_is_first_asked_for_while_the_thread_ends_is_done_too() {
        thread::spawn(|| END.arm()).join().expect("no panic");
        assert_eq!(ENDED.load(Ordering::Relaxed), 1);
        // In which order the two keys are destroyed is the system's affair: between one and three more rounds.
        thread::spawn(|| LATE.arm()).join().expect("no panic");
        let ended = ENDED.load(Ordering::Relaxed);
        assert!((2..=4).contains(&ended), "{ended}");
    }
}
