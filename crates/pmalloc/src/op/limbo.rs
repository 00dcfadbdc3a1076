//! Limbo: where freed memory waits until its free is durable, and until no guard can see it.
//!
//! A session keeps what it frees in a bag, and hands a full one to the queue of its arena, from which any thread may take
//! what is safe. Volatile: a crash frees what is in limbo.

use std::collections::VecDeque;

use crossbeam_utils::CachePadded;
use pmalloc_persist::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, lock};
use smallvec::SmallVec;

use crate::arena::Block;

/// Blocks that are taken out at once: there is room for them on the stack.
const BATCH: usize = 32;

/// Blocks, and bytes of them, that fill a bag.
const BAG: usize = 32;
const BAG_BYTES: u64 = 32 << 10;

/// A freed block, and the epoch of its free.
#[derive(Debug, Clone, Copy)]
pub(super) struct InLimbo {
    pub(super) epoch: u64,
    pub(super) block: Block,
}

/// What a session has freed of late.
#[derive(Debug, Default)]
pub(super) struct Bag {
    freed: Vec<InLimbo>,
    bytes: u64,
}

/// The memory in limbo of a heap, but for what is in bags.
#[derive(Debug)]
pub(crate) struct Limbo {
    /// One per arena.
    queues: Box<[CachePadded<Mutex<VecDeque<InLimbo>>>]>,
    /// Blocks in all queues, read without their locks.
    waiting: CachePadded<AtomicUsize>,
    /// Bytes that were added since the last round of the synchronizer, likewise.
    unsettled_bytes: AtomicU64,
}

impl Bag {
    /// Keeps a block, and says whether the bag is full.
    #[inline]
    pub(super) fn put(&mut self, freed: InLimbo) -> bool {
        self.bytes += freed.block.usable_bytes();
        self.freed.push(freed);
        self.freed.len() >= BAG || self.bytes >= BAG_BYTES
    }

    /// Whether it has none.
    pub(super) fn is_empty(&self) -> bool {
        self.freed.is_empty()
    }

    /// Hands what was freed up to the epoch `safe` to `reuse`.
    pub(super) fn take_safe(&mut self, safe: u64, mut reuse: impl FnMut(Block)) {
        let Self { freed, bytes } = self;
        freed.retain(|freed| {
            let is_safe = freed.epoch <= safe;
            if is_safe {
                *bytes -= freed.block.usable_bytes();
                reuse(freed.block);
            }
            !is_safe
        });
    }
}

impl Limbo {
    /// Nothing waits.
    pub(super) fn new(arenas: usize) -> Self {
        Self {
            queues: (0..arenas).map(|_| CachePadded::default()).collect(),
            waiting: CachePadded::default(),
            unsettled_bytes: AtomicU64::new(0),
        }
    }

    /// Whether memory waits in a queue.
    #[inline]
    pub(crate) fn has_waiting(&self) -> bool {
        // Relaxed: a hint; who misses an entry leaves it for the next.
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Bytes that were added since [`settled`](Self::settled).
    #[inline]
    pub(super) fn unsettled_bytes(&self) -> u64 {
        // Relaxed: a hint, too.
        self.unsettled_bytes.load(Ordering::Relaxed)
    }

    /// Notes that what was added so far is durable.
    pub(super) fn settled(&self) {
        self.unsettled_bytes.store(0, Ordering::Relaxed);
    }

    /// Hands what is in a bag to the queue of an arena.
    pub(super) fn empty(&self, arena: usize, bag: &mut Bag) {
        if bag.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut bag.bytes);
        self.unsettled_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.waiting.fetch_add(bag.freed.len(), Ordering::Relaxed);
        lock(&self.queues[arena]).extend(bag.freed.drain(..));
    }

    /// Hands what was freed up to the epoch `safe`, and waits in the queue of `arena`, to `reuse`, the oldest first.
    ///
    /// `reuse` runs without the lock: it may have to wait for room in a log.
    pub(super) fn collect(&self, arena: usize, safe: u64, mut reuse: impl FnMut(Block)) {
        loop {
            let batch = self.take_safe(arena, safe);
            let is_last = batch.len() < BATCH;
            batch.into_iter().for_each(&mut reuse);
            if is_last {
                break;
            }
        }
    }

