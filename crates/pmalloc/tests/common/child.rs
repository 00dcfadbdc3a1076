//! Tests that run as their own child, in surroundings that the parent prepares: another user, limits, mounts.

use std::{
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

/// The command that runs the test `name` of this file as a child, which finds `path`; `wrapper` is a command that
/// prepares the surroundings and executes its arguments.
fn command(name: &str, wrapper: &[&str], path: &Path) -> Command {
    let program = std::env::current_exe().expect("the path of this program");
    let mut words: Vec<&OsStr> = wrapper.iter().map(OsStr::new).collect();
    words.push(program.as_os_str());
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(CHILD, path);
    command
}

/// Runs the test `name` as a child; it must pass.
#[track_caller]
pub(crate) fn run_child(name: &str, wrapper: &[&str], path: &Path) {
    let status = end_of_child(name, wrapper, path);
    assert!(status.success(), "{name}: the child ended with {status}");
}

/// As [`run_child`], in a mount namespace of its own in which `mounts`, lines of a shell, were run before; false, and a
/// reason in the output, where that can't be done.
#[track_caller]
pub(crate) fn run_mounted(name: &str, mounts: &str, path: &Path) -> bool {
    let script = format!("{mounts}\n[ $? = 0 ] || exit {NO_MOUNT}\nexec \"$@\"");
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let status = end_of_child(name, &wrapper, path);
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

/// Runs the test `name` as a child and returns how it ended.
pub(crate) fn end_of_child(name: &str, wrapper: &[&str], path: &Path) -> ExitStatus {
    let mut command = command(name, wrapper, path);
    command.stdout(Stdio::null()).status().expect("a child")
}

/// As [`end_of_child`], for a child that is meant to die: what it says of that is not shown.
pub(crate) fn death_of_child(name: &str, path: &Path) -> ExitStatus {
    let mut command = command(name, &[], path);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("a child")
}

/// Starts the test `name` as a child and waits until it made the file `ready`.
pub(crate) fn start_child(name: &str, path: &Path, ready: &Path) -> Child {
    let mut child = command(name, &[], path).stdout(Stdio::null()).spawn().expect("a child");
    while !ready.exists() {
        assert_eq!(child.try_wait().expect("a child"), None, "{name}: the child ended early");
        std::thread::yield_now();
    }
    child
}
