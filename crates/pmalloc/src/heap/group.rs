//! Several changes as one durable operation: check, record as a group, apply, retire.
//!
//! The steps take effect in order, as if each were an operation of its own, but of each slot and cell only the last word is
//! stored. All of them are owned from before the first look until the retirement is durable.

use pmalloc_persist::{LINE_BYTES, Medium, Offset, Span};

use super::{
    SlotMap, core::Core, free::Unlinked, reserve::Reserved, session::SessionState, slot::SlotCell,
    versioned_cell::VersionedCell,
};
use crate::{
    arena::Target,
    book::{LogId, Request},
    error::{Error, Result},
    lane::Draft,
    layout::{
        cell::{CellValue, CellWord},
        geometry::PageRange,
        lane::Op,
        slot::{SlotWord, Version},
    },
    slab::{Descriptor, LiveBit},
};

/// A slot that a step names, and where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) slot: &'a SlotCell,
    /// Byte offset.
    pub(super) offset: u64,
    pub(super) home: Home,
}

/// In what kind of block a slot lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// In a live one.
    Live,
    /// In one that the group allocates.
    New,
}

/// What is known of a block by the type of the slot that owns it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inside {
    /// Where its slots are.
    pub(super) slots: SlotMap,
    /// Bytes that it must have.
    pub(super) size_bytes: usize,
}

/// A cell that a step names, and where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct CellPlace<'a> {
    pub(super) cell: &'a VersionedCell,
    /// Byte offset.
    pub(super) offset: u64,
}

