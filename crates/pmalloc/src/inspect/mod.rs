//! Looking at heaps, open or not, and mending them.
//!
//! | file | what it does |
//! |---|---|
//! | [`problem`] | what can be wrong with a heap, and how it is told |
//! | [`owner`] | who uses a heap, and whether power was lost since |
//! | [`root_table`] | what keeps a heap from being served, of its root table; how that is mended |
//! | [`refusal`] | all that keeps a heap from being served: one list, for opening and for checking |
//! | [`serve`] | opening, behind that list |
//! | [`info`], [`stats`], [`map`] | what a heap's file says, what a heap holds, what each of its parts is |
//! | [`blocks`] | the live blocks, one after the other |
//! | [`owners`], [`orphans`] | which slot owns which block, and what is done with those that nothing owns |
//! | [`check`] | whether a heap is whole |
//! | [`copy`] | a copy of a heap's file, checked before it has a name |
//! | [`recover`] | recovery for its own sake, and what it did |
//! | [`salvage`], [`notes`] | a damaged heap made whole again, as far as that is possible; a file that keeps what was lost |
//!
//! Called by [`heap`](crate::heap), and by tools through the functions on files, which are public as they are.

mod blocks;
pub(crate) mod check;
mod copy;
mod info;
pub(crate) mod map;
mod notes;
pub(crate) mod orphans;
pub(crate) mod owner;
mod owners;
mod problem;
mod recover;
mod refusal;
mod root_table;
pub(crate) mod salvage;
pub(crate) mod serve;
pub(crate) mod stats;

pub use self::{
    blocks::Blocks,
    check::{CheckReport, check_file},
    copy::{CopyReport, copy_file, copy_file_with},
    info::{Info, info},
    map::{HeapMap, Part, PartKind, map_file},
    problem::{Problem, ProblemKind},
    recover::{RecoveryReport, recover_file},
    salvage::{SalvageReport, salvage_file},
    stats::{ClassStats, LogStats, Stats, TagStats, stats_file},
};
