//! An address means nothing to the next process.

#[derive(pmalloc::Persistent)]
#[repr(C)]
struct Borrowed {
    text: &'static u64,
}

fn main() {}
