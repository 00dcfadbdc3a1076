//! Goal: a heap in hostile surroundings gives a typed error that says what to do, and loses nothing: odd files, foreign
//! owners, other processes, limits, files that are moved or cut under an open heap.
//!
//! Method: the surroundings are real. Where they are those of a process (a user, a limit, a lock, a death), the test runs
//! itself again as a child; where root is needed for them, a user who is not root prints why the case is left out.
//! What simulated media can show is in `heap/errors.rs`; full file systems are in `full.rs`.

#![cfg(not(any(miri, shuttle)))]

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
        net::UnixListener,
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Barrier,
};

use crate::common::{
    child::{
        child_path, end_of_child, run_child, run_mounted, run_program, start_child, this_program,
    },
    fill, layout, options,
};
use pmalloc::{Error, Heap, persist::MapError};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// A closed heap of which the first slot owns a block.
fn heap_file(path: &Path) {
    let heap = options().create(path).expect("created");
    let slots = heap.slots("first", 24).expect("room");
    heap.alloc_init(&slots[0], layout(100), fill(1)).expect("room");
    heap.close().expect("closed");
}

/// Whether the heap at `path` opens with what [`heap_file`] put there, works, and is closed again.
fn is_whole(path: &Path) -> bool {
    let heap = Heap::open(path).expect("a heap");
    let slots = heap.slots("first", 24).expect("it exists");
    heap.alloc_to(&slots[1], layout(20_000)).expect("room");
    heap.free_from(&slots[1]).expect("it is full");
    let owned = slots[0].get(&heap.pin()).is_some_and(|bytes| bytes[..100] == [48; 100]);
    let problems = heap.check().expect("readable").problems;
    heap.close().expect("closed");
    owned && problems.is_empty()
}

/// What each function that takes a path of a heap says of `path`.
fn errors_of(path: &Path) -> [(&'static str, Error); 6] {
    let error = |result: Result<(), Error>| result.expect_err("it must be refused");
    [
        ("open", error(Heap::open(path).map(drop))),
        ("info", error(pmalloc::info(path).map(drop))),
        ("check", error(pmalloc::check_file(path).map(drop))),
        ("map", error(pmalloc::map_file(path).map(drop))),
        ("recover", error(pmalloc::recover_file(path).map(drop))),
        ("salvage", error(pmalloc::salvage_file(path).map(drop))),
    ]
}

/// Asserts that `error` is of the kind and that its message holds `phrase`.
macro_rules! assert_kind {
    ($error:expr, $pattern:pat, $phrase:expr) => {{
        let error: &Error = &$error;
        assert!(matches!(error, $pattern), "{error:?}");
        assert!(error.to_string().contains($phrase), "{error} does not say {:?}", $phrase);
    }};
}

#[test]
fn every_function_refuses_every_odd_path() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    heap_file(&at("heap"));
    symlink("heap", at("link")).expect("a link");
    symlink("nowhere", at("dangling")).expect("a link");
    fs::create_dir(at("directory")).expect("a directory");
    let _socket = UnixListener::bind(at("socket")).expect("a socket");
    let made = Command::new("mkfifo").arg(at("fifo")).status().expect("a FIFO");
    assert!(made.success());
    fs::write(at("empty"), "").expect("written");
    for (path, phrase) in [
        (at("link"), "give the path it points to"),
        (at("dangling"), "give the path it points to"),
        (at("directory"), "give the path of a file"),
        (at("socket"), "give the path of a file"),
        (at("fifo"), "give the path of a file"),
        (PathBuf::from("/dev/null"), "give the path of a file"),
        (PathBuf::from("/dev/zero"), "give the path of a file"),
        (at("empty"), "give the path of a heap"),
        (at("missing"), "create it first"),
        (at("missing/heap"), "create it first"),
        (at("heap/heap"), ""),
        (at(&"n".repeat(300)), "shorter name"),
    ] {
        for (function, error) in errors_of(&path) {
            let message = error.to_string();
            assert!(message.contains(phrase), "{function} {}: {message}", path.display());
            let is_typed = matches!(error, Error::Map(_) | Error::NotAHeap { .. });
            assert!(is_typed, "{function} {}: {error:?}", path.display());
        }
    }
    for taken in ["heap", "link", "dangling", "directory", "socket", "fifo", "empty"] {
        let error = options().create(at(taken)).expect_err("the name is taken");
        assert_kind!(error, Error::Map(MapError::Exists { .. }), "choose another");
    }
    let name = std::ffi::OsStr::from_bytes(b"not \xff text");
    heap_file(&directory.path().join(name));
    assert!(is_whole(&directory.path().join(name)) && is_whole(&at("heap")));
}

