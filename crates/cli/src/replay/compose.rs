//! Composes operations of the publish family from what the program of a thread has next.
//!
//! Steps are joined only if none of them has to wait once the operation has begun: all but the first allocate, or free
//! what the thread itself allocated before. On top come changes that the trace knows nothing of: blocks of the
//! thread's own go to other slots, and its cell gets a value. What is composed is a function of dice, program and
//! position; which slots serve is found out on the way. Volatile.

use fastrand::Rng;
use pmalloc::{PUBLISH_MAX, VersionedCell};

use super::{
    plan::{Plan, Step},
    request::Kind,
};
use crate::trace::{BlockId, Operation};

/// Most steps of a usual group.
const USUAL_MAX: usize = 8;

/// Most changes on top of a usual group.
const TOP_MAX: usize = 2;

/// One in so many groups is as large as possible.
const LARGE_ONE_IN: u8 = 8;

/// A block of the thread's own is looked for among so many steps behind it.
const RECENT: usize = 512;

/// So many of them are looked at.
const TRIES: usize = 16;

/// A part of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// A step of the program.
    Step(Step),
    /// The block goes to another slot.
    Move(BlockId),
    /// The two blocks exchange their slots.
    Swap(BlockId, BlockId),
    /// The thread's cell gets a value.
    Set(u64),
}

/// An operation, but for its slots.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Composition {
    pub(super) kind: Kind,
    /// What it does, in this order; no block is in two parts.
    pub(super) parts: Vec<Part>,
    /// Number of steps among that, the next ones of the program.
    pub(super) steps: usize,
}

/// A thread at a step of its program.
pub(super) struct Composer<'c> {
    pub(super) plan: &'c Plan,
    pub(super) thread: u16,
    /// Index of the next step; there is one.
    pub(super) next: usize,
    pub(super) dice: Rng,
}

