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
//! | [`alloc`] | what every allocator under test offers, and the allocators |
//! | [`mod@bench`] | the benchmarks, one file each |
//! | `measure`, `crew`, [`clock`] | run a workload on threads, and time it |
//! | [`cell`], `launcher` | what a child does, and starting one |
//! | `run` | the supervisor: plan, rounds, rows |
//! | [`report`], `table`, [`compare`] | results, as data and for people, and what became of older ones |
//! | [`stats`], `machine` | medians and intervals; where it was measured |
//!
//! The command `pmalloc bench` is the only user; it provides the arguments, the progress bar and the exit code.
//! Everything here is volatile, but for the heaps that are measured.

#![deny(unsafe_code)]

pub mod alloc;
pub mod bench;
pub mod cell;
pub mod clock;
pub mod compare;
mod crew;
mod launcher;
mod machine;
mod measure;
pub mod report;
mod run;
pub mod stats;
mod table;

pub use cell::{Scale, run_cell};
pub use launcher::Launcher;
pub use machine::Machine;
pub use pmalloc_bench_peers::Peer;
pub use run::{Error, Peers, Plan, Watcher, run};
