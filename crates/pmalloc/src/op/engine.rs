//! What the operations of a heap share.

use std::sync::atomic::AtomicU64 as ProcessCounter;

use pmalloc_persist::{
    Medium,
    sync::{AtomicUsize, Mutex, Ordering, lock},
};

use super::{
    gate::{Entered, Gate},
    limbo::Limbo,
    root_blocks::RootBlocks,
    session::SessionState,
    slot_locks::SlotLocks,
};
use crate::{
    arena::{Arena, Block, Space},
    error::{Error, Result},
    extent::Look,
    lane::Lanes,
};

/// Operations of a session between two looks at the heap's free memory: so many that a look costs nothing beside them.
const LOOK_OPERATIONS: u32 = 256;

/// The same while more memory is to be given back than one look does.
const BEHIND_OPERATIONS: u32 = 16;

/// Identities of open heaps in this process.
static NEXT_ID: ProcessCounter = ProcessCounter::new(1);

/// The engine of one heap.
#[derive(Debug)]
pub(crate) struct Engine<M> {
    /// Identity among the heaps that this process opened.
    pub(crate) id: u64,
    /// Pages and their uses.
    pub(crate) space: Space<M>,
    /// One per log.
    pub(crate) arenas: Vec<Arena>,
    /// Volatile: who may change which slot.
    pub(crate) slot_locks: SlotLocks,
    /// Volatile: what readers may still see.
    pub(crate) limbo: Limbo,
    /// Volatile: blocks that slots may neither free nor read.
    pub(crate) root_blocks: RootBlocks,
    lanes: Lanes,
    next_arena: AtomicUsize,
    gate: Gate,
    /// Volatile: whether the heap is closed; held while a session ends or the heap closes.
    closed: Mutex<bool>,
}

impl<M: Medium> Engine<M> {
    /// The engine of a heap that was recovered.
    pub(crate) fn new(space: Space<M>, arenas: Vec<Arena>, lanes: Lanes) -> Self {
        let gate = Gate::new(space.medium.needs_sync());
        Self {
            // Relaxed: only uniqueness counts.
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            space,
            arenas,
            slot_locks: SlotLocks::new(),
            limbo: Limbo::new(),
            root_blocks: RootBlocks::new(),
            lanes,
            next_arena: AtomicUsize::new(0),
            gate,
            closed: Mutex::new(false),
        }
    }

    /// The medium.
    #[inline]
    pub(crate) fn medium(&self) -> &M {
        &self.space.medium
    }

    /// The state of a new session: the next arena in turn, nothing cached, no lane yet.
    pub(crate) fn begin_session(&self) -> SessionState {
        // Relaxed: only the distribution over arenas depends on it.
        let arena = self.next_arena.fetch_add(1, Ordering::Relaxed) % self.arenas.len();
        SessionState::new(self.space.geometry.stripes, arena)
    }

    /// Takes back what a session holds: its cached blocks and its lane.
    pub(crate) fn end_session(&self, state: &mut SessionState) {
        // In a child process the lock may be held for ever.
        if self.medium().forked() {
            return;
        }
        let closed = lock(&self.closed);
        if *closed {
            return;
        }
        // Not before: entering may take back the promise of a sync, and a closed heap's stands.
        let Ok(_entered) = self.enter() else { return };
        state.operations_left = 0;
        state.cache.drain(&self.space, &self.arenas[state.arena]);
        if let Some(claim) = state.claim.take() {
            self.lanes.release(claim);
        }
    }

    /// Begins to change the medium; while the guard lives, no sync runs. No user code may run meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`] in a child process, [`Error::Io`] if a sync's promise can't be taken back.
    #[inline(always)]
    pub(crate) fn enter(&self) -> Result<Option<Entered<'_>>> {
        self.check_process()?;
        self.gate.enter(self.medium())
    }

    /// Refuses a forked child.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.medium().forked() { Err(Error::Forked) } else { Ok(()) }
    }

    /// Begins an operation: makes sure that `state` has a lane, and looks after the heap now and then.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a lane must be made and can't be.
    #[inline]
    pub(crate) fn prepare(&self, state: &mut SessionState) -> Result<()> {
        match state.operations_left.checked_sub(1) {
            Some(left) => {
                state.operations_left = left;
                Ok(())
            }
            None => self.prepare_slowly(state),
        }
    }

    #[cold]
    fn prepare_slowly(&self, state: &mut SessionState) -> Result<()> {
        if state.claim.is_none() {
            state.claim = Some(self.lanes.claim(self.medium())?);
        }
        let Space { extents, medium, .. } = &self.space;
        // A session may end before its first look: what it did until then is not counted, but this operation.
        if extents.look(medium, state.operations_granted.max(1)) == Look::WindowEnded {
            self.arenas.iter().for_each(|arena| arena.retire_idle(&self.space));
        }
        let granted = if extents.is_behind() { BEHIND_OPERATIONS } else { LOOK_OPERATIONS };
        (state.operations_granted, state.operations_left) = (granted, granted - 1);
        Ok(())
    }

    /// Writes everything to stable storage and, where that matters, says so on the state page.
    pub(crate) fn sync(&self) -> Result<()> {
        self.check_process()?;
        self.gate.sync(self.medium())
    }

    /// Ends the heap: everything to stable storage, then the clean flag, then nothing more is written.
    /// `seal` writes the checks over what stands still from then on.
    pub(crate) fn close_with(&self, seal: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.medium().forked() {
            return Ok(());
        }
        let mut closed = lock(&self.closed);
        if *closed {
            return Ok(());
        }
        *closed = true;
        // Before all is written back: free pages need not be.
        self.space.extents.settle(self.medium());
        seal()?;
        self.gate.close(self.medium())
    }

    /// Whether a live block starts at byte `place`.
    #[inline]
    pub(crate) fn is_live(&self, place: u64) -> bool {
        self.space.live_block(place).is_ok()
    }

    /// Sees that the word at byte `offset` lies in a live block.
    #[inline]
    pub(crate) fn check_live(&self, offset: u64) -> Result<()> {
        if self.space.is_inside_live_block(offset) { Ok(()) } else { Err(Error::SlotForeign) }
    }

    /// Sees that the `block` that a slot owns is not that of a root.
    #[inline]
    pub(super) fn check_no_root(&self, slot: u64, block: u64) -> Result<()> {
        if self.root_blocks.contains(block) { Err(owns_root(slot)) } else { Ok(()) }
    }

    /// Makes freed memory that no guard can see any more usable again.
    ///
    /// The caller has [entered](Engine::enter).
    pub(crate) fn collect(&self) {
        self.limbo.collect(|block| self.recycle(block));
    }

    /// Hands freed memory that no guard can see back to where it came from.
    pub(super) fn recycle(&self, block: Block) {
        match block {
            Block::Small(block) => {
                self.arenas[block.log().0 as usize].give_back_remote(&self.space, block);
            }
            Block::Large(block) => {
                self.space.extents.release(self.medium(), block.log, block.range());
            }
        }
    }

    /// Gives back all memory that is cached for later: freed blocks that guards have left, the caches of
    /// `state`, and empty slabs.
    #[cold]
    pub(crate) fn reclaim(&self, state: &mut SessionState) {
        self.collect();
        state.cache.drain(&self.space, &self.arenas[state.arena]);
        for arena in &self.arenas {
            arena.reclaim(&self.space);
        }
    }
}

/// The error of a slot whose word names the block of a root.
#[cold]
pub(crate) fn owns_root(slot: u64) -> Error {
    Error::corrupted(slot, "a slot owns the block of a root")
}