/// Runs the child of the test as another user, who finds this program and the files of `directory`.
fn as_nobody(test: impl Fn(), directory: &Path) -> bool {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return false;
    }
    let program = directory.join("program");
    fs::copy(this_program(), &program).expect("copied");
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).expect("root may");
    let wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    run_program(&program, test, &wrapper, directory);
    true
}

#[test]
fn a_heap_of_another_user_is_refused_and_stays_as_it_is() {
    if let Some(directory) = child_path() {
        for (name, open) in [("private", false), ("shared", true)] {
            for (function, error) in errors_of(&directory.join(name)) {
                match error {
                    Error::Map(MapError::ForeignOwner { owner: 0, user: 65534, .. }) if open => {}
                    Error::Map(MapError::NotPermitted { .. }) if !open => {}
                    error => panic!("{function} {name}: {error:?}"),
                }
            }
        }
        // One's own file may not be writable, and may be looked at then.
        let own = directory.join("own");
        heap_file(&own);
        fs::set_permissions(&own, fs::Permissions::from_mode(0o400)).expect("one's own");
        let error = Heap::open(&own).expect_err("it can't be written");
        assert_kind!(error, Error::Map(MapError::NotPermitted { .. }), "change its permissions");
        assert_eq!(pmalloc::check_file(&own).expect("readable").problems, []);
        let error = options().create(directory.join("closed/heap")).expect_err("no permission");
        assert_kind!(error, Error::Map(_), "permi");
        return;
    }
    let directory = directory();
    for (name, mode) in [("private", 0o600), ("shared", 0o666)] {
        heap_file(&directory.path().join(name));
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(directory.path().join(name), mode).expect("one's own");
    }
    fs::create_dir(directory.path().join("closed")).expect("a directory");
    if as_nobody(a_heap_of_another_user_is_refused_and_stays_as_it_is, directory.path()) {
        assert!(is_whole(&directory.path().join("private")));
        assert!(is_whole(&directory.path().join("shared")));
    }
}

#[test]
fn a_read_only_file_system_can_be_looked_at() {
    if let Some(directory) = child_path() {
        let path = directory.join("heap");
        let error = Heap::open(&path).expect_err("read-only");
        assert_kind!(error, Error::Map(MapError::NotPermitted { .. }), "file system is writable");
        assert_eq!(pmalloc::check_file(&path).expect("readable").problems, []);
        assert!(pmalloc::info(&path).is_ok() && pmalloc::map_file(&path).is_ok());
        let error = pmalloc::salvage_file(&path).expect_err("read-only");
        assert_kind!(error, Error::Map(MapError::NotPermitted { .. }), "file system is writable");
        let error = options().create(directory.join("new")).expect_err("read-only");
        assert_kind!(error, Error::Map(_), "");
        return;
    }
    let directory = directory();
    heap_file(&directory.path().join("heap"));
    let place = directory.path().display();
    let mounts = format!("mount --bind {place} {place} && mount -o remount,bind,ro {place}");
    run_mounted(a_read_only_file_system_can_be_looked_at, &mounts, directory.path());
    assert!(is_whole(&directory.path().join("heap")));
}

