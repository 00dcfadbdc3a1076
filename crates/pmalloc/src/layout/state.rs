//! What changes over a heap's life, on lines of their own.
//!
//! Each scalar is one sealed word: it is written by one atomic store and is valid by its own content.

use pmalloc_persist::{Word, on_media};

use super::lane::NUMBER_MAX;

on_media! {
    /// The state page's content.
    pub(crate) struct State: 320 {
        /// Persistent: [`Clean`], sealed.
        pub(crate) clean: Word,
        /// Unused, zero: the flag has a line of its own.
        pub(crate) clean_line: [Word; 7],
        /// Persistent: the durable epoch, sealed: under the policy Batched the effects of all operations up to it are
        /// durable. It stands still under the policy Eager.
        pub(crate) durable_epoch: Word,
        /// Persistent: [`Policy`], sealed.
        pub(crate) policy: Word,
        /// Unused, zero.
        pub(crate) epoch_line: [Word; 6],
        /// Persistent: pages of the data area that ever had memory, sealed. No extent lies beyond.
        pub(crate) grown_pages: Word,
        /// Unused, zero.
        pub(crate) grown_line: [Word; 7],
        /// Persistent: who wrote to the heap last.
        pub(crate) owner: OwnerRecord,
        /// Persistent: entries of the root table that were ever used, the first ones of it, sealed.
        pub(crate) roots_used: Word,
        /// Persistent: CRC-32C of the slots of these entries, plus 2^32. Counts if the heap is closed.
        pub(crate) roots_check: Word,
        /// Unused, zero.
        pub(crate) reserved: [Word; 6],
    }
}

on_media! {
    /// The process that opened the heap last, checksummed.
    pub(crate) struct OwnerRecord: 64 {
        /// Persistent: the boot in which it ran, low and high half.
        pub(crate) boot: [Word; 2],
        /// Persistent: its process id.
        pub(crate) pid: Word,
        /// Persistent: its start time in clock ticks since boot.
        pub(crate) start_time: Word,
        /// Persistent: whether its stores were durable when they were fenced, 1, or synchronized, 0.
        pub(crate) durability: Word,
        /// Unused, zero.
        pub(crate) reserved: [Word; 2],
        /// Persistent: CRC-32C of the words before, plus 2^32; [`OWNER_IN_WORK`] while they change; zero, as all
        /// of the record: the heap was never served.
        pub(crate) checksum: Word,
    }
}

/// The last epoch: records have 40 bits for it.
pub(crate) const EPOCH_MAX: u64 = NUMBER_MAX;

/// The checksum of an owner record that is being written; many bits away from every checksum.
pub(crate) const OWNER_IN_WORK: u64 = u64::MAX;

/// How a heap was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clean {
    /// Open, or not closed: recovery must run.
    No,
    /// Closed: nothing is in flight.
    Closed,
    /// Open, but everything up to now is on stable storage.
    Synced,
    /// Open or not, and a write to stable storage failed: what is there is not known, and nothing that is done to the
    /// file tells. It is refused like a heap that lost power.
    Unwritten,
}

impl Clean {
    /// Whether the heap was closed, or synchronized after its last change.
    pub(crate) const fn is_whole(self) -> bool {
        matches!(self, Self::Closed | Self::Synced)
    }

    /// The number that stands on media.
    pub(crate) const fn code(self) -> u64 {
        match self {
            Self::No => 1,
            Self::Closed => 2,
            Self::Synced => 3,
            Self::Unwritten => 4,
        }
    }

    /// The state with this number.
    pub(crate) const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::No),
            2 => Some(Self::Closed),
            3 => Some(Self::Synced),
            4 => Some(Self::Unwritten),
            _ => None,
        }
    }
}

/// When the effects of an operation are made durable. Whatever the policy, an operation that has returned survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// Before the operation returns: record, effects, retirement, a fence each.
    Eager,
    /// For many operations at once, by a synchronizer: the record and its fence are all that an operation waits for.
    Batched,
}

impl Policy {
    /// The largest number that stands on media.
    pub(crate) const CODE_MAX: u64 = 2;

    /// The name, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eager => "eager",
            Self::Batched => "batched",
        }
    }

    /// The policy with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Eager, Self::Batched].into_iter().find(|policy| policy.name() == name)
    }

    /// The number that stands on media.
    pub(crate) const fn code(self) -> u64 {
        match self {
            Self::Eager => 1,
            Self::Batched => 2,
        }
    }

    /// The policy with this number.
    pub(crate) const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Eager),
            2 => Some(Self::Batched),
            _ => None,
        }
    }
}
