//! Arenas: where thread caches get blocks and give them back.
//!
//! An [`Arena`] owns the slabs that its bookkeeping log holds. A session refills its caches from one arena and
//! gives its own blocks back there; a block of another arena goes through that arena's *remote queue*, which
//! the owner empties at its next refill, so that a free never waits for another thread's slabs.
//!
//! Everything here is volatile but for what [`slab`](crate::slab) and [`book`](crate::book) make durable: a
//! block in a cache, a queue or a slab's inventory has no bit set, and a crash gives it back.
//!
//! # Lock order
//!
//! declarations -> closed -> gate -> taking back -> roots -> lane pool -> slot locks in the order of their table -> blocks of roots ->
//! shared lane -> limbo -> arena state -> remote queue -> backed descriptors -> log -> chunk pool -> front of extents ->
//! extents. A lock is taken only while none but locks to its left are held.

mod block;
mod space;

use std::collections::{BTreeMap, BTreeSet};

use pmalloc_persist::{
    Medium,
    sync::{Mutex, lock},
};

pub(crate) use block::{Block, LargeBlock, SmallBlock};
pub(crate) use space::Space;

use crate::{
    book::LogId,
    error::{Error, Result},
    layout::geometry::Page,
    slab::{Descriptor, Inventory, Kind, PerKind},
};

/// Blocks in a remote queue at which the thread that adds one empties it itself.
const REMOTE_MAX: usize = 256;

/// Most slabs that an arena gives up at the end of a window, so that nobody waits for long.
const IDLE_MAX: usize = 1024;

/// A set of slabs with their own bookkeeping log.
#[derive(Debug)]
pub(crate) struct Arena {
    log: LogId,
    state: Mutex<Slabs>,
    /// Volatile: blocks that sessions of other arenas freed.
    remote: Mutex<Vec<SmallBlock>>,
}

/// The slabs of an arena.
#[derive(Debug)]
struct Slabs {
    /// Volatile: every slab, by its first page.
    all: BTreeMap<Page, Inventory>,
    /// Volatile: those without a live or cached block, and how long they have been so.
    empty: BTreeMap<Page, Age>,
    /// Volatile: which of them have blocks of what kind.
    kinds: PerKind<OfKind>,
    /// Volatile: an empty list, to be exchanged for the remote queue.
    spare: Vec<SmallBlock>,
}

/// How long a slab has been empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    /// Since the present window of operations or time began, at the longest.
    Young,
    /// For a whole window.
    Idle,
}

/// The slabs of one kind.
#[derive(Debug, Default)]
struct OfKind {
    /// Volatile: those with free blocks; the lowest address is used first, so that the others run empty.
    partial: BTreeSet<Page>,
    /// Volatile: how many there are.
    count: u32,
}

impl Slabs {
    fn new() -> Self {
        Self {
            all: BTreeMap::new(),
            empty: BTreeMap::new(),
            kinds: PerKind::new(),
            spare: Vec::new(),
        }
    }

    fn add(&mut self, inventory: Inventory) {
        let page = inventory.descriptor().range().start;
        let of_kind = self.kinds.get_mut(inventory.descriptor().kind());
        of_kind.count += 1;
        if inventory.free_count() > 0 {
            of_kind.partial.insert(page);
        }
        if inventory.is_whole() {
            self.empty.insert(page, Age::Young);
        }
        self.all.insert(page, inventory);
    }

    /// Hands up to `want` free blocks of `kind`, which `log` holds, to `take` and returns how many.
    fn take(&mut self, kind: Kind, log: LogId, want: u32, mut take: impl FnMut(SmallBlock)) -> u32 {
        let partial = &mut self.kinds.get_mut(kind).partial;
        let mut taken = 0;
        while taken < want
            && let Some(&page) = partial.first()
        {
            let inventory = self.all.get_mut(&page).expect("a partial slab is a slab");
            let slab = *inventory.descriptor();
            if inventory.is_whole() {
                self.empty.remove(&page);
            }
            taken += inventory.take(want - taken, |index| take(SmallBlock::new(slab, index, log)));
            if inventory.free_count() == 0 {
                partial.remove(&page);
            }
        }
        taken
    }

    fn remove(&mut self, page: Page) -> Option<Inventory> {
        let inventory = self.all.remove(&page)?;
        self.empty.remove(&page);
        let of_kind = self.kinds.get_mut(inventory.descriptor().kind());
        of_kind.count -= 1;
        of_kind.partial.remove(&page);
        Some(inventory)
    }
}

impl Arena {
    /// The arena of `log` with the slabs in `inventories`.
    pub(crate) fn new(log: LogId, inventories: Vec<Inventory>) -> Self {
        let mut slabs = Slabs::new();
        inventories.into_iter().for_each(|inventory| slabs.add(inventory));
        Self { log, state: Mutex::new(slabs), remote: Mutex::new(Vec::new()) }
    }

    /// The arena's bookkeeping log.
    pub(crate) fn log(&self) -> LogId {
        self.log
    }

