//! Ends the process when a step takes too long: a hang has no other witness.

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The longest that one step may take, on the slowest machine.
const STEP_MAX: Duration = Duration::from_secs(20);

/// Watches one thread.
#[derive(Debug)]
pub(crate) struct Watchdog {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    begun: Instant,
    /// Nanoseconds from `begun` to the present step's start.
    since_ns: AtomicU64,
    step: AtomicU64,
    ended: AtomicBool,
}

impl Watchdog {
    /// A watchdog of steps called `what`.
    pub(crate) fn new(what: &'static str) -> Self {
        let state = Arc::new(State {
            begun: Instant::now(),
            since_ns: AtomicU64::new(0),
            step: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let watched = Arc::clone(&state);
        thread::spawn(move || {
            while !watched.ended.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(200));
                let since = Duration::from_nanos(watched.since_ns.load(Ordering::Relaxed));
                if watched.begun.elapsed().saturating_sub(since) > STEP_MAX
                    && !watched.ended.load(Ordering::Relaxed)
                {
                    eprintln!("{what} {:#x} does not end", watched.step.load(Ordering::Relaxed));
                    process::abort();
                }
            }
        });
        Self { state }
    }

    /// Tells that `step` begins.
    pub(crate) fn begin(&self, step: u64) {
        let since = self.state.begun.elapsed().as_nanos();
        self.state.step.store(step, Ordering::Relaxed);
        self.state.since_ns.store(u64::try_from(since).expect("centuries"), Ordering::Relaxed);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
    }
}

/// The most memory that this process ever had, in bytes.
pub(crate) fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux tells");
    let kib: u64 = line.split_whitespace().nth(1).expect("a figure").parse().expect("a figure");
    kib << 10
}
