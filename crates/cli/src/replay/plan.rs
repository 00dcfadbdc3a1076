//! Turns a trace into what each thread does, and says what must be live at the end. Volatile.

use crate::trace::{BlockId, Operation, Trace};

/// No thread's number.
const NOBODY: u16 = u16::MAX;

/// One thing a thread does: an operation on a block, packed because millions are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step(u32);

impl Step {
    fn new(block: BlockId, operation: Operation) -> Self {
        Self((block.get() << 1) | u32::from(operation == Operation::Free))
    }

    /// The block.
    pub(crate) const fn block(self) -> BlockId {
        BlockId::new(self.0 >> 1)
    }

    /// What is done to it.
    pub(crate) const fn operation(self) -> Operation {
        if self.0 & 1 == 0 { Operation::Alloc } else { Operation::Free }
    }
}

/// A trace, arranged for replaying.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What each thread does, in its program order.
    pub(crate) programs: Vec<Vec<Step>>,
    /// The thread of each event, in global order.
    pub(crate) order: Vec<u16>,
    /// Requested size in bytes of each block, by id.
    pub(crate) sizes: Vec<u64>,
    /// The thread that allocates the block, by id.
    allocators: Vec<u16>,
    /// The thread that frees the block or [`NOBODY`], by id.
    freers: Vec<u16>,
}

impl Plan {
    /// Arranges `trace`.
    pub(crate) fn of(trace: Trace) -> Self {
        let mut programs = vec![Vec::new(); usize::from(trace.threads)];
        let mut order = Vec::with_capacity(trace.events.len());
        let mut allocators = vec![NOBODY; trace.sizes.len()];
        let mut freers = allocators.clone();
        for event in &trace.events {
            programs[usize::from(event.thread)].push(Step::new(event.block, event.operation));
            order.push(event.thread);
            let threads = match event.operation {
                Operation::Alloc => &mut allocators,
                Operation::Free => &mut freers,
            };
            threads[event.block.index()] = event.thread;
        }
        Self { programs, order, sizes: trace.sizes, allocators, freers }
    }

    /// Number of threads.
    pub(crate) fn threads(&self) -> u16 {
        u16::try_from(self.programs.len()).expect("a trace has at most 1024 threads")
    }

    /// Number of events.
    pub(crate) fn events(&self) -> u64 {
        self.order.len() as u64
    }

    /// Number of allocations.
    pub(crate) fn allocs(&self) -> u64 {
        self.sizes.len() as u64
    }

    /// Number of frees.
    pub(crate) fn frees(&self) -> u64 {
        self.events() - self.allocs()
    }

    /// Every block with its size in bytes.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (BlockId, u64)> + '_ {
        (0..).map(BlockId::new).zip(self.sizes.iter().copied())
    }

    /// Requested size of `block` in bytes.
    pub(crate) fn size_of(&self, block: BlockId) -> u64 {
        self.sizes[block.index()]
    }

    /// Whether `block` is live when the whole trace was replayed.
    pub(crate) fn is_live_at_end(&self, block: BlockId) -> bool {
        self.freers[block.index()] == NOBODY
    }

    /// Whether `thread` is the one that allocates `block`.
    pub(crate) fn is_allocated_by(&self, thread: u16, block: BlockId) -> bool {
        self.allocators[block.index()] == thread
    }

    /// Whether only the thread that allocates `block` ever does anything to it.
    pub(crate) fn is_of_one_thread(&self, block: BlockId) -> bool {
        self.is_live_at_end(block) || self.is_allocated_by(self.freers[block.index()], block)
    }

    /// Sum of all requested sizes in bytes: no order of the threads can have more live at once.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.sizes.iter().fold(0, |sum, &size| sum.saturating_add(size))
    }

    /// Peak of the requested bytes of live blocks, in the trace's own order.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let mut next = vec![0; self.programs.len()];
        let (mut live, mut peak) = (0_u64, 0);
        for &thread in &self.order {
            let thread = usize::from(thread);
            let step: Step = self.programs[thread][next[thread]];
            next[thread] += 1;
            let size = self.sizes[step.block().index()];
            match step.operation() {
                Operation::Alloc => live = live.saturating_add(size),
                Operation::Free => live = live.saturating_sub(size),
            }
            peak = peak.max(live);
        }
        peak
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Event;

    #[test]
    fn each_thread_gets_its_events_in_order() {
        let event =
            |block, thread, operation| Event { block: BlockId::new(block), thread, operation };
        let plan = Plan::of(Trace {
            threads: 2,
            events: vec![
                event(0, 0, Operation::Alloc),
                event(1, 1, Operation::Alloc),
                event(0, 1, Operation::Free),
            ],
            sizes: vec![10, 20],
        });
        let of_second: Vec<_> =
            plan.programs[1].iter().map(|step| (step.block().get(), step.operation())).collect();
        assert_eq!(of_second, [(1, Operation::Alloc), (0, Operation::Free)]);
        assert_eq!((plan.allocs(), plan.frees(), plan.peak_bytes()), (2, 1, 30));
        assert!(!plan.is_live_at_end(BlockId::new(0)) && plan.is_live_at_end(BlockId::new(1)));
    }
}
