//! Goal: a program that is watched by valgrind can use the library, all of it, and is told of no error that is not its own.
//!
//! Method: a program calls every function of the header from four threads. It runs by itself, and under memcheck: with what a
//! file has by default, and with the flush instructions of persistent memory.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::common::{
    Language, Linking, Program, functions_in, header, installed, succeed, without_comments,
};

const SOURCE: &str = "tests/c/every.c";

/// Numbers of `pmalloc.h`.
const AUTO: &str = "0";
const POWER_FAIL: &str = "1";

/// What memcheck ends a program with that has errors.
const MEMCHECK_ERRORS: &str = "77";

fn program() -> Program {
    installed().program(Language::C("c99"), SOURCE, Linking::Shared)
}

/// Runs the program by way of `command`.
#[track_caller]
fn run(command: &mut Command, durability: &str, rounds: &str) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    succeed(command.arg(folder.path()).args([durability, rounds]), "");
}

#[test]
fn the_program_calls_every_function_of_the_header() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(SOURCE);
    let source = without_comments(&fs::read_to_string(source).expect("a program"));
    let (header, called) = (without_comments(&header()), functions_in(&source));
    let declared = functions_in(&header);
    let missing: Vec<_> = declared.difference(&called).collect();
    assert!(missing.is_empty() && declared.len() > 30, "never called: {missing:?}");
}

#[test]
fn every_function_works_from_four_threads() {
    for durability in [AUTO, POWER_FAIL] {
        run(&mut program().command(), durability, "20");
    }
}

#[test]
fn memcheck_finds_no_error() {
    let valgrind = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if !valgrind.is_ok_and(|status| status.success()) {
        println!("skipped: there is no valgrind (on Debian: apt-get install valgrind)");
        return;
    }
    let program = program();
    for (durability, rounds) in [(AUTO, "2"), (POWER_FAIL, "1")] {
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--leak-check=full", "--errors-for-leak-kinds=definite"]);
        command.arg(format!("--error-exitcode={MEMCHECK_ERRORS}")).arg(program.path());
        run(&mut command, durability, rounds);
    }
}
