//! Goal: everything that can go wrong is a typed error that changes nothing, loses nothing, and says what to do.
//!
//! Method: each error is provoked through the public interface: with odd files, odd arguments, full heaps, full file
//! systems at every point where memory is asked for, failing devices, and heaps that other programs or machines left.
//! The last test compares the errors seen here with those declared.

use crate::common::shared::{Raw, Shared};
use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{FileExt, symlink},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use crate::common::{
    fill,
    image::{self, Interrupted},
    layout, options,
    tap::Tap,
};
use pmalloc::{
    Error, Heap, HeapOptions, ProblemKind, Slot,
    persist::{
        Anon, DurabilityChoice, MapError, Medium,
        sim::{BackFault, Domain, Sim, SimOptions},
    },
};

/// Where the owner record stands: the fourth line of the state page.
const OWNER: u64 = 2 * 4096 + 3 * 64;

/// Asserts that `result` is an error of the given shape whose message contains `phrase`.
macro_rules! assert_error {
    ($result:expr, $pattern:pat, $phrase:expr) => {
        match $result.map(drop) {
            Err(error) => {
                assert!(matches!(&error, $pattern), "{error:?}");
                let message = error.to_string();
                assert!(message.contains($phrase), "{message:?} does not say {:?}", $phrase);
            }
            Ok(()) => panic!("no error; expected one that says {:?}", $phrase),
        }
    };
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// A small closed heap in a file.
fn heap_file(path: &Path) {
    let heap = options().layout("test").create(path).expect("created");
    let slots = heap.slots("first", 24).expect("there is room");
    heap.alloc_init(&slots[0], layout(20_000), fill(1)).expect("there is room");
    heap.alloc_init(&slots[1], layout(100), fill(2)).expect("there is room");
    heap.close().expect("closed");
}

fn small_heap() -> Heap<Arc<Anon>> {
    options().create_shared(Arc::new(Anon::new(image::heap_bytes()))).expect("created")
}

fn write_words(path: &Path, at: u64, words: &[u64]) {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let file = fs::OpenOptions::new().write(true).open(path).expect("it exists");
    file.write_all_at(&bytes, at).expect("written");
}

fn read_words<const N: usize>(path: &Path, at: u64) -> [u64; N] {
    let file = fs::File::open(path).expect("it exists");
    std::array::from_fn(|nth| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at + nth as u64 * 8).expect("long enough");
        u64::from_le_bytes(bytes)
    })
}

/// The format's checksum of `words` at `place`.
fn checksum(words: &[u64], place: u64) -> u64 {
    let seed = crc32c::crc32c(&place.to_le_bytes());
    let sum = words.iter().fold(seed, |sum, word| crc32c::crc32c_append(sum, &word.to_le_bytes()));
    u64::from(sum)
}

