//! What the operations of a heap share.

use std::{sync::atomic::AtomicU64 as ProcessCounter, time::Duration};

use pmalloc_persist::{
    Medium, Span,
    sync::{AtomicUsize, Mutex, Ordering, lock},
};

use super::{
    Result,
    background::Background,
    epochs::Epochs,
    gate::{Entered, Gate},
    limbo::Limbo,
    pins::{Pin, Pins},
    root_blocks::RootBlocks,
    session::SessionState,
    slot_locks::SlotLocks,
    synchronizer::{Outcome, Patience, Synchronizer},
};
use crate::{
    arena::{Arena, Block, Space},
    error::Error,
    extent::Look,
    lane::{Claim, Lanes},
    layout::state::Policy,
};

/// Operations of a session between two looks at the heap's free memory: so many that a look costs nothing beside them.
const LOOK_OPERATIONS: u32 = 256;

/// The same while more memory is to be given back than one look does.
const BEHIND_OPERATIONS: u32 = 16;

/// How long an attempt of `sync` waits for a thread that is stopped inside an operation, before it lets others try.
const SETTLE: Duration = Duration::from_millis(1);

/// How long closing waits for such a thread. No operation runs any more: it panicked.
const CLOSE: Duration = Duration::from_secs(1);

/// How long an operation that finds no memory waits for a thread that is stopped inside an operation.
const RECLAIM: Duration = Duration::from_millis(10);

/// Bytes in limbo that were freed since the last round, before a thread whose bag is full runs another: at most so many, and
/// of a small heap a part.
const LIMBO_BYTES: u64 = 4 << 20;
const LIMBO_PART: u64 = 32;

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
    /// When the effects of operations are made durable.
    pub(crate) policy: Policy,
    /// Volatile: what stamps operations.
    pub(super) epochs: Epochs,
    /// Volatile: what was freed and may not be used yet.
    pub(super) limbo: Limbo,
    /// Volatile: who may still see it.
    pins: Pins,
    synchronizer: Synchronizer,
    /// Volatile: the thread that runs its rounds, if there is one.
    pub(crate) background: Background,
    /// Volatile: blocks that slots may neither free nor read.
    pub(crate) root_blocks: RootBlocks,
    lanes: Lanes,
    next_arena: AtomicUsize,
    gate: Gate,
    /// Volatile: whether the heap is closed; held while a session ends or the heap closes.
    closed: Mutex<bool>,
}

impl<M: Medium> Engine<M> {
    /// The engine of a heap that was recovered, and whose state page names `policy` and the epoch `durable`.
    pub(crate) fn new(
        space: Space<M>,
        arenas: Vec<Arena>,
        lanes: Lanes,
        (policy, durable): (Policy, u64),
    ) -> Self {
        let gate = Gate::new(space.medium.needs_sync());
        Self {
            // Relaxed: only uniqueness counts.
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            slot_locks: SlotLocks::new(),
            policy,
            epochs: Epochs::new(durable),
            limbo: Limbo::new(arenas.len(), space.geometry.capacity_bytes),
            pins: Pins::new(),
            synchronizer: Synchronizer::default(),
            background: Background::default(),
            root_blocks: RootBlocks::new(),
            lanes,
            next_arena: AtomicUsize::new(0),
            gate,
            closed: Mutex::new(false),
            space,
            arenas,
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
        self.limbo.add(state.arena, &mut state.bag);
        if self.limbo.has_waiting() {
            self.collect();
        }
        state.cache.drain(&self.space, &self.arenas[state.arena]);
        if let Some(pin) = state.pin.take() {
            self.pins.give(pin);
        }
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
        Ok(self.gate.enter(self.medium())?)
    }

    /// Refuses a forked child.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.medium().forked() { Err(Error::Forked.into()) } else { Ok(()) }
    }

