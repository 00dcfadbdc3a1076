//! Goal: memory that a heap was given stays, on every file system that can keep it: no call ends in a bus error, whatever
//! else fills the file system, and however the file was copied. Where that can't be had, there is a warning, and the warning
//! is true.
//!
//! Method: file systems in loop devices (which needs root and their `mkfs`; a test without is skipped and says so), filled
//! to the last block by another file, while a program allocates, frees and looks whether all is as it wrote it.

#![cfg(not(any(miri, shuttle)))]

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
};

use crate::common::{
    child::{child_path, run_mounted},
    layout,
};
use pmalloc::{
    Error, Heap, Slot, check_file, info, map_file,
    persist::{PAGE_BYTES, Warning},
    salvage_file, stats_file,
};

const SLOTS: u64 = 500;

/// How a program works.
#[derive(Debug, Clone, Copy)]
struct Work {
    /// Its operations; with the file system full from a third on, and again after some room.
    rounds: usize,
    /// How it writes bytes.
    fill: fn(&mut [u8], u8),
}

impl Work {
    /// As this, with other operations.
    fn times(self, rounds: usize) -> Self {
        Self { rounds, ..self }
    }
}

const USUAL: Work = Work { rounds: 4000, fill: <[u8]>::fill };

/// For a file system that takes its time to say that it is full, and can't bear stores across pages then.
const CAREFUL: Work = Work { rounds: 300, fill: fill_by_bytes };

/// Writes byte by byte, and none of them across two pages; what fills memory at once does that at its end.
fn fill_by_bytes(bytes: &mut [u8], byte: u8) {
    for place in bytes {
        // Else the compiler makes one call of it.
        *std::hint::black_box(place) = byte;
    }
}

/// Lines of a shell that mount a new file system of so many megabytes at `$M`, made by `mkfs.` and `how`.
fn mounts(directory: &Path, megabytes: u64, how: &str) -> String {
    let (program, options) = how.split_once(' ').expect("a program and options");
    format!(
        "export PATH=$PATH:/usr/sbin:/sbin M={0}\ncommand -v mkfs.{program} >/dev/null || exit 32\n\
         truncate -s {megabytes}M $M.image && mkfs.{program} {options} $M.image >/dev/null 2>&1 || exit 32\n\
         mount -o loop $M.image $M && rm $M.image",
        directory.display()
    )
}

/// Takes all room of the file system.
fn fill_up(ballast: &Path) {
    let mut file = File::options().create(true).append(true).open(ballast).expect("a ballast");
    for piece in [1 << 20, 1 << 16, 4096] {
        let bytes = vec![1; piece];
        while file.write_all(&bytes).is_ok() {}
    }
}

/// Gives all room back, at once: some file systems take their time with a file that is removed.
fn give_room(ballast: &Path) {
    let file = File::options().write(true).open(ballast).expect("a ballast");
    file.set_len(0).expect("shorter");
    file.sync_all().expect("written");
    rustix::fs::syncfs(&file).expect("written");
}

/// What a slot's block holds: its size, and a byte that tells it from others.
type Model = Vec<Option<(usize, u8)>>;

fn assert_holds(heap: &Heap, slots: &[Slot], model: &Model) {
    let guard = heap.pin();
    for (slot, held) in slots.iter().zip(model) {
        let bytes = slot.get(&guard);
        match held {
            None => assert!(bytes.is_none()),
            Some((size, byte)) => {
                let bytes = &bytes.expect("a block")[..*size];
                assert!(bytes.iter().all(|found| found == byte));
            }
        }
    }
}

/// Works, also where there is no room.
fn churn(heap: &Heap, slots: &[Slot], model: &mut Model, rng: &mut fastrand::Rng, work: Work) {
    for _ in 0..work.rounds {
        let at = rng.usize(..slots.len());
        let done = if model[at].is_some() {
            heap.free_from(&slots[at]).map(|()| None)
        } else {
            let most = if rng.u8(..4) > 0 { 3000 } else { 100_000 };
            let (size, byte) = (rng.usize(1..most), rng.u8(..));
            let made = heap.alloc_init(&slots[at], layout(size), |bytes| (work.fill)(bytes, byte));
            made.map(|()| Some((size, byte)))
        };
        match done {
            Ok(now) => model[at] = now,
            Err(error) => assert!(error.is_out_of_space(), "{error:?}"),
        }
    }
}

