//! Slabs: runs of pages cut into blocks of one size, with their bitmaps out of line.
//!
//! | file | what it does |
//! |---|---|
//! | [`kind`] | class and tag, which all blocks of a slab share; a table with a value for each |
//! | [`interleave`] | which bit of the bitmap belongs to which block (mechanism R1) |
//! | [`descriptor`] | the persistent side: header line, live bits |
//! | [`bits_check`] | the check over the live bits of a heap that was closed |
//! | [`inventory`] | the volatile side: which blocks are free and not cached |
//!
//! Persistent: the descriptor. Volatile, rebuilt at open: the inventory.

mod bits_check;
mod descriptor;
mod interleave;
mod inventory;
mod kind;

pub(crate) use bits_check::Wrong;
pub(crate) use descriptor::{Descriptor, LiveBit};
pub(crate) use interleave::Interleave;
pub(crate) use inventory::Inventory;
pub(crate) use kind::{Kind, PerKind};
