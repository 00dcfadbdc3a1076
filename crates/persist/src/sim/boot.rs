//! Post-crash contents that are not decided until something looks at them.
//!
//! After a crash each unit with stores that may or may not have become durable has one of several contents.
//! The simulator keeps all of them. When a word is read, the contents that remain are grouped by its value, or
//! by its class if that is all that is asked; one group is chosen, the others are for later runs. What is never
//! read is never enumerated, and neither is what is overwritten unread.

use core::sync::atomic::{AtomicU8, Ordering};
use std::sync::Arc;

use super::{
    memory::{Memory, WordAt, to_index},
    mix::mix,
    model::{Domain, UnitAt},
    undecided::Undecided,
};

/// One choice among images: which group of contents a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) word: Option<WordAt>,
    pub(super) group: usize,
    /// How many groups there were; zero if that is not known (a decision read from text).
    pub(super) group_count: usize,
}

/// How a run chooses where its script ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// The oldest contents of every unit.
    Oldest,
    /// The newest contents of every unit.
    Newest,
    /// The newest contents of one unit, the oldest of all others.
    OnlyNewest(usize),
    /// The oldest contents of one unit, the newest of all others.
    OnlyOldest(usize),
    /// Pseudo-random contents.
    Random(u64),
    /// For each unit the index of the content to take.
    Fixed(Vec<usize>),
}

impl Plan {
    /// The index of the content that the plan wants for `undecided`, the unit in `slot`.
    fn content(&self, slot: usize, undecided: &Undecided) -> usize {
        let (oldest, newest) = (0, undecided.newest());
        match self {
            Self::OnlyNewest(one) if *one == slot => newest,
            Self::OnlyOldest(one) if *one == slot => oldest,
            Self::Oldest | Self::OnlyNewest(_) => oldest,
            Self::Newest | Self::OnlyOldest(_) => newest,
            Self::Random(seed) => {
                let draw = mix(seed ^ mix(slot as u64)) % undecided.content_count() as u64;
                to_index(draw)
            }
            Self::Fixed(contents) => contents[slot],
        }
    }
}

/// All that a post-crash medium has not decided yet, and the choices of the present run.
#[derive(Debug)]
pub(super) struct Image {
    domain: Domain,
    list: Vec<Undecided>,
    /// Per unit: index into `list` plus one, or zero if the unit is decided.
    slot_of: Vec<usize>,
    /// Per line: how many of its units are undecided. Read without the lock before each access.
    hot: Arc<[AtomicU8]>,
    /// The units that the run has narrowed or written to.
    touched: Vec<usize>,
    pub(super) decisions: Vec<Decision>,
    script: Vec<Decision>,
    plan: Plan,
    /// The run asked other questions than the script has answers to.
    pub(super) diverged: bool,
    /// Per content that is left: the class of the word that is being read.
    classes: Vec<usize>,
}

impl Image {
    pub(super) fn new(domain: Domain, unit_count: usize, hot: Arc<[AtomicU8]>) -> Self {
        Self {
            domain,
            list: Vec::new(),
            slot_of: vec![0; unit_count],
            hot,
            touched: Vec::new(),
            decisions: Vec::new(),
            script: Vec::new(),
            plan: Plan::Oldest,
            diverged: false,
            classes: Vec::new(),
        }
    }

    pub(super) fn units(&self) -> &[Undecided] {
        &self.list
    }

    /// The units of which the run has told contents apart.
    pub(super) fn narrowed(&self) -> impl Iterator<Item = &Undecided> {
        let touched = self.touched.iter().map(|&slot| &self.list[slot]);
        touched.filter(|undecided| undecided.left_count() < undecided.content_count())
    }

    /// The unit that holds `word`, if it is open.
    pub(super) fn open_at(&self, unit: UnitAt) -> Option<&Undecided> {
        self.slot(unit).map(|slot| &self.list[slot])
    }

    /// The units that are still open now.
    pub(super) fn open(&self) -> impl Iterator<Item = &Undecided> {
        self.list.iter().filter(|undecided| self.slot_of[undecided.unit.0] != 0)
    }

    /// Whether a crash left open what `word` holds, and nothing has decided it since.
    pub(super) fn is_open(&self, word: WordAt) -> bool {
        self.open_at(self.domain.unit_of(word)).is_some_and(|undecided| undecided.is_open(word))
    }

    /// Replaces the undecided units by `undecided`.
    pub(super) fn boot(&mut self, undecided: impl Iterator<Item = Undecided>) {
        self.clear();
        for undecided in undecided {
            let unit = undecided.unit;
            self.list.push(undecided);
            self.open_slot(unit, self.list.len() - 1);
        }
    }

    /// Starts a run: every unit is open again.
    pub(super) fn begin(&mut self, script: Vec<Decision>, plan: Plan) {
        let mut touched = std::mem::take(&mut self.touched);
        for slot in touched.drain(..) {
            self.list[slot].reset();
            let unit = self.list[slot].unit;
            if self.slot_of[unit.0] == 0 {
                self.open_slot(unit, slot);
            }
        }
        self.touched = touched;
        self.decisions.clear();
        self.script = script;
        self.plan = plan;
        self.diverged = false;
    }

