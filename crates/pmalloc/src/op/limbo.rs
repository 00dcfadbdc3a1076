//! Limbo: where freed memory waits until its free is durable, and until no guard can see it.
//!
//! A session keeps what it frees in a bag, and hands a full one to the queue of its arena, from which any thread may take
//! what is safe. Volatile: a crash frees what is in limbo.

use std::collections::VecDeque;

use crossbeam_utils::CachePadded;
use pmalloc_persist::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, lock};

use crate::arena::Block;

/// Blocks that fill a bag.
const BAG: usize = 32;

/// Bytes that fill one: at most so many, and of a small heap a part.
const BAG_BYTES: u64 = 256 << 10;
const BAG_PART: u64 = 64;

/// Empty bags that a queue keeps, so that none is made in the steady state.
const SPARE_MAX: usize = 256;

/// What was freed of late.
#[derive(Debug, Default)]
pub(super) struct Bag {
    blocks: Vec<Block>,
    /// Bytes of all.
    bytes: u64,
    /// The epoch of the last free.
    newest: u64,
}

/// The memory in limbo of a heap, but for what is in the bags of sessions.
#[derive(Debug)]
pub(crate) struct Limbo {
    /// One per arena.
    queues: Box<[CachePadded<Mutex<Queue>>]>,
    /// Bags in all queues, read without their locks.
    waiting: CachePadded<AtomicUsize>,
    /// Bytes that were added since the last round of the synchronizer, likewise.
    unsettled_bytes: AtomicU64,
    /// Bytes that fill a bag.
    bag_bytes: u64,
}

#[derive(Debug, Default)]
struct Queue {
    /// Those that wait, the oldest first.
    bags: VecDeque<Bag>,
    /// Empty ones.
    spare: Vec<Bag>,
}

impl Bag {
    /// Keeps a block that was freed in `epoch`.
    #[inline(always)]
    pub(super) fn put(&mut self, epoch: u64, block: Block) {
        self.newest = epoch;
        self.bytes += block.usable_bytes();
        self.blocks.push(block);
    }

    /// Whether it has none.
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Hands all blocks to `reuse`, if the last free is not later than the epoch `safe`.
    pub(super) fn empty_if_safe(&mut self, safe: u64, reuse: impl FnMut(Block)) {
        if self.newest <= safe {
            self.bytes = 0;
            self.blocks.drain(..).for_each(reuse);
        }
    }
}

impl Limbo {
    /// Nothing waits, in a heap of this capacity.
    pub(super) fn new(arenas: usize, capacity_bytes: u64) -> Self {
        Self {
            queues: (0..arenas).map(|_| CachePadded::default()).collect(),
            waiting: CachePadded::default(),
            unsettled_bytes: AtomicU64::new(0),
            bag_bytes: BAG_BYTES.min(capacity_bytes / BAG_PART),
        }
    }

    /// Whether a bag is full.
    #[inline(always)]
    pub(super) fn is_full(&self, bag: &Bag) -> bool {
        bag.blocks.len() >= BAG || bag.bytes >= self.bag_bytes
    }

    /// Whether memory waits in a queue.
    #[inline]
    pub(crate) fn has_waiting(&self) -> bool {
        // Relaxed: a hint; who misses a bag leaves it for the next.
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

    /// Exchanges a bag for an empty one, and adds it to the queue of an arena.
    pub(super) fn add(&self, arena: usize, bag: &mut Bag) {
        if bag.is_empty() {
            return;
        }
        self.unsettled_bytes.fetch_add(bag.bytes, Ordering::Relaxed);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut queue = lock(&self.queues[arena]);
        let empty = queue.spare.pop().unwrap_or_default();
        queue.bags.push_back(std::mem::replace(bag, empty));
    }

    /// Hands what was freed up to the epoch `safe`, and waits in the queue of `arena`, to `reuse`, the oldest first.
    ///
    /// `reuse` runs without the lock: it may have to wait for room in a log.
    pub(super) fn collect(&self, arena: usize, safe: u64, mut reuse: impl FnMut(Block)) {
        let mut emptied = None;
        while let Some(mut bag) = self.next_safe(arena, safe, emptied.take()) {
            bag.empty_if_safe(safe, &mut reuse);
            emptied = Some(bag);
        }
    }

    /// Takes out the oldest bag, if it is safe, and keeps the one that was emptied.
    fn next_safe(&self, arena: usize, safe: u64, emptied: Option<Bag>) -> Option<Bag> {
        let mut queue = lock(&self.queues[arena]);
        if let Some(emptied) = emptied
            && queue.spare.len() < SPARE_MAX
        {
            queue.spare.push(emptied);
        }
        let bag = queue.bags.pop_front_if(|bag| bag.newest <= safe)?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(bag)
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

    /// A block of the page `nth`.
    fn page(nth: u32) -> Block {
        let range = PageRange::new(Page(nth), 1);
        let extent = Extent { range, kind: ExtentKind::Large, tag: 0 };
        Block::Large(LargeBlock { extent, log: LogId(0), offset: u64::from(nth) * 4096 })
    }

    fn collected(limbo: &Limbo, safe: u64) -> Vec<u64> {
        let mut offsets = Vec::new();
        limbo.collect(0, safe, |block| offsets.push(block.offset() / 4096));
        offsets
    }

    #[test]
    fn what_waits_is_handed_out_when_it_is_safe_in_the_order_of_its_frees_and_once() {
        let limbo = Limbo::new(1, 1 << 20);
        let mut bag = Bag::default();
        for round in 0..50 {
            for nth in 0..20 {
                bag.put(u64::from(round) + 1, page(20 * round + nth));
            }
            limbo.add(0, &mut bag);
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
        let mut bag = Bag::default();
        // Pages fill it by their bytes in a small heap, and by their number in another one.
        for (capacity_bytes, pages) in [(1 << 20, 4), (2 << 20, 8), (1 << 40, 32)] {
            let limbo = Limbo::new(1, capacity_bytes);
            let filled = (0..100).position(|nth| {
                bag.put(1, page(nth));
                limbo.is_full(&bag)
            });
            assert_eq!(filled, Some(pages - 1));
            assert!(!limbo.has_waiting());
            limbo.add(0, &mut bag);
            assert_eq!(limbo.unsettled_bytes(), 4096 * pages as u64);
            assert_eq!(collected(&limbo, 1).len(), pages);
        }
        bag.put(1, page(0));
        bag.empty_if_safe(0, |_| panic!("it is not safe"));
        bag.empty_if_safe(1, |block| assert_eq!(block.offset(), 0));
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
