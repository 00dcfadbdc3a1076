//! Pins: guards that are counted by thread. Volatile.
//!
//! A thread may pin in one call and unpin in another, and may end in between: the end undoes its pins. Threads are spread
//! over locks, as a pin is made for every look at the heap.

use std::{array, cell::Cell, process};

use pmalloc::{
    Guard, Heap,
    persist::{
        AtThreadEnd, Medium,
        sync::{Arc, AtomicUsize, Mutex, Ordering, Weak, lock},
    },
};

/// Locks of a heap's pins.
const SHARDS: usize = 16;

/// The pins of a heap.
#[derive(Debug)]
pub(crate) struct Pins<M: Medium + 'static>([Mutex<Vec<Pin<M>>>; SHARDS]);

/// What a thread holds.
#[derive(Debug)]
struct Pin<M: Medium + 'static> {
    thread: usize,
    depth: usize,
    /// It borrows from the heap whose pins these are.
    _guard: Guard<'static, M>,
}

impl<M: Medium + 'static> Pins<M> {
    /// No pins yet, of a heap that this process opened.
    pub(crate) fn new() -> Arc<Self> {
        let pins = Arc::new(Self(array::from_fn(|_| Mutex::default())));
        let known: Arc<dyn ThreadPins> = Arc::clone(&pins) as _;
        let mut heaps = lock(&HEAPS);
        heaps.retain(|heap| heap.strong_count() > 0);
        heaps.push(Arc::downgrade(&known));
        pins
    }

    /// Pins `heap`, whose pins these are, for the calling thread.
    pub(crate) fn pin(&self, heap: &'static Heap<M>) {
        let thread = number();
        let mut shard = lock(self.shard(thread));
        if let Some(pin) = shard.iter_mut().find(|pin| pin.thread == thread) {
            pin.depth += 1;
            return;
        }
        shard.push(Pin { thread, depth: 1, _guard: heap.pin() });
        drop(shard);
        PROCESS.set(process::id());
        END.arm();
    }

    /// Undoes one pin of the calling thread; whether there was one.
    pub(crate) fn unpin(&self) -> bool {
        let thread = number();
        let mut shard = lock(self.shard(thread));
        let Some(at) = shard.iter().position(|pin| pin.thread == thread) else { return false };
        shard[at].depth -= 1;
        if shard[at].depth == 0 {
            shard.swap_remove(at);
        }
        true
    }

    /// Undoes all pins, of all threads.
    pub(crate) fn end(&self) {
        self.0.iter().for_each(|shard| lock(shard).clear());
    }

    fn shard(&self, thread: usize) -> &Mutex<Vec<Pin<M>>> {
        &self.0[thread % SHARDS]
    }
}

/// The pins of a heap of any medium, for a thread that ends.
trait ThreadPins: Send + Sync {
    /// Undoes all pins of `thread`.
    fn end_of(&self, thread: usize);
}

impl<M: Medium + 'static> ThreadPins for Pins<M> {
    fn end_of(&self, thread: usize) {
        // Under the lock: who closes the heap waits for it, and with it for what a guard does to the heap.
        lock(self.shard(thread)).retain(|pin| pin.thread != thread);
    }
}

/// The pins of every heap that this process opened. Weak: they keep no heap open.
static HEAPS: Mutex<Vec<Weak<dyn ThreadPins>>> = Mutex::new(Vec::new());

/// Undoes the pins of a thread that ends, also those that it took while it ended.
static END: AtThreadEnd = AtThreadEnd::new(|| {
    // In a child the heaps and the locks of their pins are the parent's.
    if PROCESS.get() != process::id() {
        return;
    }
    let heaps: Vec<_> = lock(&HEAPS).iter().filter_map(Weak::upgrade).collect();
    heaps.iter().for_each(|heap| heap.end_of(number()));
});

/// Numbers of threads.
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // Neither has a destructor: they are there to the thread's very end. Relaxed: only uniqueness counts.
    static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    /// The process that this thread has pinned a heap in.
    static PROCESS: Cell<u32> = const { Cell::new(0) };
}

/// The number of the calling thread.
fn number() -> usize {
    NUMBER.with(|number| *number)
}
