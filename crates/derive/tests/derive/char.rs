//! Not every `u32` is a character.

#[derive(pmalloc::Persistent)]
#[repr(C)]
struct Letter {
    letter: char,
}

fn main() {}