/// The whole program: works, on a full file system as well, and finds all of it in the end.
fn live_in(directory: &Path, work: Work, warnings: &[Warning]) {
    let (third, sixth) = (work.times(work.rounds / 3), work.times(work.rounds / 6));
    let (path, ballast) = (directory.join("heap"), directory.join("ballast"));
    let mut rng = fastrand::Rng::with_seed(7);
    let heap = Heap::create(&path).expect("there is room");
    assert_eq!(heap.media().warnings, warnings);
    let slots = heap.slots("slots", SLOTS).expect("there is room");
    let mut model = vec![None; slots.len()];
    for _ in 0..2 {
        churn(&heap, slots, &mut model, &mut rng, third);
        fill_up(&ballast);
        churn(&heap, slots, &mut model, &mut rng, sixth);
        // What is written back is stored to again.
        heap.sync().expect("nothing of it needs room");
        churn(&heap, slots, &mut model, &mut rng, sixth);
        assert_holds(&heap, slots, &model);
        give_room(&ballast);
        heap.trim().expect("giving back needs no room");
    }
    fill_up(&ballast);
    assert_eq!(heap.check().expect("readable").problems, []);
    heap.close().expect("it needs no room");
    let heap = Heap::open(&path).expect("it needs no room");
    let slots = heap.slots("slots", SLOTS).expect("they exist");
    churn(&heap, slots, &mut model, &mut rng, third);
    assert_holds(&heap, slots, &model);
    assert_eq!(heap.check().expect("readable").problems, []);
}

