//! Goal: header and library are one interface: names, types, layouts and numbers, in both directions.
//!
//! Method: the Rust sources are read and written down as C declarations, which a compiler then sees beside the header's; the
//! names that the header has are compared with those that the library exports.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use crate::{
    common::{Language, functions_in, header, installed, succeed, without_comments},
    mirror,
};

fn source_files() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let entries = fs::read_dir(folder).expect("sources");
    entries.map(|entry| fs::read_to_string(entry.expect("a file").path()).expect("text")).collect()
}

#[test]
fn the_header_compiles_by_itself_and_twice_in_every_language() {
    let twice = "#include <pmalloc.h>\n#include <pmalloc.h>\nextern int nothing;\n";
    let standards = [Language::C("c99"), Language::C("c11"), Language::C("c17")];
    for language in standards.into_iter().chain(["c++11", "c++17", "c++20"].map(Language::Cxx)) {
        installed().compile(language, twice).unwrap_or_else(|said| panic!("{language:?}: {said}"));
    }
}

#[test]
fn the_code_declares_what_the_header_declares() {
    let mirror = mirror::of(&source_files());
    installed().compile(Language::C("c11"), &mirror.text).unwrap_or_else(|said| panic!("{said}"));
    let code = without_comments(&header());
    let functions: BTreeSet<&str> = mirror.functions.iter().map(String::as_str).collect();
    assert_eq!(functions, functions_in(&code));
    let constants: BTreeSet<&str> = code
        .lines()
        .filter_map(|line| line.strip_prefix("#define PMA_"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let known: BTreeSet<&str> =
        mirror.constants.iter().filter_map(|name| name.strip_prefix("PMA_")).collect();
    assert_eq!(constants, known);
}

/// The comparison above is the compiler's: it sees each kind of difference.
#[test]
fn a_declaration_that_differs_is_refused() {
    let (header, mirror) = (header(), mirror::of(&source_files()).text);
    let compile = |header: &str| {
        let text = mirror.replace("#include <pmalloc.h>", header);
        installed().compile(Language::C("c11"), &text)
    };
    assert_eq!(compile(&header), Ok(()));
    for (wrong, right) in [
        ("uint32_t kind, zero;", "uint64_t kind, zero;"),
        ("uint64_t value; } pma_action", "int64_t value; } pma_action"),
        ("reflush[9]", "reflush[8]"),
        ("#define PMA_E_FULL 2", "#define PMA_E_FULL 3"),
        (
            "int  pma_trim(pma_heap *, uint64_t *freed)",
            "int  pma_trim(pma_heap *, uint32_t *freed)",
        ),
        (
            "const void *src, size_t size, size_t align);\n/* Slots",
            "void *src, size_t size, size_t align);\n/* Slots",
        ),
        ("(*init)(void *p, void *arg)", "(*init)(void *p, int arg)"),
    ] {
        assert!(header.contains(wrong), "{wrong}");
        assert!(compile(&header.replace(wrong, right)).is_err(), "{right}");
    }
}

#[test]
fn the_library_exports_the_functions_of_the_header_and_nothing_else() {
    let library = installed().file("lib/libpmalloc.so");
    let listing = succeed(Command::new("nm").args(["-D", "--defined-only"]).arg(&library), "");
    let exported: BTreeSet<&str> =
        listing.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    let code = without_comments(&header());
    assert_eq!(exported, functions_in(&code));
}

#[test]
fn the_library_says_its_name_and_stays_loaded() {
    let library = installed().file("lib/libpmalloc.so");
    let dynamic = succeed(Command::new("readelf").arg("-d").arg(&library), "");
    assert!(dynamic.contains("[libpmalloc.so.0]"), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}
