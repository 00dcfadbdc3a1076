//! Goal: the derive of `Persistent` refuses what has a bit pattern that is no value, what owns or points into the memory
//! of a process, and what has another layout with the next compiler; and it says why.
//!
//! Method: programs that must not compile, each with the message of the compiler.

#[test]
fn what_is_not_persistent_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/derive/*.rs");
}
