//! A persistent heap: memory that a program allocates outlives the program, and every crash.
//!
//! See [`Heap`] for how it is used, and the repository's `ARCHITECTURE.md` for how it is built.

#![deny(unsafe_code)]

mod arena;
mod book;
mod error;
mod extent;
mod heap;
mod lane;
mod layout;
mod page_map;
mod recovery;
mod size_class;
mod slab;
mod tcache;
#[cfg(test)]
mod tests;

// The tests of damaged heaps are shared with those that see only the public interface.
#[cfg(all(test, not(shuttle)))]
extern crate self as pmalloc;

pub use error::{Error, Result};
#[doc(hidden)]
pub use heap::TestGeometry;
pub use heap::{
    Block, CheckReport, ClassStats, Guard, Heap, HeapOptions, Info, LogStats, PPtr, Problem,
    ProblemKind, Session, Slot, Stats, check_file, info,
};
pub use layout::{state::Policy, superblock::Model};
pub use pmalloc_persist as persist;

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct ReadmeExample;
