//! The heap itself, shared by its handles and by the sessions of its threads.

use std::{collections::BTreeSet, ops::Deref};

use pmalloc_persist::{
    Claim as MediumClaim, Medium, Span,
    sync::{AtomicU64, Mutex},
};

use crate::{
    error::{Error, Finding, Result},
    layout::{state::Clean, superblock::Header},
    op::{self, Engine, SessionAccess},
    recovery::Recovered,
    value::slot::SlotCell,
};

/// A live block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// Byte offset from the base of the heap.
    pub offset: u64,
    /// Bytes that the program may use.
    pub usable_bytes: u64,
    /// The tag it was allocated with.
    pub tag: u8,
}

impl Block {
    /// Its bytes.
    pub(crate) fn span(&self) -> Span {
        Span::new(self.offset, self.usable_bytes)
    }
}

/// An open heap: the engine of its operations, and what else there is to know of it.
#[derive(Debug)]
pub(crate) struct Core<M> {
    /// What its operations share.
    pub(crate) engine: Engine<M>,
    /// What the superblock says.
    pub(crate) header: Header,
    /// Volatile: hashes of the type graphs that are known to be declared; held while a declaration is made.
    pub(crate) declared: Mutex<BTreeSet<u64>>,
    /// Volatile: held while a named root is looked up or made.
    pub(crate) roots: Mutex<()>,
    /// What opening took and did.
    pub(crate) recovery: RecoveryFigures,
    /// Volatile: whether the heap was not closed before it was opened, so that no checksum vouches for its live bits.
    pub(crate) was_left_open: bool,
    /// Volatile: damage that opening found and could do without.
    pub(crate) findings: Vec<Finding>,
    /// Volatile: keeps other heaps off the memory; `None` for who lends nothing of it.
    _claim: Option<MediumClaim>,
    /// Volatile: most bytes that the medium was seen to occupy.
    pub(crate) peak_bytes: AtomicU64,
}

/// What opening cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RecoveryFigures {
    /// Nanoseconds from reading the superblock to serving.
    pub(crate) elapsed_ns: u64,
    /// Records that were redone.
    pub(crate) replayed: u64,
    /// Places of the bookkeeping logs that interrupted appends had torn.
    pub(crate) torn: u64,
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
    pub(crate) fn new(header: Header, recovered: Recovered<M>) -> Self {
        let Recovered { space, arenas, lanes, durable, policy, replayed, torn, findings, clean } =
            recovered;
        Self {
            engine: Engine::new(space, arenas, lanes, (policy, durable)),
            header,
            declared: Mutex::new(BTreeSet::new()),
            roots: Mutex::new(()),
            recovery: RecoveryFigures { elapsed_ns: 0, replayed, torn },
            was_left_open: clean != Clean::Closed,
            findings,
            _claim: None,
            peak_bytes: AtomicU64::new(0),
        }
    }

    /// The heap with the claim to its memory.
    pub(crate) fn claimed(self, claim: Option<MediumClaim>) -> Self {
        Self { _claim: claim, ..self }
    }

    /// Gives free memory back to the file system, and returns how many bytes.
    pub(crate) fn trim(&self, access: &mut impl SessionAccess) -> Result<u64> {
        let _entered = self.enter()?;
        Ok(access.with(|state| self.engine.trim(state))?)
    }

    /// The medium, for who loads a slot or cell; `None` in a forked child, which has none of its memory.
    ///
    /// # Panics
    ///
    /// If the slot or cell does not lie in this heap: a word of another one would be taken for one of this.
    #[inline]
    #[track_caller]
    pub(crate) fn medium_around<T>(&self, word: &T) -> Option<&M> {
        assert!(self.offset_of(word).is_ok(), "a slot or cell of another heap");
        let m = self.medium();
        (!m.forked()).then_some(m)
    }

    /// Byte offset of a slot or cell that may be changed: it lies in a live block.
    #[inline]
    pub(crate) fn place_of<T>(&self, word: &T) -> Result<u64> {
        let offset = self.offset_of(word)?;
        self.check_live(offset)?;
        Ok(offset)
    }

    /// Byte offset of a slot or cell, wherever in the heap it lies.
    #[inline]
    pub(crate) fn offset_of<T>(&self, word: &T) -> Result<u64> {
        let place = std::ptr::from_ref(word).cast::<u8>();
        match self.medium().region().offset_of(place) {
            Some(offset) => Ok(offset),
            // Not `ok_or`: an error that is made, and dropped where there is none, costs more than all else here.
            None => Err(Error::SlotForeign),
        }
    }

    /// The usable bytes of the live block at byte `place`, or `None` if no live block starts there.
    #[inline]
    pub(crate) fn block_span(&self, place: u64) -> Option<Span> {
        Some(self.block_at(place).ok()?.span())
    }

    /// The block that the slot owns, which lies in this heap.
    #[inline]
    pub(crate) fn owned_block(&self, slot: &SlotCell) -> Result<Option<Block>> {
        let owned = || slot.read(self.medium()).place();
        let Some(mut block) = owned() else { return Ok(None) };
        loop {
            if self.root_blocks.contains(block) {
                return Err(op::owns_root(self.offset_of(slot)?));
            }
            match self.block_at(block) {
                Ok(found) => return Ok(Some(found)),
                // It was freed since the slot was read: the slot owns another block by now, or is being emptied.
                Err(error) => match owned() {
                    None => return Ok(None),
                    Some(now) if now == block => return Err(error),
                    Some(now) => block = now,
                },
            }
        }
    }

    /// The live block that starts at byte `place`.
    #[inline]
    pub(crate) fn block_at(&self, place: u64) -> Result<Block> {
        let found = self.space.live_block(place)?;
        Ok(Block { offset: place, usable_bytes: found.usable_bytes(), tag: found.tag() })
    }
}
