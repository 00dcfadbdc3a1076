//! The `pmalloc` command.
fn main() {}
