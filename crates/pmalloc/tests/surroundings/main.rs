//! What a process has around it: files and file systems, other users and processes, limits, threads, and no memory. Tests
//! that need surroundings of their own run as their own children.

#[path = "../common/mod.rs"]
mod common;

mod background;
mod full;
mod hostile;
mod page_cache;
mod room;
mod starved;