#[test]
fn files_that_are_not_heaps_are_told_apart() {
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    assert_error!(Heap::open(at("none")), Error::Map(MapError::NotFound { .. }), "create it first");
    fs::create_dir(at("dir")).expect("made");
    assert_error!(
        Heap::open(at("dir")),
        Error::Map(MapError::NotRegularFile { .. }),
        "give the path of a file"
    );
    let fifo = rustix::fs::mknodat(
        rustix::fs::CWD,
        at("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    );
    fifo.expect("made");
    assert_error!(
        Heap::open(at("fifo")),
        Error::Map(MapError::NotRegularFile { .. }),
        "give the path of a file"
    );
    heap_file(&at("heap"));
    symlink(at("heap"), at("link")).expect("made");
    assert_error!(
        Heap::open(at("link")),
        Error::Map(MapError::Symlink { .. }),
        "give the path it points to"
    );
    for (name, bytes) in [("empty", Vec::new()), ("text", b"not a heap at all ".repeat(1000))] {
        fs::write(at(name), bytes).expect("written");
        assert_error!(Heap::open(at(name)), Error::NotAHeap { .. }, "give the path of a heap");
        assert_error!(pmalloc::check_file(at(name)), Error::NotAHeap { .. }, "create one");
        assert_error!(pmalloc::info(at(name)), Error::NotAHeap { .. }, "create one");
    }
    assert_error!(Heap::create(at("heap")), Error::Map(MapError::Exists { .. }), "choose another");
    let none = Anon::new(4096);
    assert_error!(options().open_shared(none), Error::NotAHeap { .. }, "too short");
}

#[test]
fn a_heap_has_one_opener() {
    let dir = directory();
    let path = dir.path().join("heap");
    heap_file(&path);
    let heap = Heap::open(&path).expect("opened");
    assert_error!(Heap::open(&path), Error::Map(MapError::InUse { .. }), "close the program");
    assert_error!(
        pmalloc::check_file(&path),
        Error::Map(MapError::InUse { .. }),
        "close the program"
    );
    assert!(pmalloc::info(&path).is_ok(), "looking takes no lock");
    heap.close().expect("closed");
    Heap::open(&path).expect("free again");
}

#[test]
fn a_file_cut_at_any_page_is_refused_before_it_is_touched() {
    let dir = directory();
    let (path, cut) = (dir.path().join("heap"), dir.path().join("cut"));
    heap_file(&path);
    let len = fs::metadata(&path).expect("it exists").len();
    for at in (0..len).step_by(4096).flat_map(|at| [at, at + 1, at + 512]) {
        fs::copy(&path, &cut).expect("copied");
        fs::OpenOptions::new().write(true).open(&cut).expect("opened").set_len(at).expect("cut");
        match Heap::open(&cut) {
            Err(Error::NotAHeap { .. }) => assert!(at < 256, "{at}"),
            Err(error @ Error::Corrupted { .. }) => {
                assert!(error.to_string().contains("truncated"), "{at}: {error}");
                let report = pmalloc::check_file(&cut).expect("damage is in the report");
                assert!(report.problems[0].text.contains("truncated"), "{at}: {report:?}");
            }
            other => panic!("cut at {at}: {other:?}"),
        }
    }
}

#[test]
fn a_file_longer_than_its_heap_is_refused() {
    let dir = directory();
    let path = dir.path().join("heap");
    heap_file(&path);
    let file = fs::OpenOptions::new().write(true).open(&path).expect("opened");
    file.set_len(image::heap_bytes() + 4096).expect("extended");
    assert_error!(Heap::open(&path), Error::Corrupted { .. }, "longer than the heap");
    let report = pmalloc::check_file(&path).expect("it can be read");
    assert_eq!(report.problems.len(), 1, "{report:?}");
}

#[test]
fn heaps_of_other_programs_are_refused_by_name() {
    let dir = directory();
    let path = dir.path().join("heap");
    heap_file(&path);
    let wrong = options().layout("other").open(&path);
    assert_error!(wrong, Error::Layout { .. }, "open it with the program that made it");
    Heap::options().layout("test").open(&path).expect("the right layout");
    Heap::open(&path).expect("any layout");

    let copies = [0, 4096].map(|at| (at, read_words::<32>(&path, at)));
    for (at, mut words) in copies {
        words[3] = 4;
        words[31] = checksum(&words[..31], at);
        write_words(&path, at, &words);
    }
    assert_error!(
        Heap::open(&path),
        Error::Version { what: "required features", found: 4, supported: 0 },
        "wrote it"
    );
    for (at, _) in copies {
        write_words(&path, at + 8, &[2]);
    }
    assert_error!(
        Heap::open(&path),
        Error::Version { what: "format version", found: 2, supported: 1 },
        "wrote it"
    );
    for (at, words) in copies {
        write_words(&path, at, &words);
        write_words(&path, at + 32, &[7]);
    }
    assert_error!(Heap::open(&path), Error::Corrupted { .. }, "`pmalloc check`");
    let report = pmalloc::check_file(&path).expect("damage is in the report");
    assert_eq!(report.problems.len(), 1, "{report:?}");
    write_words(&path, 4096, &copies[1].1);
    Heap::open(&path).expect("one copy is enough");
    let report = pmalloc::check_file(&path).expect("damage is in the report");
    assert!(report.problems.iter().any(|problem| problem.offset == 0), "{report:?}");
}

#[test]
fn a_heap_that_lost_power_is_refused_until_it_is_known_to_be_whole() {
    let dir = directory();
    let (path, copy) = (dir.path().join("heap"), dir.path().join("copy"));
    heap_file(&path);
    let heap = Heap::open(&path).expect("opened");
    fs::copy(&path, &copy).expect("what a killed process leaves");
    heap.close().expect("closed");
    Heap::open(&copy).expect("a killed process loses nothing").close().expect("closed");

    for (from, is_refused) in [(&copy, false), (&path, true)] {
        let heap = Heap::open(&path).expect("opened");
        let target = dir.path().join("moved");
        // The closed copy, or the open file, with an owner of another boot.
        fs::copy(from, &target).expect("copied");
        let mut owner = read_words::<8>(&target, OWNER);
        assert_eq!(owner[7], checksum(&owner[..7], OWNER) | 1 << 32, "the owner record is here");
        owner[0] ^= 1;
        owner[7] = checksum(&owner[..7], OWNER) | 1 << 32;
        write_words(&target, OWNER, &owner);
        let opened = Heap::open(&target);
        if is_refused {
            assert_error!(opened, Error::PowerLoss, "`pmalloc check` shows what is there");
            let report = pmalloc::check_file(&target).expect("check reads it all the same");
            let kinds: Vec<_> = report.problems.iter().map(|problem| problem.kind).collect();
            assert_eq!((kinds, report.blocks), (vec![ProblemKind::PowerLoss], 3));
        } else {
            opened.expect("a closed heap survives a power loss").close().expect("closed");
        }
        heap.close().expect("closed");
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let dir = directory();
    let path = dir.path().join("heap");
    let bad: [(HeapOptions, &str); 10] = [
        (Heap::options().capacity_bytes(10), "at least 65536"),
        (Heap::options().stripes(0), "1 to 15"),
        (Heap::options().stripes(16), "1 to 15"),
        (Heap::options().arenas(0), "1 to 64"),
        (Heap::options().arenas(65), "1 to 64"),
        (Heap::options().capacity_bytes(1 << 44), "at most about 15 TiB"),
        (Heap::options().capacity_bytes(u64::MAX), "at most about 15 TiB"),
        (Heap::options().capacity_bytes(1 << 20).initial_bytes(1 << 21), "at most the capacity"),
        (Heap::options().layout("x".repeat(64)), "at most 63 bytes"),
        (Heap::options().layout("a\0b"), "no NUL"),
    ];
    for (options, phrase) in bad {
        assert_error!(options.create(&path), Error::Invalid { .. }, phrase);
        assert!(!path.exists(), "nothing is left behind");
    }
    let power = Heap::options().durability(DurabilityChoice::PowerFail).create(&path);
    assert_error!(power, Error::Map(MapError::NotPowerSafe { .. }), "DAX");
    let small = options().create_shared(Anon::new(image::heap_bytes() / 2));
    assert_error!(small, Error::Invalid { .. }, "needs");
}

#[test]
fn requests_that_no_heap_serves_change_nothing() {
    let heap = small_heap();
    let slots = heap.slots("first", 24).expect("there is room");
    let before = heap.blocks();
    let with = |size, align| std::alloc::Layout::from_size_align(size, align).expect("a layout");
    let slot = &slots[0];
    assert_error!(heap.alloc_to(slot, with(0, 1)), Error::Invalid { .. }, "at least one byte");
    assert_error!(heap.alloc_to(slot, with(16, 8192)), Error::Invalid { .. }, "a page at most");
    for size in [256 << 10, (256 << 10) + 1, 1 << 40, isize::MAX as usize - 4096] {
        assert_error!(heap.alloc_to(slot, with(size, 1)), Error::OutOfMemory { .. }, "free blocks");
        let init = heap.alloc_init(slot, with(size, 1), |_| panic!("no block, no initialiser"));
        assert_error!(init, Error::OutOfMemory { .. }, "a larger capacity");
    }
    assert_error!(heap.free_from(slot), Error::SlotEmpty { .. }, "allocate one into it first");
    assert_error!(heap.adopt(before[0].offset, slot), Error::Owned { .. }, "owns it");
    assert_error!((heap.pin(), heap.adopt(16, slot)).1, Error::Pinned, "while no guard lives");
    heap.alloc_to(slot, with(16, 1)).expect("there is room");
    assert_error!(heap.alloc_to(slot, with(16, 1)), Error::SlotFull { .. }, "free it first");
    heap.free_from(slot).expect("it is full");
    assert_eq!(heap.blocks(), before);
    assert_eq!(heap.check().expect("readable").problems, []);
}

#[test]
fn slots_of_other_heaps_and_damaged_slots_are_refused() {
    let (heap, other) = (small_heap(), small_heap());
    let foreign = &other.slots("first", 24).expect("there is room")[0];
    assert_error!(heap.alloc_to(foreign, layout(16)), Error::SlotForeign, "`Heap::slots`");
    assert_error!(heap.free_from(foreign), Error::SlotForeign, "`Heap::slots`");
    assert_error!(heap.block_of(foreign), Error::SlotForeign, "`Heap::slots`");
    let gone: &Slot = foreign;
    assert!(gone.is_empty(&other.pin()), "nothing happened to it");

    let slots = heap.slots("first", 24).expect("there is room");
    heap.alloc_to(&slots[0], layout(16)).expect("there is room");
    let medium = heap.raw();
    let word = |slot: &Slot| {
        let at = medium.region().span_of(slot).start;
        &image::words(&**medium)[image::word_index(at)]
    };
    let array = medium.region().span_of(&slots[0]).start;
    let block = medium.load(word(&slots[0])) & ((1 << 44) - 1);
    let before = heap.blocks();
    // Places that are free, inside a block, in the metadata and beyond the end.
    for place in [block + 1000, 1, 4096 / 16, (1 << 44) - 1] {
        medium.store(word(&slots[1]), place);
        assert_error!(heap.free_from(&slots[1]), Error::NotLive { .. }, "`pmalloc check`");
        assert_eq!(slots[1].get(&heap.pin()), None);
        assert_error!(heap.block_of(&slots[1]), Error::NotLive { .. }, "`pmalloc check`");
        assert_error!(heap.block_at(place * 16), Error::NotLive { .. }, "`pmalloc check`");
    }
    // The block in which the slots themselves lie.
    medium.store(word(&slots[1]), array / 16);
    assert_error!(heap.block_of(&slots[1]), Error::Corrupted { .. }, "block of a root");
    assert_error!(heap.free_from(&slots[1]), Error::Corrupted { .. }, "block of a root");
    assert_eq!(slots[1].get(&heap.pin()), None);
    assert_eq!(heap.blocks(), before);
    // A block that two slots own is freed once.
    medium.store(word(&slots[1]), block);
    assert_eq!(heap.check().expect("readable").problems.len(), 1);
    heap.free_from(&slots[0]).expect("it is live");
    assert_error!(heap.free_from(&slots[1]), Error::NotLive { .. }, "it was freed before");
}

#[test]
fn roots_are_checked_by_name_and_length() {
    let heap = small_heap();
    for (name, phrase) in
        [("", "1 to 63 bytes"), ("a\0b", "no NUL"), (&*"x".repeat(64), "1 to 63 bytes")]
    {
        assert_error!(heap.slots(name, 1), Error::Invalid { .. }, phrase);
    }
    for count in [0, 1 << 20, u64::MAX] {
        assert_error!(heap.slots("a", count), Error::Invalid { .. }, "at least one slot");
    }
    for at in 0..8 {
        heap.slots(&format!("root {at}"), 4).expect("there is room");
    }
    let mismatch = heap.slots("root 3", 5);
    assert_error!(mismatch, Error::RootMismatch { .. }, "ask for what is there");
    assert_error!(heap.slots("root 8", 4), Error::Limit { .. }, "use fewer");
    heap.slots("root 7", 4).expect("it exists");
    assert_error!(heap.root_remove("root 8"), Error::RootMissing { .. }, "`Heap::roots` lists");
    assert_error!(heap.root_remove("root 7"), Error::RootInUse { .. }, "open the heap anew");
}

#[test]
fn a_root_array_that_owns_blocks_is_not_removed() {
    let heap = small_heap();
    let slots = heap.slots("slots", 4).expect("there is room");
    heap.alloc_to(&slots[2], layout(64)).expect("there is room");
    let medium = Arc::clone(heap.raw());
    heap.close().expect("the only handle");
    let heap = options().open_shared(medium).expect("a heap");
    assert_error!(heap.root_remove("slots"), Error::ChildrenAlive { .. }, "free that first");
}

#[test]
fn an_initialiser_that_panics_gives_its_block_back() {
    let heap = small_heap();
    let slots = heap.slots("first", 24).expect("there is room");
    let before = heap.blocks();
    for size in [100, 50_000] {
        for _ in 0..100 {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                // Without a word: the hook that says them is that of the whole process.
                heap.alloc_init(&slots[0], layout(size), |_| resume_unwind(Box::new("by design")))
            }));
            assert!(panicked.is_err());
        }
        assert_eq!(heap.blocks(), before);
        heap.alloc_init(&slots[0], layout(size), fill(1)).expect("the heap is not full");
        heap.free_from(&slots[0]).expect("it is full");
    }
    assert_eq!(heap.check().expect("readable").problems, []);
}

