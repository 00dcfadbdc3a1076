//! Goal: a mapped file keeps what was stored, grows and shrinks without moving, and fails with an error
//! rather than a signal. Method: each promise is tried on a tmpfs and on a disk, at every durability that
//! changes what the code does.

#![cfg(not(any(miri, shuttle)))]

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::common::{
    RESERVE_BYTES, assert_passed, child_argument, directories, get, options, published, run_child,
    set,
};
use pmalloc_persist::{
    Access, Durability, DurabilityChoice, FlushInstruction, MapOptions, Mapped, MediaFile, Medium,
    PAGE_BYTES, Span, Storage,
};
use rustix::process::{Resource, Rlimit, setrlimit};

const MIB: u64 = 1 << 20;

/// What a file system may need for itself when a file grows or shrinks.
const NOISE_BYTES: u64 = 64 << 10;

fn reopen(path: &Path, access: Access) -> Mapped {
    MediaFile::open(path, access).expect("free").map(&options()).expect("a mapping")
}

fn forced(choice: DurabilityChoice) -> MapOptions {
    options().durability(choice).unsafe_force_durability()
}

#[test]
fn what_was_stored_is_there_after_reopening_at_every_durability() {
    let choices = [
        options(),
        options().durability(DurabilityChoice::Msync),
        forced(DurabilityChoice::PowerFail),
        forced(DurabilityChoice::Eadr),
    ];
    for directory in directories() {
        for (number, options) in choices.iter().enumerate() {
            let path = directory.path().join(number.to_string());
            let mapped =
                MediaFile::create(&path).expect("a new file").map(options).expect("a mapping");
            assert_eq!(mapped.len(), 0);
            mapped.back(Span::new(0, 3 * PAGE_BYTES)).expect("space");
            for offset in (0..3 * PAGE_BYTES).step_by(8) {
                set(&mapped, offset, offset ^ 0xabcd);
            }
            mapped.publish().expect("a free name");
            mapped.sync().expect("a healthy file system");
            drop(mapped);
            let mapped = reopen(&path, Access::Shared);
            assert_eq!(mapped.len(), 3 * PAGE_BYTES);
            for offset in (0..3 * PAGE_BYTES).step_by(8) {
                assert_eq!(get(&mapped, offset), offset ^ 0xabcd);
            }
        }
    }
}

#[test]
fn the_mapping_says_what_it_is() {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let directory = directory.expect("a temporary directory");
    let path = directory.path().join("pool");
    let mapped = published(&path, 1, 1);
    assert_eq!(mapped.durability(), Durability::ProcessCrash);
    assert!(!mapped.durability_is_forced());
    assert_eq!(mapped.flush_instruction(), None);
    assert_eq!((mapped.access(), mapped.path()), (Access::Shared, path.as_path()));
    let metadata = fs::metadata(&path).expect("a file");
    assert_eq!(mapped.identity().expect("a file"), (metadata.dev(), metadata.ino()));
    if directory.path().starts_with("/dev/shm") {
        assert_eq!(mapped.storage(), Storage::Tmpfs);
    }
    drop(mapped);
    let file = MediaFile::open(&path, Access::Shared).expect("free");
    let mapped = file.map(&forced(DurabilityChoice::PowerFail)).expect("forced");
    assert_eq!(mapped.durability(), Durability::PowerFail);
    assert!(mapped.durability_is_forced());
    assert_eq!(mapped.flush_instruction(), FlushInstruction::detect());
}

#[test]
fn growth_moves_nothing_and_changes_what_the_file_occupies() {
    for directory in directories() {
        let mapped = published(&directory.path().join("pool"), 1, 77);
        let (base, before) = (mapped.region().base(), mapped.occupied_bytes().expect("blocks"));
        mapped.back(Span::new(8 * MIB - 100, 200)).expect("space");
        assert_eq!(mapped.len(), 8 * MIB + PAGE_BYTES);
        mapped.back(Span::new(MIB, 4 * MIB)).expect("space");
        assert_eq!(mapped.len(), 8 * MIB + PAGE_BYTES, "backing inside does not shrink");
        let grown = mapped.occupied_bytes().expect("blocks");
        assert!((4 * MIB..8 * MIB).contains(&(grown - before)), "{before} {grown}");
        assert_eq!((mapped.region().base(), get(&mapped, 0)), (base, 77));
        set(&mapped, 8 * MIB, 5);
        assert_eq!((get(&mapped, MIB), get(&mapped, 8 * MIB)), (0, 5));

        mapped.punch(Span::new(MIB, 4 * MIB)).expect("a hole");
        let punched = mapped.occupied_bytes().expect("blocks");
        assert!((4 * MIB - NOISE_BYTES..4 * MIB + NOISE_BYTES).contains(&(grown - punched)));
        assert_eq!(mapped.len(), 8 * MIB + PAGE_BYTES);
        mapped.back(Span::new(MIB, 4 * MIB)).expect("space");
        let again = mapped.occupied_bytes().expect("blocks");
        assert!(again.abs_diff(grown) < NOISE_BYTES, "{again} {grown}");
        set(&mapped, MIB, 6);
        assert_eq!(get(&mapped, MIB), 6);
    }
}