#[test]
fn without_proc_a_heap_is_not_opened_and_not_harmed() {
    if let Some(directory) = child_path() {
        let error = Heap::open(directory.join("heap")).expect_err("nothing tells who this is");
        assert_kind!(error, Error::Io { .. }, "boot id");
        let error = options().create(directory.join("new")).expect_err("nothing tells who this is");
        assert_kind!(error, Error::Io { .. }, "boot id");
        assert!(!directory.join("new").exists());
        return;
    }
    let directory = directory();
    heap_file(&directory.path().join("heap"));
    run_mounted(
        without_proc_a_heap_is_not_opened_and_not_harmed,
        "mount -t tmpfs none /proc",
        directory.path(),
    );
    assert!(is_whole(&directory.path().join("heap")));
}

#[test]
#[expect(clippy::zombie_processes, reason = "a program has to outlive the one that started it")]
fn a_heap_that_another_process_has_open_is_free_when_that_dies() {
    if let Some(path) = child_path() {
        let heap = Heap::open(&path).expect("free");
        // A program that is executed inherits neither the file nor its lock.
        let sleeper = Command::new("sleep").arg("100").spawn().expect("a program");
        fs::write(path.with_extension("ready"), sleeper.id().to_string()).expect("written");
        let slots = heap.slots("first", 24).expect("it exists");
        loop {
            heap.alloc_to(&slots[1], layout(3000)).expect("room");
            heap.free_from(&slots[1]).expect("it is full");
        }
    }
    let directory = directory();
    let (path, ready) = (directory.path().join("heap"), directory.path().join("heap.ready"));
    heap_file(&path);
    fs::hard_link(&path, directory.path().join("other name")).expect("a link");
    let mut child =
        start_child(a_heap_that_another_process_has_open_is_free_when_that_dies, &path, &ready);
    for name in ["heap", "other name"] {
        let path = directory.path().join(name);
        let error = Heap::open(&path).expect_err("in use");
        assert_kind!(error, Error::Map(MapError::InUse { .. }), "close the program");
        let error = pmalloc::salvage_file(&path).expect_err("in use");
        assert_kind!(error, Error::Map(MapError::InUse { .. }), "close the program");
    }
    assert_eq!(pmalloc::info(&path).expect("readable").owner_pid, Some(u64::from(child.id())));
    child.kill().expect("a child");
    child.wait().expect("reaped");
    // The program that the child started lives on, and does not keep the heap from being opened.
    let heap = Heap::open(&path).expect("free");
    let slots = heap.slots("first", 24).expect("it exists");
    if !slots[1].is_empty(&heap.pin()) {
        heap.free_from(&slots[1]).expect("it is full");
    }
    heap.close().expect("closed");
    assert!(is_whole(&path));
    let mut sleeper = String::new();
    while sleeper.is_empty() {
        sleeper = fs::read_to_string(&ready).expect("written");
    }
    let killed = Command::new("kill").arg(sleeper).status().expect("a program");
    assert!(killed.success(), "it was still running");
}

#[test]
fn a_file_size_limit_is_an_error_and_no_signal() {
    if let Some(path) = child_path() {
        let heap = Heap::open(&path).expect("it is below the limit");
        let slots = heap.slots("first", 24).expect("it exists");
        let mut full = 0;
        for slot in &slots[1..] {
            match heap.alloc_to(slot, layout(20_000)) {
                Ok(()) => full += 1,
                Err(error) => {
                    assert_kind!(error, Error::NoSpace { .. }, "raise the limit on file sizes");
                    break;
                }
            }
        }
        assert!(full < 12, "the heap was never refused room");
        assert_eq!(heap.check().expect("readable").problems, []);
        for slot in slots[1..].iter().filter(|slot| !slot.is_empty(&heap.pin())) {
            heap.free_from(slot).expect("it is full");
        }
        heap.close().expect("closed");
        let error = Heap::create(path.with_extension("new")).expect_err("too large");
        assert_kind!(error, Error::NoSpace { .. }, "backing a new heap");
        return;
    }
    let directory = directory();
    let path = directory.path().join("heap");
    heap_file(&path);
    let limit = format!("--fsize={}", fs::metadata(&path).expect("it exists").len() + 4096);
    run_child(a_file_size_limit_is_an_error_and_no_signal, &["prlimit", &limit], &path);
    assert!(is_whole(&path));
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1, "no left-over");
}

