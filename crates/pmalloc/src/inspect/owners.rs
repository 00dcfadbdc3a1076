//! Which slot owns which block. Reads a heap on which no operation runs, and changes nothing. Volatile.
//!
//! The survey begins with the roots and goes on in blocks, wherever it is known what is in them: in root arrays, in values
//! of typed roots and what their types lead to, in bytes that a program has declared ([`SlotLayout`](crate::SlotLayout)).
//! What is not known is looked at for one question only: may a word there be the slot that owns a block which no known
//! slot does? Where no word says so, nothing owns the block.

use std::collections::BTreeMap;

use pmalloc_persist::{Medium, Offset, Span};

use super::{
    blocks::Blocks,
    problem::{Problem, ProblemKind},
};
use crate::{
    core::{Block, Core},
    error::{Error, Result},
    layout::{
        declared::{Certainty, DECLARED_ROOT, Declaration, Run, Scope, TO_THE_END, TypeSlots},
        geometry::Geometry,
        root::RootKind,
    },
    root::{
        declarations,
        entry::{RootInfo, RootState},
        own, table,
    },
    value::slot::SlotCell,
};

/// What is known of a block's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockOwner {
    /// None was found.
    Nobody,
    /// The slot at this byte.
    Slot(u64),
    /// A word at this byte, which may be a slot, as it is declared.
    Declared(u64),
    /// Perhaps a word at this byte, in something of which nothing is known.
    Unknown(u64),
}

/// A block in a survey.
#[derive(Debug)]
struct Seen {
    block: Block,
    owner: BlockOwner,
    /// Whether it is known what is in it, or that nothing is.
    is_visited: bool,
    /// Whether it is of interest where else it is named.
    is_watched: bool,
    /// Whether it is the heap's own, and no block of the program.
    is_own: bool,
    /// Whether another word than that of its owner names it, or may.
    is_shared: bool,
}

/// What is in a root or block.
#[derive(Debug, Clone, Copy)]
enum Contents {
    /// No slots.
    Nothing,
    /// Slots of blocks of bytes, as many as there is room for.
    Slots,
    /// What the type of this index says, in the declaration of this index.
    Typed(usize, usize),
    /// Nobody knows.
    Unknown,
}

/// A survey of a heap.
#[derive(Debug)]
pub(crate) struct Owners<'a, M> {
    core: &'a Core<M>,
    /// Live blocks by their offsets.
    blocks: BTreeMap<u64, Seen>,
    declarations: Vec<Declaration>,
    /// Blocks that are known to be there, and are not visited yet.
    waiting: Vec<(Span, Contents)>,
    /// Runs of words that may be slots.
    maybe: Vec<(Span, Run)>,
    /// Roots and blocks of which nothing is known.
    unknown: Vec<Span>,
    /// What is wrong.
    pub(crate) problems: Vec<Problem>,
}

/// Bytes of a slot.
const SLOT_BYTES: u64 = size_of::<SlotCell>() as u64;

/// All words of a root or block.
const fn all_words(certainty: Certainty) -> Run {
    Run { offset: 0, stride: SLOT_BYTES, count: TO_THE_END, owns: None, certainty }
}

impl<'a, M: Medium> Owners<'a, M> {
    /// Surveys the heap.
    ///
    /// # Errors
    ///
    /// That of the medium; damage is among the problems.
    pub(crate) fn of(core: &'a Core<M>) -> Result<Self> {
        let mut owners = Self::begin(core);
        owners.survey()?;
        Ok(owners)
    }

    /// Surveys the heap as if the slot at byte `slot` owned the block at byte `block`, with a value of the first of
    /// `types`: what is wrong with that is among the problems.
    pub(crate) fn assuming(
        core: &'a Core<M>,
        (slot, block): (u64, u64),
        types: Vec<TypeSlots>,
    ) -> Result<Self> {
        let mut owners = Self::begin(core);
        // In front: no declaration of the heap's has this scope, as no root is of it.
        owners.declarations.insert(0, Declaration { scope: Scope::Graph(0), types });
        owners.claim(slot, block, Contents::Typed(0, 0));
        owners.visit_waiting();
        for seen in owners.blocks.values_mut() {
            seen.is_watched = seen.owner != BlockOwner::Nobody;
        }
        owners.survey()?;
        Ok(owners)
    }

