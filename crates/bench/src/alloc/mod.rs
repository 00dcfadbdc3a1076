//! The allocators under test, and what each of them offers. Volatile, but for the heap that they all write to.
//!
//! [`PersistentAlloc`] is the common denominator: blocks that belong to persistent slots, and a worker for each thread.
//! An allocator is a file here, a [`Subject`] and a line in `visit`.

mod bare;
mod heap;
mod pointer;
mod subject;
mod worker;

use pmalloc::{Heap, persist::Medium};

pub(crate) use self::heap::layout;
pub use self::{
    bare::{Bare, BareLines},
    heap::HeapAlloc,
    pointer::PointerAlloc,
    subject::Subject,
    worker::{PersistentAlloc, Slots, Spacing, Worker},
};

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
        Subject::Heap(_) => visitor.visit(&HeapAlloc::new(heap)),
        Subject::Bare => visitor.visit(&Bare::new(heap)),
        Subject::Pointer(peer) => {
            let library = peer.load().unwrap_or_else(|missing| panic!("{missing}"));
            visitor.visit(&PointerAlloc::new(heap, library))
        }
    }
}

#[cfg(test)]
mod tests {
    use pmalloc::{
        Policy,
        persist::{Anon, Traced},
    };
    use pmalloc_bench_peers::Peer;

    use super::*;

    /// A heap in memory that counts, and that flushes nothing.
    fn heap(policy: Policy) -> Heap<Traced<Anon>> {
        let options = Heap::options().policy(policy).capacity_bytes(64 << 20).arenas(1);
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
            (Subject::Heap(Policy::Eager), [(4, 3), (4, 3), (5, 4)]),
            (Subject::Heap(Policy::Batched), [(1, 1), (1, 1), (2, 2)]),
            (Subject::Bare, [(1, 1); 3]),
            (Subject::Pointer(Peer::Glibc), [(1, 1); 3]),
        ] {
            let policy = match subject {
                Subject::Heap(policy) => policy,
                _ => Policy::Eager,
            };
            let heap = heap(policy);
            assert_eq!(visit(subject, &heap, Counts(&heap)), expected, "{subject}");
        }
    }

    #[test]
    fn a_subject_is_found_by_its_name() {
        let subjects = [Policy::Eager, Policy::Batched].map(Subject::Heap).into_iter();
        for subject in subjects.chain([Subject::Bare]).chain(Peer::ALL.map(Subject::Pointer)) {
            assert_eq!(Subject::from_name(&subject.name()), Some(subject));
        }
        assert_eq!(Subject::from_name("mimalloc"), None);
    }
}