#[test]
fn a_process_without_address_space_is_told_so() {
    if let Some(path) = child_path() {
        let new = path.with_extension("new");
        let error = Heap::options().capacity_bytes(256 << 30).create(&new).expect_err("too large");
        assert_kind!(error, Error::Map(MapError::NoAddresses { .. }), "smaller");
        assert!(is_whole(&path), "a small heap fits");
        // Who asks for no capacity gets one that leaves half of the addresses.
        let heap = Heap::create(&new).expect("it fits");
        heap.slots("first", 100_000).expect("room");
        heap.close().expect("closed");
        assert_eq!(pmalloc::info(&new).expect("a heap").capacity_bytes, 1 << 30);
        fs::remove_file(&new).expect("removed");
        return;
    }
    let directory = directory();
    let path = directory.path().join("heap");
    heap_file(&path);
    run_child(a_process_without_address_space_is_told_so, &["prlimit", "--as=4294967296"], &path);
    assert!(is_whole(&path));
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1, "no left-over");
}

#[test]
fn a_heap_goes_on_when_its_file_is_moved_unlinked_or_replaced() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    heap_file(&at("heap"));
    let heap = Heap::open(at("heap")).expect("free");
    let slots = heap.slots("first", 24).expect("it exists");
    fs::create_dir(at("elsewhere")).expect("a directory");
    fs::rename(at("heap"), at("elsewhere/heap")).expect("moved");
    // Another heap takes the name: the two have nothing in common.
    heap_file(&at("heap"));
    let other = Heap::open(at("heap")).expect("free");
    heap.alloc_init(&slots[2], layout(20_000), fill(3)).expect("room");
    assert!(other.slots("first", 24).expect("it exists")[2].is_empty(&other.pin()));
    other.close().expect("closed");
    heap.close().expect("closed");
    assert!(is_whole(&at("elsewhere/heap")) && is_whole(&at("heap")));

    let heap = Heap::open(at("heap")).expect("free");
    let slots = heap.slots("first", 24).expect("it exists");
    fs::remove_file(at("heap")).expect("unlinked");
    heap.alloc_init(&slots[2], layout(20_000), fill(3)).expect("room");
    heap.sync().expect("it still has a file");
    heap.close().expect("closed");
    let error = Heap::open(at("heap")).expect_err("it is gone");
    assert_kind!(error, Error::Map(MapError::NotFound { .. }), "create it first");
}

#[test]
fn a_file_that_is_cut_under_an_open_heap_is_refused_at_the_next_open() {
    const SIGBUS: i32 = 7;
    if let Some(path) = child_path() {
        let heap = Heap::open(&path).expect("free");
        let slots = heap.slots("first", 24).expect("it exists");
        let file = fs::OpenOptions::new().write(true).open(&path).expect("no lock is asked for");
        file.set_len(3 * 4096).expect("cut");
        let done = heap.alloc_to(&slots[1], layout(20_000));
        // Nothing is closed: the file is not what this process takes it for.
        std::process::exit(if done.is_err() { 3 } else { 0 });
    }
    let directory = directory();
    let path = directory.path().join("heap");
    heap_file(&path);
    // No lock keeps others from cutting a file, and the kernel ends a process that touches what is gone; an operation that
    // makes the file grow first finds zeros there, and refuses.
    let status =
        end_of_child(a_file_that_is_cut_under_an_open_heap_is_refused_at_the_next_open, &[], &path);
    assert!(status.signal() == Some(SIGBUS) || status.code() == Some(3), "{status}");
    for (function, error) in [
        ("open", Heap::open(&path).map(drop).expect_err("cut")),
        ("recover", pmalloc::recover_file(&path).map(drop).expect_err("cut")),
        ("map", pmalloc::map_file(&path).map(drop).expect_err("cut")),
    ] {
        assert_kind!(error, Error::Corrupted { .. }, "truncated");
        assert!(pmalloc::info(&path).is_ok(), "{function}");
    }
    let report = pmalloc::salvage_file(&path).expect("the superblock is there");
    assert!(!report.lost.is_empty());
    Heap::open(&path).expect("an empty heap").close().expect("closed");
}