    /// Begins an operation: makes sure that `state` has a lane, and looks after the heap now and then.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a lane must be made and can't be.
    #[inline(always)]
    pub(crate) fn prepare(&self, state: &mut SessionState) -> Result<()> {
        match state.operations_left.checked_sub(1) {
            Some(left) => state.operations_left = left,
            None => self.prepare_slowly(state)?,
        }
        if let Some(Claim::Own(lane)) = &mut state.claim
            && lane.is_half_full(|| self.epochs.durable())
        {
            self.make_durable(state)?;
        }
        Ok(())
    }

    /// Has a round of the synchronizer run, unless another thread does, and takes back what is safe then.
    #[cold]
    fn make_durable(&self, state: &mut SessionState) -> Result<()> {
        if self.background.wake() {
            return Ok(());
        }
        self.synchronize(Patience::Little)?;
        self.limbo.add(state.arena, &mut state.bag);
        self.collect_own(state);
        Ok(())
    }

    /// Makes the effects of all operations that have returned durable. The caller has [entered](Engine::enter).
    pub(super) fn synchronize(&self, patience: Patience) -> Result<Outcome> {
        let outcome =
            self.synchronizer.synchronize(self.medium(), &self.epochs, &self.lanes, patience)?;
        if outcome == Outcome::Done {
            self.limbo.settled();
        }
        Ok(outcome)
    }

    /// Runs a round in the heap's own thread.
    pub(crate) fn synchronize_behind(&self) {
        // What is refused, in a forked child or for want of epochs, is refused to operations as well.
        let Ok(_entered) = self.enter() else { return };
        drop(self.synchronize(Patience::For(SETTLE)));
    }

    /// Exchanges a full lane for one with room for `records`, if there is one.
    #[cold]
    pub(super) fn exchange_lane(&self, claim: &mut Claim, records: usize) -> Result<()> {
        Ok(self.lanes.exchange(self.medium(), claim, self.epochs.durable(), records)?)
    }

    /// Counts a guard of the session.
    #[inline]
    pub(crate) fn pin(&self, state: &mut SessionState) -> &Pin {
        let index = *state.pin.get_or_insert_with(|| self.pins.take());
        self.pins.pin(index, self.epochs.present())
    }

    /// Whether a guard lives that may see what was unlinked before this call.
    pub(crate) fn is_pinned(&self) -> bool {
        self.pins.oldest().is_some()
    }

    #[cold]
    fn prepare_slowly(&self, state: &mut SessionState) -> Result<()> {
        if state.claim.is_none() {
            state.claim = Some(self.lanes.claim(self.medium())?);
        }
        let Space { extents, medium, .. } = &self.space;
        // A session may end before its first look: what it did until then is not counted, but this operation.
        if extents.look(medium, state.operations_granted.max(1)) == Look::WindowEnded {
            // What waits for nothing but the end of its epoch is as free as the rest.
            if self.policy == Policy::Batched && self.limbo.has_waiting() {
                self.synchronize(Patience::Little)?;
                self.collect();
            }
            self.arenas.iter().for_each(|arena| arena.retire_idle(&self.space));
        }
        let granted = if extents.is_behind() { BEHIND_OPERATIONS } else { LOOK_OPERATIONS };
        (state.operations_granted, state.operations_left) = (granted, granted - 1);
        Ok(())
    }

    /// Writes everything to stable storage and, where that matters, says so on the state page.
    pub(crate) fn sync(&self) -> Result<()> {
        self.check_process()?;
        // Where the kernel writes pages when it likes, under the gate: see there.
        if !self.medium().needs_sync() {
            self.settle_epoch()?;
        }
        Ok(self.gate.sync(self.medium(), || Ok(self.settle_epoch()?))?)
    }

