//! The processor time of this process. Volatile.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of processor time, in the program and in the kernel, that all threads of this process have used.
///
/// # Panics
///
/// If the kernel's clock is before its beginning.
#[must_use]
pub fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let part = |value: i64| u64::try_from(value).expect("a clock does not go below zero");
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

/// Processor time of this process per operation of `work`, which returns their number, in nanoseconds.
///
/// # Panics
///
/// As [`cpu_ns`].
pub fn cpu_ns_per_op(work: impl FnOnce() -> u64) -> f64 {
    let before = cpu_ns();
    let operations = work();
    per_op(cpu_ns() - before, operations)
}

/// `amount` for each of `operations`.
#[expect(clippy::cast_precision_loss, reason = "figures, not counts")]
pub(crate) fn per_op(amount: u64, operations: u64) -> f64 {
    amount as f64 / operations as f64
}