    /// Takes out the oldest of what is safe, as much as a batch holds.
    fn take_safe(&self, arena: usize, safe: u64) -> SmallVec<[Block; BATCH]> {
        let mut queue = lock(&self.queues[arena]);
        let count = queue.iter().take(BATCH).take_while(|freed| freed.epoch <= safe).count();
        let batch: SmallVec<[Block; BATCH]> =
            queue.drain(..count).map(|freed| freed.block).collect();
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        batch
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::alloc::Layout;

    use pmalloc_persist::Anon;

    use super::{super::synchronizer::Patience, *};
    use crate::{
        Policy,
        arena::LargeBlock,
        book::{Extent, LogId},
        heap::Heap,
        layout::{
            book::ExtentKind,
            geometry::{Page, PageRange},
        },
    };

    /// A block of the page `nth`, freed in `epoch`.
    fn freed(epoch: u64, nth: u32) -> InLimbo {
        let range = PageRange::new(Page(nth), 1);
        let extent = Extent { range, kind: ExtentKind::Large, tag: 0 };
        let block =
            Block::Large(LargeBlock { extent, log: LogId(0), offset: u64::from(nth) * 4096 });
        InLimbo { epoch, block }
    }

    fn collected(limbo: &Limbo, safe: u64) -> Vec<u64> {
        let mut offsets = Vec::new();
        limbo.collect(0, safe, |block| offsets.push(block.offset() / 4096));
        offsets
    }

    #[test]
    fn what_waits_is_handed_out_when_it_is_safe_in_the_order_of_its_frees_and_once() {
        let limbo = Limbo::new(1);
        let mut bag = Bag::default();
        for round in 0..50 {
            for nth in 0..20 {
                bag.put(freed(u64::from(round) + 1, 20 * round + nth));
            }
            limbo.empty(0, &mut bag);
        }
        assert_eq!((limbo.unsettled_bytes(), limbo.has_waiting()), (1000 * 4096, true));
        limbo.settled();
        assert!(collected(&limbo, 0).is_empty());
        let mut out = collected(&limbo, 1);
        assert_eq!(out.len(), 20);
        out.extend(collected(&limbo, 49));
        assert_eq!(out.len(), 980);
        out.extend(collected(&limbo, u64::MAX));
        assert_eq!(out, (0..1000).collect::<Vec<u64>>());
        assert_eq!((limbo.unsettled_bytes(), limbo.has_waiting()), (0, false));
    }

    #[test]
    fn a_bag_is_full_once_and_empties_into_the_queue() {
        let limbo = Limbo::new(1);
        let mut bag = Bag::default();
        // Pages fill it by their bytes.
        let pages = 8;
        assert_eq!((0..pages).position(|nth| bag.put(freed(1, nth))), Some(7));
        assert!(!limbo.has_waiting());
        limbo.empty(0, &mut bag);
        assert_eq!((limbo.unsettled_bytes(), collected(&limbo, 1).len()), (32 << 10, 8));
        assert!(!bag.put(freed(1, 0)), "it is empty");
        bag.take_safe(0, |_| panic!("it is not safe"));
        bag.take_safe(1, |block| assert_eq!(block.offset(), 0));
        assert!(bag.is_empty() && bag.bytes == 0);
    }

    /// What was freed may be the only room there is: who finds none makes it durable and takes it, but not from under a
    /// guard.
    #[test]
    fn what_waits_for_nobody_any_more_is_room() {
        for policy in [Policy::Eager, Policy::Batched] {
            let options = Heap::options().capacity_bytes(1 << 20).arenas(1).policy(policy);
            let heap = options.create_on(Anon::new(options.heap_bytes().unwrap())).unwrap();
            let slots = heap.slots("slots", 512).unwrap();
            for size in [3000, 20_000, 200_000] {
                let layout = Layout::from_size_align(size, 8).unwrap();
                let fill =
                    || slots.iter().take_while(|slot| heap.alloc_to(slot, layout).is_ok()).count();
                let room = fill();
                assert!((2..512).contains(&room), "{room} blocks of {size} bytes");
                let guard = heap.pin();
                slots[..room].iter().for_each(|slot| heap.free_from(slot).unwrap());
                assert_eq!(fill(), 0, "a guard lives");
                let pin = guard.pin();
                // It goes without a look at what waits.
                std::mem::forget(guard);
                pin.leave();
                assert_eq!(fill(), room, "of {size} bytes, {policy:?}");
                slots[..room].iter().for_each(|slot| heap.free_from(slot).unwrap());
                heap.trim().unwrap();
            }
        }
    }

    /// Who takes memory out of limbo looks at the guards first: what comes into it behind that look is seen by guards that
    /// the look did not find.
    #[test]
    fn what_comes_into_limbo_behind_a_look_at_the_guards_is_not_safe_by_that_look() {
        for policy in [Policy::Eager, Policy::Batched] {
            let options = Heap::options().capacity_bytes(1 << 20).arenas(1).policy(policy);
            let heap = options.create_on(Anon::new(options.heap_bytes().unwrap())).unwrap();
            let slots = heap.slots("slots", 2).unwrap();
            let layout = Layout::from_size_align(20_000, 8).unwrap();
            slots.iter().for_each(|slot| heap.alloc_to(slot, layout).unwrap());
            // There was a guard once, and none lives.
            drop(heap.pin());
            let engine = heap.core();
            let safe = engine.safe_epoch();
            let guard = heap.pin();
            heap.free_from(&slots[0]).unwrap();
            engine.synchronize(Patience::Little).unwrap();
            engine.limbo.collect(0, safe, |_| panic!("a guard sees it, {policy:?}"));
            drop(guard);
            heap.free_from(&slots[1]).unwrap();
            heap.trim().unwrap();
            assert!(!engine.limbo.has_waiting(), "{policy:?}");
        }
    }
}