/// One change of a group.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    /// The empty slot gets a block that was reserved.
    Alloc(Place<'a>, Reserved),
    /// The slot's block is freed, and its slots must be empty then.
    Free(Place<'a>, Inside),
    /// The block of the first slot goes to the second, which is empty.
    Move(Place<'a>, Place<'a>),
    /// Two slots exchange what they own.
    Swap(Place<'a>, Place<'a>),
    /// The cell gets a value.
    Set(CellPlace<'a>, CellValue),
    /// The empty slot gets a live block that no slot owns.
    Adopt(Place<'a>, u64),
}

impl Step<'_> {
    /// The slots and cells: byte offsets, and in what they lie.
    fn places(&self) -> impl Iterator<Item = (u64, Home)> + use<> {
        let of = |place: &Place<'_>| (place.offset, place.home);
        let (first, second) = match self {
            Step::Alloc(place, _) | Step::Free(place, _) | Step::Adopt(place, _) => {
                (of(place), None)
            }
            Step::Move(a, b) | Step::Swap(a, b) => (of(a), Some(of(b))),
            Step::Set(place, _) => ((place.offset, Home::Live), None),
        };
        [Some(first), second].into_iter().flatten()
    }
}

/// As [`perform`], under the locks of all slots, which the caller holds with a lane; blocks that are freed are not looked
/// into.
pub(super) fn perform_alone<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    steps: &[Step<'_>],
) -> Result<Vec<Unlinked>> {
    let plan = Plan::of(core, steps)?;
    commit(core, state, &plan)
}

/// Performs `steps` atomically and durably, and returns the memory that they freed.
///
/// The caller has [entered](Core::enter) and made the contents of reserved blocks durable. Slots and cells lie in live
/// blocks, slots also in blocks that the steps allocate.
///
/// # Crash consistency
///
/// As for a single operation: before the last record is durable, nothing happened; from then on recovery finishes all
/// of it, allocations before frees, and of each slot and cell the newest version.
pub(super) fn perform<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    steps: &[Step<'_>],
) -> Result<Vec<Unlinked>> {
    core.prepare(state)?;
    let mut children = Vec::new();
    loop {
        let places = steps.iter().flat_map(Step::places).map(|(offset, _)| offset);
        let _owned = core.slot_locks.lock_all(places.chain(children.iter().copied()));
        let plan = Plan::of(core, steps)?;
        // Which slots the freed blocks have is known only now: they are owned in the next round, unless the blocks are
        // others then.
        if plan.children != children {
            children = plan.children;
            continue;
        }
        plan.check_children(core)?;
        return if plan.drafts.is_empty() { Ok(Vec::new()) } else { commit(core, state, &plan) };
    }
}

/// What a group comes to.
#[derive(Default)]
struct Plan<'a> {
    /// Its records.
    drafts: Vec<Draft>,
    /// Its slots, and what they hold after the steps so far.
    slots: Vec<(Place<'a>, SlotWord)>,
    /// Likewise its cells.
    cells: Vec<(CellPlace<'a>, CellWord)>,
    allocated: Vec<Reserved>,
    freed: Vec<Freed>,
    /// Byte offsets of the slots in freed blocks, as far as their types tell.
    children: Vec<u64>,
}

/// A block that a group frees.
#[derive(Clone, Copy)]
struct Freed {
    /// Its bytes.
    span: Span,
    kind: FreedKind,
}

#[derive(Clone, Copy)]
enum FreedKind {
    Small { slab: Descriptor, arena: LogId, block: u32, bit: LiveBit },
    Large { range: PageRange, log: LogId },
}

impl<'a> Plan<'a> {
    /// What `steps` come to, if they can be made. Their slots and cells are owned.
    fn of<M: Medium>(core: &Core<M>, steps: &[Step<'a>]) -> Result<Self> {
        let mut places = steps.iter().flat_map(Step::places);
        // Under the locks: who frees a typed block holds those of its slots.
        places.try_for_each(|(offset, home)| match home {
            Home::Live => core.check_live(offset),
            Home::New => Ok(()),
        })?;
        let mut plan = Self::default();
        steps.iter().try_for_each(|step| plan.add(core, step))?;
        Ok(plan)
    }

    fn add<M: Medium>(&mut self, core: &Core<M>, step: &Step<'a>) -> Result<()> {
        match *step {
            Step::Alloc(place, reserved) => self.alloc(core, place, reserved),
            Step::Free(place, inside) => self.free(core, place, inside),
            Step::Move(from, to) => self.exchange(core, from, to, Want::Move),
            Step::Swap(a, b) => self.exchange(core, a, b, Want::Swap),
            Step::Set(to, value) => {
                self.set(core, to, value);
                Ok(())
            }
            Step::Adopt(place, block) => self.adopt(core, place, block),
        }
    }

    fn alloc<M: Medium>(
        &mut self,
        core: &Core<M>,
        to: Place<'a>,
        reserved: Reserved,
    ) -> Result<()> {
        if self.word(core, to)?.place().is_some() {
            return Err(Error::SlotFull { slot: to.offset });
        }
        let (op, pages) = match reserved {
            Reserved::Small { .. } => (Op::AllocSmall, 0),
            Reserved::Large { extent, .. } => (Op::AllocLarge(extent.tag), extent.range.pages),
        };
        self.allocated.push(reserved);
        self.change(core, to, op, reserved.offset(), pages)
    }

    /// The record is that of a slot which takes a block over: recovery believes it, as the block is live.
    fn adopt<M: Medium>(&mut self, core: &Core<M>, to: Place<'a>, block: u64) -> Result<()> {
        if self.word(core, to)?.place().is_some() {
            return Err(Error::SlotFull { slot: to.offset });
        }
        self.check_owned(core, to, block)?;
        self.change(core, to, Op::Fill, block, 0)
    }

    fn free<M: Medium>(&mut self, core: &Core<M>, from: Place<'a>, inside: Inside) -> Result<()> {
        let Some(block) = self.word(core, from)?.place() else {
            return Err(Error::SlotEmpty { slot: from.offset });
        };
        if core.root_blocks.contains(block) {
            return Err(Error::corrupted(from.offset, "a slot owns the block of a root"));
        }
        if self.freed.iter().any(|freed| freed.span.start == block) {
            return Err(Error::NotLive { offset: block });
        }
        // A block that the group itself allocates has no live bit yet, and is refused here, too.
        let (op, pages, freed) = match core.space.target(block)? {
            Target::Small { slab, arena, block: index, bit } => {
                let span = Span::new(block, slab.class().block_bytes());
                let kind = FreedKind::Small { slab, arena, block: index, bit };
                (Op::FreeSmall, 0, Freed { span, kind })
            }
            Target::Large { range, log, .. } => {
                let span = core.space.geometry.span_of(range);
                (Op::FreeLarge, range.pages, Freed { span, kind: FreedKind::Large { range, log } })
            }
        };
        if freed.span.len < inside.size_bytes as u64 {
            return Err(Error::corrupted(
                from.offset,
                "a slot owns a block that is too small for its type",
            ));
        }
        inside.slots.any(0, &mut |at| {
            self.children.push(block + at as u64);
            false
        });
        self.freed.push(freed);
        self.change(core, from, op, block, pages)
    }

    /// Exchanges what two slots own, if that is what is wanted.
    fn exchange<M: Medium>(
        &mut self,
        core: &Core<M>,
        a: Place<'a>,
        b: Place<'a>,
        want: Want,
    ) -> Result<()> {
        let (of_a, of_b) = (self.word(core, a)?.place(), self.word(core, b)?.place());
        if want == Want::Move && of_a.is_none() {
            return Err(Error::SlotEmpty { slot: a.offset });
        }
        if want == Want::Move && of_b.is_some() {
            return Err(Error::SlotFull { slot: b.offset });
        }
        if of_a == of_b {
            return Ok(());
        }
        for (place, block) in [(a, of_a), (b, of_b)] {
            block.map_or(Ok(()), |block| self.check_owned(core, place, block))?;
        }
        for (place, block) in [(a, of_b), (b, of_a)] {
            match block {
                Some(block) => self.change(core, place, Op::Fill, block, 0)?,
                None => self.change(core, place, Op::Empty, 0, 0)?,
            }
        }
        Ok(())
    }

    /// What a slot hands on must be a block of a slot's: a damaged word must not spread, and no record may name what
    /// recovery would not believe.
    fn check_owned<M: Medium>(&self, core: &Core<M>, owner: Place<'a>, block: u64) -> Result<()> {
        if core.root_blocks.contains(block) {
            return Err(Error::corrupted(owner.offset, "a slot owns the block of a root"));
        }
        let is_new = self.allocated.iter().any(|reserved| reserved.offset() == block);
        let is_freed = self.freed.iter().any(|freed| freed.span.start == block);
        if is_new || core.space.target(block).is_ok() && !is_freed {
            return Ok(());
        }
        Err(Error::corrupted(owner.offset, "a slot owns no live block"))
    }

    /// Gives the cell a value, and its next version (rule 6).
    fn set<M: Medium>(&mut self, core: &Core<M>, to: CellPlace<'a>, value: CellValue) {
        let known = self.cells.iter().position(|(known, _)| known.offset == to.offset);
        let at = known.unwrap_or_else(|| {
            self.cells.push((to, to.cell.read(core.medium())));
            self.cells.len() - 1
        });
        let word = &mut self.cells[at].1;
        let version = word.version().next();
        *word = CellWord::holding(value, version);
        self.drafts.push(Draft {
            op: Op::Set(value),
            block: 0,
            pages: 0,
            slot: to.offset,
            version,
        });
    }

    /// What the slot at `place` holds after the steps so far.
    fn word<M: Medium>(&mut self, core: &Core<M>, place: Place<'a>) -> Result<SlotWord> {
        if let Some((_, word)) = self.slots.iter().find(|(known, _)| known.offset == place.offset) {
            return Ok(*word);
        }
        let word = place.slot.read(core.medium());
        if place.home == Home::New && word.place().is_some() {
            let why = "its block was written with something in it: a slot owns nothing before it is given a block";
            return Err(Error::Invalid { what: "slot in a new block", why: why.into() });
        }
        self.slots.push((place, word));
        Ok(word)
    }

    /// Adds a record, and gives the slot its next version (rule 6).
    fn change<M: Medium>(
        &mut self,
        core: &Core<M>,
        place: Place<'a>,
        op: Op,
        block: u64,
        pages: u32,
    ) -> Result<()> {
        let version: Version = self.word(core, place)?.version().next();
        let word =
            if op.fills() { SlotWord::owning(block, version) } else { SlotWord::empty(version) };
        let known = self.slots.iter_mut().find(|(known, _)| known.offset == place.offset);
        known.expect("the slot was just looked at").1 = word;
        self.drafts.push(Draft { op, block, pages, slot: place.offset, version });
        Ok(())
    }

    /// A slot in a block that the group frees must not own anything when it is done.
    fn check_children<M: Medium>(&self, core: &Core<M>) -> Result<()> {
        let is_inside = |place: u64| {
            let word = Span::new(place, size_of::<SlotCell>() as u64);
            self.freed.iter().any(|freed| freed.span.contains(word))
        };
        let is_full = |(_, word): &&(Place<'_>, SlotWord)| word.place().is_some();
        let named = self.slots.iter().filter(is_full).map(|(place, _)| place.offset);
        if let Some(slot) = named.into_iter().find(|place| is_inside(*place)) {
            return Err(Error::ChildrenAlive { slot });
        }
        for &slot in &self.children {
            let is_named = self.slots.iter().any(|(place, _)| place.offset == slot);
            let child: &SlotCell = core.medium().at(Offset::new(slot))?;
            if !is_named && child.read(core.medium()).place().is_some() {
                return Err(Error::ChildrenAlive { slot });
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Move,
    Swap,
}

fn commit<M: Medium>(
    core: &Core<M>,
    state: &mut SessionState,
    plan: &Plan<'_>,
) -> Result<Vec<Unlinked>> {
    let m = core.medium();
    let space = &core.space;
    let log = core.arenas[state.arena].log();
    let claim = state.claim.as_mut().expect("prepared with a lane");
    claim.with(|lane| {
        if plan.drafts.len() > lane.group_max() {
            let what = "changes in one publish (a move and a swap are two each)";
            return Err(Error::Limit { what, limit: lane.group_max() as u64 });
        }
        // The last thing that may fail. All memory that what follows needs is allocated here, too.
        let appends = space.book.reserve_all(m, &requests(log, plan))?;
        let mut lines = Vec::with_capacity(plan.slots.len() + plan.cells.len() + plan.drafts.len());
        let mut unlinked = Vec::with_capacity(plan.freed.len());
        lane.record_group(m, &plan.drafts);
        for reserved in &plan.allocated {
            if let Reserved::Large { extent, .. } = reserved {
                space.page_map.set_large(extent.range, log.code(), extent.tag);
            }
        }
        // CRASH: the operation is decided by this fence.
        m.fence();
        appends.iter().for_each(|append| space.book.write(m, append));
        set_bits(m, plan, &mut lines);
        store_words(m, plan, &mut lines);
        clear_bits(m, plan, &mut lines, &mut unlinked);
        flush_lines(m, &mut lines);
        // CRASH: the effects are durable before the mark that stops their being redone.
        m.fence();
        lane.retire(m);
        appends.into_iter().for_each(|append| space.book.commit(append));
        for freed in &plan.freed {
            if let FreedKind::Large { range, .. } = freed.kind {
                space.page_map.clear(range);
            }
        }
        // CRASH: the mark is durable before the memory is reused and the slots released.
        m.fence();
        Ok(unlinked)
    })?
}

/// What a group asks of the logs for its large blocks.
fn requests(log: LogId, plan: &Plan<'_>) -> Vec<Request> {
    let allocated = plan.allocated.iter().filter_map(|reserved| match *reserved {
        Reserved::Large { extent, .. } => Some(Request::Alloc(log, extent)),
        Reserved::Small { .. } => None,
    });
    let freed = plan.freed.iter().filter_map(|freed| match freed.kind {
        FreedKind::Large { range, log } => Some(Request::Free(log, range.start)),
        FreedKind::Small { .. } => None,
    });
    allocated.chain(freed).collect()
}

/// Sets the live bits of the blocks that a group allocates, and notes their lines.
fn set_bits<M: Medium>(m: &M, plan: &Plan<'_>, lines: &mut Vec<u64>) {
    for reserved in &plan.allocated {
        if let Reserved::Small { slab, block, .. } = reserved {
            let bit = slab.live_bit(*block);
            bit.store(m, true);
            lines.push(bit.place() / LINE_BYTES);
        }
    }
}

/// Stores the slots and cells of a group, and notes their lines.
///
/// The slots in blocks that the group allocates come first, in whatever order they were named. Nobody reaches those blocks
/// yet: what leads there from outside is a slot in a live block. Once that is stored, a reader may look at the new block's
/// bytes, which must not change under it. The store is a release, and pairs with the acquire in `SlotCell::read`.
fn store_words<M: Medium>(m: &M, plan: &Plan<'_>, lines: &mut Vec<u64>) {
    for home in [Home::New, Home::Live] {
        for (place, word) in plan.slots.iter().filter(|(place, _)| place.home == home) {
            place.slot.store(m, *word);
            lines.push(place.offset / LINE_BYTES);
        }
    }
    for (place, word) in &plan.cells {
        place.cell.store(m, *word);
        lines.push(place.offset / LINE_BYTES);
    }
}

/// Clears the live bits of the blocks that a group frees, and notes their lines and the memory that becomes free.
///
/// After the slots were stored: who reads a slot and finds its block not live any more reads it again, and must not find
/// the same block.
fn clear_bits<M: Medium>(
    m: &M,
    plan: &Plan<'_>,
    lines: &mut Vec<u64>,
    unlinked: &mut Vec<Unlinked>,
) {
    for freed in &plan.freed {
        unlinked.push(match freed.kind {
            FreedKind::Large { range, log } => Unlinked::Large { range, log },
            FreedKind::Small { slab, arena, block, bit } => {
                lines.push(bit.place() / LINE_BYTES);
                let was_live = bit.store(m, false);
                if was_live { Unlinked::Small { slab, arena, block } } else { Unlinked::Lost }
            }
        });
    }
}

/// Flushes each line once.
fn flush_lines<M: Medium>(m: &M, lines: &mut Vec<u64>) {
    lines.sort_unstable();
    lines.dedup();
    for line in lines {
        m.flush(Span::new(*line * LINE_BYTES, LINE_BYTES));
    }
}
