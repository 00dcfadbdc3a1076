//! A slot owns bytes or a persistent value, and moves to slots for the same.

#[derive(pmalloc::Persistent)]
#[repr(C)]
struct Owner {
    text: pmalloc::Slot<String>,
}

fn main() {}
