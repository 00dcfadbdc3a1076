//! Goal: the derive of `Persistent` refuses what has a bit pattern that is no value, what owns or points into the memory
//! of a process, and what has another layout with the next compiler; and it says why.
//!
//! Method: programs that must not compile, each with the message of the compiler; and one that must.

#[test]
fn what_is_not_persistent_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/derive/*.rs");
}

#[test]
fn a_crate_that_forbids_unsafe_code_derives() {
    trybuild::TestCases::new().pass("tests/derive/pass/forbids_unsafe.rs");
}
