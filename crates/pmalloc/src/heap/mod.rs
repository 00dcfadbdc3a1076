//! The public face: handles, sessions, guards, and the calls that programs make.
//!
//! | file | what it does |
//! |---|---|
//! | [`handle`] | the handle of an open heap |
//! | [`options`] | create and open, on a file or on any medium |
//! | [`guard`] | keeps what is read from being reused |
//! | [`session`] | what a thread has of a heap, where a program keeps it itself |
//! | [`slot`], [`cells`] | what slots own, seen under a guard; cells, loaded and changed |
//! | [`operations`], [`typed`] | the operations that have names of their own, on bytes and on values |
//! | [`publish`], [`reserve`], [`slot_ref`] | several changes as one durable operation; blocks that are held for one; the slots in them |
//! | [`roots`], [`declare`] | blocks with names; where a program has slots |
//! | [`inspection`], [`orphans`], [`media`] | what there is to know of a heap; blocks that nothing owns; what it tells of its medium |
//! | [`entrusted`] | what is safe only by what the caller guarantees |
//!
//! A call checks what only it can know and hands on to one function of a room below: there are the protocols and the fences.

mod cells;
mod declare;
mod entrusted;
mod guard;
mod handle;
mod inspection;
mod media;
mod operations;
mod options;
mod orphans;
mod publish;
mod reserve;
mod roots;
mod session;
mod slot;
mod slot_ref;
mod typed;

pub use self::{
    guard::Guard,
    handle::Heap,
    options::{HeapOptions, TestGeometry},
    publish::Publish,
    reserve::Reservation,
    session::Session,
    slot_ref::SlotRef,
};