    fn begin(core: &'a Core<M>) -> Self {
        let seen = |block: Block| {
            let (owner, is_visited) = (BlockOwner::Nobody, false);
            let (is_watched, is_own, is_shared) = (false, false, false);
            (block.offset, Seen { block, owner, is_visited, is_watched, is_own, is_shared })
        };
        let (blocks, problems) = (Blocks::all(core).map(seen).collect(), Vec::new());
        let (waiting, maybe, unknown) = (Vec::new(), Vec::new(), Vec::new());
        let declarations = Vec::new();
        let mut owners = Self { core, blocks, declarations, waiting, maybe, unknown, problems };
        match declarations::load(core) {
            Ok(declarations) => owners.declarations = declarations,
            Err(Error::Corrupted { offset, what }) => {
                owners.report(ProblemKind::Damaged, offset, what.into());
            }
            // Nothing else is asked of the medium.
            Err(error) => owners.report(ProblemKind::Damaged, 0, error.to_string()),
        }
        owners
    }

    fn survey(&mut self) -> Result<()> {
        for (index, entry) in table::entries(self.core)? {
            match entry {
                Ok(RootState::Live(root)) => self.add_root(index, &root),
                Ok(RootState::Dead) => {}
                Err(Error::Corrupted { offset, what }) => {
                    self.report(ProblemKind::Damaged, offset, what.into());
                }
                Err(error) => return Err(error),
            }
        }
        self.visit_waiting();
        // What is in blocks that no slot owns owns blocks nevertheless, as far as their tags tell.
        let unvisited = self.blocks.values().filter(|seen| !seen.is_visited);
        let unvisited: Vec<Block> = unvisited.map(|seen| seen.block).collect();
        for block in unvisited {
            self.await_visit(block.offset, self.by_tag(block.tag));
            self.visit_waiting();
        }
        for (span, run) in std::mem::take(&mut self.maybe) {
            self.scan(span, run, BlockOwner::Declared);
        }
        if self.blocks.values().any(|seen| seen.owner == BlockOwner::Nobody || seen.is_watched) {
            for span in std::mem::take(&mut self.unknown) {
                self.scan(span, all_words(Certainty::Maybe), BlockOwner::Unknown);
            }
        }
        Ok(())
    }

