//! How the shared library is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The name that programs ask the loader for: its number changes when a program would have to be compiled anew.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libpmalloc.so.0");
    // A thread that exits runs code of the library, and may do so after a dlclose: the library stays where it is.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
