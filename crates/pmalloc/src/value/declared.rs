//! Where a program has slots, as it says it: runs of slots in roots and blocks of bytes, and in the types of values.
//!
//! Volatile: what is kept of it is in `layout::declared`.

use pmalloc_persist::Word;

use super::{
    persistent::{TypeGraph, TypeNode},
    slot_map::SlotMap,
};
use crate::{
    error::{Error, Result},
    layout::{
        declared::{Certainty, Run, TO_THE_END, TypeSlots},
        geometry::HEAP_MAX_BYTES,
    },
};

/// Bytes of a slot.
const SLOT_BYTES: u64 = size_of::<Word>() as u64;

/// Most runs of one type that are kept: beyond that, a type's slots count as not known.
const RUNS_MAX: usize = 4096;

/// Of what the slots are declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SlotScope {
    /// Of all roots of bytes with this type number.
    RootType(u64),
    /// Of all blocks of bytes with this tag. Blocks that are known by the type of the slot that owns them are not meant.
    Tag(u8),
}

/// Where roots or blocks of one kind have slots.
///
/// # Examples
///
/// ```
/// use pmalloc::SlotLayout;
///
/// // struct node { uint64_t key; pma_slot next; pma_slot value; };
/// let node = SlotLayout::none().at(8).at(16);
/// // struct table { uint64_t size; pma_slot rows[]; };
/// let table = SlotLayout::none().to_the_end(8, 8);
/// // struct book { struct { pma_slot name; uint64_t year; } entries[10]; };
/// let book = SlotLayout::none().every(0, 16, 10);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[must_use]
pub struct SlotLayout(Vec<Run>);

impl SlotLayout {
    /// No slots.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Every word may be a slot, or something else: what the words name counts as owned, and none of them is looked at
    /// for mistakes.
    pub fn any_word() -> Self {
        Self::none().run(0, SLOT_BYTES, TO_THE_END, Certainty::Maybe)
    }

    /// A slot at byte `at_byte`.
    pub fn at(self, at_byte: u64) -> Self {
        self.every(at_byte, SLOT_BYTES, 1)
    }

    /// `count` slots, the first at byte `at_byte`, each `stride_bytes` behind the one before.
    pub fn every(self, at_byte: u64, stride_bytes: u64, count: u64) -> Self {
        self.run(at_byte, stride_bytes, count, Certainty::Slots)
    }

    /// As [`every`](Self::every), as many as the root or block has room for.
    pub fn to_the_end(self, at_byte: u64, stride_bytes: u64) -> Self {
        self.run(at_byte, stride_bytes, TO_THE_END, Certainty::Slots)
    }

    /// As [`to_the_end`](Self::to_the_end), for words that may be slots, or something else.
    pub fn maybe_to_the_end(self, at_byte: u64, stride_bytes: u64) -> Self {
        self.run(at_byte, stride_bytes, TO_THE_END, Certainty::Maybe)
    }

    /// As [`every`](Self::every), for words that may be slots, or something else.
    pub fn maybe_every(self, at_byte: u64, stride_bytes: u64, count: u64) -> Self {
        self.run(at_byte, stride_bytes, count, Certainty::Maybe)
    }

    fn run(mut self, offset: u64, stride: u64, count: u64, certainty: Certainty) -> Self {
        self.0.push(Run { offset, stride, count, owns: None, certainty });
        self
    }

    /// The layout that is kept as `runs`.
    pub(crate) fn of_runs(runs: Vec<Run>) -> Self {
        Self(runs)
    }

    /// The layout as it is kept, or why it is none.
    pub(crate) fn checked(&self) -> Result<TypeSlots> {
        let invalid = |why: String| Err(Error::Invalid { what: "slot layout", why });
        for run in &self.0 {
            let Run { offset, stride, count, .. } = *run;
            if !offset.is_multiple_of(SLOT_BYTES) || !stride.is_multiple_of(SLOT_BYTES) {
                return invalid(format!(
                    "a slot at byte {offset}, and every {stride} bytes; slots are at multiples of {SLOT_BYTES}"
                ));
            }
            if stride == 0 || count == 0 {
                return invalid(format!(
                    "{count} slots, every {stride} bytes; both are at least 1"
                ));
            }
            let last = run.last_byte();
            if offset > HEAP_MAX_BYTES || last.is_none_or(|last| last > HEAP_MAX_BYTES) {
                return invalid(format!(
                    "{count} slots from byte {offset}, every {stride}: no heap is that large"
                ));
            }
        }
        for (at, run) in self.0.iter().enumerate() {
            if let Some(other) = self.0[..at].iter().find(|other| meet(run, other)) {
                let (one, other) = (other.offset, run.offset);
                return invalid(format!(
                    "the slots from byte {one} and those from byte {other} overlap"
                ));
            }
        }
        Ok(TypeSlots { size_bytes: 0, runs: self.0.clone() })
    }
}

