//! Nothing drops what lies in a heap.

#[derive(pmalloc::Persistent)]
#[repr(C)]
struct Droppy {
    number: u64,
}

impl Drop for Droppy {
    fn drop(&mut self) {}
}

fn main() {}