#[test]
fn a_heap_with_handles_is_not_closed() {
    let heap = small_heap();
    let other = heap.clone();
    assert_error!(heap.close(), Error::HandlesRemain, "drop them first");
    let session = other.session();
    assert_error!(other.close(), Error::HandlesRemain, "drop them first");
    drop(session);
}

fn simulated() -> Heap<Tap> {
    let sim = Sim::new(SimOptions { len_bytes: image::heap_bytes(), domain: Domain::Word8 });
    options().create_shared(Tap::new(sim)).expect("created")
}

#[test]
fn a_forked_child_changes_nothing() {
    let heap = simulated();
    let slots = heap.slots("first", 24).expect("there is room");
    heap.alloc_to(&slots[0], layout(16)).expect("there is room");
    let sim = heap.raw().sim.clone();
    let before = sim.sites();
    heap.raw().forked.store(true, Ordering::Relaxed);
    let phrase = "open the heap in one of them only";
    assert_error!(heap.alloc_to(&slots[1], layout(16)), Error::Forked, phrase);
    let init = heap.alloc_init(&slots[1], layout(16), |_| panic!("no block, no initialiser"));
    assert_error!(init, Error::Forked, phrase);
    assert_error!(heap.free_from(&slots[0]), Error::Forked, phrase);
    assert_error!(heap.slots("first", 24), Error::Forked, phrase);
    assert_error!(heap.slots("second", 8), Error::Forked, phrase);
    assert_error!(heap.sync(), Error::Forked, phrase);
    heap.close().expect("nothing to do");
    assert_eq!(sim.sites(), before, "not a store, not a flush, not a fence");
}

