//! Operations of several steps: their slots are owned from before the first look until they are durable.

use pmalloc_persist::Medium;

use super::{
    Result,
    commit::commit,
    engine::Engine,
    free::{Unlinked, recycle},
    plan::{Plan, Step},
    session::SessionState,
    slot_locks::{Owned, Stripes},
};

/// Performs `steps` atomically and durably, and makes the memory that they free usable again.
///
/// The caller has [entered](Engine::enter) and made the contents of reserved blocks durable. Slots and cells lie in live
/// blocks, slots also in blocks that the steps allocate.
///
/// # Crash consistency
///
/// As [`commit`].
pub(crate) fn perform<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    steps: &[Step],
) -> Result<()> {
    engine.prepare(state)?;
    let mut plan = std::mem::take(&mut state.plan);
    let done = perform_owned(engine, state, &mut plan, steps);
    if let Ok(epoch) = done {
        plan.unlinked(epoch).for_each(|freed| recycle(engine, state, freed));
    }
    state.plan = plan;
    done.map(drop)
}

/// Performs `steps` under the locks of their slots, and returns the epoch that stamps them.
fn perform_owned<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    plan: &mut Plan,
    steps: &[Step],
) -> Result<u64> {
    let mut named = Stripes::default();
    steps.iter().flat_map(Step::places).for_each(|place| named.insert(place.offset));
    let mut owned = named;
    loop {
        let mut locks = Owned::new();
        engine.slot_locks.lock_all(&owned, &mut locks);
        plan.make(engine, &mut state.homes, steps)?;
        // Which slots the freed blocks have is known only now: they are owned in the next round, unless the blocks are
        // others then.
        let mut wanted = named;
        plan.children(&mut |slot| wanted.insert(slot));
        if !owned.contains(&wanted) {
            owned = wanted;
            continue;
        }
        plan.check_children(engine)?;
        return commit_plan(engine, state, plan);
    }
}

/// As [`perform`], under the locks of all slots, which the caller holds with a lane; blocks that are freed are not looked
/// into. They are added to `freed`: [`recycle`] makes them usable again when the locks are gone.
pub(crate) fn perform_alone<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    steps: &[Step],
    freed: &mut Vec<Unlinked>,
) -> Result<()> {
    let mut plan = std::mem::take(&mut state.plan);
    let done = plan
        .make(engine, &mut state.homes, steps)
        .and_then(|()| commit_plan(engine, state, &mut plan));
    if let Ok(epoch) = done {
        freed.extend(plan.unlinked(epoch));
    }
    state.plan = plan;
    done.map(drop)
}

fn commit_plan<M: Medium>(
    engine: &Engine<M>,
    state: &mut SessionState,
    plan: &mut Plan,
) -> Result<u64> {
    if plan.is_empty() {
        return Ok(0);
    }
    state.with_scratch(|claim, scratch| commit(engine, claim, &mut plan.changes(scratch)))
}
