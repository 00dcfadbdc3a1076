//! What a heap does while nothing happens to its process: operations, what they refuse, and what is damaged, copied or
//! written by other versions. Each module says its goal.
//!
//! One program: the heap is compiled anew for each, and for each kind of medium in it.

#[path = "../common/mod.rs"]
mod common;

mod copied;
mod damage;
mod decay;
mod errors;
mod fixtures;
mod media;
mod memory;
mod miri;
mod owners;
mod publish;
mod reopen;
mod roots;
mod salvage;
mod sessions;
mod stress;
mod tags;
mod typed;
