//! Where the bytes of a mapped file are, and what a loss of power leaves of them.

use crate::Durability;

/// Where the bytes of a mapped file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Storage {
    /// Persistent memory, mapped directly.
    Dax,
    /// Memory of the kernel: gone when the machine restarts.
    Tmpfs,
    /// The page cache, which the kernel writes to a disk when it likes.
    PageCache,
}

impl Storage {
    /// Whether a loss of power leaves a mixture of what was stored here since the last sync: on persistent memory only where
    /// nothing is flushed; the kernel's memory leaves nothing at all.
    pub(super) fn needs_sync(self, durability: Durability) -> bool {
        match self {
            Self::Dax => !durability.is_power_safe(),
            Self::Tmpfs => false,
            Self::PageCache => true,
        }
    }
}

impl core::fmt::Display for Storage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Dax => "dax",
            Self::Tmpfs => "tmpfs",
            Self::PageCache => "page cache",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_flushed_needs_a_sync_but_where_no_power_loss_leaves_anything() {
        use Durability::{Eadr, Msync, PowerFail, ProcessCrash};
        for durability in [PowerFail, Eadr, ProcessCrash, Msync] {
            let unflushed = matches!(durability, ProcessCrash | Msync);
            assert_eq!(Storage::Dax.needs_sync(durability), unflushed, "{durability:?}");
            assert!(!Storage::Tmpfs.needs_sync(durability));
            assert!(Storage::PageCache.needs_sync(durability));
        }
    }
}
