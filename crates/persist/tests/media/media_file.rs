//! Goal: a file is never seen half made, never opened twice for writing, and nothing but a regular file of
//! the own user is ever opened. Method: each promise is tried on a tmpfs and on a disk, and each refusal is
//! compared with its typed error.

#![cfg(not(any(miri, shuttle)))]

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    sync::Barrier,
    thread,
};

use crate::common::{
    RESERVE_BYTES, assert_passed, child_argument, directories, get, options, published, run_child,
};
use pmalloc_persist::{
    Access, DurabilityChoice, MapError, MapOptions, MediaFile, Medium, Owner, PAGE_BYTES, Span,
};
use rustix::{
    fs::{CWD, FileType, Mode},
    process::{geteuid, umask},
};

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<_> = entries.map(|entry| name(entry.expect("an entry"))).collect();
    names.sort();
    names
}

fn open_error(path: &Path, access: Access) -> MapError {
    MediaFile::open(path, access).expect_err("an open that must be refused")
}

#[test]
fn a_file_has_its_name_only_once_published() {
    for directory in directories() {
        let path = directory.path().join("pool");
        let file = MediaFile::create(&path).expect("a new file");
        assert!(file.is_empty().expect("a file") && file.path() == path);
        assert_eq!(names(directory.path()), [".pool.unpublished"]);
        let error = open_error(&path, Access::Shared);
        assert!(matches!(error, MapError::NotFound { .. }), "{error}");
        file.publish().expect("a free name");
        file.publish().expect("publishing again does nothing");
        assert_eq!(names(directory.path()), ["pool"]);
        drop(file);
        assert_eq!(names(directory.path()), ["pool"]);
    }
}

#[test]
fn an_unpublished_file_goes_with_its_value_also_when_mapped() {
    for directory in directories() {
        drop(MediaFile::create(&directory.path().join("a")).expect("a new file"));
        let file = MediaFile::create(&directory.path().join("b")).expect("a new file");
        drop(file.map(&options()).expect("a mapping"));
        let file = MediaFile::create(&directory.path().join("c")).expect("a new file");
        file.map(&MapOptions::new(0)).expect_err("nothing to reserve");
        assert!(names(directory.path()).is_empty());
    }
}

#[test]
fn creating_what_exists_is_refused_whatever_it_is() {
    for directory in directories() {
        let taken = |name: &str| directory.path().join(name);
        published(&taken("file"), 1, 1);
        fs::create_dir(taken("directory")).expect("a directory");
        symlink("nowhere", taken("link")).expect("a link");
        for name in ["file", "directory", "link"] {
            let error = MediaFile::create(&taken(name)).expect_err("taken");
            assert!(matches!(error, MapError::Exists { .. }), "{name}: {error}");
        }
        assert_eq!(names(directory.path()), ["directory", "file", "link"]);
    }
}

#[test]
fn a_name_that_was_taken_meanwhile_is_not_replaced() {
    for directory in directories() {
        let path = directory.path().join("pool");
        let file = MediaFile::create(&path).expect("a new file");
        fs::write(&path, "somebody else's").expect("written");
        let error = file.publish().expect_err("taken");
        assert!(matches!(error, MapError::Exists { .. }), "{error}");
        assert_eq!(fs::read(&path).expect("a file"), b"somebody else's");
        assert_eq!(names(directory.path()), ["pool"], "the temporary file is removed");
    }
}

#[test]
fn of_many_creations_at_once_one_wins_and_the_others_are_told_why() {
    const VALUES: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
    for directory in directories() {
        let path = directory.path().join("pool");
        for _ in 0..50 {
            let barrier = Barrier::new(VALUES.len());
            let create = |value: u64| {
                barrier.wait();
                let mapped = MediaFile::create(&path)?.map(&options())?;
                mapped.back(Span::new(0, PAGE_BYTES)).expect("space");
                crate::common::set(&mapped, 0, value);
                mapped.publish().map(|()| value)
            };
            let results: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> =
                    VALUES.into_iter().map(|value| scope.spawn(move || create(value))).collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            let winners: Vec<_> = results.iter().flatten().copied().collect();
            assert_eq!(winners.len(), 1, "{results:?}");
            for error in results.iter().filter_map(|result| result.as_ref().err()) {
                assert!(
                    matches!(error, MapError::Exists { .. } | MapError::InUse { .. }),
                    "{error}"
                );
            }
            assert_eq!(names(directory.path()), ["pool"]);
            let opened = MediaFile::open(&path, Access::Shared).expect("free again");
            assert_eq!(get(&opened.map(&options()).expect("a mapping"), 0), winners[0]);
            fs::remove_file(&path).expect("removed");
        }
    }
}