impl Composer<'_> {
    /// The operation that is next. `is_live` knows of the thread's own blocks.
    pub(super) fn compose(mut self, is_live: impl Fn(BlockId) -> bool) -> Composition {
        // What can't be done becomes a group, which is most of it as it is.
        let single = match self.dice.u8(0..16) {
            0..4 => self.replacement(),
            4..7 => self.relocation(&is_live),
            7..10 => self.exchange(&is_live),
            10..12 => Some(self.setting()),
            _ => None,
        };
        single.unwrap_or_else(|| self.group(&is_live))
    }

    /// A free and an allocation, in whichever order they come, become one replacement.
    fn replacement(&self) -> Option<Composition> {
        let &[one, other] = self.joinable(2) else { return None };
        let (free, alloc) = match (one.operation(), other.operation()) {
            (Operation::Free, Operation::Alloc) => (one, other),
            (Operation::Alloc, Operation::Free) => (other, one),
            _ => return None,
        };
        let parts = vec![Part::Step(free), Part::Step(alloc)];
        Some(Composition { kind: Kind::Replace, parts, steps: 2 })
    }

    fn relocation(&mut self, is_live: &impl Fn(BlockId) -> bool) -> Option<Composition> {
        let block = self.belonging(&[], is_live)?;
        Some(Composition { kind: Kind::Move, parts: vec![Part::Move(block)], steps: 0 })
    }

    fn exchange(&mut self, is_live: &impl Fn(BlockId) -> bool) -> Option<Composition> {
        let one = self.belonging(&[], is_live)?;
        let other = self.belonging(&[one], is_live)?;
        Some(Composition { kind: Kind::Swap, parts: vec![Part::Swap(one, other)], steps: 0 })
    }

    fn setting(&mut self) -> Composition {
        Composition { kind: Kind::Set, parts: vec![self.value()], steps: 0 }
    }

    fn group(&mut self, is_live: &impl Fn(BlockId) -> bool) -> Composition {
        let is_large = self.dice.u8(0..LARGE_ONE_IN) == 0;
        let most = if is_large { PUBLISH_MAX } else { self.dice.usize(1..=USUAL_MAX) };
        let joined = self.joinable(most);
        let mut taken: Vec<_> = joined.iter().map(|step| step.block()).collect();
        let mut parts: Vec<_> = joined.iter().copied().map(Part::Step).collect();
        let steps = parts.len();
        if steps < PUBLISH_MAX && self.dice.bool() {
            parts.push(self.value());
        }
        let on_top = if is_large { PUBLISH_MAX } else { self.dice.usize(0..=TOP_MAX) };
        for _ in 0..on_top.min(PUBLISH_MAX - parts.len()) {
            let Some(block) = self.belonging(&taken, is_live) else { break };
            taken.push(block);
            let other = if self.dice.bool() { self.belonging(&taken, is_live) } else { None };
            taken.extend(other);
            parts.push(other.map_or(Part::Move(block), |other| Part::Swap(block, other)));
        }
        self.dice.shuffle(&mut parts);
        Composition { kind: Kind::Publish, parts, steps }
    }

    fn value(&mut self) -> Part {
        Part::Set(self.dice.u64(0..=VersionedCell::VALUE_MAX))
    }

    /// The next steps, at most so many, that can be done as one.
    fn joinable(&self, most: usize) -> &[Step] {
        let rest = &self.program()[self.next..];
        let rest = &rest[..most.min(rest.len())];
        let end = (1..rest.len()).find(|&at| !self.joins(rest[at], &rest[..at]));
        &rest[..end.unwrap_or(rest.len())]
    }

    /// Whether `step` can be done together with those `before` it.
    ///
    /// A free that waits for another thread must not wait in an operation which allocates what that thread waits for:
    /// it can only be the first step, so that what is waited for comes before all of the operation in the trace.
    fn joins(&self, step: Step, before: &[Step]) -> bool {
        let is_new = before.iter().any(|other| other.block() == step.block());
        match step.operation() {
            Operation::Alloc => true,
            // What is not live yet can't be freed by the same publish.
            Operation::Free => self.plan.is_allocated_by(self.thread, step.block()) && !is_new,
        }
    }

    /// A live block, none of those `taken`, that no other thread ever touches.
    fn belonging(
        &mut self,
        taken: &[BlockId],
        is_live: impl Fn(BlockId) -> bool,
    ) -> Option<BlockId> {
        let behind = self.next.saturating_sub(RECENT)..self.next;
        if behind.is_empty() {
            return None;
        }
        let tried: [_; TRIES] = std::array::from_fn(|_| self.dice.usize(behind.clone()));
        let blocks = tried.into_iter().map(|at| self.program()[at].block());
        blocks.into_iter().find(|&block| {
            self.plan.is_of_one_thread(block) && !taken.contains(&block) && is_live(block)
        })
    }

    fn program(&self) -> &[Step] {
        &self.plan.programs[usize::from(self.thread)]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        replay::{BUNDLED, mix::Mix},
        trace::Trace,
    };

    const ALWAYS: Mix = Mix { percent: 100, seed: 1 };

    impl Part {
        fn blocks(self) -> Vec<BlockId> {
            match self {
                Self::Step(step) => vec![step.block()],
                Self::Move(block) => vec![block],
                Self::Swap(one, other) => vec![one, other],
                Self::Set(_) => Vec::new(),
            }
        }
    }

    /// What a thread of the bundled trace does, if it does nothing alone that it can do together.
    fn compositions(plan: &Plan, thread: u16) -> Vec<(usize, Composition)> {
        let program = &plan.programs[usize::from(thread)];
        let (mut next, mut live, mut all) = (0, BTreeSet::new(), Vec::new());
        while next < program.len() {
            let dice = ALWAYS.dice(thread, next as u64).expect("always");
            let composer = Composer { plan, thread, next, dice };
            let composition = composer.compose(|block| live.contains(&block));
            let steps = composition.steps.max(1);
            for step in &program[next..next + steps] {
                match step.operation() {
                    Operation::Alloc => live.insert(step.block()),
                    Operation::Free => live.remove(&step.block()),
                };
            }
            all.push((next, composition));
            next += steps;
        }
        all
    }

    #[test]
    fn a_composition_keeps_the_rules() {
        let plan = Plan::of(Trace::read(BUNDLED).expect("a trace"));
        let mut kinds = [0; Kind::COUNT];
        let mut largest = 0;
        for thread in 0..plan.threads() {
            let program = &plan.programs[usize::from(thread)];
            for (next, Composition { kind, parts, steps }) in compositions(&plan, thread) {
                kinds[kind.index()] += 1;
                assert!((1..=PUBLISH_MAX).contains(&parts.len()), "{parts:?}");
                largest = largest.max(parts.len());
                let blocks: Vec<_> = parts.iter().copied().flat_map(Part::blocks).collect();
                let distinct: BTreeSet<_> = blocks.iter().collect();
                assert_eq!(distinct.len(), blocks.len(), "a block is in one part: {parts:?}");
                let joined = &program[next..next + steps];
                for step in joined {
                    assert!(parts.contains(&Part::Step(*step)), "{step:?} is left out");
                }
                let foreign = joined.iter().skip(1).find(|step| {
                    step.operation() == Operation::Free
                        && !plan.is_allocated_by(thread, step.block())
                });
                assert_eq!(foreign, None, "only the first step may wait");
            }
        }
        assert_eq!(largest, PUBLISH_MAX);
        let [alloc, free, family @ ..] = kinds;
        assert_eq!((alloc, free), (0, 0));
        assert!(family.iter().all(|count| *count > 500), "{family:?}");
    }
}
