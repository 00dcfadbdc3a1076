//! The gate over memory that stands for a file in the page cache.

#![allow(unsafe_code, reason = "a medium is trusted")]

use std::{alloc::Layout, io};

use pmalloc_persist::{Anon, Offset, Region, Span, Word, sync::Arc};

use super::*;
use crate::{
    heap::Heap,
    layout::{geometry::Geometry, sealed::unseal},
    root,
};

/// Memory that stands for a file in the page cache of a disk, where the system may write any page at any time and all
/// are written for sure only after a sync.
struct Disk {
    memory: Anon,
    /// Whether it is persistent memory instead, used with flushes.
    is_flushed: bool,
    written: Mutex<Written>,
}

/// What was stored, as far as the promise of the flag goes.
#[derive(Default)]
struct Written {
    /// Whether it is looked at: a heap in the making promises nothing.
    is_watched: bool,
    /// Something that the flag vouches for may not be on the disk.
    is_dirty: bool,
    /// The flag may be on the disk, and vouches for what it finds there.
    is_vouched: bool,
    problems: Vec<String>,
    /// Of each sync, whether the owner record said that stores need one.
    syncs: Vec<bool>,
}

impl Disk {
    fn new(memory: Anon) -> Self {
        Self { memory, is_flushed: false, written: Mutex::default() }
    }

    /// Persistent memory with the same words.
    fn flushed_copy(&self) -> Self {
        let copy = Anon::new(self.memory.len());
        let [from, to] = [&self.memory, &copy]
            .map(|m| m.region().array::<Word>(Offset::new(0), m.len() / 8).unwrap());
        for (from, to) in from.iter().zip(to) {
            copy.store(to, self.memory.load(from));
        }
        Self { memory: copy, is_flushed: true, written: Mutex::default() }
    }

    /// Notes that `value` goes to `word`.
    fn note(&self, word: &Word, value: u64) {
        let at = self.memory.region().span_of(word).start;
        let mut written = lock(&self.written);
        if !written.is_watched {
            return;
        }
        if at == Geometry::state() {
            let vouches = unseal(value).and_then(Clean::from_code).is_some_and(Clean::is_whole);
            if vouches && written.is_dirty {
                written.problems.push("the flag vouches for what no sync has written".into());
            }
            // Taken back, it is on the disk until the next sync all the same.
            written.is_vouched |= vouches;
        } else {
            if written.is_vouched {
                written.problems.push(format!("{at:#x} is stored under a flag on the disk"));
            }
            written.is_dirty = true;
        }
    }

    fn note_sync(&self) {
        let flag: &Word = self.memory.at(Offset::new(Geometry::state())).unwrap();
        let mut written = lock(&self.written);
        let left = state::left_behind(&self.memory);
        written.syncs.push(left.is_ok_and(|left| left.owner.needed_sync()));
        written.is_dirty = false;
        let flag = unseal(self.memory.load(flag)).and_then(Clean::from_code);
        written.is_vouched = flag.is_some_and(Clean::is_whole);
    }
}

// SAFETY: all is passed on to anonymous memory.
unsafe impl Medium for Disk {
    fn region(&self) -> &Region {
        self.memory.region()
    }
    fn len(&self) -> u64 {
        self.memory.len()
    }
    fn load(&self, word: &Word) -> u64 {
        self.memory.load(word)
    }
    fn store(&self, word: &Word, value: u64) {
        self.note(word, value);
        self.memory.store(word, value);
    }
    fn compare_exchange(&self, word: &Word, current: u64, new: u64) -> Result<u64, u64> {
        self.note(word, new);
        self.memory.compare_exchange(word, current, new)
    }
    fn fetch_or(&self, word: &Word, bits: u64) -> u64 {
        self.note(word, bits);
        self.memory.fetch_or(word, bits)
    }
    fn fetch_and(&self, word: &Word, bits: u64) -> u64 {
        self.note(word, bits);
        self.memory.fetch_and(word, bits)
    }
    fn flush(&self, span: Span) {
        self.memory.flush(span);
    }
    fn fence(&self) {
        self.memory.fence();
    }
    fn back(&self, span: Span) -> io::Result<()> {
        self.memory.back(span)
    }
    fn punch(&self, span: Span) -> io::Result<()> {
        self.memory.punch(span)
    }
    fn sync(&self) -> io::Result<()> {
        self.note_sync();
        self.memory.sync()
    }
    fn needs_sync(&self) -> bool {
        !self.is_flushed
    }
    fn occupied_bytes(&self) -> io::Result<u64> {
        self.memory.occupied_bytes()
    }
}

