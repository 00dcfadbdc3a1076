//! An open heap, as the rooms above share it.
//!
//! | file | what it does |
//! |---|---|
//! | [`open_heap`] | what a heap is in memory: the engine of its operations and all else that there is to know of it |
//! | [`header`], [`format`] | which heap lies in a file; writes an empty one |
//! | [`own_thread`] | the thread that a heap may have |
//! | [`thread`] | the sessions of a thread with the heaps that it calls |
//! | [`pending`] | blocks that are reserved and not published yet |
//! | [`change`] | the operations that have names of their own |
//! | [`transaction`] | several changes as one operation |
//! | [`in_place`] | words that change in place |
//!
//! Called by [`root`](crate::root), [`inspect`](crate::inspect) and [`heap`](crate::heap). Volatile, but for what
//! [`format`] writes.

pub(crate) mod change;
pub(crate) mod format;
pub(crate) mod header;
pub(crate) mod in_place;
mod open_heap;
pub(crate) mod own_thread;
mod pending;
pub(crate) mod thread;
mod transaction;

pub use self::{open_heap::Block, pending::NewBlock, transaction::PUBLISH_MAX};
pub(crate) use self::{
    open_heap::Core,
    pending::Pending,
    thread::Implicit,
    transaction::{Action, SlotName, Transaction},
};
