//! Padding can be excluded for one type only.

#[derive(pmalloc::Persistent)]
#[repr(C)]
struct Of<T> {
    value: T,
}

fn main() {}