#[test]
fn a_device_that_fails_to_sync_is_reported_and_no_promise_is_left_behind() {
    for succeed in 0..2 {
        let heap = simulated();
        let slots = heap.slots("first", 24).expect("there is room");
        heap.raw().syncs_left.store(succeed, Ordering::Relaxed);
        assert_error!(heap.sync(), Error::Io { .. }, "check the file");
        heap.raw().syncs_left.store(u64::MAX, Ordering::Relaxed);
        heap.alloc_to(&slots[0], layout(16)).expect("the heap goes on");
        let state = heap.raw().sim.crash_state().newest();
        let flag = state.load(&image::words(&state)[2 * 4096 / 8]) & 0xffff;
        assert_eq!(flag, if succeed == 0 { 4 } else { 1 }, "open, and known if pages are lost");
        heap.raw().syncs_left.store(succeed, Ordering::Relaxed);
        assert_error!(heap.close(), Error::Io { .. }, "synchronizing the heap");
    }
}

/// Runs a program that needs memory of every kind, trying again once after each error.
fn use_up(heap: &Heap<Tap>, on_error: &mut dyn FnMut(&Heap<Tap>, Error)) {
    let mut slots = None;
    for _ in 0..2 {
        match heap.slots("first", 24) {
            Ok(found) => slots = Some(found),
            Err(error) => on_error(heap, error),
        }
    }
    let Some(slots) = slots else { return };
    for round in 0..6 {
        for (at, slot) in slots.iter().enumerate().take(12) {
            let size = [100, 3000, 20_000, 5000][(at + round) % 4];
            for _ in 0..2 {
                let is_empty = slot.is_empty(&heap.pin());
                let done = if is_empty && round % 2 == 0 {
                    heap.alloc_init(slot, layout(size), fill(at))
                } else if !is_empty && round % 2 == 1 {
                    heap.free_from(slot)
                } else {
                    break;
                };
                done.unwrap_or_else(|error| on_error(heap, error));
            }
        }
    }
}

