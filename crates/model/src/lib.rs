//! Models of the protocol by which a heap records, applies and synchronizes.
//!
//! The real heap is explored by `pmalloc-verify`. A model comes before the code: it is small enough for every
//! interleaving of two or three threads and the synchronizer, with a crash in every state, every image that the
//! crash may leave, a crash in every recovery from it, and a second run on what recovery left. What it showed,
//! in words, is in `docs/protocol-models.md`; the numbers of rules are those there.
//!
//! | module | what it is |
//! |---|---|
//! | `memory` | stores, flushes, fences, and the images of a crash |
//! | `layout`, `packed` | what lies on media |
//! | `scenario`, `scenarios` | threads and their operations; the list of what is explored |
//! | `world` | a state |
//! | `thread` | the steps of a thread: operations, slabs, collection of logs |
//! | `synchronizer` | the steps of the synchronizer |
//! | `book` | the mirrors of the bookkeeping logs |
//! | `replay`, `recovery` | from an image back to a heap |
//! | `oracle` | what must be found |
//! | `explore` | all of it, exhaustively |
//! | `rule` | the ways in which a rule can be broken; each has to be noticed |
//! | `campaign` | runs scenarios and breaks |

mod book;
mod campaign;
mod explore;
mod fingerprint;
mod layout;
mod memory;
mod oracle;
mod packed;
mod recovery;
mod replay;
mod rule;
mod scenario;
mod scenarios;
mod synchronizer;
mod thread;
mod world;

pub use campaign::{Campaign, Case, Trial, cases, random, trials};
pub use explore::{Limits, Outcome, Violation};
pub use layout::Domain;
pub use rule::Break;
