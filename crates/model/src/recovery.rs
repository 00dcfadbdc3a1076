//! Recovery: from an image to one that may be served, in phases with a fence behind each.
//!
//! Redo the live records (allocations, then frees; logs against the replayed state; slots by version), fence;
//! Batched: D := D + 2, fence; zero the rings, fence. A crash in a phase keeps any part of its stores.

use crate::{
    book::{Mirror, Pool},
    layout::{Slot, Word},
    memory::Image,
    packed::{Booked, Change, Effect, Entry, Extent, Record, SlotValue},
    rule::Break,
    scenario::Policy,
    world::{Model, small},
};

/// Stores before a fence.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    /// In order. A crash keeps any of them; one unit is kept or lost as a whole.
    units: Vec<Vec<(Word, u32)>>,
    /// Stores of which no recovery can tell whether they were kept.
    rest: Vec<(Word, u32)>,
}

impl Phase {
    fn of(stores: impl IntoIterator<Item = (Word, u32)>) -> Self {
        Self { units: stores.into_iter().map(|store| vec![store]).collect(), rest: Vec::new() }
    }

    /// All images that a crash before its fence may leave, of one that was durable before it.
    pub(crate) fn cuts(&self, before: &Image) -> impl Iterator<Item = Image> {
        let changes =
            |unit: &&Vec<(Word, u32)>| unit.iter().any(|(word, value)| before.get(*word) != *value);
        let units: Vec<_> = self.units.iter().filter(changes).collect();
        assert!(units.len() < 16, "a phase has too many stores to try all subsets");
        (0_u32..1 << units.len()).map(move |kept| {
            let mut cut = before.clone();
            let kept = units.iter().enumerate().filter(|(nth, _)| kept & 1 << nth != 0);
            kept.flat_map(|(_, unit)| *unit).for_each(|(word, value)| cut.set(*word, *value));
            cut
        })
    }

    /// The image behind its fence.
    pub(crate) fn finish(&self, image: &mut Image) {
        for (word, value) in self.units.iter().flatten().chain(&self.rest) {
            image.set(*word, *value);
        }
    }
}

/// What a recovery stores.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) phases: Vec<Phase>,
    /// The image that is served.
    pub(crate) image: Image,
}

/// A live record, and its lane.
#[derive(Debug, Clone, Copy)]
struct Live {
    lane: usize,
    record: Record,
}

impl Model<'_> {
    /// Recovers an image; an error is what a heap would call corrupted.
    pub(crate) fn recover(&self, image: &Image, policy: Policy) -> Result<Recovery, String> {
        let logs = self.replay(image)?;
        let live = self.live(image, policy)?;
        self.check(&logs, &live)?;
        let mut pool = Pool::new(0, self.layout.shape().chunks);
        for chunk in logs.iter().flat_map(|log| &log.chunks) {
            pool.take_exact(chunk.index);
        }
        let mut redo = Redo {
            model: self,
            image: image.clone(),
            logs,
            pool,
            phases: Vec::new(),
            effects: Vec::new(),
        };
        let slots_of = redo.redo_blocks(&live)?;
        redo.redo_slots(&slots_of);
        Ok(redo.finish(policy))
    }

    /// The record in a ring place, if it is valid.
    pub(crate) fn record_at(&self, image: &Image, lane: usize, place: usize) -> Option<Record> {
        let words = self.layout.record(lane, place).map(|word| image.get(word));
        if self.breaks(Break::NoTags) {
            return Record::decode_unchecked(words);
        }
        Record::decode(words)
    }

    /// All records that count.
    fn live(&self, image: &Image, policy: Policy) -> Result<Vec<Live>, String> {
        let durable = image.get(self.layout.durable());
        let mut live = Vec::new();
        for lane in 0..self.layout.shape().lanes {
            for place in 0..self.layout.shape().ring {
                let Some(record) = self.record_at(image, lane, place) else { continue };
                if self.is_live(image, policy, lane, record) && self.is_whole(image, lane, place) {
                    if policy == Policy::Batched && u32::from(record.number) > durable + 2 {
                        return Err(format!(
                            "a record of epoch {} with D = {durable}",
                            record.number
                        ));
                    }
                    live.push(Live { lane, record });
                }
            }
        }
        Ok(live)
    }

    fn is_live(&self, image: &Image, policy: Policy, lane: usize, record: Record) -> bool {
        let number = u32::from(record.number);
        match policy {
            Policy::Batched => number > image.get(self.layout.durable()),
            Policy::Eager => {
                let mut marks = 0..self.layout.shape().marks;
                marks.all(|nth| image.get(self.layout.mark(lane, nth)) < number)
            }
        }
    }

    /// Whether all records of the group are there.
    fn is_whole(&self, image: &Image, lane: usize, place: usize) -> bool {
        let Some(record) = self.record_at(image, lane, place) else { return false };
        if self.breaks(Break::GroupOneByOne) {
            return true;
        }
        let ring = self.layout.shape().ring;
        let first = place + ring - usize::from(record.nth) % ring;
        let mut group = (0..record.of).map(|nth| {
            let other = self.record_at(image, lane, (first + usize::from(nth)) % ring);
            other.is_some_and(|other| {
                let is_next = other.tag.wrapping_sub(nth) == record.tag.wrapping_sub(record.nth);
                (other.nth, other.of, other.number) == (nth, record.of, record.number) && is_next
            })
        });
        group.all(|is_there| is_there)
    }

    /// Refuses records whose blocks can't exist.
    fn check(&self, logs: &[Mirror], live: &[Live]) -> Result<(), String> {
        let has_slab = logs.iter().any(|log| log.holds(Extent::Slab));
        for Change { block, .. } in live.iter().map(|live| live.record.change) {
            let Some(block) = block else { continue };
            if self.is_in_slab(block) && !has_slab {
                return Err(format!("a live record names {block:?}, whose slab is not there"));
            }
            let is_under_slab = self.layout.shape().slab && block == crate::layout::Block::Y;
            if is_under_slab && has_slab {
                return Err("a live record names Y, where the slab is".to_owned());
            }
        }
        Ok(())
    }
}