#[test]
fn what_an_interrupted_creation_left_is_replaced_and_what_runs_is_not() {
    for directory in directories() {
        let path = directory.path().join("pool");
        fs::write(directory.path().join(".pool.unpublished"), "left over").expect("written");
        let file = MediaFile::create(&path).expect("the left-over is removed");
        assert!(file.is_empty().expect("a file"), "a new file, not the left-over");
        let error = MediaFile::create(&path).expect_err("being created");
        assert!(matches!(error, MapError::InUse { .. }), "{error}");
        file.publish().expect("a free name");
    }
}

#[test]
fn a_left_over_name_that_is_no_file_is_not_touched() {
    for directory in directories() {
        let temporary = directory.path().join(".pool.unpublished");
        symlink("elsewhere", &temporary).expect("a link");
        let error = MediaFile::create(&directory.path().join("pool")).expect_err("refused");
        assert!(matches!(&error, MapError::Symlink { path } if *path == temporary), "{error}");
        assert!(temporary.is_symlink());
    }
}

#[test]
fn no_file_no_directory_and_no_name_are_told_apart() {
    for directory in directories() {
        for path in ["missing", "missing/pool"] {
            let path = directory.path().join(path);
            for access in [Access::ReadOnly, Access::PrivateCopy, Access::Shared] {
                let error = open_error(&path, access);
                assert!(matches!(error, MapError::NotFound { .. }), "{error}");
            }
        }
        let error = MediaFile::create(&directory.path().join("missing/pool")).expect_err("refused");
        assert!(matches!(error, MapError::NotFound { .. }), "{error}");
        let error = MediaFile::create(Path::new("/")).expect_err("refused");
        assert!(matches!(error, MapError::BadPath { .. }), "{error}");
        let error =
            MediaFile::create(&directory.path().join("n".repeat(250))).expect_err("refused");
        assert!(error.to_string().contains("shorter name"), "{error}");
    }
}

#[test]
fn links_and_special_files_are_refused_without_waiting() {
    for directory in directories() {
        let path = |name: &str| directory.path().join(name);
        published(&path("pool"), 1, 1);
        symlink("pool", path("link")).expect("a link");
        symlink("loop", path("loop")).expect("a link");
        fs::create_dir(path("directory")).expect("a directory");
        rustix::fs::mknodat(CWD, path("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .expect("a FIFO");
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).expect("a socket");
        for access in [Access::ReadOnly, Access::PrivateCopy, Access::Shared] {
            for name in ["link", "loop"] {
                let error = open_error(&path(name), access);
                assert!(matches!(error, MapError::Symlink { .. }), "{name}: {error}");
            }
            for name in ["directory", "fifo", "socket"] {
                let error = open_error(&path(name), access);
                assert!(
                    matches!(&error, MapError::NotRegularFile { kind, .. } if kind.to_lowercase().contains(name)),
                    "{name}: {error}"
                );
            }
            let error = open_error(Path::new("/dev/null"), access);
            assert!(matches!(error, MapError::NotRegularFile { kind: "a device", .. }), "{error}");
        }
    }
}

#[test]
fn writers_are_alone_readers_of_copies_are_not_and_looking_is_always_possible() {
    use Access::{PrivateCopy, ReadOnly, Shared};
    for directory in directories() {
        let path = directory.path().join("pool");
        drop(published(&path, 1, 1));
        for (held, asked, is_allowed) in [
            (Shared, Shared, false),
            (Shared, PrivateCopy, false),
            (Shared, ReadOnly, true),
            (PrivateCopy, Shared, false),
            (PrivateCopy, PrivateCopy, true),
            (PrivateCopy, ReadOnly, true),
            (ReadOnly, Shared, true),
            (ReadOnly, PrivateCopy, true),
        ] {
            let first = MediaFile::open(&path, held).expect("free");
            match MediaFile::open(&path, asked) {
                Ok(second) => assert!(is_allowed, "{held} then {:?}", second.access()),
                Err(error) => {
                    assert!(!is_allowed && matches!(error, MapError::InUse { .. }), "{error}");
                }
            }
            drop(first);
            MediaFile::open(&path, asked).expect("free again");
        }
    }
}

#[test]
fn a_mapping_holds_the_lock_and_dropping_it_frees_the_file() {
    for directory in directories() {
        let path = directory.path().join("pool");
        let mapped = published(&path, 1, 1);
        let error = open_error(&path, Access::Shared);
        assert!(matches!(error, MapError::InUse { .. }), "{error}");
        drop(mapped);
        MediaFile::open(&path, Access::Shared).expect("free again");
    }
}

#[test]
fn a_file_of_another_user_is_refused_unless_any_owner_will_do() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let own = directory.path().join("pool");
    File::create(&own).expect("a file");
    // Root gives a file away; everybody else finds one that root owns.
    let foreign = if geteuid().is_root() {
        std::os::unix::fs::chown(&own, Some(12345), None).expect("root may");
        own
    } else {
        PathBuf::from("/etc/passwd")
    };
    let expected = fs::metadata(&foreign).expect("a file").uid();
    let error = open_error(&foreign, Access::ReadOnly);
    assert!(
        matches!(error, MapError::ForeignOwner { owner, user, .. }
            if owner == expected && user == geteuid().as_raw()),
        "{error}"
    );
    MediaFile::open_owned_by(&foreign, Access::ReadOnly, Owner::Any).expect("asked for");
}

