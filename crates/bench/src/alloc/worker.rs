//! What every allocator under test offers: blocks that belong to persistent slots, and a worker for each thread. Volatile.

/// Words in a line.
pub(super) const LINE_WORDS: usize = 8;

/// An allocator whose blocks belong to persistent slots.
pub trait PersistentAlloc: Sync {
    /// What a thread uses.
    type Worker<'a>: Worker + Send
    where
        Self: 'a;

    /// The worker of thread number `thread`, which no other thread has, with slots as `slots` says. All are empty.
    fn worker(&self, thread: usize, slots: Slots) -> Self::Worker<'_>;
}

/// A thread's slots, and what is done to them. A benchmark has no use for errors, so every failure is a panic.
pub trait Worker {
    /// Allocates `size_bytes` into the empty slot `at`; durable on return.
    fn alloc(&mut self, at: usize, size_bytes: usize);

    /// As [`alloc`](Self::alloc), with contents in every byte.
    fn alloc_filled(&mut self, at: usize, size_bytes: usize);

    /// Frees the block of the slot `at`, which is empty then; durable on return.
    fn free(&mut self, at: usize);

    /// A block that another worker shall free.
    type Given: Send;

    /// Gives away the block of the slot `at`; the slot may be used again once it is freed.
    fn give(&mut self, at: usize) -> Self::Given;

    /// Frees a block that this or another worker of the allocator gave away, and empties its slot; durable on return.
    fn free_given(&mut self, given: Self::Given);
}

/// How many slots a thread has, and how they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// Their number.
    pub count: usize,
    /// How far they are apart.
    pub spacing: Spacing,
}

impl Slots {
    /// Words of the array that holds them.
    #[must_use]
    pub fn words(self) -> usize {
        self.count * self.spacing.stride()
    }
}

/// How far slots are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// Eight in a line, as in an array.
    Packed,
    /// Each in a line of its own.
    OwnLine,
}

impl Spacing {
    /// Words from a slot to the next one.
    #[must_use]
    pub fn stride(self) -> usize {
        match self {
            Self::Packed => 1,
            Self::OwnLine => LINE_WORDS,
        }
    }
}
