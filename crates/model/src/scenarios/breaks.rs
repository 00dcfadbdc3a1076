//! Which scenario is made to notice which break.

use crate::rule::Break;

/// Names of scenarios, the quickest first, one of which has to notice.
pub(crate) fn scenarios_for(broken: Break) -> &'static [&'static str] {
    match broken {
        Break::NoSlotLock => &["both alloc"],
        Break::StampBeforeLook
        | Break::NoMark
        | Break::UnmarkEarly
        | Break::NoRecordFence
        | Break::SlotBeforeRecord
        | Break::NoWait
        | Break::NoBitFlush
        | Break::NoSlotFlush
        | Break::OneFence
        | Break::FreesFirst
        | Break::DurableKept
        | Break::CachedBit
        | Break::NoEffects => &["alloc, free"],
        Break::NoBarrier => &["alloc, free", "reuse, slot lock"],
        Break::ReleaseEarly | Break::ReuseAtOnce | Break::ReuseWhenClosed => &["reuse"],
        Break::TwoAtOnce => &["two synchronizers"],
        Break::NoEntryFlush | Break::FreeInOwnLog => &["large: alloc, free"],
        Break::MorphInLimbo => &["node morphs"],
        Break::SlabInLimbo => &["slab given back"],
        Break::NoWriteBack => &["killed", "large: killed"],
        Break::ZeroBeforeDurable | Break::ZeroWithEffects => &["alloc, free", "again: alloc, free"],
        Break::RingsKept => &["again: alloc, free", "again: replace", "Eager: wrap"],
        Break::NoVersions => &["wrap", "move, free", "replace, free"],
        Break::SameVersion => &["again: replace"],
        Break::NoTags => &["wrap", "again: replace"],
        Break::RingOverrun => &["overrun"],
        Break::GroupOneByOne => &["publish, free"],
        Break::RingRestarted | Break::ContentsUnfenced => &["hand-over"],
        Break::SlabUnfenced
        | Break::SlabBitsKept
        | Break::SlabEntryUnflushed
        | Break::SlabEntryUnfenced
        | Break::EntriesByEpoch => &["slab"],
        Break::ChunkUnfenced | Break::LinkUnfenced => &["chunks"],
        Break::CopyInFlight
        | Break::LandBeforeRecord
        | Break::CopyAsOfDurable
        | Break::CopyUnfenced => &["copy"],
        Break::UnlinkUnfenced => &["Eager: unlink, two logs"],
        Break::FreeDroppedFirst => &["unlink, needed", "unlink"],
        Break::SwitchUnfenced | Break::ChunkKept => &["copy twice", "copy, then chunks"],
        Break::CloseOneShort => &["again: alloc, free"],
        Break::SwitchKeepsRings => &["policy: to Eager", "policy: to Batched"],
        Break::UnlockEarly => &["Eager: alloc, free"],
        Break::FreeEarly | Break::NoRetireFence => &["Eager: reuse"],
        Break::NumbersRestart | Break::MarksReset => &["Eager: wrap"],
        Break::LikeEntryExists => &["Eager: large, three times", "large: again and again"],
        Break::RecordSkipped => &["Eager: large", "large: alloc, free"],
        Break::BehindLastValid | Break::FirstHole => &["Eager: large, replace", "large: replace"],
    }
}
