//! What deaths of a process, losses of power and stopped threads leave, on the simulator.

#[path = "../common/mod.rs"]
mod common;

mod killed;
mod stalled;
mod typed_crash;
