//! What may lie in a heap: what a block is asked for with, the types of what it holds, and its bytes and values by reference.
//!
//! | file | what it does |
//! |---|---|
//! | [`block_layout`] | size, alignment and tag of a block |
//! | [`slot_map`] | where the slots of a type are |
//! | [`slot`], [`pptr`] | the cell that owns a block, the pointer that owns nothing |
//! | [`pcell`] | a value of eight bytes that changes in place |
//! | [`versioned_cell`] | a number that changes together with slots |
//! | [`persistent`] | which types a block can hold |
//! | [`own_types`] | slots, cells and pointers as such types |
//! | [`declared`] | where a program has slots, as it says it |
//! | [`raw`] | makes references to heap memory |
//!
//! Used by all rooms above. Nothing here changes a heap: what needs one is in [`heap`](crate::heap). All unsafe code of the
//! crate is in [`persistent`], [`own_types`] and [`raw`], but for what is safe by the caller's promise only.

mod block_layout;
pub(crate) mod declared;
mod own_types;
pub(crate) mod pcell;
pub(crate) mod persistent;
mod pptr;
pub(crate) mod raw;
pub(crate) mod slot;
mod slot_map;
pub(crate) mod versioned_cell;

pub use self::{
    block_layout::BlockLayout,
    declared::{SlotLayout, SlotScope},
    pcell::{CellInteger, CellValue, PCell},
    persistent::{Content, LayoutHash, Persistent, TypeGraph},
    pptr::PPtr,
    slot::Slot,
    slot_map::SlotMap,
    versioned_cell::VersionedCell,
};
