//! Tests that run as their own child, in surroundings that the parent prepares: another user, limits, mounts.
//!
//! A test passes itself, as the function that it is: the child runs what has the same name.

use std::{
    any::type_name,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

/// Name of the variable that makes a test run as its own child, and what it holds: a path.
const CHILD: &str = "PMALLOC_TEST_CHILD";

/// What a child that can't be given its surroundings exits with: that of a failed `mount`.
const NO_MOUNT: i32 = 32;

/// The path that the parent passed, if this process is the child of a test.
pub(crate) fn child_path() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// The path of this program.
pub(crate) fn this_program() -> PathBuf {
    std::env::current_exe().expect("the path of this program")
}

/// The name of a test, as the harness has it: its path without that of the program.
fn name_of<T: Fn()>(_: &T) -> &'static str {
    let path = type_name::<T>();
    path.split_once("::").map_or(path, |(_, name)| name)
}

/// The command that runs the test `name` of `program` as a child, which finds `path`; `wrapper` is a command that prepares
/// the surroundings and executes its arguments.
fn command(program: &Path, name: &str, wrapper: &[&str], path: &Path) -> Command {
    let mut words: Vec<&OsStr> = wrapper.iter().map(OsStr::new).collect();
    words.push(program.as_os_str());
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(CHILD, path);
    command
}

/// Runs a child and returns how it ended. To end well it must have run its test: a harness that has none of the name is
/// content as well.
#[track_caller]
fn end_of(command: &mut Command, name: &str) -> ExitStatus {
    let output = command.stdout(Stdio::piped()).output().expect("a child");
    let has_run = String::from_utf8_lossy(&output.stdout).contains("running 1 test\n");
    assert!(has_run || !output.status.success(), "{name}: the child ran no test");
    output.status
}

/// Runs the test as a child; it must pass.
#[track_caller]
pub(crate) fn run_child(test: impl Fn(), wrapper: &[&str], path: &Path) {
    run_program(&this_program(), test, wrapper, path);
}

/// As [`run_child`], with a copy of this program.
#[track_caller]
pub(crate) fn run_program(program: &Path, test: impl Fn(), wrapper: &[&str], path: &Path) {
    let name = name_of(&test);
    let status = end_of(command(program, name, wrapper, path).stderr(Stdio::inherit()), name);
    assert!(status.success(), "{name}: the child ended with {status}");
}

/// As [`run_child`], in a mount namespace of its own in which `mounts`, lines of a shell, were run before; false, and a
/// reason in the output, where that can't be done.
#[track_caller]
pub(crate) fn run_mounted(test: impl Fn(), mounts: &str, path: &Path) -> bool {
    let script = format!("{mounts}\n[ $? = 0 ] || exit {NO_MOUNT}\nexec \"$@\"");
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let name = name_of(&test);
    let status = end_of_child(test, &wrapper, path);
    if status.code() == Some(NO_MOUNT) || (!status.success() && !can_unshare()) {
        println!("{name}: skipped: this process may not mount");
        return false;
    }
    assert!(status.success(), "{name}: the child ended with {status}");
    true
}

fn can_unshare() -> bool {
    Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success())
}

/// Runs the test as a child and returns how it ended.
#[track_caller]
pub(crate) fn end_of_child(test: impl Fn(), wrapper: &[&str], path: &Path) -> ExitStatus {
    let name = name_of(&test);
    end_of(command(&this_program(), name, wrapper, path).stderr(Stdio::inherit()), name)
}

/// As [`end_of_child`], for a child that is meant to die: what it says of that is not shown.
#[track_caller]
pub(crate) fn death_of_child(test: impl Fn(), path: &Path) -> ExitStatus {
    let name = name_of(&test);
    end_of(command(&this_program(), name, &[], path).stderr(Stdio::null()), name)
}

/// Starts the test as a child and waits until it made the file `ready`.
pub(crate) fn start_child(test: impl Fn(), path: &Path, ready: &Path) -> Child {
    let name = name_of(&test);
    let mut child = command(&this_program(), name, &[], path);
    let mut child = child.stdout(Stdio::null()).spawn().expect("a child");
    while !ready.exists() {
        assert_eq!(child.try_wait().expect("a child"), None, "{name}: the child ended early");
        std::thread::yield_now();
    }
    child
}
