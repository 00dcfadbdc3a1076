//! The simulator and its explorer: against models of memory and of a page cache, and what they are there to find.

mod common;

mod classify;
mod explore;
mod model;
mod page_cache;
mod power;
mod shuttle;
