//! Goal: `pmalloc copy` makes a heap that holds what the original holds, or nothing.
//!
//! Method: the built command copies heaps that are closed, killed, open, damaged and full of holes; a full file system is a
//! small one in a mount namespace (left out with a word where this process may not mount).

use std::{
    alloc::Layout, fs, io::ErrorKind, ops::ControlFlow, os::unix::fs::MetadataExt, path::Path,
    process::Command,
};

use crate::common::{Place, expect_keys, run, str};
use pmalloc::{Error, Heap, persist::MapError};
use rustix::process::{Signal, getpid, kill_process};

/// Sizes of the blocks that a heap here holds, the last one of zeros.
const SIZES: [usize; 5] = [10, 500, 5000, 300_000, 200_000];

/// What the block of the slot `at` is full of.
fn byte_of(at: usize) -> u8 {
    u8::try_from(SIZES.len() - 1 - at).expect("few blocks")
}

/// Makes a heap with holes, and hands it out open.
fn make(path: &Path) -> Heap {
    let heap = Heap::options().capacity_bytes(64 << 20).create(path).expect("room");
    let slots = heap.slots("test", SIZES.len() as u64 + 1).expect("room");
    let gone = &slots[SIZES.len()];
    heap.alloc_to(gone, Layout::new::<[u8; 1 << 20]>()).expect("room");
    for (at, (size, slot)) in SIZES.iter().zip(slots).enumerate() {
        let layout = Layout::array::<u8>(*size).expect("small");
        heap.alloc_init(slot, layout, |bytes| bytes.fill(byte_of(at))).expect("room");
    }
    heap.free_from(gone).expect("full");
    heap.trim().expect("possible");
    heap
}

#[track_caller]
fn assert_holds(path: &Path) {
    let heap = Heap::open(path).expect("a heap");
    let slots = heap.slots("test", SIZES.len() as u64 + 1).expect("they exist");
    let guard = heap.pin();
    for (at, (size, slot)) in SIZES.iter().zip(slots).enumerate() {
        let bytes = &slot.get(&guard).expect("a block")[..*size];
        assert!(bytes.iter().all(|byte| *byte == byte_of(at)));
    }
    drop(guard);
    assert_eq!(heap.check().expect("readable").problems, []);
    heap.close().expect("closed");
}

fn occupied(path: &Path) -> u64 {
    fs::metadata(path).expect("a file").blocks() * 512
}

/// Names in the directory of `path`, hidden ones included.
fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.parent().expect("in a directory")).expect("ours");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("ours").file_name();
    let mut names: Vec<_> = entries.map(|entry| name(entry).into_string().expect("ours")).collect();
    names.sort();
    names
}

#[test]
fn a_copy_is_the_same_heap_and_takes_no_more_room() {
    let place = Place::new();
    let (path, copy) = (place.path("heap"), place.path("copy"));
    make(&path).close().expect("closed");
    let before = fs::read(&path).expect("readable");
    let ran = run(&["copy", str(&path), str(&copy), "--json"]).expect_code(0);
    assert_eq!(ran.stderr(), "", "no bar where there is no terminal");
    let report = ran.json();
    expect_keys(
        &report,
        &["bytes_copied", "heap_bytes", "ok", "problems", "blocks", "live_bytes", "ms"],
    );
    assert_eq!((&report["ok"], &report["blocks"]), (&true.into(), &6.into()));
    assert_eq!(report["heap_bytes"], occupied(&copy));
    assert!(fs::read(&copy).expect("readable") == before, "byte by byte");
    assert!(occupied(&copy) <= occupied(&path) + (64 << 10), "holes stay holes");
    assert!(occupied(&copy) + (1 << 20) <= before.len() as u64, "there are holes");
    assert_eq!(fs::metadata(&copy).expect("a file").mode() & 0o777, 0o600);
    let uuid = |path| run(&["info", str(path), "--json"]).json()["uuid"].to_string();
    assert_eq!(uuid(&copy), uuid(&path));
    assert_holds(&copy);
    assert_holds(&path);
    let text = run(&["copy", str(&path), str(&place.path("another"))]).expect_code(0).stdout();
    assert!(text.contains("copied") && text.contains("6 blocks"), "{text}");
}

#[test]
fn what_a_copy_by_zeros_took_has_memory_again() {
    let place = Place::new();
    let (path, sparse, copy) = (place.path("heap"), place.path("sparse"), place.path("copy"));
    make(&path).close().expect("closed");
    let cp = Command::new("cp").arg("--sparse=always").args([&path, &sparse]).status();
    assert!(cp.expect("a program").success());
    run(&["copy", str(&sparse), str(&copy)]).expect_code(0);
    assert!(occupied(&copy) >= occupied(&sparse) + 190_000, "the block of zeros");
    assert_holds(&copy);
}

#[test]
fn nobody_opens_the_heap_while_it_is_copied_and_a_copy_that_is_ended_leaves_nothing() {
    let place = Place::new();
    let (path, copy) = (place.path("heap"), place.path("copy"));
    make(&path).close().expect("closed");
    let mut told = 0;
    let ended = pmalloc::copy_file_with(&path, &copy, |progress| {
        told += 1;
        let error = Heap::open(&path).expect_err("it is being copied");
        // This process runs, and opened it last; but it has closed it.
        assert!(matches!(error, Error::Map(MapError::InUse { owner: None, .. })), "{error:?}");
        assert!(!copy.exists());
        if progress.copied_bytes == 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(told > 1, "the copy has several parts");
    let error = ended.expect_err("it was ended");
    let Error::Map(MapError::Io { source, .. }) = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), ErrorKind::Interrupted);
    assert_eq!(names(&path), ["heap"]);
    assert_holds(&path);
}