#[test]
fn backing_keeps_contents_and_punching_only_whole_pages() {
    for directory in directories() {
        let mapped = published(&directory.path().join("pool"), 4, 1);
        for page in 0..4 {
            set(&mapped, page * PAGE_BYTES, page + 10);
        }
        mapped.back(Span::new(0, 8 * PAGE_BYTES)).expect("space");
        mapped.punch(Span::new(1, 3 * PAGE_BYTES - 2)).expect("a hole");
        let words: Vec<_> = (0..5).map(|page| get(&mapped, page * PAGE_BYTES)).collect();
        assert_eq!(words, [10, 0, 12, 13, 0]);
        mapped.punch(Span::new(2 * PAGE_BYTES + 1, PAGE_BYTES)).expect("nothing to do");
        mapped.punch(Span::new(0, 0)).expect("nothing to do");
        mapped.back(Span::new(1 << 40, 0)).expect_err("outside, though empty");
        assert_eq!(get(&mapped, 2 * PAGE_BYTES), 12);
    }
}

#[test]
fn a_private_copy_leaves_the_file_byte_identical() {
    for directory in directories() {
        let path = directory.path().join("pool");
        drop(published(&path, 2, 1));
        // An odd length, as a file cut off by somebody else has: the copy goes on behind it.
        let mut file = File::options().append(true).open(&path).expect("a file");
        file.write_all(&[7; 100]).expect("space");
        drop(file);
        let (bytes, blocks) =
            (fs::read(&path).expect("a file"), fs::metadata(&path).expect("a file").blocks());

        let copy = reopen(&path, Access::PrivateCopy);
        assert_eq!((copy.len(), get(&copy, 0)), (2 * PAGE_BYTES + 100, 1));
        copy.back(Span::new(0, 4 * MIB)).expect("memory");
        assert_eq!(copy.len(), 4 * MIB);
        for page in 0..4 * MIB / PAGE_BYTES {
            let expected = match page {
                0 => 1,
                2 => u64::from_ne_bytes([7; 8]),
                _ => 0,
            };
            assert_eq!(get(&copy, page * PAGE_BYTES), expected, "{page}");
            set(&copy, page * PAGE_BYTES, page + 1);
        }
        copy.punch(Span::new(PAGE_BYTES, 2 * MIB)).expect("memory given back");
        assert_eq!(get(&copy, MIB), 0, "anonymous pages read as zero");
        assert_eq!(get(&copy, 3 * MIB), 3 * MIB / PAGE_BYTES + 1);
        copy.sync().expect("nothing to do");
        drop(copy);
        assert_eq!(fs::read(&path).expect("a file"), bytes);
        assert_eq!(fs::metadata(&path).expect("a file").blocks(), blocks);
    }
}

#[test]
fn a_shared_file_may_be_mapped_as_a_copy_and_an_empty_one_too() {
    for directory in directories() {
        let path = directory.path().join("pool");
        MediaFile::create(&path).expect("a new file").publish().expect("a free name");
        let file = MediaFile::open(&path, Access::Shared).expect("free");
        let copy = file.map(&options().access(Access::PrivateCopy)).expect("a mapping");
        copy.back(Span::new(0, PAGE_BYTES)).expect("memory");
        set(&copy, 0, 3);
        assert_eq!((get(&copy, 0), fs::metadata(&path).expect("a file").len()), (3, 0));
    }
}

