//! The code that the derive writes is the derive's: a crate that forbids unsafe code may use it.
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

fn main() {
    assert_eq!(Node::TAG, 3);
    assert_eq!(Meters::TAG, 0);
}
