//! Roots: the blocks that are found without a pointer, and the table that names them.
//!
//! | file | what it does |
//! |---|---|
//! | [`entry`], [`name`] | an entry of the table; which names there are |
//! | [`table`] | the table as a whole |
//! | [`obtain`], [`remove`] | finds a root or makes it; removes one |
//! | [`untyped`], [`typed`] | roots of slots and of bytes; roots that are values |
//! | [`own`], [`declarations`] | what the heap notes for itself: where roots and blocks have slots, as programs say it |
//! | [`close`] | what a heap that is closed vouches for |
//!
//! Called by [`inspect`](crate::inspect) and [`heap`](crate::heap). Which blocks slots may neither free nor read, as a root
//! owns them, is `op::root_blocks`.

mod close;
pub(crate) mod declarations;
pub(crate) mod entry;
mod name;
mod obtain;
pub(crate) mod own;
mod remove;
pub(crate) mod table;
mod typed;
mod untyped;

pub use self::entry::RootInfo;
pub(crate) use self::{
    close::{close, seal},
    remove::{Removal, remove},
    typed::value,
    untyped::{all, bytes, cell, find, slots},
};
