//! The heap itself, shared by its handles and by the sessions of its threads.

use std::{collections::VecDeque, sync::atomic::AtomicU64 as ProcessCounter};

use pmalloc_persist::{
    Claim as MediumClaim, Medium,
    sync::{AtomicU64, AtomicUsize, Mutex, Ordering, lock},
};

use super::{
    declare::Known,
    gate::{Entered, Gate},
    guard::{Freed, Guards},
    root_blocks::RootBlocks,
    root_table,
    session::SessionState,
    slot_locks::SlotLocks,
};
use crate::{
    arena::{Arena, Space},
    error::{Error, Finding, Result},
    extent::Look,
    lane::Lanes,
    layout::{state::Clean, superblock::Header},
    recovery::Recovered,
};

/// Operations of a session between two looks at the heap's free memory: so many that a look costs nothing beside them.
const LOOK_OPERATIONS: u32 = 256;

/// The same while more memory is to be given back than one look does.
const BEHIND_OPERATIONS: u32 = 16;

/// Identities of open heaps in this process.
static NEXT_ID: ProcessCounter = ProcessCounter::new(1);

/// An open heap.
#[derive(Debug)]
pub(crate) struct Core<M> {
    /// Identity among the heaps that this process opened.
    pub(super) id: u64,
    /// Pages and their uses.
    pub(super) space: Space<M>,
    /// One per log.
    pub(super) arenas: Vec<Arena>,
    /// What the superblock says.
    pub(super) header: Header,
    /// Volatile: who may change which slot.
    pub(super) slot_locks: SlotLocks,
    /// Volatile: who may still read freed memory.
    pub(super) guards: Guards,
    /// Volatile: blocks that slots may neither free nor read.
    pub(super) root_blocks: RootBlocks,
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
    lanes: Lanes,
    next_arena: AtomicUsize,
    gate: Gate,
    /// Volatile: whether the heap is closed; held while a session ends or the heap closes.
    closed: Mutex<bool>,
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

impl<M: Medium> Core<M> {
    /// A heap that was recovered.
    pub(super) fn new(header: Header, recovered: Recovered<M>) -> Self {
        let Recovered { space, arenas, lanes, replayed, torn, findings, clean } = recovered;
        // Relaxed: only uniqueness counts.
        let gate = Gate::new(space.medium.needs_sync());
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Self {
            id,
            space,
            arenas,
            header,
            slot_locks: SlotLocks::new(),
            guards: Guards::new(),
            root_blocks: RootBlocks::new(),
            declared: Mutex::new(Known::new()),
            roots: Mutex::new(()),
            recovery: RecoveryFigures { elapsed_ns: 0, replayed, torn },
            was_left_open: clean != Clean::Closed,
            findings,
            _claim: None,
            peak_bytes: AtomicU64::new(0),
            lanes,
            next_arena: AtomicUsize::new(0),
            gate,
            closed: Mutex::new(false),
        }
    }

    /// The heap with the claim to its memory.
    pub(super) fn claimed(self, claim: Option<MediumClaim>) -> Self {
        Self { _claim: claim, ..self }
    }

    /// The medium.
    #[inline]
    pub(super) fn medium(&self) -> &M {
        &self.space.medium
    }

    /// The state of a new session: the next arena in turn, nothing cached, no lane yet.
    pub(super) fn begin_session(&self) -> SessionState {
        // Relaxed: only the distribution over arenas depends on it.
        let arena = self.next_arena.fetch_add(1, Ordering::Relaxed) % self.arenas.len();
        SessionState::new(self.header.geometry.stripes, arena)
    }

    /// Takes back what a session holds: its cached blocks and its lane.
    pub(super) fn end_session(&self, state: &mut SessionState) {
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
    #[inline]
    pub(super) fn enter(&self) -> Result<Option<Entered<'_>>> {
        self.check_process()?;
        self.gate.enter(self.medium())
    }

    /// Refuses a forked child.
    #[inline]
    pub(super) fn check_process(&self) -> Result<()> {
        if self.medium().forked() { Err(Error::Forked) } else { Ok(()) }
    }

    /// Begins an operation: makes sure that `state` has a lane, and looks after the heap now and then.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a lane must be made and can't be.
    #[inline]
    pub(super) fn prepare(&self, state: &mut SessionState) -> Result<()> {
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
    pub(super) fn sync(&self) -> Result<()> {
        self.check_process()?;
        self.gate.sync(self.medium())
    }

    /// Ends the heap: everything to stable storage, then the clean flag, then nothing more is written.
    pub(super) fn close(&self) -> Result<()> {
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
        self.seal()?;
        self.gate.close(self.medium())
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

    /// Whether a live block starts at byte `place`.
    #[inline]
    pub(super) fn is_live(&self, place: u64) -> bool {
        self.space.target(place).is_ok()
    }

    /// Makes freed memory that no guard can see any more usable again.
    ///
    /// The caller has [entered](Core::enter).
    pub(super) fn collect(&self) {
        let freed: VecDeque<Freed> = self.guards.collect();
        for freed in freed {
            self.recycle(freed);
        }
    }

    /// Hands freed memory that no guard can see back to where it came from.
    pub(super) fn recycle(&self, freed: Freed) {
        match freed {
            Freed::Small { arena, offset } => {
                self.arenas[arena.0 as usize].give_back_remote(&self.space, offset);
            }
            Freed::Large { range, log } => self.space.extents.release(self.medium(), log, range),
        }
    }

    /// Gives back all memory that is cached for later: freed blocks that guards have left, the caches of
    /// `state`, and empty slabs.
    #[cold]
    pub(super) fn reclaim(&self, state: &mut SessionState) {
        self.collect();
        state.cache.drain(&self.space, &self.arenas[state.arena]);
        for arena in &self.arenas {
            arena.reclaim(&self.space);
        }
    }
}
