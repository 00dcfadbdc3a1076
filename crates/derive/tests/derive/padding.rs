//! Four bytes between the fields have no value.

#[derive(pmalloc::Persistent)]
#[repr(C)]
struct Gap {
    first: u32,
    second: u64,
}

fn main() {}
