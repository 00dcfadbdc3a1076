//! The heap itself, shared by its handles and by the sessions of its threads.

use std::ops::Deref;

use pmalloc_persist::{
    Claim as MediumClaim, Medium, Span,
    sync::{AtomicU64, Mutex},
};

use super::{declare::Known, root_table};
use crate::{
    error::{Error, Finding, Result},
    layout::{state::Clean, superblock::Header},
    op::Engine,
    recovery::Recovered,
};

/// An open heap: the engine of its operations, and what else there is to know of it.
#[derive(Debug)]
pub(crate) struct Core<M> {
    /// What its operations share.
    pub(super) engine: Engine<M>,
    /// What the superblock says.
    pub(crate) header: Header,
    /// Volatile: type graphs that are known to be declared; held while a declaration is made.
    pub(super) declared: Mutex<Known>,
    /// Volatile: held while a named root is looked up or made.
    pub(super) roots: Mutex<()>,
    /// What opening took and did.
    pub(super) recovery: RecoveryFigures,
    /// Volatile: whether the heap was not closed before it was opened, so that no checksum vouches for its live bits.
    pub(super) was_left_open: bool,
    /// Volatile: damage that opening found and could do without.
    pub(super) findings: Vec<Finding>,
    /// Volatile: keeps other heaps off the memory; `None` for who lends nothing of it.
    _claim: Option<MediumClaim>,
    /// Volatile: most bytes that the medium was seen to occupy.
    pub(super) peak_bytes: AtomicU64,
}

/// What opening cost.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RecoveryFigures {
    /// Nanoseconds from reading the superblock to serving.
    pub(super) elapsed_ns: u64,
    /// Records that were redone.
    pub(super) replayed: u64,
    /// Places of the bookkeeping logs that interrupted appends had torn.
    pub(super) torn: u64,
}

/// Whoever has a heap operates on it.
impl<M> Deref for Core<M> {
    type Target = Engine<M>;

    #[inline]
    fn deref(&self) -> &Engine<M> {
        &self.engine
    }
}

impl<M: Medium> Core<M> {
    /// A heap that was recovered.
    pub(super) fn new(header: Header, recovered: Recovered<M>) -> Self {
        let Recovered { space, arenas, lanes, durable, policy, replayed, torn, findings, clean } =
            recovered;
        Self {
            engine: Engine::new(space, arenas, lanes, (policy, durable)),
            header,
            declared: Mutex::new(Known::new()),
            roots: Mutex::new(()),
            recovery: RecoveryFigures { elapsed_ns: 0, replayed, torn },
            was_left_open: clean != Clean::Closed,
            findings,
            _claim: None,
            peak_bytes: AtomicU64::new(0),
        }
    }

    /// The heap with the claim to its memory.
    pub(super) fn claimed(self, claim: Option<MediumClaim>) -> Self {
        Self { _claim: claim, ..self }
    }

    /// Ends the heap: everything to stable storage, then the clean flag, then nothing more is written.
    pub(crate) fn close(&self) -> Result<()> {
        self.engine.close_with(|| self.seal())
    }

    /// Writes the checks over what stands still while the heap is closed.
    ///
    /// # Crash consistency
    ///
    /// They count only when the clean flag says that the heap is closed, which is set behind the fence.
    pub(super) fn seal(&self) -> Result<()> {
        let mut sealed = root_table::seal(self);
        for arena in &self.arenas {
            arena.for_each_slab(|inventory| {
                let slab = inventory.descriptor();
                sealed = std::mem::replace(&mut sealed, Ok(())).and(slab.seal_bits(self.medium()));
            });
        }
        // CRASH: as above. The checks are durable before the flag that makes them count.
        self.medium().fence();
        sealed
    }

    /// The medium, for who loads a slot or cell; `None` in a forked child, which has none of its memory.
    ///
    /// # Panics
    ///
    /// If the slot or cell does not lie in this heap: a word of another one would be taken for one of this.
    #[inline]
    #[track_caller]
    pub(super) fn medium_around<T>(&self, word: &T) -> Option<&M> {
        assert!(self.offset_of(word).is_ok(), "a slot or cell of another heap");
        let m = self.medium();
        (!m.forked()).then_some(m)
    }

    /// Byte offset of a slot or cell that may be changed: it lies in a live block.
    #[inline]
    pub(super) fn place_of<T>(&self, word: &T) -> Result<u64> {
        let offset = self.offset_of(word)?;
        self.check_live(offset)?;
        Ok(offset)
    }

    /// Byte offset of a slot or cell, wherever in the heap it lies.
    #[inline]
    pub(super) fn offset_of<T>(&self, word: &T) -> Result<u64> {
        let place = std::ptr::from_ref(word).cast::<u8>();
        match self.medium().region().offset_of(place) {
            Some(offset) => Ok(offset),
            // Not `ok_or`: an error that is made, and dropped where there is none, costs more than all else here.
            None => Err(Error::SlotForeign),
        }
    }

    /// The usable bytes of the live block at byte `place`, or `None` if no live block starts there.
    #[inline]
    pub(super) fn block_span(&self, place: u64) -> Option<Span> {
        Some(self.block_at(place).ok()?.span())
    }
}
