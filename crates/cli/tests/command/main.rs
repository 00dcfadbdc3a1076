//! The built command, run as a script would run it.

mod common;

mod bench;
mod commands;
mod copy;
mod faults;
mod inspect;
mod install;
mod killed;
mod looks;
mod narrow;
mod replay;