fn heap() -> Heap<Arc<Disk>> {
    let options = Heap::options().capacity_bytes(1 << 20);
    let bytes = options.heap_bytes().unwrap();
    options.create_on_medium(Arc::new(Disk::new(Anon::new(bytes)))).unwrap()
}

fn flag(heap: &Heap<Arc<Disk>>) -> Clean {
    state::read(heap.core().medium(), &heap.core().header.geometry).unwrap().clean
}

#[test]
fn the_promise_of_a_sync_lasts_until_the_next_change() {
    let heap = heap();
    let slots = heap.slots("slots", 1).unwrap();
    assert_eq!(flag(&heap), Clean::No);
    heap.sync().unwrap();
    assert_eq!(flag(&heap), Clean::Synced);
    heap.alloc_to(&slots[0], Layout::new::<u64>()).unwrap();
    assert_eq!(flag(&heap), Clean::No);
    heap.sync().unwrap();
    // The program says that it has written something itself.
    let block = heap.block_of(&slots[0]).unwrap().unwrap();
    heap.flush(block.span()).unwrap();
    assert_eq!(flag(&heap), Clean::No);
}

/// The system may write the flag to the disk as soon as it is stored, and keeps it there until a sync has written
/// another: at no moment may it vouch for what is not there.
#[test]
fn the_flag_never_vouches_for_what_may_not_be_on_the_disk() {
    let heap = heap();
    let slots = heap.slots("slots", 2).unwrap();
    heap.sync().unwrap();
    lock(&heap.core().medium().written).is_watched = true;
    for size in [100, 3000, 20_000] {
        for slot in slots {
            heap.alloc_to(slot, Layout::from_size_align(size, 8).unwrap()).unwrap();
        }
        heap.sync().unwrap();
        heap.sync().unwrap();
        let block = heap.block_of(&slots[0]).unwrap().unwrap();
        heap.flush(block.span()).unwrap();
        heap.free_from(&slots[0]).unwrap();
        heap.sync().unwrap();
        heap.free_from(&slots[1]).unwrap();
        heap.trim().unwrap();
    }
    root::close(heap.core()).unwrap();
    assert_eq!(flag(&heap), Clean::Closed);
    assert_eq!(lock(&heap.core().medium().written).problems, Vec::<String>::new());
}

#[test]
fn bytes_outside_the_heap_are_not_flushed() {
    let heap = heap();
    let len = heap.core().medium().len();
    for span in [Span::new(len - 8, 9), Span::new(len, 1), Span::new(u64::MAX, 1)] {
        assert!(matches!(heap.flush(span), Err(Error::Invalid { .. })), "{span:?}");
    }
    heap.flush(Span::new(len - 8, 8)).unwrap();
}

/// A thread that exits while the heap is being closed still reaches it for a moment. It used to pass the gate
/// before it saw that the heap was closed, and took back the promise of the last sync: the flag of a closed
/// heap said that it was open, and after a restart of the machine the heap counted as lost.
#[test]
fn a_session_that_ends_after_the_close_changes_nothing() {
    let heap = heap();
    let core = heap.core();
    let mut session = core.begin_session();
    core.prepare(&mut session).unwrap();
    heap.sync().unwrap();
    // What closing the heap does first; then it would wait for the session.
    root::close(core).unwrap();
    core.end_session(&mut session);
    assert_eq!(flag(&heap), Clean::Closed);
}

/// A process that uses persistent memory without flushes is killed: what it has stored is synchronized while the owner record
/// still says that it has to be.
#[test]
fn what_was_stored_without_flushes_is_durable_before_the_next_process_vouches_for_it() {
    let options = Heap::options().capacity_bytes(1 << 20);
    let killed = heap();
    let slots = killed.slots("slots", 1).unwrap();
    killed.alloc_to(&slots[0], Layout::new::<u64>()).unwrap();
    let reopen = |of: &Disk| options.open_on_medium(Arc::new(of.flushed_copy())).unwrap();
    let syncs = |heap: &Heap<Arc<Disk>>| lock(&heap.core().medium().written).syncs.clone();
    let with_flushes = reopen(killed.core().medium());
    assert_eq!(syncs(&with_flushes), [true]);
    // And not if it was killed with flushes.
    assert_eq!(syncs(&reopen(with_flushes.core().medium())), []);
}
