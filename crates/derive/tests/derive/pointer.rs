//! As a reference.

#[derive(pmalloc::Persistent)]
#[repr(C)]
struct Raw {
    at: *const u64,
}

fn main() {}
