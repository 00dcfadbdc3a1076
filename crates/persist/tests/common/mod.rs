//! Shared by the integration tests: directories to try everything in, and children.

#![allow(dead_code, reason = "every test file uses its own part")]

use std::{
    any::type_name,
    path::Path,
    process::{Command, Output},
};

use pmalloc_persist::{MapOptions, Mapped, MediaFile, Medium, Offset, PAGE_BYTES, Span, Word};
use tempfile::TempDir;

/// Bytes that the tests reserve.
pub(crate) const RESERVE_BYTES: u64 = 64 << 20;

/// A directory on tmpfs, if the machine has one, and one wherever temporary files go.
pub(crate) fn directories() -> Vec<TempDir> {
    let memory = tempfile::tempdir_in("/dev/shm").ok();
    let disk = tempfile::tempdir().expect("a temporary directory");
    memory.into_iter().chain([disk]).collect()
}

/// Creates, grows to `pages` and publishes a file whose first word is `value`.
pub(crate) fn published(path: &Path, pages: u64, value: u64) -> Mapped {
    let file = MediaFile::create(path).expect("a new file");
    let mapped = file.map(&options()).expect("a mapping");
    mapped.back(Span::new(0, pages * PAGE_BYTES)).expect("space");
    set(&mapped, 0, value);
    mapped.publish().expect("a free name");
    mapped
}

/// Options for [`RESERVE_BYTES`].
pub(crate) fn options() -> MapOptions {
    MapOptions::new(RESERVE_BYTES)
}

/// Writes the word at `offset` durably.
pub(crate) fn set(medium: &impl Medium, offset: u64, value: u64) {
    let word = medium.at(Offset::<Word>::new(offset)).expect("inside");
    medium.store(word, value);
    medium.flush_of(word);
    medium.fence();
}

/// Reads the word at `offset`.
pub(crate) fn get(medium: &impl Medium, offset: u64) -> u64 {
    medium.load(medium.at(Offset::<Word>::new(offset)).expect("inside"))
}

/// Name of the variable that makes a test run as its own child.
const CHILD: &str = "PERSIST_TEST_CHILD";

/// The argument that the parent passed, if this process is the child of a test.
pub(crate) fn child_argument() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// Runs `test`, a test of this program, alone in a child, which finds `argument`.
pub(crate) fn run_child<T: Fn()>(_: T, argument: &str) -> Output {
    let program = std::env::current_exe().expect("the path of this program");
    // As the harness has it: the path without that of the program.
    let path = type_name::<T>();
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    Command::new(program)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, argument)
        .output()
        .expect("a child")
}

/// Asserts that the child ran its test, and that it passed.
pub(crate) fn assert_passed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}
