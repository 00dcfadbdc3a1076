//! Crash exploration of the heap.
//!
//! Short sequences of operations run on the crash simulator, over two lanes and from several start states; at every
//! crash point of the last operation, every image that recovery can tell apart is recovered by the real recovery and
//! judged by an oracle that knows what must be there.
//!
//! | file | what it is |
//! |---|---|
//! | [`model`] | what each slot must hold: the oracle's memory |
//! | [`world`] | a small heap on the simulator with two sessions |
//! | [`alphabet`], [`start`] | the operations, and the states they start from |
//! | [`oracle`] | judges a recovered heap |
//! | [`room`] | does all that is freed come back, and can it be used? |
//! | [`explore`] | one case: start state, operations, domain, nesting |
//! | [`eager`] | the plain product of images, to check the explorer against |
//! | [`sets`] | many cases, over threads |
//! | [`place`] | names for places in the sources |
//! | [`power`] | plants faults and sees which the sets find |
//! | [`survivors`] | the list of those that nothing can find, with the reasons |

pub mod alphabet;
pub mod cache;
pub mod eager;
pub mod explore;
pub mod model;
pub mod nodes;
pub mod oracle;
pub mod owners;
pub mod place;
pub mod power;
pub mod room;
pub mod sets;
pub mod start;
pub mod survivors;
pub mod world;
