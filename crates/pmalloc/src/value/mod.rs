//! What a block is asked for with, and where its slots are.

mod block_layout;
mod slot_map;

pub use block_layout::BlockLayout;
pub use slot_map::SlotMap;
