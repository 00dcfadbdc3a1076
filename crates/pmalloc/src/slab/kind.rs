//! What all blocks of a slab have in common: blocks that differ in it lie in different slabs.

use std::collections::BTreeMap;

use crate::size_class::SizeClass;

/// Size class and tag of a slab's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Kind {
    /// Their size class.
    pub(crate) class: SizeClass,
    /// The user's tag.
    pub(crate) tag: u8,
}

/// A value per kind, made when it is first asked for.
///
/// Blocks without a tag are those that speed matters for: theirs are found by one index. Tags are few in any program,
/// so that a table for each that is used costs little.
#[derive(Debug)]
pub(crate) struct PerKind<T> {
    untagged: Box<[T]>,
    tagged: BTreeMap<u8, Box<[T]>>,
}

impl<T: Default> PerKind<T> {
    /// Defaults for every kind.
    pub(crate) fn new() -> Self {
        Self { untagged: per_class(), tagged: BTreeMap::new() }
    }

    /// The value of `kind`.
    #[inline(always)]
    pub(crate) fn get_mut(&mut self, kind: Kind) -> &mut T {
        let of_tag = if kind.tag == 0 { &mut self.untagged } else { self.of_tag(kind.tag) };
        &mut of_tag[kind.class.index()]
    }

    /// The values of all kinds that were asked for, and some others.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.untagged.iter_mut().chain(self.tagged.values_mut().flatten())
    }

    #[inline(never)]
    fn of_tag(&mut self, tag: u8) -> &mut Box<[T]> {
        self.tagged.entry(tag).or_insert_with(per_class)
    }
}

fn per_class<T: Default>() -> Box<[T]> {
    SizeClass::all().map(|_| T::default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_value_of_its_own() {
        let kinds = || {
            let classes = || SizeClass::all().step_by(7);
            [0, 1, 7, 255]
                .into_iter()
                .flat_map(move |tag| classes().map(move |class| Kind { class, tag }))
        };
        let mut values = PerKind::<Option<Kind>>::new();
        kinds().for_each(|kind| *values.get_mut(kind) = Some(kind));
        assert!(kinds().all(|kind| *values.get_mut(kind) == Some(kind)));
        let mut found: Vec<Kind> = values.values_mut().filter_map(|value| *value).collect();
        found.sort_by_key(|kind| (kind.tag, kind.class));
        assert!(found.into_iter().eq(kinds()));
    }
}
