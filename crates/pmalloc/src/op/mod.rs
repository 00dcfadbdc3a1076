//! Operations: how slots and blocks change, durably and all at once.
//!
//! An operation is planned, recorded and applied. Planning makes all checks and takes all locks; from the first
//! record on nothing can fail, and only [`commit`] fences (but for contents, which are durable before). See the rules in
//! `docs/crash-consistency.md`.
//!
//! | file | what it does |
//! |---|---|
//! | [`engine`] | what the operations of a heap share |
//! | [`session`] | what one thread holds: a lane, caches, memory to plan in |
//! | [`alloc`], [`free`] | the two operations of one record |
//! | [`plan`], [`group`] | what several steps come to, and operations of several records |
//! | [`changes`] | what an operation changes: bits, log entries, slots and cells |
//! | [`commit`] | record and apply: the one sequence of all operations, under either policy |
//! | [`epochs`], [`synchronizer`], [`line_set`] | what stamps operations, and what makes many of them durable at once |
//! | [`background`] | the heap's own thread, which does that |
//! | [`reserve`] | blocks that are taken and not live yet |
//! | [`slot_locks`], [`gate`] | who may change a slot, when a sync may run |
//! | [`home`] | where the slots of a session lie |
//! | [`limbo`], [`pins`] | freed memory that may not be used yet, and who may still see it |
//! | [`root_blocks`] | blocks that slots may neither free nor read |
//!
//! Called by [`core`](crate::core), [`root`](crate::root) and [`inspect`](crate::inspect). Persistent: what
//! [`changes`] stores. Everything else is volatile.

mod alloc;
mod background;
mod changes;
mod commit;
mod engine;
mod epochs;
mod free;
mod gate;
mod group;
mod home;
mod limbo;
mod line_set;
mod pins;
mod plan;
mod reserve;
mod root_blocks;
mod session;
mod slot_locks;
mod synchronizer;

use crate::error::Raised;

/// Result of what this room does.
pub(crate) type Result<T, E = Raised> = std::result::Result<T, E>;

pub(crate) use alloc::{alloc_bare, alloc_init, alloc_root};
pub(crate) use engine::{Engine, owns_root};
pub(crate) use free::{Unlinked, free_from, free_root, recycle};
pub(crate) use gate::mark_open;
pub(crate) use group::{perform, perform_alone};
pub(crate) use pins::Pin;
pub(crate) use plan::{CellAt, Inside, SlotAt, Step};
pub(crate) use reserve::{cancel, reserve};
pub(crate) use session::{Explicit, SessionAccess, SessionState};