#[test]
fn a_file_that_not_even_root_may_write_is_not_permitted() {
    let path = Path::new("/sys/kernel/uevent_seqnum");
    let error = open_error(path, Access::Shared);
    let expected = matches!(error, MapError::NotPermitted { access: Access::Shared, .. });
    assert!(expected, "{error}");
}

#[test]
fn the_mode_is_private_whatever_the_umask_is() {
    if let Some(path) = child_argument() {
        for (name, mask) in [("open", 0), ("shut", 0o777)] {
            umask(Mode::from_raw_mode(mask));
            let file = MediaFile::create(&Path::new(&path).join(name)).expect("a new file");
            file.publish().expect("a free name");
        }
        return;
    }
    for directory in directories() {
        let path = directory.path().to_str().expect("a path of text");
        assert_passed(&run_child(the_mode_is_private_whatever_the_umask_is, path));
        for name in ["open", "shut"] {
            let mode = fs::metadata(directory.path().join(name)).expect("a file").mode();
            assert_eq!(mode & 0o7777, 0o600, "{name}");
        }
    }
}

#[test]
fn a_process_that_dies_leaves_no_lock_and_no_name() {
    if let Some(path) = child_argument() {
        let mapped = MediaFile::create(Path::new(&path))
            .expect("a new file")
            .map(&options())
            .expect("mapped");
        mapped.back(Span::new(0, PAGE_BYTES)).expect("space");
        std::process::abort();
    }
    for directory in directories() {
        let path = directory.path().join("pool");
        let output = run_child(
            a_process_that_dies_leaves_no_lock_and_no_name,
            path.to_str().expect("a path of text"),
        );
        assert!(!output.status.success(), "{output:?}");
        assert_eq!(names(directory.path()), [".pool.unpublished"]);
        let file = MediaFile::create(&path).expect("the left-over is unlocked");
        assert!(file.is_empty().expect("a file"));
    }
}

#[test]
fn bytes_are_read_where_they_are_and_not_behind_the_end() {
    for directory in directories() {
        let path = directory.path().join("pool");
        fs::write(&path, b"0123456789").expect("written");
        let file = MediaFile::open(&path, Access::ReadOnly).expect("a file");
        assert_eq!(file.len().expect("a length"), 10);
        let mut bytes = [0; 4];
        file.read_at(3, &mut bytes).expect("inside");
        assert_eq!(&bytes, b"3456");
        for offset in [7, 10, 1 << 40, u64::MAX - 2] {
            file.read_at(offset, &mut bytes).expect_err("behind the end");
        }
    }
}

#[test]
fn a_range_must_hold_the_file_and_fit_the_address_space() {
    for directory in directories() {
        let path = directory.path().join("pool");
        drop(published(&path, 4, 1));
        for reserve_len in [0, 4 * PAGE_BYTES - 1, 1 << 60, u64::MAX] {
            let file = MediaFile::open(&path, Access::Shared).expect("free");
            let error = file.map(&MapOptions::new(reserve_len)).expect_err("refused");
            let expected = matches!(error, MapError::BadReserve { file_len, .. } if file_len == 4 * PAGE_BYTES);
            assert!(expected, "{reserve_len}: {error}");
        }
    }
}

#[test]
fn power_safety_and_more_access_are_not_given_for_the_asking() {
    for directory in directories() {
        let path = directory.path().join("pool");
        drop(published(&path, 1, 1));
        for choice in [DurabilityChoice::PowerFail, DurabilityChoice::Eadr] {
            let file = MediaFile::open(&path, Access::Shared).expect("free");
            let error = file.map(&options().durability(choice)).expect_err("refused");
            assert!(matches!(error, MapError::NotPowerSafe { .. }), "{error}");
            assert!(error.to_string().contains("unsafe_force_durability"), "{error}");
        }
        let file = MediaFile::open(&path, Access::ReadOnly).expect("free");
        let error = file
            .map(&MapOptions::new(RESERVE_BYTES).access(Access::PrivateCopy))
            .expect_err("a copy needs the lock");
        assert!(matches!(error, MapError::AccessTooLow { .. }), "{error}");
    }
}
