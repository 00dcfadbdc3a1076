//! Not every bit pattern is a variant.

#[derive(pmalloc::Persistent)]
#[repr(u64)]
enum State {
    Open,
    Closed,
}

fn main() {}
