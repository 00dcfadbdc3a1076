//! Goal: the derive of `Persistent` refuses what has a bit pattern that is no value, what owns or points into the memory
//! of a process, and what has another layout with the next compiler; and it says why.
//!
//! Method: programs that must not compile, each with the message of the compiler; and this one, which must. The code that
//! the derive writes is the derive's: a crate that forbids unsafe code may use it.

#![forbid(unsafe_code)]

use pmalloc::{PCell, Persistent, Slot};

#[derive(Persistent)]
#[repr(C)]
#[persistent(tag = 3)]
struct Node {
    next: Slot<Node>,
    count: PCell<u64>,
    value: [u32; 2],
}

#[derive(Persistent)]
#[repr(transparent)]
struct Meters(f64);

#[test]
fn what_is_not_persistent_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/derive/*.rs");
}

#[test]
fn a_crate_that_forbids_unsafe_code_derives() {
    assert_eq!(Node::TAG, 3);
    assert_eq!(Meters::TAG, 0);
}
