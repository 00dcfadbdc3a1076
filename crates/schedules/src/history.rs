//! What was called and what returned, and whether a state can be explained by it.
//!
//! A state is explained if the operations can be put in one order that agrees with real time, gives every
//! operation that returned the result it returned, and ends in the state. Operations in flight may take part
//! or not, each as a whole: that is durable linearizability (Izraelevitz, Mendes and Scott, DISC 2016).

use std::collections::BTreeMap;

use crate::{
    nodes::{INSIDE, NODES},
    scenario::{Act, CELLS, Op, Place, content_of},
};

/// What a slot was seen to own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seen {
    /// Nothing.
    Empty,
    /// A block with the contents that the operation of this identity wrote, whole.
    Contents(u64),
    /// A block with other contents.
    Other,
}

/// What an operation returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it is there for.
    Done,
    /// The slot owned a block already.
    SlotFull,
    /// The slot owned nothing.
    SlotEmpty,
    /// There was no room.
    NoRoom,
    /// The slot in the block to be freed was full.
    ChildrenAlive,
    /// The block with the slot was not there, or freed meanwhile.
    ParentGone,
    /// It read this.
    Saw(Seen),
}

/// An operation that was called.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Names the operation; never zero.
    pub id: u64,
    /// What was asked for.
    pub op: Op,
    /// When it was called: a count of all calls and returns.
    pub called: u64,
    /// When it returned and with what, if it did.
    pub returned: Option<(u64, Outcome)>,
}

/// The calls so far.
#[derive(Debug, Clone, Default)]
pub struct History {
    calls: Vec<Call>,
    clock: u64,
}

impl History {
    /// Notes a call.
    pub fn call(&mut self, id: u64, op: Op) {
        self.clock += 1;
        self.calls.push(Call { id, op, called: self.clock, returned: None });
    }

    /// Notes the return of the call `id`.
    ///
    /// # Panics
    ///
    /// If there is no such call in flight.
    pub fn returned(&mut self, id: u64, outcome: Outcome) {
        self.clock += 1;
        let call = self.calls.iter_mut().find(|call| call.id == id).expect("it was called");
        assert!(call.returned.is_none(), "a call returns once");
        call.returned = Some((self.clock, outcome));
    }

    /// All calls in the order in which they were made.
    #[must_use]
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// This history without the returns that `earlier`, a prefix of it, does not know.
    #[must_use]
    pub fn with_returns_of(mut self, earlier: &Self) -> Self {
        for (at, call) in self.calls.iter_mut().enumerate() {
            call.returned = earlier.calls.get(at).and_then(|call| call.returned);
        }
        self
    }

    /// How many calls have not returned.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.calls.iter().filter(|call| call.returned.is_none()).count()
    }

    /// Whether `found` can be explained, starting from `start`.
    #[must_use]
    pub fn explains(&self, start: &Contents, found: &Observed) -> bool {
        let mut search =
            Search { calls: &self.calls, found, placed: vec![false; self.calls.len()] };
        search.reaches(start)
    }
}

/// What a slot owns in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// The contents that the operation wrote.
    Filled(u64),
    /// Whatever was there.
    Bare,
}

impl Block {
    fn looks_like(self, seen: Seen) -> bool {
        match self {
            Self::Filled(id) => seen == Seen::Contents(id),
            Self::Bare => seen != Seen::Empty,
        }
    }
}

/// The abstract state of a heap: which root arrays exist and what their slots own.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    roots: Vec<&'static str>,
    blocks: BTreeMap<Place, Block>,
    cells: [u64; CELLS],
}

impl Contents {
    /// A heap with the root array `root`, nothing in it, and cells that hold zero.
    #[must_use]
    pub fn of_root(root: &'static str) -> Self {
        Self { roots: vec![root], ..Self::default() }
    }

