//! The tests of `heap/miri.rs`, and nothing else: miri would have to compile the others and leave them out. It finds this
//! program by name; everywhere else it is empty, and they are a part of the program `heap`.

#![cfg(miri)]

mod common;
#[path = "heap/miri.rs"]
mod miri;
