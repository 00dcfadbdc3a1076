//! Rival allocators, behind an interface that needs no unsafe code.
//!
//! A rival is a C library that is installed or not: it is loaded at run time, so that nobody needs it to build or to
//! run anything but the comparison. [`Peer`] names the rivals, [`Library`] is one that is loaded, and [`Blocks`] owns
//! what was allocated from it. The harness (`pmalloc-bench`) is the only user. Everything here is volatile.
//!
//! # Examples
//!
//! ```
//! use pmalloc_bench_peers::{Blocks, Peer};
//!
//! let library = Peer::Glibc.load()?;
//! let mut blocks = Blocks::new(&library, 2);
//! let address = blocks.allocate(0, 64);
//! assert_ne!(address, 0);
//! assert_eq!(blocks.free(0), address);
//! # Ok::<(), pmalloc_bench_peers::Missing>(())
//! ```

mod blocks;
mod library;

pub use blocks::{Block, Blocks};
pub use library::{Library, Missing, Peer};
