//! Another compiler may order the fields otherwise.

#[derive(pmalloc::Persistent)]
struct Free {
    number: u64,
}

fn main() {}
