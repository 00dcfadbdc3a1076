//! The media format: data and constants, no behaviour.
//!
//! | file | what it lays out |
//! |---|---|
//! | [`geometry`] | sizes chosen at create time, and the areas that follow from them |
//! | [`sealed`] | the checks that tell a written word or structure from a torn or flipped one |
//! | [`superblock`] | two checksummed copies of what never changes |
//! | [`state`] | what changes over a heap's life: clean flag, policy, grown length, owner |
//! | [`root`] | the root table: named slots |
//! | [`declared`] | what programs say about where slots are |
//! | [`slot`] | the packed slot word |
//! | [`cell`] | the packed word of a versioned cell |
//! | [`lane`] | lane directory, marks, ring, and the 32-byte record |
//! | [`book`] | log roots, chunks and the 32-byte bookkeeping entry |
//! | [`slab`] | the descriptor of a slab: sealed header line and interleaved bitmap |
//!
//! Everything is little-endian and made of 8-byte words. Places are byte offsets from the base of the
//! heap unless a type says otherwise.

pub(crate) mod book;
pub(crate) mod cell;
pub(crate) mod declared;
pub(crate) mod geometry;
pub(crate) mod lane;
pub(crate) mod root;
pub(crate) mod sealed;
pub(crate) mod slab;
pub(crate) mod slot;
pub(crate) mod state;
pub(crate) mod superblock;
