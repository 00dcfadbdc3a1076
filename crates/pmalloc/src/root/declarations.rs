//! Where a program has slots, said to the heap: for its check, which else knows those of root arrays only.
//!
//! A typed root is declared by itself, when a program asks for it. For bytes the program says it: roots by their type
//! number, blocks by their tag. Persistent: the declarations are one block, replaced as a whole (`layout::declared`), and
//! found by the check of a heap that no program has open. Nothing else believes them.

use std::alloc::Layout;

use pmalloc_persist::{
    Medium, Offset, Word,
    sync::{Arc, lock},
};

use super::{entry::RootInfo, own, table};
use crate::{
    core::{Core, Implicit, Pending, change},
    error::{Error, Result},
    layout::{
        declared::{self, DECLARED_MAX_WORDS, Declaration, Run, Scope, TypeSlots},
        root::RootKind,
    },
    value::{
        Persistent, Slot, SlotLayout, SlotScope, TypeGraph, declared as slots, slot::SlotCell,
    },
};

/// Says where the slots are in roots or blocks of bytes, instead of what was said about them before.
pub(crate) fn declare_slots<M: Medium + 'static>(
    core: &Arc<Core<M>>,
    scope: SlotScope,
    layout: &SlotLayout,
) -> Result<()> {
    // In a forked child the lock may be held for ever.
    core.check_process()?;
    let slots = layout.checked()?;
    let scope = match scope {
        SlotScope::RootType(kind) => {
            check_roots(core, kind, &slots)?;
            Scope::RootType(kind)
        }
        SlotScope::Tag(tag) => Scope::Tag(tag),
    };
    let _declaring = lock(&core.declared);
    declare(core, Declaration { scope, types: vec![slots] })
}

/// What is declared about roots and blocks of bytes, in the order in which it was first said.
pub(crate) fn declared_slots<M: Medium>(core: &Core<M>) -> Result<Vec<(SlotScope, SlotLayout)>> {
    core.check_process()?;
    let _declaring = lock(&core.declared);
    let all = load(core)?.into_iter().filter_map(|one| {
        let scope = match one.scope {
            Scope::RootType(kind) => SlotScope::RootType(kind),
            Scope::Tag(tag) => SlotScope::Tag(tag),
            Scope::Graph(_) => return None,
        };
        Some((scope, SlotLayout::of_runs(one.types.into_iter().next()?.runs)))
    });
    Ok(all.collect())
}

/// Sees that roots of the type have the slots that are declared for them.
fn check_roots<M: Medium + 'static>(core: &Core<M>, kind: u64, slots: &TypeSlots) -> Result<()> {
    let end = slots.runs.iter().filter_map(Run::last_byte).max().unwrap_or(0);
    let _entered = core.enter()?;
    let _roots = lock(&core.roots);
    let is_short =
        |root: &RootInfo| root.kind == RootKind::Bytes && root.type_id == kind && root.length < end;
    match table::live(core).find(is_short) {
        None => Ok(()),
        Some(root) => {
            let why = format!(
                "slots up to byte {end}; the root {:?} of this type has {} bytes",
                root.name, root.length
            );
            Err(Error::Invalid { what: "slot layout", why })
        }
    }
}

/// Says where the slots are in a `T` and in all that it leads to, unless that was said before.
///
/// It is for the check only: where it can't be said, for want of room or for damage, the program goes on without.
pub(crate) fn declare_type<M: Medium + 'static, T: Persistent>(core: &Arc<Core<M>>) {
    let graph = TypeGraph::of::<T>();
    let mut known = lock(&core.declared);
    if !known.insert(graph.hash()) {
        return;
    }
    if let Some(types) = slots::types_of(&graph) {
        let _ = declare(core, Declaration { scope: Scope::Graph(graph.hash()), types });
    }
}

/// Adds a declaration to the others, in the place of that of the same scope.
///
/// The caller holds the lock of the declarations.
///
/// # Crash consistency
///
/// Three operations, each atomic: the root array, if there is none yet; then the block that its first slot owns, or
/// another in its place.
fn declare<M: Medium + 'static>(core: &Arc<Core<M>>, declaration: Declaration) -> Result<()> {
    let mut all = match load(core) {
        // They can't be mended: what is said now is all that is known.
        Err(Error::Corrupted { .. }) => Vec::new(),
        all => all?,
    };
    match all.iter_mut().find(|known| known.scope == declaration.scope) {
        Some(known) if *known == declaration => return Ok(()),
        Some(known) => *known = declaration,
        None => all.push(declaration),
    }
    let words = declared::encode(&all);
    if words.len() as u64 > DECLARED_MAX_WORDS {
        return Err(Error::Limit { what: "words of slot declarations", limit: DECLARED_MAX_WORDS });
    }
    let mut access = Implicit(core);
    let slot: &Slot = &own::slots(core, &mut access)?[0];
    let layout = Layout::array::<u64>(words.len()).expect("a megabyte at most");
    let mut block = Pending::new(core, &mut access, layout.into())?;
    block.write_words(&words);
    change::put(core, &mut access, slot, block)
}

/// The declarations; none if there is no root for them.
///
/// # Errors
///
/// [`Error::Corrupted`] if they are damaged.
pub(crate) fn load<M: Medium>(core: &Core<M>) -> Result<Vec<Declaration>> {
    let m = core.medium();
    let Some(root) = own::find(core) else { return Ok(Vec::new()) };
    let slot: &SlotCell = m.at(Offset::new(root.offset))?;
    let Some(place) = slot.read(m).place() else { return Ok(Vec::new()) };
    let damaged =
        || Error::corrupted(place, "the declarations of slots are damaged: declare them anew");
    let block = core.block_at(place).map_err(|_| damaged())?;
    let count = (block.usable_bytes / size_of::<Word>() as u64).min(DECLARED_MAX_WORDS);
    let words = m.region().array::<Word>(Offset::new(place), count)?;
    // What lies behind them is not theirs, and is not looked at.
    let len = declared::len_in(words.iter().map(|word| m.load(word))).ok_or_else(damaged)?;
    let words: Vec<u64> = words.iter().take(len).map(|word| m.load(word)).collect();
    declared::decode(&words).ok_or_else(damaged)
}
