//! Cells in it would not be aligned.

#[derive(pmalloc::Persistent)]
#[repr(C, packed)]
struct Tight {
    number: u64,
}

fn main() {}