    /// Does `op` and returns what it returns, if it finds room; a read sees what its block is bound to show.
    pub fn apply(&mut self, id: u64, op: Op) -> Outcome {
        match op {
            Op::Alloc(place, _) => self.fill(place, Block::Bare),
            Op::Fill(place, _) => self.fill(place, Block::Filled(id)),
            Op::Free(place) => self.free(place),
            Op::Replace(place, _) => match self.free(place) {
                Outcome::Done => self.fill(place, Block::Filled(id)),
                refused => refused,
            },
            Op::Move(from, to) => self.relocate(from, to),
            Op::Swap(a, b) => self.swap(a, b),
            Op::Set(at, value) => {
                self.cells[at] = value;
                Outcome::Done
            }
            Op::Publish(acts) => self.publish(id, acts),
            Op::Read(place, _) => Outcome::Saw(match self.blocks.get(&place) {
                None => Seen::Empty,
                Some(Block::Filled(id)) => Seen::Contents(*id),
                Some(Block::Bare) => Seen::Other,
            }),
            Op::Root(name) => {
                if !self.roots.contains(&name) {
                    self.roots.push(name);
                }
                Outcome::Done
            }
            Op::MakeNode(at) => self.fill((NODES, at), Block::Filled(id)),
            Op::FreeNode(at) => match self.blocks.contains_key(&(INSIDE, at)) {
                true => Outcome::ChildrenAlive,
                false => self.free((NODES, at)),
            },
            Op::ReplaceNode(at) => match self.apply(id, Op::FreeNode(at)) {
                Outcome::Done => self.fill((NODES, at), Block::Filled(id)),
                refused => refused,
            },
            Op::FillInside(at, _) if self.blocks.contains_key(&(NODES, at)) => {
                self.fill((INSIDE, at), Block::Filled(id))
            }
            Op::FreeInside(at) if self.blocks.contains_key(&(NODES, at)) => self.free((INSIDE, at)),
            Op::FillInside(..) | Op::FreeInside(_) => Outcome::ParentGone,
            // What blocks hold that were allocated bare is not looked at.
            Op::SetInside(..) | Op::Trim | Op::Sync | Op::Reserve(_) => Outcome::Done,
        }
    }

    /// Does all of `acts`, or nothing and returns what the first that can't be done returns.
    fn publish(&mut self, id: u64, acts: &[Act]) -> Outcome {
        let mut next = self.clone();
        for (nth, act) in acts.iter().enumerate() {
            let outcome = match *act {
                Act::Fill(place, _) => next.fill(place, Block::Filled(content_of(id, nth))),
                Act::Free(place) => next.free(place),
                Act::Move(from, to) => next.relocate(from, to),
                Act::Swap(a, b) => next.swap(a, b),
                Act::Set(at, value) => {
                    next.cells[at] = value;
                    Outcome::Done
                }
            };
            if outcome != Outcome::Done {
                return outcome;
            }
        }
        *self = next;
        Outcome::Done
    }

    fn free(&mut self, place: Place) -> Outcome {
        if self.blocks.remove(&place).is_some() { Outcome::Done } else { Outcome::SlotEmpty }
    }

    fn relocate(&mut self, from: Place, to: Place) -> Outcome {
        let Some(block) = self.blocks.get(&from).copied() else { return Outcome::SlotEmpty };
        if self.blocks.contains_key(&to) {
            return Outcome::SlotFull;
        }
        self.blocks.remove(&from);
        self.fill(to, block)
    }

    fn swap(&mut self, a: Place, b: Place) -> Outcome {
        let (of_a, of_b) = (self.blocks.remove(&a), self.blocks.remove(&b));
        self.blocks.extend(of_b.map(|block| (a, block)));
        self.blocks.extend(of_a.map(|block| (b, block)));
        Outcome::Done
    }

    fn fill(&mut self, place: Place, block: Block) -> Outcome {
        if self.blocks.contains_key(&place) {
            return Outcome::SlotFull;
        }
        self.blocks.insert(place, block);
        Outcome::Done
    }

    /// Whether the call may return `outcome` here, and the state after it.
    fn after(&self, call: &Call, outcome: Outcome) -> Option<Self> {
        let mut next = self.clone();
        let expected = next.apply(call.id, call.op);
        match (outcome, call.op) {
            // What another thread holds back for a moment counts as used; and the block that was found may have been freed,
            // so that another is there by now.
            (Outcome::ParentGone, Op::FillInside(..) | Op::FreeInside(_))
            | (
                Outcome::NoRoom,
                Op::Alloc(..)
                | Op::Fill(..)
                | Op::Free(_)
                | Op::Replace(..)
                | Op::Publish(_)
                | Op::Reserve(_)
                | Op::MakeNode(_)
                | Op::ReplaceNode(_)
                | Op::FreeNode(_)
                | Op::FillInside(..)
                | Op::Root(_),
            ) => Some(self.clone()),
            (Outcome::Saw(seen), Op::Read(place, _)) => {
                let block = self.blocks.get(&place);
                let agrees = block.map_or(seen == Seen::Empty, |block| block.looks_like(seen));
                agrees.then_some(next)
            }
            _ => (outcome == expected).then_some(next),
        }
    }

    fn looks_like(&self, found: &Observed) -> bool {
        let same_roots = self.roots.len() == found.roots.len()
            && self.roots.iter().all(|root| found.roots.contains(root));
        same_roots
            && self.cells == found.cells
            && found.slots.iter().all(|(place, &seen)| {
                let block = self.blocks.get(place);
                block.map_or(seen == Seen::Empty, |block| block.looks_like(seen))
            })
            && self.blocks.keys().all(|place| found.slots.contains_key(place))
    }
}

