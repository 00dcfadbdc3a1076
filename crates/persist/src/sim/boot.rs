//! Post-crash contents that are not decided until something looks at them.
//!
//! After a crash each unit with stores that may or may not have become durable holds one of several prefixes.
//! The simulator keeps all of them. When a word is read, the prefixes that remain are grouped by its value;
//! one group is chosen, the others are for later runs. What is never read is never enumerated.

use core::sync::atomic::{AtomicU8, Ordering};
use std::sync::Arc;

use super::{
    memory::{Memory, WordAt},
    mix::mix,
    model::{Domain, Pending, Store, UnitAt},
};

/// A unit whose contents the crash left open.
#[derive(Debug)]
pub(super) struct Undecided {
    pub(super) unit: UnitAt,
    pub(super) stores: Vec<Store>,
    /// How many of the stores may have become durable, ascending, at the boot.
    pub(super) at_boot: Vec<usize>,
    /// Those that agree with what was read since.
    pub(super) left: Vec<usize>,
}

/// One choice among images: which group of prefixes a read found.
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
    /// For each unit the prefix to take.
    Fixed(Vec<usize>),
}

impl Plan {
    /// The prefix that the plan wants for the unit in `slot`.
    fn prefix(&self, slot: usize, choices: &[usize]) -> usize {
        let (oldest, newest) = (choices[0], choices[choices.len() - 1]);
        match self {
            Self::OnlyNewest(one) if *one == slot => newest,
            Self::OnlyOldest(one) if *one == slot => oldest,
            Self::Oldest | Self::OnlyNewest(_) => oldest,
            Self::Newest | Self::OnlyOldest(_) => newest,
            Self::Random(seed) => {
                let draw = mix(seed ^ mix(slot as u64)) % choices.len() as u64;
                choices[super::memory::to_index(draw)]
            }
            Self::Fixed(prefixes) => prefixes[slot],
        }
    }
}

/// All that a post-crash medium has not decided yet, and the choices of the present run.
#[derive(Debug)]
pub(super) struct Image {
    list: Vec<Undecided>,
    /// Per unit: index into `list` plus one, or zero if the unit is decided.
    slot_of: Vec<usize>,
    /// Per line: how many of its units are undecided. Read without the lock before each access.
    hot: Arc<[AtomicU8]>,
    narrowed: Vec<usize>,
    pub(super) decisions: Vec<Decision>,
    script: Vec<Decision>,
    plan: Plan,
    /// The run asked other questions than the script has answers to.
    pub(super) diverged: bool,
    groups: Vec<u64>,
    values: Vec<u64>,
}

impl Image {
    pub(super) fn new(unit_count: usize, hot: Arc<[AtomicU8]>) -> Self {
        Self {
            list: Vec::new(),
            slot_of: vec![0; unit_count],
            hot,
            narrowed: Vec::new(),
            decisions: Vec::new(),
            script: Vec::new(),
            plan: Plan::Oldest,
            diverged: false,
            groups: Vec::new(),
            values: Vec::new(),
        }
    }

    pub(super) fn units(&self) -> &[Undecided] {
        &self.list
    }

    /// The units that the run has looked at.
    pub(super) fn narrowed(&self) -> impl Iterator<Item = &Undecided> {
        self.narrowed.iter().map(|&slot| &self.list[slot])
    }

    pub(super) fn is_open(&self, unit: UnitAt) -> bool {
        self.slot_of[unit.0] != 0
    }

    /// The units that are still open now.
    pub(super) fn open(&self) -> impl Iterator<Item = &Undecided> {
        self.list.iter().filter(|undecided| self.is_open(undecided.unit))
    }

    /// Replaces the undecided units by what a crash would leave undecided of `pending` and of `older`.
    pub(super) fn boot(&mut self, domain: Domain, pending: &Pending, older: &Self) {
        self.clear(domain);
        for fifo in pending.iter() {
            self.add(domain, fifo.unit, &fifo.stores, (0..=fifo.stores.len()).collect());
        }
        for open in older.open() {
            self.add(domain, open.unit, &open.stores, open.left.clone());
        }
    }

    /// Starts a run: every unit is open again.
    pub(super) fn begin(&mut self, domain: Domain, script: Vec<Decision>, plan: Plan) {
        for slot in std::mem::take(&mut self.narrowed) {
            let undecided = &mut self.list[slot];
            undecided.left.clone_from(&undecided.at_boot);
            if self.slot_of[undecided.unit.0] == 0 {
                self.slot_of[undecided.unit.0] = slot + 1;
                let unit = undecided.unit;
                self.heat(domain, unit, 1);
            }
        }
        self.decisions.clear();
        self.script = script;
        self.plan = plan;
        self.diverged = false;
    }