impl Run {
    /// The byte behind the last slot; for a run to the end, behind the first one.
    pub(crate) fn last_byte(&self) -> Option<u64> {
        let count = if self.count == TO_THE_END { 1 } else { self.count };
        self.stride.checked_mul(count - 1)?.checked_add(self.offset)?.checked_add(SLOT_BYTES)
    }

    /// Every word is a slot.
    pub(crate) const fn every_word() -> Self {
        let (stride, count, certainty) = (SLOT_BYTES, TO_THE_END, Certainty::Slots);
        Self { offset: 0, stride, count, owns: None, certainty }
    }

    /// How many slots of the run lie in `len` bytes.
    pub(crate) fn count_in(&self, len: u64) -> u64 {
        let room = len.checked_sub(self.offset + SLOT_BYTES);
        room.map_or(0, |room| (room / self.stride + 1).min(self.count))
    }
}

/// Whether two runs have a slot in common: two arithmetic progressions meet where their offsets agree modulo the greatest
/// common divisor of their strides, first at a place that the extended Euclidean algorithm finds.
fn meet(a: &Run, b: &Run) -> bool {
    let wide = |number: u64| i128::from(number);
    let (common, factor) = euclid(wide(a.stride), wide(b.stride));
    let distance = wide(b.offset) - wide(a.offset);
    if distance % common != 0 {
        return false;
    }
    // The first step of `a`, from its start on, at which a slot of `b` would be if that went on in both directions.
    let period = wide(b.stride) / common;
    let step = (distance / common % period * factor).rem_euclid(period);
    let least = (distance.max(0) + wide(a.stride) - 1) / wide(a.stride);
    let step = step + (least - step).max(0).div_euclid(period) * period;
    let step = if step < least { step + period } else { step };
    let place = wide(a.offset) + step * wide(a.stride);
    step < wide(a.count) && (place - wide(b.offset)) / wide(b.stride) < wide(b.count)
}

/// The greatest common divisor of `a` and `b`, and what `a` is multiplied by to give it, modulo `b`.
fn euclid(a: i128, b: i128) -> (i128, i128) {
    let ((mut r, mut next_r), (mut s, mut next_s)) = ((a, b), (1, 0));
    while next_r != 0 {
        let quotient = r / next_r;
        (r, next_r) = (next_r, r - quotient * next_r);
        (s, next_s) = (next_s, s - quotient * next_s);
    }
    (r, s)
}

/// The types of a graph as they are declared, or `None` if one of them does not say what its slots own.
pub(crate) fn types_of(graph: &TypeGraph) -> Option<Vec<TypeSlots>> {
    graph.types().iter().map(runs_of).collect()
}

fn runs_of(node: &TypeNode) -> Option<TypeSlots> {
    let mut owns = node.owns.iter();
    let runs = flatten(&node.slots, 0, &mut owns)?;
    let all_are_told = owns.next().is_none();
    all_are_told.then_some(TypeSlots { size_bytes: node.size_bytes as u64, runs })
}

/// The slots of a map as runs; `None` if there are too many of them, or more than `owns` tells about.
fn flatten<'a>(
    map: &SlotMap,
    at: u64,
    owns: &mut impl Iterator<Item = &'a Option<usize>>,
) -> Option<Vec<Run>> {
    let mut runs = Vec::new();
    match map {
        SlotMap::None => {}
        SlotMap::Slot => {
            let owns = owns.next()?.and_then(|index| u32::try_from(index).ok());
            let (stride, certainty) = (SLOT_BYTES, Certainty::Slots);
            runs.push(Run { offset: at, stride, count: 1, owns, certainty });
        }
        SlotMap::Fields(fields) => {
            for (field, slots) in *fields {
                runs.extend(flatten(slots, at + *field as u64, owns)?);
            }
        }
        SlotMap::Array { count, stride_bytes, of } => {
            // Also those of an empty array are told about.
            let inner = flatten(of, at, owns)?;
            for run in inner {
                runs.extend(repeat(run, *count as u64, *stride_bytes as u64)?);
            }
        }
    }
    (runs.len() <= RUNS_MAX).then_some(runs)
}