    /// Every live block of the program, and who owns it.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (Block, BlockOwner)> {
        let of_program = self.blocks.values().filter(|seen| !seen.is_own);
        of_program.map(|seen| (seen.block, seen.owner))
    }

    /// Who owns the block at byte `offset`; `None` if none starts there.
    pub(crate) fn owner_of(&self, offset: u64) -> Option<BlockOwner> {
        self.blocks.get(&offset).map(|seen| seen.owner)
    }

    /// The blocks that nothing owns, and those that nothing owns when these are gone, and so on; as far as they are
    /// `wanted`.
    pub(crate) fn orphaned(&self, wanted: impl Fn(&Block) -> bool) -> Vec<u64> {
        // By the places of their owners: what is in a block owns what follows it there.
        let mut owned: Vec<(u64, Block)> = Vec::new();
        let mut orphans = Vec::new();
        for seen in self.blocks.values().filter(|seen| wanted(&seen.block)) {
            match seen.owner {
                BlockOwner::Nobody => orphans.push(seen.block),
                BlockOwner::Slot(place)
                | BlockOwner::Declared(place)
                | BlockOwner::Unknown(place) => {
                    if !seen.is_shared {
                        owned.push((place, seen.block));
                    }
                }
            }
        }
        owned.sort_unstable();
        let mut next = 0;
        while let Some(orphan) = orphans.get(next).map(Block::span) {
            next += 1;
            let first = owned.partition_point(|(place, _)| *place < orphan.start);
            let end = owned.partition_point(|(place, _)| *place < orphan.end());
            orphans.extend(owned[first..end].iter().map(|(_, block)| *block));
        }
        orphans.into_iter().map(|block| block.offset).collect()
    }

    /// Notes something that is wrong.
    pub(crate) fn report(&mut self, kind: ProblemKind, offset: u64, text: String) {
        self.problems.push(Problem { kind, offset, text });
    }

    fn add_root(&mut self, index: u32, root: &RootInfo) {
        let entry = Geometry::root_table().nth(u64::from(index));
        let place = entry.expect("the root table lies inside the heap").bytes();
        if self.core.block_span(root.offset).is_none_or(|span| span.len < root.size_bytes()) {
            // The examination of the table has told that.
            self.claim(place, root.offset, Contents::Nothing);
            return;
        }
        let contents = match root.kind {
            RootKind::Slots => Contents::Slots,
            RootKind::Bytes => self.declared(Scope::RootType(root.type_id)),
            RootKind::Typed => self.declared(Scope::Graph(root.type_id)),
        };
        self.claim(place, root.offset, Contents::Nothing);
        if root.name == DECLARED_ROOT && root.kind == RootKind::Slots {
            self.add_own(root);
        } else {
            self.waiting.push((Span::new(root.offset, root.size_bytes()), contents));
        }
    }

    /// The heap's own slots: what they own has none.
    fn add_own(&mut self, root: &RootInfo) {
        let span = Span::new(root.offset, root.size_bytes());
        let places = (span.start..span.end()).step_by(8);
        let owned: Vec<(u64, u64)> =
            places.filter_map(|place| Some((place, self.word(place)?))).collect();
        for (place, block) in owned {
            self.claim(place, block, Contents::Nothing);
        }
        for own in own::blocks(self.core) {
            if let Some(seen) = self.blocks.get_mut(&own) {
                seen.is_own = true;
            }
        }
    }

    /// What is declared about a scope.
    fn declared(&self, scope: Scope) -> Contents {
        let at = self.declarations.iter().position(|known| known.scope == scope);
        at.map_or(Contents::Unknown, |at| Contents::Typed(at, 0))
    }

    fn by_tag(&self, tag: u8) -> Contents {
        self.declared(Scope::Tag(tag))
    }

    /// The block that the slot at byte `place` owns, if it is one.
    fn word(&self, place: u64) -> Option<u64> {
        let m = self.core.medium();
        let slot: &SlotCell = m.at(Offset::new(place)).ok()?;
        slot.read(m).place()
    }

    /// Notes that the slot at byte `slot` owns the block at byte `block`.
    fn claim(&mut self, slot: u64, block: u64, contents: Contents) {
        let Some(seen) = self.blocks.get_mut(&block) else {
            self.problems.push(Problem::dangling(slot, block));
            return;
        };
        if let BlockOwner::Slot(other) = seen.owner {
            seen.is_shared = true;
            let text = format!("the slots at {other:#x} and {slot:#x} both own {block:#x}");
            self.report(ProblemKind::SharedBlock, slot, text);
            return;
        }
        seen.owner = BlockOwner::Slot(slot);
        self.await_visit(block, contents);
    }

    fn await_visit(&mut self, block: u64, contents: Contents) {
        let seen = self.blocks.get_mut(&block).expect("a block that was just found");
        if !std::mem::replace(&mut seen.is_visited, true) {
            let span = seen.block.span();
            self.waiting.push((span, contents));
        }
    }

    fn visit_waiting(&mut self) {
        while let Some((span, contents)) = self.waiting.pop() {
            match contents {
                Contents::Nothing => {}
                Contents::Slots => self.visit_run(span, all_words(Certainty::Slots), None),
                Contents::Typed(declaration, index) => self.visit_typed(span, declaration, index),
                Contents::Unknown => self.unknown.push(span),
            }
        }
    }

    fn visit_typed(&mut self, span: Span, declaration: usize, index: usize) {
        let slots = &self.declarations[declaration].types[index];
        let runs = slots.runs.clone();
        let ends = runs.iter().filter_map(Run::last_byte).max().unwrap_or(0);
        let needed = ends.max(slots.size_bytes);
        if needed > span.len {
            let text = format!(
                "{} bytes are too few for the slots that are declared there, up to byte {needed}",
                span.len
            );
            self.report(ProblemKind::Misdeclared, span.start, text);
            self.unknown.push(span);
            return;
        }
        for run in runs {
            match run.certainty {
                Certainty::Slots => self.visit_run(span, run, Some(declaration)),
                Certainty::Maybe => self.maybe.push((span, run)),
            }
        }
    }

    /// Claims what the slots of a run own.
    fn visit_run(&mut self, span: Span, run: Run, declaration: Option<usize>) {
        for nth in 0..run.count_in(span.len) {
            let place = span.start + run.offset + nth * run.stride;
            let Some(block) = self.word(place) else { continue };
            let tag = self.blocks.get(&block).map_or(0, |seen| seen.block.tag);
            let contents = match (declaration, run.owns) {
                (Some(declaration), Some(index)) => Contents::Typed(declaration, index as usize),
                _ => self.by_tag(tag),
            };
            self.claim(place, block, contents);
        }
    }

    /// Looks at words that may be slots for blocks that have no owner yet.
    fn scan(&mut self, span: Span, run: Run, owner: fn(u64) -> BlockOwner) {
        for nth in 0..run.count_in(span.len) {
            let place = span.start + run.offset + nth * run.stride;
            let Some(block) = self.word(place) else { continue };
            let Some(seen) = self.blocks.get_mut(&block) else { continue };
            if seen.owner == BlockOwner::Nobody {
                seen.owner = owner(place);
                continue;
            }
            seen.is_shared = true;
            if seen.is_watched {
                let text =
                    format!("the word at {place:#x} may be a slot that owns {block:#x}, too");
                self.report(ProblemKind::SharedBlock, place, text);
            }
        }
    }
}
