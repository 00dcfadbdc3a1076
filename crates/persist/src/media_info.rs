//! What there is to know about a medium: figures, and no way to its words. Volatile.

use std::path::Path;

use crate::{Access, Durability, FlushInstruction, Storage, Warning};

/// Where a medium is and what it promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MediaInfo<'m> {
    /// The path of the file, if it is one.
    pub path: Option<&'m Path>,
    /// Where the bytes of the file are, if it is one.
    pub storage: Option<Storage>,
    /// Numbers of the device and of the inode, if it is a file and the file system tells.
    pub identity: Option<(u64, u64)>,
    /// How the file is mapped, if it is one.
    pub access: Option<Access>,
    /// What a durable store survives; `None` where nothing survives the process.
    pub durability: Option<Durability>,
    /// Whether the durability was forced and the memory doesn't have it.
    pub durability_is_forced: bool,
    /// The instruction that a flush executes, if one is needed.
    pub flush_instruction: Option<FlushInstruction>,
    /// What the file system does not promise of the memory that the file has: where there is a warning, keep room free, or a
    /// store into that memory may end the process with a bus error.
    pub warnings: &'m [Warning],
    /// Bytes from the base on that may be touched: the present size of the file.
    pub len_bytes: u64,
    /// Bytes of address space: what the file can grow to.
    pub reserved_bytes: u64,
}

impl MediaInfo<'_> {
    /// Memory that dies with the process.
    #[must_use]
    pub const fn of_memory(len_bytes: u64, reserved_bytes: u64) -> Self {
        Self {
            path: None,
            storage: None,
            identity: None,
            access: None,
            durability: None,
            durability_is_forced: false,
            flush_instruction: None,
            warnings: &[],
            len_bytes,
            reserved_bytes,
        }
    }
}
