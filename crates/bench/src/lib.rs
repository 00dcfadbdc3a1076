//! The numbers harness: what operations cost, beside what no durable operation can do without.
//!
//! A table has a row for each benchmark, allocator and number of threads. What a row says is found out by processes of
//! their own, one after the other: in every round a child for each allocator, so that whatever disturbs the machine
//! disturbs all of them alike; each child makes a new heap, warms up, and times its passes in turn with *bare persists*
//! (an 8-byte store, a flush and a fence, over 64 lines of the same file). The ratio of the two, round by round, is what
//! can be compared from run to run and from machine to machine. Flushes and fences are counted, and the latency of
//! single operations is clocked, in further children, because both would disturb the times.
//!
//! | module | what it is |
//! |---|---|
//! | `run` | the supervisor: plan, rounds, rows |
//! | `child` | runs one cell |
//! | [`mod@bench`] | the benchmarks, one file each |
//! | `measure`, `crew`, `relay`, [`context`] | run a workload on threads and their arrays, and time it |
//! | `launcher` | starts a child |
//! | `table`, [`compare`], [`report`] | results for people, what became of older ones, and as data |
//! | `machine`, [`cell`] | where it was measured; what a child is told and says |
//! | [`alloc`] | what every allocator under test offers, and the allocators |
//! | [`clock`], [`stats`], `error` | times, medians and intervals; why there are no results |
//!
//! A module uses only modules below it; `cargo xtask tidy` checks it.
//!
//! The command `pmalloc bench` is the only user; it provides the arguments, the progress bar and the exit code.
//! Everything here is volatile, but for the heaps that are measured.

#![deny(unsafe_code)]

pub mod alloc;
pub mod bench;
pub mod cell;
mod child;
pub mod clock;
pub mod compare;
pub mod context;
mod crew;
mod error;
mod launcher;
mod machine;
mod measure;
mod relay;
pub mod report;
mod run;
pub mod stats;
mod table;

pub use cell::Scale;
pub use child::run_cell;
pub use error::Error;
pub use launcher::Launcher;
pub use machine::Machine;
pub use pmalloc_bench_peers::Peer;
pub use run::{Peers, Plan, Watcher, run};
