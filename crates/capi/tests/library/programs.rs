//! Goal: programs in C and C++ that know only the header work, and what the header says of errors is true.
//!
//! Method: the programs check themselves; here they are compiled, with every warning an error, and run.

use std::{fs, path::Path};

use crate::common::{Language, Linking, installed, succeed};
use serde_json::Value;

/// Runs a program of `tests/c` with an empty folder to work in; returns what it printed.
#[track_caller]
fn check(language: Language, source: &str, linking: Linking) -> String {
    let program = installed().program(language, Path::new("tests/c").join(source), linking);
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
fn the_program_of_the_guide_compiles_and_runs() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/c.md");
    let guide = fs::read_to_string(guide).expect("the guide");
    let blocks =
        guide.split("```c\n").skip(1).map(|rest| rest.split_once("```").expect("an end").0);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let source = folder.path().join("guide.c");
    fs::write(&source, blocks.collect::<String>()).expect("written");
    let program = installed().program(Language::C("c99"), &source, Linking::Shared);
    let run = || succeed(program.command().arg(folder.path().join("heap")), "");
    assert_eq!(run(), "1 sessions\n7: 4711 Ada\n");
    assert_eq!(run(), "0 sessions\n");
}

#[test]
fn every_error_that_a_program_can_provoke_is_the_one_it_should_be() {
    check(Language::C("c99"), "errors.c", Linking::Shared);
}

#[test]
fn slots_are_where_a_program_has_declared_them_also_in_a_closed_heap() {
    let program = installed().program(Language::C("c99"), "tests/c/owners.c", Linking::Shared);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = succeed(program.command().arg(folder.path()), "");
    let report = pmalloc::check_file(path.trim()).expect("readable");
    let kinds: Vec<_> = report.problems.iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [pmalloc::ProblemKind::Dangling]);
    assert_eq!((report.unowned_blocks, report.unknown_blocks), (1, 0));
    assert_eq!(report.orphans[0].tag, 11);
}

#[test]
fn a_forked_child_is_refused_by_every_call() {
    check(Language::C("c99"), "fork.c", Linking::Shared);
}

#[test]
fn a_program_of_cxx_uses_the_heap_from_several_threads() {
    for linking in [Linking::Shared, Linking::Static] {
        check(Language::Cxx("c++17"), "queue.cpp", linking);
    }
}

#[test]
fn threads_that_end_and_a_library_that_is_closed_leave_nothing_stranded() {
    // GNU's C, for the types of functions.
    let program = installed().program(Language::C("gnu99"), "tests/c/late.c", Linking::Late);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let library = installed().file("lib/libpmalloc.so.0");
    succeed(program.command().arg(library).arg(folder.path()), "");
}

#[test]
fn a_heap_has_the_policy_that_was_asked_for_last() {
    check(Language::C("c99"), "policy.c", Linking::Shared);
}

#[test]
fn the_figures_agree_and_the_text_has_the_keys_of_the_command() {
    let program = installed().program(Language::C("c99"), "tests/c/figures.c", Linking::Shared);
    for (policy, number) in [("eager", "1"), ("batched", "2")] {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let printed = succeed(program.command().arg(folder.path()).arg(number), "");
        let (figures, json) = printed.split_once("json ").expect("both");
        let json: Value = serde_json::from_str(json).expect("JSON");
        let (figures, last) = figures.trim_end().rsplit_once('\n').expect("lines");
        assert_eq!((last, json["policy"].as_str()), (&*format!("policy {number}"), Some(policy)));
        expect_figures(figures, &json);
    }
}

#[track_caller]
fn expect_figures(figures: &str, json: &Value) {
    for figure in figures.lines() {
        let (name, value) = figure.split_once(' ').expect("a name and a value");
        assert_eq!(json[name].as_u64(), value.parse().ok(), "{name}");
    }
    let keys = |value: &Value| -> Vec<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    let mut expected = [
        "schema",
        "policy",
        "live_blocks",
        "live_bytes",
        "heap_bytes",
        "peak_heap_bytes",
        "used_bytes",
        "free_bytes",
        "largest_free",
        "dram_bytes",
        "recovery_ns",
        "replayed",
        "classes",
        "tags",
        "morphs",
        "log",
    ];
    expected.sort_unstable();
    assert_eq!(keys(json), expected);
    assert_eq!(keys(&json["log"]), ["chunks", "fast_gc", "live", "slow_gc"]);
    assert_eq!(keys(&json["classes"][0]), ["blocks", "live", "size", "slabs", "tag"]);
    assert_eq!(keys(&json["tags"][0]), ["blocks", "live_bytes", "tag"]);
    let counted: u64 = json["classes"]
        .as_array()
        .expect("classes")
        .iter()
        .filter_map(|class| class["live"].as_u64())
        .sum();
    assert_eq!(counted, 3);
}
