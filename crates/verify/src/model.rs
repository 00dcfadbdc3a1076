//! What each slot must hold.

use std::sync::{Arc, Mutex, PoisonError};

/// Versioned cells.
pub const CELLS: usize = 2;

/// A block that a slot owns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    /// Identity; with [`Held::filled`] it decides the contents.
    pub id: u64,
    /// Bytes asked for.
    pub size: usize,
    /// Its tag.
    pub tag: u8,
    /// Whether an initialiser wrote the contents.
    pub filled: bool,
    /// The session that allocated it.
    pub lane: usize,
}

impl Held {
    /// The byte at `index` of a filled block.
    #[must_use]
    pub fn byte(&self, index: usize) -> u8 {
        (self.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (index as u64).wrapping_mul(0x0100_0193))
            .to_be_bytes()[0]
            | 1
    }

    /// Writes what a filled block holds.
    pub fn fill(&self, bytes: &mut [u8]) {
        bytes.iter_mut().enumerate().for_each(|(index, byte)| *byte = self.byte(index));
    }
}

/// How many typed blocks there may be, each with a slot in it.
pub const CHILDREN: usize = 2;

/// A typed block with a slot in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// Identity, which decides the contents.
    pub id: u64,
    /// What its slot owns.
    pub child: Option<Held>,
}

/// How large the root `extra` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extra {
    /// A block of the class of those with contents, of which no cache holds a clean one.
    Small,
    /// A page-granular block.
    Large,
}

impl Extra {
    /// Bytes of the root.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Small => 192,
            Self::Large => 16 << 10,
        }
    }
}

/// The state of a heap as the program knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Model {
    /// Per slot of the array `slots`.
    pub slots: Vec<Option<Held>>,
    /// Whether there is the root of typed blocks.
    pub has_nodes: bool,
    /// The small and the page-granular typed block.
    pub nodes: [Option<Node>; CHILDREN],
    /// Per versioned cell, its value.
    pub cells: [u64; CELLS],
    /// The root of bytes `extra`, if it exists.
    pub extra: Option<Extra>,
}

/// What may be found after a crash: the state before the operation in flight, and the one after it.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Accepted states.
    pub states: Vec<Model>,
}

/// An expectation that the driver changes while the oracle reads it.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<Expected>>);

impl Shared {
    /// What is expected now. Cloned, so that nested checks find the lock free.
    #[must_use]
    pub fn get(&self) -> Expected {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Expects exactly `state`: an operation has returned.
    pub fn only(&self, state: &Model) {
        self.set(Expected { states: vec![state.clone()] });
    }

    /// Expects `before` or `after`: an operation is in flight.
    pub fn either(&self, before: &Model, after: &Model) {
        self.set(Expected { states: vec![before.clone(), after.clone()] });
    }

    pub(crate) fn set(&self, expected: Expected) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = expected;
    }
}
