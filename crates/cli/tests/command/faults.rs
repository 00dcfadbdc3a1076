//! Goal: a creation, a copy or a salvage that reports an error has not happened; or the error says that it has.
//!
//! Method: strace makes each call of `fsync` fail in turn, those of files and of directories, until the command makes no
//! further call. Left out with a word where there is no strace, or where it may not trace.

#![cfg(target_os = "linux")]

use std::{fs, path::Path, process::Command};

use crate::common::{Place, str};

/// Runs the command so that its `nth` call of `fsync` fails; whether it succeeded.
fn run_with_fault(nth: u32, args: &[&str]) -> bool {
    let inject = format!("inject=fsync:error=EIO:when={nth}");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", &inject]);
    command.arg(env!("CARGO_BIN_EXE_pmalloc")).args(args);
    command.output().expect("strace runs").status.success()
}

fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    let can = traced.is_ok_and(|output| output.status.success());
    if !can {
        println!("skipped: strace is not there, or may not trace");
    }
    can
}

/// The names in the directory of `path`.
fn names(path: &Path) -> Vec<String> {
    let directory = fs::read_dir(path.parent().expect("in a directory")).expect("ours");
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<_> = directory.map(|entry| name(entry.expect("ours"))).collect();
    names.sort();
    names
}

/// The heap used to be there although its creation had failed, when the directory could not be written, or when it could not
/// be closed: then it did not even open.
#[test]
fn a_creation_of_which_any_sync_fails_leaves_nothing() {
    if !can_trace() {
        return;
    }
    // In the page cache: closing writes the heap to the disk, too.
    let place = Place::on_disk();
    let path = place.path("heap");
    let failed = (1..20).take_while(|nth| {
        let is_done = run_with_fault(*nth, &["create", str(&path), "--capacity", "4M"]);
        assert_eq!(names(&path), if is_done { &["heap"][..] } else { &[] }, "fsync {nth}");
        !is_done
    });
    let in_memory = Command::new("stat").args(["-f", "-c", "%T", "/var/tmp"]).output();
    let on_close = usize::from(in_memory.expect("a program").stdout != b"tmpfs\n");
    let failed = failed.count();
    let all = 3 + on_close..19;
    assert!(
        all.contains(&failed),
        "the heap, the file, the directory; the closing of it: {failed}"
    );
}

#[test]
fn a_removal_that_is_not_durable_says_so() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let path = place.heap("heap");
    let inject = "inject=fsync:error=EIO:when=1";
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", inject]);
    command.args([env!("CARGO_BIN_EXE_pmalloc"), "destroy", str(&path)]);
    let output = command.output().expect("strace runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("is removed") && error.contains("loss of power"), "{error}");
    assert_eq!(names(&path), [""; 0]);
}

/// `/dev/full` takes nothing.
#[test]
fn what_was_done_is_said_where_it_can_not_be_reported() {
    let place = Place::new();
    let (path, copy) = (place.path("heap"), place.path("copy"));
    for (args, said) in [
        (&["create", str(&path), "--capacity", "4M"][..], "created all the same"),
        (&["copy", str(&path), str(&copy)], "a whole copy all the same"),
        (&["destroy", str(&path)], "destroyed all the same"),
    ] {
        let full = fs::File::options().write(true).open("/dev/full").expect("a device");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pmalloc"));
        let output = command.args(args).stdout(full).output().expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("standard output") && error.contains(said), "{error}");
    }
    assert_eq!(names(&path), ["copy"]);
}

#[test]
fn a_salvage_of_which_any_sync_fails_leaves_the_damaged_heap() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let path = place.heap("heap");
    // A wiped line of the state page.
    let mut damaged = fs::read(&path).expect("readable");
    damaged[8192..8256].fill(0);
    fs::write(&path, &damaged).expect("ours");
    let failed = (1..20).take_while(|nth| {
        run_with_fault(*nth, &["check", "--salvage", str(&path)]);
        let is_done = names(&path).len() > 1;
        let now = fs::read(&path).expect("it has its name");
        assert_eq!(now == damaged, !is_done, "fsync {nth}");
        !is_done
    });
    let failed = failed.count();
    assert!((4..19).contains(&failed), "the notes, the file, and the directory for each: {failed}");
    assert_eq!(names(&path), ["heap", "heap.damaged", "heap.salvaged"]);
}

#[test]
fn a_copy_of_which_any_sync_fails_leaves_nothing() {
    if !can_trace() {
        return;
    }
    let place = Place::new();
    let (path, copy) = (place.heap("heap"), place.path("copy"));
    let failed = (1..20).take_while(|nth| {
        let is_done = run_with_fault(*nth, &["copy", str(&path), str(&copy)]);
        let names = names(&copy);
        assert_eq!(names, if is_done { &["copy", "heap"][..] } else { &["heap"] }, "fsync {nth}");
        !is_done
    });
    let failed = failed.count();
    assert!((2..19).contains(&failed), "the file and the directory: {failed}");
}
