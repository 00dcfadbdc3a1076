//! A byte of 2 is no `bool`.

#[derive(pmalloc::Persistent)]
#[repr(C)]
struct Flag {
    is_set: bool,
}

fn main() {}