/// Runs `live_in` on a file system of its own.
#[track_caller]
fn check(test: impl Fn(), work: Work, megabytes: u64, how: &str, warnings: &[Warning]) {
    if let Some(directory) = child_path() {
        return live_in(&directory, work, warnings);
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = directory.path().join("mounted");
    fs::create_dir(&place).expect("a new directory");
    run_mounted(test, &mounts(&place, megabytes, how), &place);
}

#[test]
fn on_ext2_without_any_call_that_allocates_blocks() {
    check(on_ext2_without_any_call_that_allocates_blocks, USUAL, 60, "ext4 -q -F -t ext2", &[]);
}

#[test]
fn on_ext4_whose_cache_holds_pages_in_large_pieces() {
    check(on_ext4_whose_cache_holds_pages_in_large_pieces, USUAL, 60, "ext4 -q -F", &[]);
}

#[test]
fn on_xfs() {
    check(on_xfs, USUAL, 320, "xfs -q -f", &[]);
}

#[test]
fn on_btrfs_where_copy_on_write_is_switched_off() {
    // A full btrfs takes its time with each page.
    if std::env::var_os("PMALLOC_BTRFS").is_none() {
        return println!("skipped: takes half a minute; asked for by PMALLOC_BTRFS=1");
    }
    let warnings = [Warning::WaitsForRoom];
    check(on_btrfs_where_copy_on_write_is_switched_off, CAREFUL, 160, "btrfs -q -f", &warnings);
}

/// Copies a file without its pages of zeros, as `cp` does it.
fn copy_sparse(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--sparse=always").args([from, to]).status();
    assert!(copied.expect("a program").success());
}

/// Every command that looks at a heap, and the opening of it, on a full tmpfs. Says whether it opened.
fn look_at(path: &Path) -> bool {
    let before = fs::read(path).expect("readable");
    assert_eq!(info(path).expect("readable").clean, Some(false));
    assert_eq!(check_file(path).expect("in memory").problems, []);
    map_file(path).expect("in memory");
    stats_file(path).expect("in memory");
    let opened = match Heap::open(path) {
        Ok(heap) => {
            let slots = heap.slots("slots", SLOTS).expect("it exists");
            let mut model: Model = vec![None; slots.len()];
            for (held, slot) in model.iter_mut().zip(slots) {
                *held = slot.get(&heap.pin()).map(|bytes| (bytes.len(), bytes[0]));
            }
            churn(&heap, slots, &mut model, &mut fastrand::Rng::with_seed(3), USUAL.times(500));
            assert_eq!(heap.check().expect("readable").problems, []);
            return true;
        }
        Err(error) => error,
    };
    assert!(matches!(opened, Error::NoSpace { .. }), "{opened:?}");
    assert!(fs::read(path).expect("readable") == before, "an error changes nothing");
    false
}

#[test]
fn a_copy_with_holes_on_a_full_tmpfs_opens_or_is_refused_and_never_kills() {
    if let Some(directory) = child_path() {
        let (path, copy) = (directory.join("heap"), directory.join("copy"));
        let heap = Heap::options().capacity_bytes(16 << 20).create(&path).expect("room");
        let slots = heap.slots("slots", SLOTS).expect("room");
        let mut model = vec![None; slots.len()];
        churn(&heap, slots, &mut model, &mut fastrand::Rng::with_seed(5), USUAL.times(3000));
        // Blocks of zeros are what `cp` leaves out.
        let empty = slots.iter().filter(|slot| slot.is_empty(&heap.pin()));
        for slot in empty.take(20) {
            heap.alloc_init(slot, layout(20_000), |bytes| bytes.fill(0)).expect("room");
        }
        let mut opened = 0;
        let steps = [0, 1, 2, 5, 10, 30, 60, 100, 200];
        for pages in steps {
            copy_sparse(&path, &copy);
            let ballast = directory.join("ballast");
            fill_up(&ballast);
            let len = fs::metadata(&ballast).expect("a file").len();
            let file = File::options().write(true).open(&ballast).expect("a file");
            file.set_len(len.saturating_sub(pages * PAGE_BYTES)).expect("shorter");
            opened += usize::from(look_at(&copy));
            for left in [&ballast, &copy] {
                fs::remove_file(left).expect("removed");
            }
        }
        assert!(0 < opened && opened < steps.len(), "{opened} of {} opened", steps.len());
        copy_sparse(&path, &copy);
        assert!(look_at(&copy), "there is room");
        fill_up(&directory.join("ballast"));
        assert_eq!(salvage_file(&copy).expect("nothing to do").kept, None);
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = directory.path().display();
    run_mounted(
        a_copy_with_holes_on_a_full_tmpfs_opens_or_is_refused_and_never_kills,
        &format!("mount -t tmpfs -o size=48m none {place}"),
        directory.path(),
    );
}

#[test]
fn a_reflink_copy_gets_blocks_of_its_own_or_is_refused() {
    if let Some(directory) = child_path() {
        let (path, copy) = (directory.join("heap"), directory.join("copy"));
        let heap = Heap::create(&path).expect("room");
        let slots = heap.slots("slots", SLOTS).expect("room");
        let mut model = vec![None; slots.len()];
        churn(&heap, slots, &mut model, &mut fastrand::Rng::with_seed(5), USUAL.times(2000));
        heap.close().expect("closed");
        let reflink = Command::new("cp").arg("--reflink=always").args([&path, &copy]).status();
        assert!(reflink.expect("a program").success());
        let ballast = directory.join("ballast");
        fill_up(&ballast);
        let error = Heap::open(&copy).expect_err("its blocks are the other's");
        assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
        give_room(&ballast);
        let heap = Heap::open(&copy).expect("there is room");
        assert_eq!(heap.media().warnings, []);
        let slots = heap.slots("slots", SLOTS).expect("they exist");
        fill_up(&ballast);
        churn(&heap, slots, &mut model, &mut fastrand::Rng::with_seed(6), USUAL.times(2000));
        assert_holds(&heap, slots, &model);
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = directory.path().join("mounted");
    fs::create_dir(&place).expect("a new directory");
    run_mounted(
        a_reflink_copy_gets_blocks_of_its_own_or_is_refused,
        &mounts(&place, 320, "xfs -q -f"),
        &place,
    );
}

#[test]
fn what_btrfs_does_not_promise_is_said() {
    if let Some(directory) = child_path() {
        let (path, copy) = (directory.join("heap"), directory.join("copy"));
        let warnings = |path: &Path| info(path).expect("readable").warnings;
        Heap::create(&path).expect("room").close().expect("closed");
        assert_eq!(warnings(&path), [Warning::WaitsForRoom]);
        copy_sparse(&path, &copy);
        assert_eq!(warnings(&copy), [Warning::CopyOnWrite]);
        assert_eq!(Heap::open(&copy).expect("room").media().warnings, [Warning::CopyOnWrite]);
        let mut snapshot = Command::new("btrfs");
        snapshot.args(["subvolume", "snapshot"]).args([&directory, &directory.join("snapshot")]);
        let snapshot = snapshot.output().expect("a program");
        assert!(snapshot.status.success(), "{snapshot:?}");
        assert_eq!(warnings(&path), [Warning::SharedExtents]);
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = directory.path().join("mounted");
    fs::create_dir(&place).expect("a new directory");
    run_mounted(what_btrfs_does_not_promise_is_said, &mounts(&place, 160, "btrfs -q -f"), &place);
}

#[test]
fn that_btrfs_has_mixed_block_groups_is_said() {
    if let Some(directory) = child_path() {
        let path = directory.join("heap");
        let heap = Heap::create(&path).expect("room");
        assert_eq!(heap.media().warnings, [Warning::MixedGroups]);
        heap.close().expect("closed");
        assert_eq!(info(&path).expect("readable").warnings, [Warning::MixedGroups]);
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = directory.path().join("mounted");
    fs::create_dir(&place).expect("a new directory");
    run_mounted(
        that_btrfs_has_mixed_block_groups_is_said,
        &mounts(&place, 160, "btrfs -q -f -M"),
        &place,
    );
}
