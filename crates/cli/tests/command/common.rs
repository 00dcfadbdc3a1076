//! Runs the built command and reads what it prints.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// A temporary directory with paths in it.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// One that is hardly ever in memory.
    pub(crate) fn on_disk() -> Self {
        Self(tempfile::tempdir_in("/var/tmp").expect("a temporary directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A heap with the given name.
    pub(crate) fn heap(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        run(&["create", str(&path), "--capacity", "64M"]).expect_code(0);
        path
    }

    /// A file with the given name and contents.
    pub(crate) fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, contents).expect("a file can be written");
        path
    }
}

/// What a run of the command left.
pub(crate) struct Ran(Output);

impl Ran {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).expect("UTF-8")
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).expect("UTF-8")
    }

    /// Expects this exit code; an error has to be explained on standard error.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.0.status.code(), Some(code), "{}{}", self.stdout(), self.stderr());
        assert!(code == 0 || !self.stderr().is_empty(), "an error without a word");
        self
    }

    /// Expects exactly one JSON object of schema 1 on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.stdout()).expect("one JSON value");
        assert_eq!(value["schema"], 1, "{value}");
        value
    }
}

/// Runs the command.
pub(crate) fn run(args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_pmalloc")).args(args).output();
    Ran(output.expect("the command was built"))
}

/// Runs the command in a process that may have so many bytes of addresses.
pub(crate) fn run_within(address_bytes: u64, args: &[&str]) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v \"$1\" && shift && exec \"$@\"", "sh"]);
    command.arg((address_bytes >> 10).to_string()).arg(env!("CARGO_BIN_EXE_pmalloc")).args(args);
    Ran(command.output().expect("there is a shell"))
}

/// Starts the command and lets it run.
pub(crate) fn spawn(args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pmalloc"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the command was built")
}

pub(crate) fn str(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// Expects that `value` has all of `keys`.
#[track_caller]
pub(crate) fn expect_keys(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(value.get(key).is_some(), "no {key} in {value}");
    }
}

/// One event of a trace: an allocation of so many bytes, or a free of the `id`-th allocation; then the thread.
#[derive(Clone, Copy)]
pub(crate) enum Event {
    Alloc(u64, u64),
    Free(u64, u64),
}

/// The bytes of a trace.
pub(crate) fn trace(threads: u32, events: &[Event]) -> Vec<u8> {
    let mut bytes = b"MTR1".to_vec();
    bytes.extend(threads.to_le_bytes());
    bytes.extend((events.len() as u64).to_le_bytes());
    let mut next_id = 0;
    for &event in events {
        match event {
            Event::Alloc(size, thread) => {
                push_numbers(&mut bytes, &[next_id * 2, size, thread]);
                next_id += 1;
            }
            Event::Free(id, thread) => push_numbers(&mut bytes, &[id * 2 + 1, thread]),
        }
    }
    bytes
}

/// Appends unsigned LEB128 integers.
fn push_numbers(bytes: &mut Vec<u8>, numbers: &[u64]) {
    for &number in numbers {
        let mut rest = number;
        while rest > 0x7f {
            bytes.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        bytes.push(rest.to_le_bytes()[0]);
    }
}