    /// Hands up to `want` free blocks of `kind` to `take`; at least one.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`] or [`Error::NoSpace`] if there is none and no slab can be made.
    pub(crate) fn refill<M: Medium>(
        &self,
        space: &Space<M>,
        kind: Kind,
        want: u32,
        mut take: impl FnMut(SmallBlock),
    ) -> Result<()> {
        let mut slabs = lock(&self.state);
        self.drain_remote(space, &mut slabs);
        if slabs.take(kind, self.log, want, &mut take) == 0 {
            let count = slabs.kinds.get_mut(kind).count;
            slabs.add(Inventory::empty(space.create_slab(self.log, kind, count)?));
            slabs.take(kind, self.log, want, &mut take);
        }
        Ok(())
    }

    /// As [`Self::refill`], but makes no slab: hands out what free blocks there are, perhaps none.
    pub(crate) fn top_up<M: Medium>(
        &self,
        space: &Space<M>,
        kind: Kind,
        want: u32,
        take: impl FnMut(SmallBlock),
    ) {
        let mut slabs = lock(&self.state);
        self.drain_remote(space, &mut slabs);
        slabs.take(kind, self.log, want, take);
    }

    /// Takes free blocks of this arena back; slabs that run empty go back to the extents.
    pub(crate) fn give_back<M: Medium>(
        &self,
        space: &Space<M>,
        blocks: impl IntoIterator<Item = SmallBlock>,
    ) {
        self.put_all(space, &mut lock(&self.state), blocks);
    }

    /// Takes a free block of this arena from a session of another one.
    pub(crate) fn give_back_remote<M: Medium>(&self, space: &Space<M>, block: SmallBlock) {
        let queued = {
            let mut remote = lock(&self.remote);
            remote.push(block);
            remote.len()
        };
        if queued >= REMOTE_MAX {
            self.drain_remote(space, &mut lock(&self.state));
        }
    }

    /// Gives every slab without a live or cached block back to the extents.
    pub(crate) fn reclaim<M: Medium>(&self, space: &Space<M>) {
        let mut slabs = lock(&self.state);
        self.drain_remote(space, &mut slabs);
        let empty: Vec<Page> = slabs.empty.keys().copied().collect();
        for page in empty {
            self.retire_slab(space, &mut slabs, page);
        }
    }

    /// Gives slabs back to the extents that were empty at the end of the last window as well: also the last of their kind, and
    /// those that were empty when the heap was opened. Called at the end of every window.
    #[cold]
    pub(crate) fn retire_idle<M: Medium>(&self, space: &Space<M>) {
        let mut slabs = lock(&self.state);
        self.drain_remote(space, &mut slabs);
        let idle = slabs.empty.iter().filter(|(_, age)| **age == Age::Idle).map(|(page, _)| *page);
        let idle: Vec<Page> = idle.take(IDLE_MAX).collect();
        for page in idle {
            self.retire_slab(space, &mut slabs, page);
        }
        slabs.empty.values_mut().for_each(|age| *age = Age::Idle);
    }

    /// Calls `visit` with each slab's inventory.
    pub(crate) fn for_each_slab(&self, mut visit: impl FnMut(&Inventory)) {
        lock(&self.state).all.values().for_each(&mut visit);
    }

    fn drain_remote<M: Medium>(&self, space: &Space<M>, slabs: &mut Slabs) {
        let mut blocks = std::mem::take(&mut slabs.spare);
        std::mem::swap(&mut blocks, &mut lock(&self.remote));
        self.put_all(space, slabs, blocks.drain(..));
        slabs.spare = blocks;
    }

    /// Takes free blocks back. Those of one slab that come one after the other are put there together.
    fn put_all<M: Medium>(
        &self,
        space: &Space<M>,
        slabs: &mut Slabs,
        blocks: impl IntoIterator<Item = SmallBlock>,
    ) {
        let mut blocks = blocks.into_iter().peekable();
        while let Some(first) = blocks.next() {
            let page = first.slab().range().start;
            let inventory =
                slabs.all.get_mut(&page).expect("a block goes back to the arena of its slab");
            let had_none = inventory.free_count() == 0;
            inventory.put(first.index());
            while let Some(next) = blocks.next_if(|next| next.slab().range().start == page) {
                inventory.put(next.index());
            }
            let is_whole = inventory.is_whole();
            if had_none {
                slabs.kinds.get_mut(first.slab().kind()).partial.insert(page);
            }
            if is_whole {
                self.run_empty(space, slabs, first.slab());
            }
        }
    }

    /// Notes that no block of a slab is live or cached, and gives it back unless the next refill would make it again.
    fn run_empty<M: Medium>(&self, space: &Space<M>, slabs: &mut Slabs, slab: &Descriptor) {
        let page = slab.range().start;
        slabs.empty.insert(page, Age::Young);
        // One empty slab may stay where it is the only one with room.
        if slabs.kinds.get_mut(slab.kind()).partial.len() > 1 {
            self.retire_slab(space, slabs, page);
        }
    }

    /// Returns an empty slab to the extents; it stays if the log has no room to say so.
    fn retire_slab<M: Medium>(&self, space: &Space<M>, slabs: &mut Slabs, page: Page) {
        let range = slabs.all[&page].descriptor().range();
        match space.free_extent(self.log, range.start) {
            Ok(()) => {
                slabs.remove(page);
            }
            Err(Error::OutOfMemory { .. } | Error::NoSpace { .. } | Error::Io { .. }) => {}
            Err(error) => {
                unreachable!("freeing an empty slab can only fail for want of room: {error}")
            }
        }
    }
}