/// A recovery at work.
struct Redo<'a> {
    model: &'a Model<'a>,
    image: Image,
    logs: Vec<Mirror>,
    pool: Pool,
    phases: Vec<Phase>,
    effects: Vec<(Word, u32)>,
}

impl Redo<'_> {
    /// Redoes bits and entries, and says which changes are left for the slots.
    fn redo_blocks(&mut self, live: &[Live]) -> Result<Vec<Change>, String> {
        let ignored = self.model.ignored(&self.image, &self.logs);
        self.effects.extend(ignored.into_iter().map(|word| (word, 0)));
        let mut order = [Effect::Alloc, Effect::Free];
        if self.model.breaks(Break::FreesFirst) {
            order.reverse();
        }
        let mut skipped = Vec::new();
        for effect in order {
            for live in live.iter().filter(|live| live.record.change.effect == effect) {
                if !self.redo_block(live)? && self.model.breaks(Break::RecordSkipped) {
                    skipped.push(live.record.change);
                }
            }
        }
        let changes = live.iter().map(|live| live.record.change);
        Ok(changes.filter(|change| !skipped.contains(change)).collect())
    }

    /// Redoes the bit or the entry of a record; says whether a log lacked the entry.
    fn redo_block(&mut self, live: &Live) -> Result<bool, String> {
        let Change { effect, block, .. } = live.record.change;
        let Some(block) = block else { return Ok(true) };
        if !self.model.is_large(block) {
            let bit = u32::from(effect == Effect::Alloc);
            self.effects.push((self.model.layout.bit(block), bit));
            return Ok(true);
        }
        let extent = Extent::Large(block);
        let own = live.lane % self.logs.len();
        let holder = self.logs.iter().position(|log| log.holds(extent));
        let (booked, log) = match (effect, holder) {
            (Effect::Alloc, _) => (Booked::Alloc, own),
            _ if self.model.breaks(Break::FreeInOwnLog) => (Booked::Free, own),
            (_, holder) => (Booked::Free, holder.unwrap_or(own)),
        };
        let is_there = if self.model.breaks(Break::LikeEntryExists) {
            let mut entries = self.model.entries(&self.image, &self.logs);
            entries.any(|(_, entry)| entry.booked == booked && entry.extent == extent)
        } else {
            holder.is_some() == (effect == Effect::Alloc)
        };
        if is_there {
            return Ok(false);
        }
        self.append(booked, extent, log)?;
        Ok(true)
    }

    fn append(&mut self, booked: Booked, extent: Extent, log: usize) -> Result<(), String> {
        if self.logs[log].room(self.model.layout.shape().entries).is_none() {
            self.extend(log)?;
        }
        let code = u8::try_from(log).expect("there are few logs");
        let place = self.logs[log].take(code, booked, extent);
        self.logs[log].land(&place);
        let entry = Entry { booked, extent, sequence: place.sequence, epoch: 0 };
        let words = self.model.layout.entry(place.chunk.into(), place.nth.into());
        self.effects.extend(words.into_iter().zip(entry.encode()));
        Ok(())
    }

    /// Appends a chunk to a full log: makes it, then links it.
    fn extend(&mut self, log: usize) -> Result<(), String> {
        let layout = &self.model.layout;
        let chunk =
            self.pool.take().ok_or("the scenario is too small: recovery finds no free chunk")?;
        let base = self.logs[log].next;
        let at = usize::from(chunk);
        let places = (0..layout.shape().entries).flat_map(|nth| layout.entry(at, nth));
        let zeros = places.chain([layout.link(at)]).map(|word| (word, 0));
        let stores: Vec<(Word, u32)> = zeros.chain([(layout.base(at), base.into())]).collect();
        let tail = self.logs[log].chunks.last().expect("a log has a chunk").index;
        let link = (layout.link(tail.into()), small(at) + 1);
        self.push_phase(stores);
        self.push_phase([link]);
        self.logs[log].extend(chunk, base);
        Ok(())
    }

    /// Lets the newest version of each slot win.
    fn redo_slots(&mut self, changes: &[Change]) {
        for slot in Slot::ALL {
            let word = self.model.layout.slot(slot);
            let mut value = SlotValue::decode(self.image.get(word));
            let mut is_redone = false;
            for change in changes.iter().filter(|change| change.slot == slot) {
                // The version that is there already is stored and flushed again: it may be in a cache only.
                let is_older = value.version.is_newer_than(change.version);
                if !is_older || self.model.breaks(Break::NoVersions) {
                    value = change.value();
                    is_redone = true;
                }
            }
            if is_redone {
                self.effects.push((word, value.encode()));
            }
        }
    }

    fn push_phase(&mut self, stores: impl IntoIterator<Item = (Word, u32)>) {
        let phase = Phase::of(stores);
        phase.finish(&mut self.image);
        self.phases.push(phase);
    }

    fn finish(mut self, policy: Policy) -> Recovery {
        let effects = std::mem::take(&mut self.effects);
        let model = self.model;
        if model.breaks(Break::ZeroWithEffects) {
            let zeros: Vec<(Word, u32)> = self.zeros().collect();
            self.push_phase(effects.into_iter().chain(zeros));
        } else {
            self.push_phase(effects);
        }
        if model.breaks(Break::ZeroBeforeDurable) {
            self.zero_rings(policy);
        }
        if policy == Policy::Batched {
            let durable = self.durable_behind();
            self.push_phase([durable]);
        }
        if !model.breaks(Break::RingsKept) {
            self.zero_rings(policy);
        }
        Recovery { phases: self.phases, image: self.image }
    }

    /// D jumps past the whole window, whatever was found.
    fn durable_behind(&self) -> (Word, u32) {
        let word = self.model.layout.durable();
        let durable = self.image.get(word);
        let value = if self.model.breaks(Break::DurableKept) { durable } else { durable + 2 };
        (word, value)
    }

    fn zeros(&self) -> impl Iterator<Item = (Word, u32)> + use<'_> {
        self.model.layout.ring_words().map(|word| (word, 0))
    }

    /// Zeroes the rings. Of a record that is not live no recovery can tell which of its words are zero, as the
    /// rings are zeroed before the next run; and a live one is as dead without one word as without both.
    fn zero_rings(&mut self, policy: Policy) {
        let model = self.model;
        let mut phase = Phase { units: Vec::new(), rest: self.zeros().collect() };
        let shape = model.layout.shape();
        for (lane, place) in (0..shape.lanes).flat_map(|l| (0..shape.ring).map(move |p| (l, p))) {
            let record = model.record_at(&self.image, lane, place);
            if record.is_some_and(|record| model.is_live(&self.image, policy, lane, record)) {
                phase.units.push(model.layout.record(lane, place).map(|word| (word, 0)).to_vec());
            }
        }
        if model.breaks(Break::MarksReset) {
            phase.units.extend(model.layout.mark_words().map(|word| vec![(word, 0)]));
        }
        phase.finish(&mut self.image);
        self.phases.push(phase);
    }
}
