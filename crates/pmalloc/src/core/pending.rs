//! Blocks that are reserved and not published yet.
//!
//! Volatile: a crash gives them back. Their contents are durable before a record can make them reachable.

use std::sync::atomic::AtomicU64 as ProcessCounter;

use pmalloc_persist::{
    Medium, Offset, Span, Word,
    sync::{Arc, Ordering},
};

use super::{open_heap::Core, thread::Implicit};
use crate::{
    arena::Block,
    error::Result,
    op::{self, SessionAccess},
    value::BlockLayout,
};

/// A block that is not live yet, also when a publish has it already: names the slots in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewBlock(
    /// Of its own in the process: one publish's block is never taken for another's.
    u64,
);

impl NewBlock {
    /// One that was not given out before.
    fn next() -> Self {
        static NEXT: ProcessCounter = ProcessCounter::new(0);
        // Relaxed: only uniqueness counts.
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A block that is reserved, whatever it is to hold; it goes back when it is dropped unpublished.
pub(crate) struct Pending<'h, M: Medium + 'static> {
    core: &'h Arc<Core<M>>,
    id: NewBlock,
    /// `None` once it was published.
    reserved: Option<Block>,
    size_bytes: u64,
    written: bool,
}

impl<'h, M: Medium + 'static> Pending<'h, M> {
    pub(crate) fn new(
        core: &'h Arc<Core<M>>,
        access: &mut impl SessionAccess,
        layout: BlockLayout,
    ) -> Result<Self> {
        let reserved = access.with(|state| {
            let _entered = core.enter()?;
            op::reserve(core, state, layout)
        })?;
        let size_bytes = layout.layout().size() as u64;
        let id = NewBlock::next();
        Ok(Self { core, id, reserved: Some(reserved), size_bytes, written: false })
    }

    /// Lets `write` write the bytes that were asked for; a forked child, which has none of them, writes nothing.
    pub(crate) fn write_with(&mut self, write: impl FnOnce(&Core<M>, Span)) {
        if self.core.medium().forked() {
            return;
        }
        self.written = true;
        write(self.core, self.span());
        self.core.medium().stored(self.span());
    }

    /// Writes the first words, each as a word: what the simulator has not decided yet of the block's memory need not be
    /// decided before.
    pub(crate) fn write_words(&mut self, words: &[u64]) {
        self.write_with(|core, span| {
            let (m, count) = (core.medium(), words.len() as u64);
            let places = m.region().array::<Word>(Offset::new(span.start), count);
            let places = places.expect("a reserved block lies in the heap");
            places.iter().zip(words).for_each(|(place, word)| m.store(place, *word));
        });
    }

    /// Whether it was reserved in the heap of `core`.
    pub(crate) fn is_of(&self, core: &Arc<Core<M>>) -> bool {
        Arc::ptr_eq(self.core, core)
    }

    /// The contents to flush before the block is published, if there are any.
    pub(crate) fn contents(&self) -> Option<Span> {
        self.written.then(|| self.span())
    }

    /// The medium that it lies on.
    pub(crate) fn medium(&self) -> &'h M {
        self.core.medium()
    }

    /// The block, `None` once it was published.
    pub(crate) fn reserved(&self) -> Option<Block> {
        self.reserved
    }

    /// Which one it is.
    pub(crate) fn id(&self) -> NewBlock {
        self.id
    }

    /// The block.
    pub(crate) fn block(&self) -> Block {
        self.reserved.expect("a reservation has its block until it is published")
    }

    /// Notes that the block is live: it does not go back any more.
    pub(crate) fn published(mut self) {
        self.reserved = None;
    }

    /// The bytes that were asked for.
    pub(crate) fn span(&self) -> Span {
        Span::new(self.block().offset(), self.size_bytes)
    }
}

impl<M: Medium + 'static> Drop for Pending<'_, M> {
    fn drop(&mut self) {
        if let Some(reserved) = self.reserved.take() {
            Implicit(self.core).with(|state| {
                // In a forked child the block belongs to the parent.
                if let Ok(_entered) = self.core.enter() {
                    op::cancel(self.core, state, reserved);
                }
            });
        }
    }
}

/// Makes the contents of `blocks` durable.
///
/// # Crash consistency
///
/// They are durable before the first record that makes their block reachable can be (rule 10).
pub(crate) fn persist_contents<'b, 'h: 'b, M: Medium + 'static>(
    core: &Core<M>,
    blocks: impl IntoIterator<Item = &'b Pending<'h, M>>,
) {
    let m = core.medium();
    let mut any = false;
    for contents in blocks.into_iter().filter_map(Pending::contents) {
        m.flush(contents);
        any = true;
    }
    if any {
        // CRASH: see above.
        m.fence();
    }
}
