//! Schedules of threads over one heap, each crashed at a random step, recovered and judged.
//!
//! A *schedule* is one run of a [`Scenario`](scenario::Scenario) on the crash simulator. Compiled with
//! `--cfg shuttle`, every access to the medium and every volatile lock and atomic is a point where another
//! thread may go on, and a number, the seed, decides at each of them who does. Without it the same scenarios
//! run on real threads: a smoke test, whose interleavings nobody chooses and nobody can repeat.
//!
//! At a random step the world is frozen: all images that a power failure then could leave are explored with
//! the real recovery, and each recovered heap must be explained by what had been called and what had
//! returned ([`history`]). Nothing may be leaked, shared, torn or left unusable.
//!
//! | file | what it does |
//! |---|---|
//! | [`scenario`] | what the threads do; `rounds` has those of the policy Batched |
//! | [`history`] | calls and returns, and which states they explain |
//! | [`threads`] | carries out a scenario's operations and writes the history |
//! | [`image`] | recovers an image and judges it |
//! | [`plan`] | everything that a seed decides |
//! | [`schedule`] | runs one schedule |
//! | [`campaign`] | runs many, and says what they covered |

pub mod campaign;
pub mod history;
pub mod image;
pub mod nodes;
pub mod plan;
mod rounds;
pub mod scenario;
pub mod schedule;
#[cfg(shuttle)]
mod scheduler;
pub mod threads;
