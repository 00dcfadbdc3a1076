//! A persistent heap.
#![deny(unsafe_code)]

mod error;
mod lane;
mod layout;
#[cfg(test)]
mod tests;

pub use error::{Error, Result};
pub use layout::{state::Policy, superblock::Model};