/// The variable that makes a test its own child, which is killed with the heap of this name open.
const CHILD: &str = "PMALLOC_COPY_CHILD";

#[test]
fn a_killed_heap_is_copied_as_it_is_and_recovers() {
    const NAME: &str = "copy::a_killed_heap_is_copied_as_it_is_and_recovers";
    if let Some(path) = std::env::var_os(CHILD) {
        let _heap = make(Path::new(&path));
        kill_process(getpid(), Signal::KILL).expect("its own process");
        unreachable!("it is dead");
    }
    let place = Place::new();
    let (path, copy) = (place.path("heap"), place.path("copy"));
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    child.args(["--exact", NAME]).env(CHILD, &path);
    assert!(!child.output().expect("it starts").status.success());
    let before = fs::read(&path).expect("it was made");
    let ran = run(&["copy", str(&path), str(&copy), "--json"]).expect_code(0);
    assert!(ran.stderr().contains("was not closed"), "{}", ran.stderr());
    assert_eq!(ran.json()["ok"], true);
    assert!(fs::read(&copy).expect("there") == before && fs::read(&path).expect("there") == before);
    assert_holds(&copy);
    assert_holds(&path);
}

#[test]
fn a_heap_that_is_open_is_not_copied_and_the_refusal_names_the_owner() {
    let place = Place::new();
    let (path, copy) = (place.path("heap"), place.path("copy"));
    let heap = make(&path);
    let owner = format!("process {} ", std::process::id());
    for args in
        [&["copy", str(&path), str(&copy)][..], &["check", str(&path)], &["recover", str(&path)]]
    {
        let said = run(args).expect_code(4).stderr();
        assert!(said.contains(&owner), "{said}");
    }
    assert_eq!(names(&path), ["heap"]);
    heap.close().expect("closed");
    run(&["copy", str(&path), str(&copy)]).expect_code(0);
}

#[test]
fn what_has_the_name_stays_and_what_is_no_heap_is_not_copied() {
    let place = Place::new();
    let path = place.path("heap");
    make(&path).close().expect("closed");
    let taken = place.file("taken", b"precious");
    run(&["copy", str(&path), str(&taken)]).expect_code(1);
    run(&["copy", str(&path), str(&path)]).expect_code(1);
    assert_eq!(fs::read(&taken).expect("still there"), b"precious");
    let copy = place.path("copy");
    run(&["copy", str(&taken), str(&copy)]).expect_code(5);
    run(&["copy", str(&place.path("none")), str(&copy)]).expect_code(1);
    assert_eq!(names(&path), ["heap", "taken"]);
    assert_holds(&path);
}

#[test]
fn a_damaged_heap_is_not_copied_and_what_is_wrong_is_said() {
    let place = Place::new();
    let (path, copy) = (place.path("heap"), place.path("copy"));
    make(&path).close().expect("closed");
    let mut bytes = fs::read(&path).expect("readable");
    // The state page.
    bytes[2 * 4096..][..4].copy_from_slice(b"oops");
    fs::write(&path, &bytes).expect("writable");
    let ran = run(&["copy", str(&path), str(&copy), "--json"]).expect_code(3);
    assert!(ran.stderr().contains("--salvage"), "{}", ran.stderr());
    let report = ran.json();
    assert_eq!(report["ok"], false);
    expect_keys(&report["problems"][0], &["kind", "offset", "text"]);
    // There is no copy that these could be of.
    assert!(report["bytes_copied"].is_null() && report["heap_bytes"].is_null(), "{report}");
    assert_eq!(names(&path), ["heap"]);
    assert!(fs::read(&path).expect("readable") == bytes);
}

#[test]
fn a_full_file_system_leaves_nothing() {
    let place = Place::new();
    let path = place.path("heap");
    make(&path).close().expect("closed");
    let small = place.path("small");
    fs::create_dir(&small).expect("a new directory");
    let script = "mount -t tmpfs -o size=$1 none \"$2\" || exit 32; \"$3\" copy \"$4\" \"$2/copy\" >&2; code=$?; \
                  ls -A \"$2\"; stat -c %b \"$2\"/* 2>/dev/null; exit $code";
    let copy_within = |bytes: u64| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", &bytes.to_string(), str(&small)]);
        command.args([env!("CARGO_BIN_EXE_pmalloc"), str(&path)]).output()
    };
    let Ok(ran) = copy_within(64 << 20) else { return println!("skipped: there is no unshare") };
    let may_unshare = || {
        let tried = Command::new("unshare").args(["--mount", "true"]).status();
        tried.is_ok_and(|status| status.success())
    };
    if ran.status.code() == Some(32) || (!ran.status.success() && !may_unshare()) {
        return println!("skipped: this process may not mount");
    }
    let said = String::from_utf8(ran.stdout).expect("a name and a number");
    let blocks = said.strip_prefix("copy\n").and_then(|rest| rest.trim().parse::<u64>().ok());
    let need = 512 * blocks.expect("a copy");
    // Too small for the blocks, and for all but the last page of them.
    for size in [need / 4, need / 2, need - 4096] {
        let ran = copy_within(size).expect("as before");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{size} of {need} bytes: {said}");
        assert!(said.contains("free space") || said.contains("room"), "{said}");
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "", "nothing is left");
    }
}