fn is_storage_full(error: &Error) -> bool {
    let advises = error.to_string().contains("free space on its file system");
    matches!(error, Error::NoSpace { source, .. } if source.kind() == ErrorKind::StorageFull)
        && advises
}

fn assert_whole(heap: &Heap<Tap>) {
    let report = heap.check().expect("readable");
    assert_eq!(report.problems, []);
    assert_eq!(report.unowned_blocks, 0, "nothing is lost");
}

#[test]
fn a_full_file_system_is_survived_wherever_memory_is_asked_for() {
    let clean = simulated();
    clean.raw().sim.fail_backs(BackFault::Never);
    use_up(&clean, &mut |_, error| panic!("{error}"));
    let calls = clean.raw().sim.back_calls();
    let expected = clean.blocks();
    assert!(calls >= 8, "{calls} points of failure");
    for nth in 0..calls {
        let heap = simulated();
        heap.raw().sim.fail_backs(BackFault::Once(nth));
        let mut errors = 0;
        use_up(&heap, &mut |heap, error| {
            assert!(is_storage_full(&error), "at {nth}: {error:?}");
            errors += 1;
            assert_whole(heap);
        });
        assert!(errors <= 1, "one failure, {errors} errors");
        assert_eq!(heap.blocks().len(), expected.len(), "at {nth}: the second try succeeds");
        assert_whole(&heap);

        // From there on no memory at all; then there is some again.
        let heap = simulated();
        heap.raw().sim.fail_backs(BackFault::From(nth));
        use_up(&heap, &mut |heap, error| {
            let expected = is_storage_full(&error) || matches!(error, Error::OutOfMemory { .. });
            assert!(error.is_out_of_space());
            assert!(expected, "from {nth}: {error:?}");
            assert_whole(heap);
        });
        heap.raw().sim.fail_backs(BackFault::Never);
        use_up(&heap, &mut |_, error| panic!("from {nth}: {error}"));
        assert_whole(&heap);
    }
}

