//! What operations cost, in counts that are the same on every machine: golden tables.

#[path = "../common/mod.rs"]
mod common;

mod persist_count;
mod volatile;