    /// Makes the effects of all operations that have returned durable, under the policy Batched, and what they freed usable.
    fn settle_epoch(&self) -> Result<()> {
        match self.policy {
            Policy::Eager => Ok(()),
            Policy::Batched => {
                // One attempt after the other: meanwhile others may be the synchronizer.
                while self.synchronize(Patience::For(SETTLE))? == Outcome::Stalled {}
                self.collect();
                Ok(())
            }
        }
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
        self.background.end();
        {
            // As an operation does: what changes from here on, no sync vouches for.
            let _entered = self.enter()?;
            if self.policy == Policy::Batched
                && self.synchronize(Patience::For(CLOSE))? == Outcome::Stalled
            {
                return Err(stranded().into());
            }
            *closed = true;
            self.collect();
            // Before all is written back: free pages need not be.
            self.space.extents.settle(self.medium());
            seal()?;
        }
        Ok(self.gate.close(self.medium())?)
    }

    /// Whether a live block starts at byte `place`.
    #[inline]
    pub(crate) fn is_live(&self, place: u64) -> bool {
        self.space.live_block(place).is_ok()
    }

    /// Sees that the word at byte `offset` lies in a live block, and returns that.
    #[inline]
    pub(crate) fn check_live(&self, offset: u64) -> Result<Span> {
        self.space.live_around(offset).ok_or_else(|| Error::SlotForeign.into())
    }

    /// Sees that the `block` that a slot owns is not that of a root.
    #[inline(always)]
    pub(super) fn check_no_root(&self, slot: u64, block: u64) -> Result<()> {
        if self.root_blocks.contains(block) { Err(owns_root(slot).into()) } else { Ok(()) }
    }

    /// The epoch up to which freed memory may be used again: its free is durable, and no guard sees it.
    ///
    /// What was unlinked in the epochs up to the bound was unlinked before the look at the guards: one that is made later
    /// does not find it. Of what is unlinked meanwhile nothing is known.
    pub(super) fn safe_epoch(&self) -> u64 {
        let bound = match self.policy {
            Policy::Eager => {
                let ended = self.epochs.begin_next();
                // Guards that are made from here on hold nothing of what was unlinked up to then.
                self.epochs.begin_next();
                ended
            }
            Policy::Batched => self.epochs.durable(),
        };
        let unseen = self.pins.oldest().map_or(u64::MAX, |oldest| oldest.saturating_sub(2));
        bound.min(unseen)
    }

    /// Whether a guard that goes may let freed memory out of limbo. Under Batched it rarely does: memory waits there for its
    /// free to become durable, and operations take it out.
    pub(crate) fn waits_for_guards(&self) -> bool {
        self.policy == Policy::Eager && self.limbo.has_waiting()
    }

    /// Makes freed memory usable again that is safe.
    ///
    /// The caller has [entered](Engine::enter).
    #[cold]
    pub(crate) fn collect(&self) {
        let safe = self.safe_epoch();
        for arena in 0..self.arenas.len() {
            self.limbo.collect(arena, safe, |block| self.recycle(arena, block));
        }
    }

    /// As [`collect`](Self::collect), for the memory that sessions of this one's arena have freed; small blocks go to the
    /// session's cache.
    #[cold]
    fn collect_own(&self, state: &mut SessionState) {
        if !self.limbo.has_waiting() {
            return;
        }
        if self.policy == Policy::Batched {
            // No more is safe than when this session last looked, but for what guards have let go of since: it waits.
            let durable = self.epochs.durable();
            if std::mem::replace(&mut state.collected, durable) == durable {
                return;
            }
        }
        let safe = self.safe_epoch();
        self.limbo.collect(state.arena, safe, |block| self.reuse(state, block));
    }

    /// Takes a block that was freed in `epoch`, which counts under Batched: it is used again when that is durable and no guard
    /// sees it.
    #[inline(always)]
    pub(super) fn give_up(&self, state: &mut SessionState, epoch: u64, block: Block) {
        let epoch = match self.policy {
            Policy::Eager if !self.pins.were_used() => return self.reuse(state, block),
            // Behind the fence in there, and so behind the store that unlinked it.
            Policy::Eager => self.epochs.present(),
            Policy::Batched => epoch,
        };
        state.bag.put(epoch, block);
        if self.limbo.is_full(&state.bag) {
            self.empty_bag(state);
        }
    }