    /// Forgets all open units: their contents are what `memory` holds.
    pub(super) fn clear(&mut self) {
        for slot in 0..self.list.len() {
            let unit = self.list[slot].unit;
            if self.slot_of[unit.0] != 0 {
                self.close_slot(unit);
            }
        }
        self.list.clear();
        self.touched.clear();
    }

    /// Decides in which of the classes that `class_of` puts values in the value of `word` is. Returns a value
    /// of that class, or `None` if memory has the only one.
    ///
    /// `class_of` numbers the classes in the order in which it meets them.
    pub(super) fn decide(
        &mut self,
        memory: &mut Memory,
        word: WordAt,
        class_of: &mut dyn FnMut(u64) -> usize,
    ) -> Option<u64> {
        let slot = self.slot(self.domain.unit_of(word))?;
        if self.list[slot].is_in_memory(word) {
            return None;
        }
        self.classes.clear();
        self.classes.extend(self.list[slot].values(word).map(class_of));
        let count = self.classes.iter().max().map_or(0, |last| last + 1);
        if count > 1 {
            let chosen = self.choose(slot, word, count);
            self.narrow(memory, slot, chosen);
        }
        self.list[slot].values(word).next()
    }

    /// Decides what `word` holds.
    pub(super) fn decide_word(&mut self, memory: &mut Memory, word: WordAt) {
        let mut values = Vec::new();
        self.decide(memory, word, &mut |value| number(&mut values, value));
    }

    /// Decides everything.
    pub(super) fn decide_all(&mut self, memory: &mut Memory) {
        for slot in 0..self.list.len() {
            for word in self.list[slot].words().to_vec() {
                self.decide_word(memory, word);
            }
        }
    }

    /// Notes that the run stores to `word`: whatever the crash left there is gone for whoever reads it.
    pub(super) fn write(&mut self, word: WordAt) {
        if let Some(slot) = self.slot(self.domain.unit_of(word)) {
            self.touch(slot);
            self.list[slot].set_written(word);
        }
    }

    /// Notes that such a store is durable: whatever the crash left in `word` is gone for good.
    pub(super) fn guarantee(&mut self, word: WordAt) {
        if let Some(slot) = self.slot(self.domain.unit_of(word)) {
            self.list[slot].set_durable(word);
        }
    }

    fn slot(&self, unit: UnitAt) -> Option<usize> {
        self.slot_of[unit.0].checked_sub(1)
    }

    fn touch(&mut self, slot: usize) {
        if self.list[slot].is_untouched() {
            self.touched.push(slot);
        }
    }

    /// Keeps the contents of the unit in `slot` whose class is `chosen`.
    fn narrow(&mut self, memory: &mut Memory, slot: usize, chosen: usize) {
        self.touch(slot);
        let undecided = &mut self.list[slot];
        let mut classes = self.classes.iter();
        undecided.narrow(|| classes.next() == Some(&chosen));
        undecided.adopt(memory);
        if undecided.left_count() == 1 {
            let unit = undecided.unit;
            self.close_slot(unit);
        }
    }

    fn choose(&mut self, slot: usize, word: WordAt, group_count: usize) -> usize {
        let group = match self.script.get(self.decisions.len()) {
            Some(planned) => {
                let same = planned.group < group_count
                    && (planned.group_count == 0
                        || (planned.group_count, planned.word) == (group_count, Some(word)));
                self.diverged |= !same;
                if same { planned.group } else { 0 }
            }
            None => self.planned(slot),
        };
        self.decisions.push(Decision { word: Some(word), group, group_count });
        group
    }

    fn planned(&self, slot: usize) -> usize {
        let undecided = &self.list[slot];
        let wanted = undecided.position(self.plan.content(slot, undecided));
        self.classes[wanted.unwrap_or(0)]
    }

    fn open_slot(&mut self, unit: UnitAt, slot: usize) {
        self.slot_of[unit.0] = slot + 1;
        self.heat(slot, 1);
    }

    fn close_slot(&mut self, unit: UnitAt) {
        let slot = std::mem::take(&mut self.slot_of[unit.0]) - 1;
        self.heat(slot, -1);
    }

    /// Counts the unit in `slot` in or out at every line that it has open words in.
    fn heat(&self, slot: usize, change: i8) {
        let lines = self.list[slot].words().chunk_by(|a, b| a.line() == b.line());
        for line in lines {
            let cell = &self.hot[line[0].line()];
            // Relaxed: written under the medium's lock; a post-crash medium has one thread.
            let heat = cell.load(Ordering::Relaxed).wrapping_add_signed(change);
            cell.store(heat, Ordering::Relaxed);
        }
    }
}

/// The number of `class` among `known`, to which it is added if it is new.
pub(super) fn number<C: PartialEq>(known: &mut Vec<C>, class: C) -> usize {
    known.iter().position(|other| *other == class).unwrap_or_else(|| {
        known.push(class);
        known.len() - 1
    })
}