#[test]
fn looking_sees_what_a_writer_stores_and_may_change_nothing() {
    for directory in directories() {
        let path = directory.path().join("pool");
        let writer = published(&path, 2, 1);
        let reader = reopen(&path, Access::ReadOnly);
        set(&writer, PAGE_BYTES, 99);
        assert_eq!((get(&reader, 0), get(&reader, PAGE_BYTES)), (1, 99));
        for result in
            [reader.back(Span::new(0, PAGE_BYTES)), reader.punch(Span::new(0, PAGE_BYTES))]
        {
            assert_eq!(result.expect_err("refused").kind(), io::ErrorKind::PermissionDenied);
        }
        assert_eq!(get(&writer, 0), 1);
    }
}

#[test]
fn growth_behind_the_reserved_range_is_refused() {
    for directory in directories() {
        let mapped = published(&directory.path().join("pool"), 1, 1);
        for span in [
            Span::new(RESERVE_BYTES - 8, 16),
            Span::new(RESERVE_BYTES, 8),
            Span::new(u64::MAX - 8, 100),
        ] {
            let error = mapped.back(span).expect_err("outside");
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{span:?}");
            mapped.punch(span).expect_err("outside");
        }
        assert_eq!(mapped.len(), PAGE_BYTES);
    }
}

#[test]
fn a_full_file_system_is_an_error_that_changes_nothing() {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
        panic!("these tests need /dev/shm");
    };
    let space = rustix::fs::statvfs(directory.path()).expect("a file system");
    let capacity = space.f_blocks * space.f_frsize;
    assert!(capacity > 0, "these tests need a limit on /dev/shm");
    let path = directory.path().join("pool");
    let file = MediaFile::create(&path).expect("a new file");
    let mapped = file.map(&MapOptions::new(2 * capacity)).expect("addresses");
    mapped.back(Span::new(0, PAGE_BYTES)).expect("space");
    set(&mapped, 0, 8);
    let before = mapped.occupied_bytes().expect("blocks");
    let error = mapped.back(Span::new(0, 2 * capacity)).expect_err("more than there is");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(mapped.len(), PAGE_BYTES);
    assert_eq!((mapped.occupied_bytes().expect("blocks"), get(&mapped, 0)), (before, 8));
    mapped.back(Span::new(PAGE_BYTES, PAGE_BYTES)).expect("small growth still works");
}

#[test]
fn the_limit_on_file_sizes_is_an_error_and_not_a_signal() {
    if let Some(path) = child_argument() {
        let mapped = published(Path::new(&path), 1, 1);
        let limit = Rlimit { current: Some(MIB), maximum: Some(MIB) };
        setrlimit(Resource::Fsize, limit).expect("lowering is allowed");
        let error = mapped.back(Span::new(0, 2 * MIB)).expect_err("over the limit");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!((mapped.len(), get(&mapped, 0)), (PAGE_BYTES, 1));
        mapped.back(Span::new(0, MIB)).expect("up to the limit");
        return;
    }
    for directory in directories() {
        let path = directory.path().join("pool");
        let output = run_child(
            the_limit_on_file_sizes_is_an_error_and_not_a_signal,
            path.to_str().expect("a path of text"),
        );
        assert_passed(&output);
        assert_eq!(fs::metadata(&path).expect("a file").len(), MIB);
    }
}

#[test]
fn threads_that_grow_at_once_each_get_their_pages() {
    for directory in directories() {
        let mapped = published(&directory.path().join("pool"), 1, 1);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let mapped = &mapped;
                scope.spawn(move || {
                    for step in 0..64 {
                        let offset = (step * 4 + thread) * 2 * PAGE_BYTES;
                        mapped.back(Span::new(offset, 2 * PAGE_BYTES)).expect("space");
                        assert!(mapped.len() >= offset + 2 * PAGE_BYTES);
                        set(mapped, offset + PAGE_BYTES, offset + 1);
                    }
                });
            }
        });
        assert_eq!(mapped.len(), 4 * 64 * 2 * PAGE_BYTES);
        for offset in (0..mapped.len()).step_by(2 * 4096) {
            assert_eq!(get(&mapped, offset + PAGE_BYTES), offset + 1);
        }
    }
}

#[test]
#[should_panic(expected = "a flush inside the region")]
fn flushing_another_place_than_the_region_panics() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = MediaFile::create(&directory.path().join("pool")).expect("a new file");
    let mapped = file.map(&forced(DurabilityChoice::PowerFail)).expect("forced");
    mapped.flush(Span::new(RESERVE_BYTES, 64));
}