#[test]
fn creating_on_a_full_file_system_may_be_tried_again() {
    for nth in 0..3 {
        let sim = Sim::new(SimOptions { len_bytes: image::heap_bytes(), domain: Domain::Word8 });
        sim.fail_backs(BackFault::Once(nth));
        let first = options().create_shared(Tap::new(sim.clone()));
        assert_error!(first, Error::NoSpace { .. }, "free space on its file system");
        assert_whole(&options().create_shared(Tap::new(sim)).expect("created"));
    }
}

#[test]
fn recovering_on_a_full_file_system_may_be_tried_again() {
    let crashed = image::crashed("crashed", Interrupted::AllocLarge, None);
    for nth in 0.. {
        let sim = Sim::new(SimOptions { len_bytes: image::heap_bytes(), domain: Domain::Word8 });
        let whole = pmalloc::persist::Span::new(0, image::heap_bytes());
        sim.back(whole).expect("inside the medium");
        for (word, value) in image::words(&sim).iter().zip(&crashed.words) {
            sim.store(word, *value);
        }
        sim.sync().expect("it never fails");
        sim.fail_backs(BackFault::Once(nth));
        let first = options().open_shared(Tap::new(sim.clone()));
        let calls = sim.back_calls();
        if first.is_err() {
            assert_error!(first, Error::NoSpace { .. }, "free space on its file system");
            let heap = options().open_shared(Tap::new(sim)).expect("opened");
            assert_eq!(crate::common::contents(&heap).expect("undamaged"), crashed.contents);
        }
        if calls <= nth {
            break;
        }
    }
}

#[test]
fn every_declared_error_is_provoked_here() {
    let declared = include_str!("../../src/error.rs");
    let here = concat!(include_str!("errors.rs"), include_str!("media.rs"));
    let body = declared.split("pub enum Error {").nth(1).expect("the declaration");
    let body = body.split("\n}\n").next().expect("its end");
    let variants: Vec<&str> = body
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .map(|line| line.split([' ', '(', ',']).next().expect("a name"))
        .collect();
    assert!(variants.len() > 15, "{variants:?}");
    for variant in variants {
        let provoked = format!("Error::{variant}");
        assert!(here.contains(&provoked), "{variant} is provoked nowhere");
    }
}