#[test]
fn of_two_processes_that_create_one_heap_one_wins() {
    if let Some(path) = child_path() {
        match options().create(&path) {
            Ok(heap) => {
                let slots = heap.slots("first", 24).expect("room");
                heap.alloc_init(&slots[0], layout(100), fill(1)).expect("room");
                heap.close().expect("closed");
            }
            Err(Error::Map(MapError::Exists { .. } | MapError::InUse { .. })) => {
                std::process::exit(3)
            }
            Err(error) => panic!("{error}"),
        }
        return;
    }
    let directory = directory();
    for round in 0..8 {
        let path = directory.path().join(format!("heap {round}"));
        let barrier = Barrier::new(3);
        let create = || {
            barrier.wait();
            end_of_child(of_two_processes_that_create_one_heap_one_wins, &[], &path).code()
        };
        let codes = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..3).map(|_| scope.spawn(create)).collect();
            racers.into_iter().map(|racer| racer.join().expect("no panic")).collect::<Vec<_>>()
        });
        assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
        assert!(codes.iter().all(|code| matches!(code, Some(0 | 3))), "{codes:?}");
        assert!(is_whole(&path));
    }
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 8, "no left-over");
}

#[test]
fn what_a_killed_creation_left_is_replaced_by_the_next() {
    if let Some(path) = child_path() {
        // Dies when the heap is written, before it is served and has its name.
        let _heap =
            options().create_with(&path, |_| -> pmalloc::persist::Mapped { std::process::abort() });
        return;
    }
    let directory = directory();
    let path = directory.path().join("heap");
    fs::write(directory.path().join(".heap.unpublished"), vec![0xaa; 100_000]).expect("written");
    heap_file(&path);
    assert!(is_whole(&path));
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
    let new = path.with_extension("new");
    assert!(
        !end_of_child(what_a_killed_creation_left_is_replaced_by_the_next, &[], &new).success()
    );
    assert!(!new.exists());
    assert!(directory.path().join(".heap.new.unpublished").exists(), "it was killed too early");
    heap_file(&new);
    assert!(is_whole(&new));
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 2, "no left-over");
}

#[test]
fn a_path_that_is_no_files_is_refused_and_nothing_is_made() {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, phrase) in
        [("new/", "slash"), ("new//", "slash"), ("new/.", "directory"), ("new/..", "directory")]
    {
        // Not joined as a path: that would drop the dot.
        let path = format!("{}/{name}", directory.path().display());
        assert_kind!(
            Heap::create(&path).map(drop).expect_err("refused"),
            Error::Map(MapError::BadPath { .. }),
            phrase
        );
        assert_kind!(
            Heap::open(&path).map(drop).expect_err("refused"),
            Error::Map(MapError::BadPath { .. }),
            phrase
        );
    }
    assert_kind!(
        Heap::create("").map(drop).expect_err("refused"),
        Error::Map(MapError::BadPath { .. }),
        "empty"
    );
    symlink("nowhere", directory.path().join("link")).expect("a link");
    let link = Heap::create(directory.path().join("link"));
    assert_kind!(
        link.map(drop).expect_err("refused"),
        Error::Map(MapError::Exists { .. }),
        "choose another name"
    );
    let made = fs::read_dir(directory.path()).expect("a directory").count();
    assert_eq!(made, 1, "the link");
}
