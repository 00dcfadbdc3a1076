//! Goal: programs in C and C++ that know only the header work, and what the header says of errors is true.
//!
//! Method: the programs check themselves; here they are compiled, with every warning an error, and run.

mod common;

use common::{Language, Linking, installed, succeed};

/// Runs a program of `tests/c` with an empty folder to work in; returns what it printed.
#[track_caller]
fn check(language: Language, source: &str, linking: Linking) -> String {
    let program = installed().program(language, &format!("tests/c/{source}"), linking);
    let folder = tempfile::tempdir().expect("a temporary directory");
    succeed(program.command().arg(folder.path()), "")
}

#[test]
fn the_example_keeps_a_guest_book_over_its_runs() {
    for linking in [Linking::Shared, Linking::Static] {
        let source = "examples/guestbook.c";
        let program = installed().program(Language::C("c99"), source, linking);
        let folder = tempfile::tempdir().expect("a temporary directory");
        let heap = folder.path().join("heap");
        let guestbook =
            |arguments: &[&str]| succeed(program.command().arg(&heap).args(arguments), "");
        assert_eq!(guestbook(&["read"]), "untitled: 0\n");
        guestbook(&["title", "Guests"]);
        for name in ["Ada", "Grace", "Barbara"] {
            guestbook(&["sign", name]);
        }
        assert_eq!(guestbook(&["read"]), "Guests: 3\n- Barbara\n- Grace\n- Ada\n");
        guestbook(&["tear"]);
        guestbook(&["title", "Guests of 2026"]);
        assert_eq!(guestbook(&["read"]), "Guests of 2026: 2\n- Grace\n- Ada\n");
        guestbook(&["tear"]);
        guestbook(&["tear"]);
        assert_eq!(guestbook(&["read"]), "Guests of 2026: 0\n");
        let report = pmalloc::check_file(&heap).expect("readable");
        // The root and the title.
        assert_eq!((report.problems, report.blocks), (Vec::new(), 2));
    }
}

#[test]
fn every_error_that_a_program_can_provoke_is_the_one_it_should_be() {
    check(Language::C("c99"), "errors.c", Linking::Shared);
}