/// A run in each of `count` elements of an array.
fn repeat(run: Run, count: u64, stride: u64) -> Option<Vec<Run>> {
    if count == 0 {
        return Some(Vec::new());
    }
    if run.count == 1 {
        return Some(vec![Run { stride, count, ..run }]);
    }
    if run.stride * run.count == stride {
        return Some(vec![Run { count: run.count * count, ..run }]);
    }
    let nth = |nth: u64| Run { offset: run.offset + nth * stride, ..run };
    (count <= RUNS_MAX as u64).then(|| (0..count).map(nth).collect())
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn run(offset: u64, stride: u64, count: u64) -> Run {
        Run { offset, stride, count, owns: None, certainty: Certainty::Slots }
    }

    fn places(run: &Run) -> BTreeSet<u64> {
        (0..run.count.min(1000)).map(|nth| run.offset + nth * run.stride).collect()
    }

    #[test]
    fn runs_meet_where_their_places_do() {
        let numbers = |from| [from, from + 8, from + 16, from + 40];
        let counts = [1, 2, 5, TO_THE_END];
        let all: Vec<Run> = numbers(0)
            .into_iter()
            .flat_map(|offset| numbers(8).map(|stride| (offset, stride)))
            .flat_map(|(offset, stride)| counts.map(|count| run(offset, stride, count)))
            .collect();
        for a in &all {
            for b in &all {
                let is_met = !places(a).is_disjoint(&places(b));
                assert_eq!(meet(a, b), is_met, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn a_run_has_as_many_slots_as_lie_wholly_inside() {
        for (of, len, count) in [
            (run(0, 8, TO_THE_END), 0, 0),
            (run(0, 8, TO_THE_END), 7, 0),
            (run(0, 8, TO_THE_END), 24, 3),
            (run(8, 24, TO_THE_END), 40, 2),
            (run(8, 24, TO_THE_END), 39, 1),
            (run(8, 24, 1), 4096, 1),
        ] {
            assert_eq!(of.count_in(len), count, "{of:?} in {len} bytes");
        }
    }

    /// A tree of maps, and the places of its slots as the map itself gives them.
    #[test]
    fn a_map_and_its_runs_name_the_same_places() {
        const PAIR: SlotMap = SlotMap::Fields(&[(0, SlotMap::Slot), (24, SlotMap::Slot)]);
        const ROW: SlotMap = SlotMap::Array { count: 3, stride_bytes: 32, of: &PAIR };
        const DENSE: SlotMap = SlotMap::Array { count: 4, stride_bytes: 8, of: &SlotMap::Slot };
        const GRID: SlotMap = SlotMap::Array { count: 5, stride_bytes: 96, of: &ROW };
        const BLOCK: SlotMap = SlotMap::Array { count: 5, stride_bytes: 32, of: &DENSE };
        const GAPS: SlotMap = SlotMap::Array { count: 5, stride_bytes: 40, of: &DENSE };
        const NOBODY: SlotMap = SlotMap::Array { count: 0, stride_bytes: 32, of: &PAIR };
        for (map, told) in [(PAIR, 2), (ROW, 2), (GRID, 2), (BLOCK, 1), (GAPS, 1), (NOBODY, 2)] {
            let owns: Vec<Option<usize>> = (0..told).map(Some).collect();
            let runs = flatten(&map, 16, &mut owns.iter()).expect("few runs");
            let mut found: Vec<u64> = runs.iter().flat_map(places).collect();
            found.sort_unstable();
            let wanted: Vec<u64> = map.offsets().iter().map(|at| 16 + *at as u64).collect();
            assert_eq!(found, wanted, "{map:?}");
            assert!(flatten(&map, 0, &mut owns[1..].iter()).is_none(), "{map:?}");
        }
    }
}