    /// Takes what a full bag holds, and takes back what is safe by now.
    #[cold]
    fn empty_bag(&self, state: &mut SessionState) {
        self.limbo.add(state.arena, &mut state.bag);
        // Guards that are made before the epoch ends would hold it for nothing: a small heap can't afford that.
        let bound = LIMBO_BYTES.min(self.space.geometry.capacity_bytes / LIMBO_PART);
        if self.policy == Policy::Batched && self.limbo.unsettled_bytes() >= bound {
            // Without it the memory stays in limbo, until the next attempt.
            drop(self.synchronize(Patience::Little));
        }
        self.collect_own(state);
    }

    /// Makes a freed block usable again, near the session if it is one of its arena's.
    #[inline]
    pub(super) fn reuse(&self, state: &mut SessionState, block: Block) {
        match block {
            Block::Small(block) if self.arenas[state.arena].log() == block.log() => {
                state.cache.put(&self.space, &self.arenas[state.arena], block);
            }
            block => self.recycle(state.arena, block),
        }
    }

    /// Makes freed memory usable again that no guard can see: a small block goes back to the arena that it came from; pages
    /// are nobody's, and go to `arena`, of the session that has freed them.
    pub(super) fn recycle(&self, arena: usize, block: Block) {
        match block {
            Block::Small(block) => {
                self.arenas[block.log().0 as usize].give_back_remote(&self.space, block);
            }
            Block::Large(block) => {
                let log = self.arenas[arena].log();
                self.space.extents.release(self.medium(), log, block.range());
            }
        }
    }

    /// Gives back all memory that is cached for later: freed blocks that nothing keeps in limbo, the caches of `state`,
    /// and empty slabs.
    ///
    /// # Errors
    ///
    /// As [`synchronize`](Synchronizer::synchronize).
    #[cold]
    pub(crate) fn reclaim(&self, state: &mut SessionState) -> Result<()> {
        self.empty_limbo(state)?;
        state.cache.drain(&self.space, &self.arenas[state.arena]);
        self.reclaim_slabs();
        Ok(())
    }

    /// Gives free memory back to the file system, and returns how many bytes: of caches only what their sessions give back.
    pub(crate) fn trim(&self, state: &mut SessionState) -> Result<u64> {
        self.empty_limbo(state)?;
        self.reclaim_slabs();
        Ok(self.space.extents.trim(self.medium())?)
    }

    /// Gives empty slabs back.
    fn reclaim_slabs(&self) {
        self.arenas.iter().for_each(|arena| arena.reclaim(&self.space));
    }

    /// Makes everything usable that was freed and that no guard sees.
    fn empty_limbo(&self, state: &mut SessionState) -> Result<()> {
        let is_waiting = self.limbo.has_waiting() || !state.bag.is_empty();
        if self.policy == Policy::Batched && is_waiting {
            self.synchronize(Patience::For(RECLAIM))?;
        }
        // What the session has freed of late stays near it.
        let safe = self.safe_epoch();
        let mut bag = std::mem::take(&mut state.bag);
        bag.empty_if_safe(safe, |block| self.reuse(state, block));
        self.limbo.add(state.arena, &mut bag);
        state.bag = bag;
        self.collect();
        Ok(())
    }
}

/// The error of a heap that can't be closed.
#[cold]
fn stranded() -> Error {
    let why = "a thread panicked or was lost inside an operation, so that not everything can be made durable; open the heap \
               again, which recovers it";
    Error::io("closing the heap")(std::io::Error::other(why))
}

/// The error of a slot whose word names the block of a root.
#[cold]
pub(crate) fn owns_root(slot: u64) -> Error {
    Error::corrupted(slot, "a slot owns the block of a root")
}
