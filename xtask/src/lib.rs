//! Chores that tests use, too.

pub mod install;