    /// Forgets all open units: their contents are what `memory` holds.
    pub(super) fn clear(&mut self, domain: Domain) {
        for slot in 0..self.list.len() {
            let unit = self.list[slot].unit;
            if self.is_open(unit) {
                self.heat(domain, unit, -1);
            }
            self.slot_of[unit.0] = 0;
        }
        self.list.clear();
        self.narrowed.clear();
    }

    /// Decides what `word` holds.
    pub(super) fn decide_word(&mut self, domain: Domain, memory: &mut Memory, word: WordAt) {
        let unit = domain.unit_of(word);
        let Some(slot) = self.slot_of[unit.0].checked_sub(1) else { return };
        self.group(slot, memory.base(word), word);
        let group = if self.groups.len() == 1 { 0 } else { self.choose(slot, word) };
        let value = self.groups[group];
        let undecided = &mut self.list[slot];
        if self.groups.len() > 1 {
            if undecided.left.len() == undecided.at_boot.len() {
                self.narrowed.push(slot);
            }
            let mut values = self.values.iter();
            undecided.left.retain(|_| values.next() == Some(&value));
        }
        memory.adopt(word, value);
        if self.list[slot].left.len() == 1 {
            self.close(domain, memory, slot);
        }
    }

    /// Decides what every word of `unit` holds.
    pub(super) fn decide_unit(&mut self, domain: Domain, memory: &mut Memory, unit: UnitAt) {
        let Some(slot) = self.slot_of[unit.0].checked_sub(1) else { return };
        for store in 0..self.list[slot].stores.len() {
            let word = self.list[slot].stores[store].word;
            self.decide_word(domain, memory, word);
        }
        if self.is_open(unit) {
            self.close(domain, memory, slot);
        }
    }

    /// Decides everything.
    pub(super) fn decide_all(&mut self, domain: Domain, memory: &mut Memory) {
        for slot in 0..self.list.len() {
            self.decide_unit(domain, memory, self.list[slot].unit);
        }
    }

    fn add(&mut self, domain: Domain, unit: UnitAt, stores: &[Store], choices: Vec<usize>) {
        self.list.push(Undecided {
            unit,
            stores: stores.to_vec(),
            left: choices.clone(),
            at_boot: choices,
        });
        self.slot_of[unit.0] = self.list.len();
        self.heat(domain, unit, 1);
    }

    /// Finds the value of `word` under each remaining prefix, and the distinct ones among them.
    fn group(&mut self, slot: usize, base: u64, word: WordAt) {
        let undecided = &self.list[slot];
        self.groups.clear();
        self.values.clear();
        let (mut value, mut done) = (base, 0);
        for &prefix in &undecided.left {
            for store in &undecided.stores[done..prefix] {
                if store.word == word {
                    value = store.value;
                }
            }
            done = prefix;
            self.values.push(value);
            if !self.groups.contains(&value) {
                self.groups.push(value);
            }
        }
    }

    fn choose(&mut self, slot: usize, word: WordAt) -> usize {
        let group_count = self.groups.len();
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
        let wanted = self.plan.prefix(slot, &undecided.at_boot);
        let index = undecided.left.iter().position(|&prefix| prefix == wanted).unwrap_or(0);
        let value = self.values[index];
        self.groups.iter().position(|&group| group == value).expect("each value has its group")
    }

    /// Applies the one content that is left of the unit in `slot`.
    fn close(&mut self, domain: Domain, memory: &mut Memory, slot: usize) {
        let undecided = &self.list[slot];
        let unit = undecided.unit;
        for store in &undecided.stores[..undecided.left[0]] {
            let newer = &undecided.stores[..undecided.left[0]];
            let last = newer.iter().rev().find(|other| other.word == store.word);
            memory.adopt(store.word, last.expect("the store itself is there").value);
        }
        if undecided.left.len() == undecided.at_boot.len() {
            self.narrowed.push(slot);
        }
        self.slot_of[unit.0] = 0;
        self.heat(domain, unit, -1);
    }

    fn heat(&self, domain: Domain, unit: UnitAt, change: i8) {
        let line = match domain {
            Domain::Line64 => unit.0,
            Domain::Word8 | Domain::Eadr => WordAt(unit.0).line(),
        };
        let cell = &self.hot[line];
        // Relaxed: written under the medium's lock; a post-crash medium has one thread.
        let heat = cell.load(Ordering::Relaxed).wrapping_add_signed(change);
        cell.store(heat, Ordering::Relaxed);
    }
}