/// What was found in a heap after recovery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Observed {
    /// The root arrays that exist.
    pub roots: Vec<&'static str>,
    /// What each of their slots owns.
    pub slots: BTreeMap<Place, Seen>,
    /// What each cell holds.
    pub cells: [u64; CELLS],
}

/// Depth first over all orders (Wing and Gong, 1993).
struct Search<'a> {
    calls: &'a [Call],
    found: &'a Observed,
    placed: Vec<bool>,
}

impl Search<'_> {
    fn reaches(&mut self, state: &Contents) -> bool {
        let is_complete = self.open().all(|(_, call)| call.returned.is_none());
        if is_complete && state.looks_like(self.found) {
            return true;
        }
        // A call may come next only if no other one returned before it was called.
        let horizon = self.open().filter_map(|(_, call)| call.returned).map(|(at, _)| at).min();
        for at in 0..self.calls.len() {
            let call = &self.calls[at];
            if self.placed[at] || horizon.is_some_and(|horizon| call.called > horizon) {
                continue;
            }
            let next = match call.returned {
                Some((_, outcome)) => state.after(call, outcome),
                None => {
                    let mut next = state.clone();
                    next.apply(call.id, call.op);
                    Some(next)
                }
            };
            if let Some(next) = next {
                self.placed[at] = true;
                let reached = self.reaches(&next);
                self.placed[at] = false;
                if reached {
                    return true;
                }
            }
        }
        false
    }

    fn open(&self) -> impl Iterator<Item = (usize, &Call)> {
        self.calls.iter().enumerate().filter(|(at, _)| !self.placed[*at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{SLOTS, SMALL};

    const A: Place = (SLOTS, 0);

    fn found(seen: Seen) -> Observed {
        Observed { roots: vec![SLOTS], slots: BTreeMap::from([(A, seen)]), cells: [0; CELLS] }
    }

    fn start() -> Contents {
        Contents::of_root(SLOTS)
    }

    #[test]
    fn what_returned_must_be_there_and_what_is_in_flight_may_be() {
        let mut history = History::default();
        history.call(1, Op::Fill(A, SMALL));
        assert!(history.explains(&start(), &found(Seen::Empty)));
        assert!(history.explains(&start(), &found(Seen::Contents(1))));
        assert!(!history.explains(&start(), &found(Seen::Other)), "torn contents");
        history.returned(1, Outcome::Done);
        assert!(!history.explains(&start(), &found(Seen::Empty)), "a lost operation");
        assert!(history.explains(&start(), &found(Seen::Contents(1))));
    }

    #[test]
    fn the_order_of_calls_and_returns_counts() {
        let mut history = History::default();
        history.call(1, Op::Fill(A, SMALL));
        history.call(2, Op::Free(A));
        history.returned(2, Outcome::SlotEmpty);
        history.returned(1, Outcome::Done);
        assert!(history.explains(&start(), &found(Seen::Contents(1))));
        assert!(!history.explains(&start(), &found(Seen::Empty)), "the free failed");
        history.call(3, Op::Free(A));
        history.returned(3, Outcome::SlotEmpty);
        assert!(
            !history.explains(&start(), &found(Seen::Contents(1))),
            "the slot was full by then"
        );
    }

    #[test]
    fn a_read_makes_what_it_saw_durable() {
        let mut history = History::default();
        history.call(1, Op::Fill(A, SMALL));
        history.call(2, Op::Read(A, 0));
        history.returned(2, Outcome::Saw(Seen::Contents(1)));
        assert!(history.explains(&start(), &found(Seen::Contents(1))));
        assert!(!history.explains(&start(), &found(Seen::Empty)));
    }

    #[test]
    fn a_publish_is_there_wholly_or_not_at_all() {
        let mut history = History::default();
        history.call(1, Op::Publish(&[Act::Set(0, 7), Act::Fill(A, SMALL), Act::Set(1, 8)]));
        let seen = |cells, seen| Observed { cells, ..found(seen) };
        let written = Seen::Contents(content_of(1, 1));
        assert!(history.explains(&start(), &seen([0, 0], Seen::Empty)));
        assert!(history.explains(&start(), &seen([7, 8], written)));
        assert!(!history.explains(&start(), &seen([7, 0], written)));
        assert!(!history.explains(&start(), &seen([7, 8], Seen::Empty)));
        assert!(!history.explains(&start(), &seen([0, 0], written)));
    }

    #[test]
    fn a_root_exists_or_not() {
        let mut history = History::default();
        history.call(1, Op::Root("other"));
        history.returned(1, Outcome::Done);
        assert!(!history.explains(&start(), &found(Seen::Empty)));
        let mut both = found(Seen::Empty);
        both.roots.push("other");
        assert!(history.explains(&start(), &both));
    }
}
