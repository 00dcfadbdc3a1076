//! The rules, and what breaking each of them means.
//!
//! A model that finds nothing proves little until it is seen to find something. So each rule of
//! `docs/protocol-models.md` can be broken here, and a run counts only if every break is caught.

use std::fmt;

macro_rules! breaks {
    ($($(#[doc = $doc:literal])+ $name:ident = $rule:literal,)+) => {
        /// A rule broken in one way.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Break {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Break {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The number of the rule in `docs/protocol-models.md`.
            #[must_use]
            pub fn rule(self) -> u8 {
                match self { $(Self::$name => $rule,)+ }
            }

            /// What is done wrong.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

breaks! {
    /// An operation does not own its slots.
    NoSlotLock = 1,
    /// The epoch is loaded before the slots are looked at.
    StampBeforeLook = 2,
    /// The lane is not marked.
    NoMark = 2,
    /// No barrier between the mark and the load of the epoch.
    NoBarrier = 2,
    /// The lane is unmarked before the effects are stored.
    UnmarkEarly = 2,
    /// Effects are stored before the record's fence.
    NoRecordFence = 2,
    /// The slot is stored before the record.
    SlotBeforeRecord = 2,
    /// The synchronizer does not wait for lanes that were inside.
    NoWait = 3,
    /// Two threads synchronize at once.
    TwoAtOnce = 3,
    /// The synchronizer does not flush the bits.
    NoBitFlush = 4,
    /// The synchronizer does not flush the slots.
    NoSlotFlush = 4,
    /// The synchronizer does not flush the log entries.
    NoEntryFlush = 4,
    /// D moves under the same fence as the effects.
    OneFence = 4,
    /// Memory and places are released when D is stored, not when it is durable.
    ReleaseEarly = 4,
    /// Freed memory is handed out at once.
    ReuseAtOnce = 5,
    /// Freed memory is handed out when its epoch is closed, not when it is durable.
    ReuseWhenClosed = 5,
    /// Memory of other bounds is handed out although a block in it is in limbo.
    MorphInLimbo = 5,
    /// The slab is given back although blocks of it are in limbo.
    SlabInLimbo = 5,
    /// Recovery applies frees before allocations.
    FreesFirst = 6,
    /// Recovery leaves D as it is.
    DurableKept = 6,
    /// Recovery zeroes the rings before D is durable.
    ZeroBeforeDurable = 6,
    /// Recovery zeroes the rings under the fence of the effects.
    ZeroWithEffects = 6,
    /// Recovery leaves the rings as they are.
    RingsKept = 8,
    /// Recovery applies records without looking at versions.
    NoVersions = 7,
    /// Two changes of one slot in a group have the same version.
    SameVersion = 7,
    /// Records are taken for valid whatever their tags.
    NoTags = 8,
    /// A ring place is written again before its epoch is durable.
    RingOverrun = 8,
    /// The next owner of a lane begins its ring anew.
    RingRestarted = 8,
    /// Records of a group count one by one.
    GroupOneByOne = 9,
    /// Contents are not durable before the record.
    ContentsUnfenced = 10,
    /// A block of a cache has its bit set.
    CachedBit = 11,
    /// The slab's header and bitmap are durable only together with its entry.
    SlabUnfenced = 13,
    /// The slab's bitmap is not zeroed.
    SlabBitsKept = 13,
    /// The slab's entry is left to the synchronizer.
    SlabEntryUnflushed = 13,
    /// The slab's entry is flushed, and fenced only with the first record that relies on it.
    SlabEntryUnfenced = 13,
    /// A chunk is linked before it is durable.
    ChunkUnfenced = 13,
    /// Entries go into a chunk before its link is durable.
    LinkUnfenced = 13,
    /// Recovery ignores entries of an epoch above D, that of a slab, too.
    EntriesByEpoch = 14,
    /// A log is copied while an append is in flight.
    CopyInFlight = 14,
    /// Appends count as landed before their record is durable.
    LandBeforeRecord = 14,
    /// The collector copies what was live at D, and not what has landed.
    CopyAsOfDurable = 14,
    /// The root is switched to a copy that is not durable.
    CopyUnfenced = 14,
    /// The old chunks are given back before the switch is durable.
    SwitchUnfenced = 14,
    /// A chunk is given back before its unlinking is durable.
    UnlinkUnfenced = 14,
    /// A free entry is dropped before the allocation that it ends.
    FreeDroppedFirst = 14,
    /// A chunk is used again without being zeroed.
    ChunkKept = 14,
    /// A close synchronizes the epoch before the present one only.
    CloseOneShort = 15,
    /// The policy is switched without zeroing the rings.
    SwitchKeepsRings = 16,
    /// A recovery builds on what it read and did not make durable.
    NoWriteBack = 20,
    /// Eager: the slots are given up before the mark is durable.
    UnlockEarly = 18,
    /// Eager: freed memory is handed out before the mark is durable.
    FreeEarly = 18,
    /// Eager: no third fence.
    NoRetireFence = 18,
    /// Eager: operation numbers start again while the marks stay.
    NumbersRestart = 18,
    /// Eager: recovery resets the marks together with the rings.
    MarksReset = 18,
    /// A free is written to the freeing thread's log.
    FreeInOwnLog = 18,
    /// Recovery appends nothing if a like entry exists.
    LikeEntryExists = 18,
    /// Recovery skips the slot, too, if the entry is there.
    RecordSkipped = 18,
    /// After a crash a log goes on behind its last valid entry.
    BehindLastValid = 18,
    /// After a crash a log goes on in its first hole.
    FirstHole = 18,
    /// Bits and entries are not stored at all before D moves.
    NoEffects = 19,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
