//! The structures of `docs/guide.md`: written as a program would write them, on the public interface alone.
//!
//! | | what it is | what it shows |
//! |---|---|---|
//! | [`list`] | a linked list, last in, first out | a block that takes over what a slot owned |
//! | [`table`] | a hash table from number to number | slots and a count that change together; a value that changes in place |
//! | [`queue`] | a queue of jobs, first in, first out | places in a ring, and the two positions in it |
//! | [`explore`] | a structure, a model of it, and every crash | what a program's own tests look like |
//!
//! The tests of each structure lie beside it, in `crashes.rs`: all its crashes are explored, and a mistake that is easily
//! made is planted and found.
//!
//! Changes take `&mut self`: a program with several threads has one handle of a structure, behind a lock. Readers take it
//! as well: a publish is one step to a crash and to other changes, but who reads meanwhile may find a part of it made.

pub mod explore;
pub mod list;
pub mod queue;
pub mod table;

/// Compiles and runs the program in the guide.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide.md")]
struct GuideExample;
