//! Pins: guards that are counted by thread. Volatile.
//!
//! A thread may pin in one call and unpin in another, and may end in between: the end undoes its pins. Threads are spread
//! over locks, as a pin is made for every look at the heap.

use std::{array, cell::RefCell, process};

use pmalloc::{
    Guard, Heap,
    persist::{
        Medium,
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

impl<M: Medium + 'static> Default for Pins<M> {
    fn default() -> Self {
        Self(array::from_fn(|_| Mutex::default()))
    }
}

impl<M: Medium + 'static> Pins<M> {
    /// Pins `heap`, whose pins these are, for the calling thread.
    pub(crate) fn pin(self: &Arc<Self>, heap: &'static Heap<M>) {
        let thread = number();
        let mut shard = lock(self.shard(thread));
        if let Some(pin) = shard.iter_mut().find(|pin| pin.thread == thread) {
            pin.depth += 1;
            return;
        }
        shard.push(Pin { thread, depth: 1, _guard: heap.pin() });
        drop(shard);
        let pins: Arc<dyn ThreadPins> = Arc::clone(self) as _;
        // A thread that is about to end is not told of any more: it has to unpin what it pins then.
        let _ = ENDING.try_with(|ending| ending.note(&pins));
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

/// The heaps that a thread has pinned.
struct Ending {
    thread: usize,
    heaps: RefCell<Vec<Pinned>>,
}

/// One of them.
struct Pinned {
    /// The process that pinned it: in a child, the heap and the locks of its pins are the parent's.
    process: u32,
    /// Weak: a thread keeps no heap open.
    pins: Weak<dyn ThreadPins>,
}

impl Ending {
    fn note(&self, pins: &Arc<dyn ThreadPins>) {
        let mut heaps = self.heaps.borrow_mut();
        let pins = Arc::downgrade(pins);
        if !heaps.iter().any(|known| known.pins.ptr_eq(&pins)) {
            heaps.retain(|known| known.pins.strong_count() > 0);
            heaps.push(Pinned { process: process::id(), pins });
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        for pinned in self.heaps.get_mut().iter().filter(|known| known.process == process::id()) {
            if let Some(pins) = pinned.pins.upgrade() {
                pins.end_of(self.thread);
            }
        }
    }
}

/// Numbers of threads.
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // Relaxed: only uniqueness counts.
    static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    static ENDING: Ending = Ending { thread: number(), heaps: RefCell::default() };
}

/// The number of the calling thread. It has no destructor, so it is there to the thread's end.
fn number() -> usize {
    NUMBER.with(|number| *number)
}
