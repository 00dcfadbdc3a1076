//! The numbers of `pmalloc.h`: they are part of the binary interface, and never change.

/// An argument that no heap accepts.
pub const PMA_E_INVAL: i32 = 1;
/// No room left in the heap or its file system.
pub const PMA_E_FULL: i32 = 2;
/// Not a live or reserved block, or no root of this name.
pub const PMA_E_NOT_LIVE: i32 = 3;
/// The slot owns a block already.
pub const PMA_E_SLOT_FULL: i32 = 4;
/// The slot owns no block.
pub const PMA_E_SLOT_EMPTY: i32 = 5;
/// The slot or cell lies in no live block of this heap.
pub const PMA_E_SLOT_FOREIGN: i32 = 6;
/// What is freed holds a slot that owns a block.
pub const PMA_E_CHILDREN: i32 = 7;
/// A fixed limit is reached.
pub const PMA_E_LIMIT: i32 = 8;
/// Not of this consistency model.
pub const PMA_E_MODEL: i32 = 9;
/// The heap or the root is in use.
pub const PMA_E_IN_USE: i32 = 10;
/// There is a file of this name.
pub const PMA_E_EXISTS: i32 = 11;
/// The file is not a heap.
pub const PMA_E_NOT_HEAP: i32 = 12;
/// The heap has another format.
pub const PMA_E_VERSION: i32 = 13;
/// The heap or the root holds something else than asked for.
pub const PMA_E_LAYOUT: i32 = 14;
/// The heap contradicts itself.
pub const PMA_E_CORRUPT: i32 = 15;
/// The machine went down while a heap on a page-cache file was open.
pub const PMA_E_POWER_LOSS: i32 = 16;
/// The operating system refused.
pub const PMA_E_IO: i32 = 17;
/// The heap was opened by the parent of this process.
pub const PMA_E_FORKED: i32 = 18;
/// A defect of the library.
pub const PMA_E_INTERNAL: i32 = 19;

/// The version of the header.
pub const PMA_VERSION: u32 = 0x00_01_00;

/// Consistency: write-ahead records.
pub const PMA_LOG: u32 = 0;
/// Consistency: tracing at recovery.
pub const PMA_GC: u32 = 1;
/// Consistency: every allocated block can be enumerated.
pub const PMA_IC: u32 = 2;

/// Durability: the best that there is.
pub const PMA_D_AUTO: u32 = 0;
/// Durability: survives a loss of power.
pub const PMA_D_POWERFAIL: u32 = 1;
/// Durability: survives a loss of power, without flushing.
pub const PMA_D_EADR: u32 = 2;
/// Durability: survives the death of the process.
pub const PMA_D_PROCESS: u32 = 3;
/// Durability: survives a loss of power after a sync.
pub const PMA_D_MSYNC: u32 = 4;

/// Policy: that of the heap; of a new one, the library's choice.
pub const PMA_P_AUTO: u32 = 0;
/// Policy: effects are durable before an operation returns.
pub const PMA_P_EAGER: u32 = 1;
/// Policy: effects are made durable by a synchronizer.
pub const PMA_P_BATCHED: u32 = 2;

/// Flag: count what is asked of the memory.
pub const PMA_F_COUNT: u64 = 0x1;
/// Flag: take the durability asked for, whatever the memory is.
pub const PMA_F_UNSAFE_FORCE: u64 = 0x2;
/// Flag: a thread for the synchronizer.
pub const PMA_F_BACKGROUND: u64 = 0x4;

/// Action: a reserved block goes to a slot.
pub const PMA_A_ALLOC: u32 = 1;
/// Action: the block of a slot is freed.
pub const PMA_A_FREE: u32 = 2;
/// Action: the block of a slot goes to another one.
pub const PMA_A_MOVE: u32 = 3;
/// Action: a cell is set.
pub const PMA_A_SET: u32 = 4;

/// A declaration is about roots of this type.
pub const PMA_S_ROOT: u32 = 1;
/// A declaration is about blocks with this tag.
pub const PMA_S_TAG: u32 = 2;

/// The words of a run are slots.
pub const PMA_R_SLOTS: u32 = 0;
/// The words of a run may be slots, or something else.
pub const PMA_R_MAYBE: u32 = 1;

/// Most actions of a publish.
pub const PMA_PUBLISH_MAX: usize = 64;
/// Largest value of a cell.
pub const PMA_CELL_MAX: u64 = 0xFFF_FFFF_FFFF;

/// A part of the crate's version.
const fn part(digits: &str) -> u32 {
    match u32::from_str_radix(digits, 10) {
        Ok(part) => part,
        Err(_) => panic!("parts of a version are numbers"),
    }
}

const _: () = {
    let (major, minor) = (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    let patch = part(env!("CARGO_PKG_VERSION_PATCH"));
    assert!(PMA_VERSION == part(major) << 16 | part(minor) << 8 | patch);
    assert!(PMA_PUBLISH_MAX == pmalloc::PUBLISH_MAX);
    assert!(PMA_CELL_MAX == pmalloc::VersionedCell::VALUE_MAX);
};
