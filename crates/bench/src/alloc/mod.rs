//! The allocators under test, and what each of them offers. Volatile, but for the heap that they all write to.
//!
//! [`PersistentAlloc`] is the common denominator: blocks that belong to persistent slots, and a worker for each thread.
//! An allocator is a file here, a [`Subject`] and a line in `visit`.

mod bare;
mod heap;
mod pointer;

use std::fmt;

use pmalloc::{Heap, persist::Medium};
use pmalloc_bench_peers::Peer;
use serde::{Deserialize, Serialize, de};

pub(crate) use self::heap::layout;
pub use self::{
    bare::{Bare, BareLines},
    heap::HeapAlloc,
    pointer::PointerAlloc,
};

/// An allocator whose blocks belong to persistent slots.
pub trait PersistentAlloc: Sync {
    /// What a thread uses.
    type Worker<'a>: Worker
    where
        Self: 'a;

    /// The worker of thread number `thread`, which no other thread has, with slots as `slots` says. All are empty.
    fn worker(&self, thread: usize, slots: Slots) -> Self::Worker<'_>;
}

/// A thread's slots, and what is done to them. A benchmark has no use for errors, so every failure is a panic.
pub trait Worker {
    /// Allocates `size_bytes` into the empty slot `at`; durable on return.
    fn alloc(&mut self, at: usize, size_bytes: usize);

    /// As [`alloc`](Self::alloc), with contents in every byte.
    fn alloc_filled(&mut self, at: usize, size_bytes: usize);

    /// Frees the block of the slot `at`, which is empty then; durable on return.
    fn free(&mut self, at: usize);
}

/// How many slots a thread has, and how they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// Their number.
    pub count: usize,
    /// How far they are apart.
    pub spacing: Spacing,
}

impl Slots {
    /// Words of the array that holds them.
    #[must_use]
    pub fn words(self) -> usize {
        self.count * self.spacing.stride()
    }
}

/// How far slots are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// Eight in a line, as in an array.
    Packed,
    /// Each in a line of its own.
    OwnLine,
}

impl Spacing {
    /// Words from a slot to the next one.
    #[must_use]
    pub fn stride(self) -> usize {
        match self {
            Self::Packed => 1,
            Self::OwnLine => bare::LINE_WORDS,
        }
    }
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The heap of this project, through its public interface.
    Heap,
    /// Nobody: each operation is one bare persist, the least that a durable operation costs.
    Bare,
    /// A volatile allocator whose pointers are stored into the heap's file and made durable there.
    Pointer(Peer),
}

impl Subject {
    /// The name, as results have it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Heap => "pmalloc".into(),
            Self::Bare => "bare".into(),
            Self::Pointer(peer) => format!("{peer}{POINTER_SUFFIX}"),
        }
    }

    /// The subject of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "pmalloc" => Some(Self::Heap),
            "bare" => Some(Self::Bare),
            _ => Peer::from_name(name.strip_suffix(POINTER_SUFFIX)?).map(Self::Pointer),
        }
    }
}

/// What marks the name of a volatile allocator whose pointers are made durable.
const POINTER_SUFFIX: &str = "+pointer";

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

impl Serialize for Subject {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::from_name(&name)
            .ok_or_else(|| de::Error::custom(format!("no allocator is called {name}")))
    }
}

/// What is done with an allocator, whichever it is: compiled for each, so that no call of theirs is indirect.
pub(crate) trait Visitor {
    /// What comes out.
    type Out;

    /// Does it.
    fn visit<A: PersistentAlloc>(self, alloc: &A) -> Self::Out;
}

/// Lets `visitor` have the allocator that `subject` names, over `heap`.
///
/// # Panics
///
/// If a rival is missing: the supervisor has looked.
pub(crate) fn visit<M: Medium + 'static, V: Visitor>(
    subject: Subject,
    heap: &Heap<M>,
    visitor: V,
) -> V::Out {
    match subject {
        Subject::Heap => visitor.visit(&HeapAlloc::new(heap)),
        Subject::Bare => visitor.visit(&Bare::new(heap)),
        Subject::Pointer(peer) => {
            let library = peer.load().unwrap_or_else(|missing| panic!("{missing}"));
            visitor.visit(&PointerAlloc::new(heap, library))
        }
    }
}

#[cfg(test)]
mod tests {
    use pmalloc::persist::{Anon, Traced};

    use super::*;

    /// A heap in memory that counts, and that flushes nothing.
    fn heap() -> Heap<Traced<Anon>> {
        let options = Heap::options().capacity_bytes(64 << 20).arenas(1);
        let medium = Traced::new(Anon::new(options.heap_bytes().expect("valid")));
        options.create_on(medium).expect("created")
    }

    /// Allocates and frees, and tells the flushes and fences of each.
    struct Counts<'h>(&'h Heap<Traced<Anon>>);

    impl Visitor for Counts<'_> {
        type Out = [(u64, u64); 3];

        fn visit<A: PersistentAlloc>(self, alloc: &A) -> Self::Out {
            let slots = Slots { count: 4, spacing: Spacing::OwnLine };
            let mut worker = alloc.worker(0, slots);
            // The first ones make slabs and lanes.
            (0..3).for_each(|at| worker.alloc(at, 64));
            worker.free(2);
            let mut count = |operation: &mut dyn FnMut(&mut A::Worker<'_>)| {
                let before = self.0.counts();
                operation(&mut worker);
                let counts = self.0.counts() - before;
                (counts.flushes, counts.fences)
            };
            [
                count(&mut |worker| worker.alloc(2, 64)),
                count(&mut |worker| worker.free(1)),
                count(&mut |worker| worker.alloc_filled(3, 64)),
            ]
        }
    }

    #[test]
    fn each_allocator_persists_what_its_kind_must() {
        for (subject, expected) in [
            (Subject::Heap, [(4, 3), (4, 3), (5, 4)]),
            (Subject::Bare, [(1, 1); 3]),
            (Subject::Pointer(Peer::Glibc), [(1, 1); 3]),
        ] {
            let heap = heap();
            assert_eq!(visit(subject, &heap, Counts(&heap)), expected, "{subject}");
        }
    }

    #[test]
    fn a_subject_is_found_by_its_name() {
        let subjects = [Subject::Heap, Subject::Bare].into_iter();
        for subject in subjects.chain(Peer::ALL.map(Subject::Pointer)) {
            assert_eq!(Subject::from_name(&subject.name()), Some(subject));
        }
        assert_eq!(Subject::from_name("mimalloc"), None);
    }
}
