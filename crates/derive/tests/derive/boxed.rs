//! The memory of a box is gone with its process.

#[derive(pmalloc::Persistent)]
#[repr(C)]
struct Boxed {
    number: Box<u64>,
}

fn main() {}
