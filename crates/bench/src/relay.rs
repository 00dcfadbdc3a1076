//! The arrays of slots that a workload runs on, which may go from one thread to the next. Volatile, but for the heap.

use pmalloc::persist::sync::{Mutex, lock};

use crate::alloc::{Slots, Worker};

/// What an allocator is put through: pass after pass.
pub(crate) trait Workload: Sync {
    /// The slots of a thread.
    fn slots(&self) -> Slots;

    /// What belongs to an array and has to be remembered from one pass to the next.
    type State: Send;

    /// What is remembered before the first pass, of the array of thread number `thread`; `rng` is its own.
    fn state(&self, thread: usize, rng: fastrand::Rng) -> Self::State;

    /// What the threads of a pass share; `T` are the blocks that they give each other.
    type Shared<T: Send>: Sync;

    /// What so many threads share.
    fn shared<T: Send>(&self, threads: usize) -> Self::Shared<T>;

    /// In how many generations a pass is done: in each a thread has another array, that of the thread behind it.
    fn generations(&self) -> usize {
        1
    }

    /// One generation of a pass, on one array; returns the number of operations.
    fn pass<W: Worker>(
        &self,
        worker: &mut W,
        state: &mut Self::State,
        shared: &Self::Shared<W::Given>,
    ) -> u64;
}

/// An array: a worker with its slots, and what the workload remembers of them.
struct Array<W, S> {
    worker: W,
    state: S,
}

/// Where the array of a thread lies while nobody has it; it is brought once.
type Place<W, S> = Mutex<Option<Array<W, S>>>;

/// The arrays of all threads, one for each.
pub(crate) struct Arrays<'w, L: Workload, W: Worker> {
    workload: &'w L,
    arrays: Vec<Place<W, L::State>>,
    shared: L::Shared<W::Given>,
}

impl<'w, L: Workload, W: Worker> Arrays<'w, L, W> {
    /// Places for the arrays of `threads` threads.
    pub(crate) fn new(workload: &'w L, threads: usize) -> Self {
        let arrays = (0..threads).map(|_| Mutex::default()).collect();
        Self { workload, arrays, shared: workload.shared(threads) }
    }

    /// Brings the array of thread number `thread`, with a worker for as many slots as the workload has.
    pub(crate) fn bring(&self, thread: usize, worker: W, rng: fastrand::Rng) {
        let state = self.workload.state(thread, rng);
        *lock(&self.arrays[thread]) = Some(Array { worker, state });
    }

    /// The part of thread number `thread` in a pass; returns the number of operations.
    ///
    /// A thread that comes to an array before the one that has it is done waits for it.
    ///
    /// # Panics
    ///
    /// If a thread has brought no array.
    pub(crate) fn pass(&self, thread: usize) -> u64 {
        let generation = |number: usize| {
            let mut array = lock(&self.arrays[(thread + number) % self.arrays.len()]);
            let Array { worker, state } = array.as_mut().expect("each thread has brought its own");
            self.workload.pass(worker, state, &self.shared)
        };
        (0..self.workload.generations()).map(generation).sum()
    }

    /// Calls `f` with each worker, between two passes.
    pub(crate) fn each_worker(&self, mut f: impl FnMut(&mut W)) {
        for array in &self.arrays {
            if let Some(array) = &mut *lock(array) {
                f(&mut array.worker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        thread::{self, ThreadId},
    };

    use super::*;
    use crate::{
        alloc::Spacing,
        crew::{self, Phase},
    };

    /// A worker that does nothing.
    struct Idle;

    impl Worker for Idle {
        fn alloc(&mut self, _: usize, _: usize) {}

        fn alloc_filled(&mut self, _: usize, _: usize) {}

        fn free(&mut self, _: usize) {}

        type Given = ();

        fn give(&mut self, _: usize) {}

        fn free_given(&mut self, (): ()) {}
    }

    /// So many generations, in each of which it is noted who has which array.
    struct Noted(usize);

    impl Workload for Noted {
        fn slots(&self) -> Slots {
            Slots { count: 1, spacing: Spacing::Packed }
        }

        type State = usize;

        fn state(&self, thread: usize, _: fastrand::Rng) -> usize {
            thread
        }

        type Shared<T: Send> = Mutex<Vec<(ThreadId, usize)>>;

        fn shared<T: Send>(&self, _: usize) -> Mutex<Vec<(ThreadId, usize)>> {
            Mutex::default()
        }

        fn generations(&self) -> usize {
            self.0
        }

        fn pass<W: Worker>(
            &self,
            _: &mut W,
            array: &mut usize,
            seen: &Mutex<Vec<(ThreadId, usize)>>,
        ) -> u64 {
            lock(seen).push((thread::current().id(), *array));
            1
        }
    }

    /// Which thread had which array in a pass of 3 threads.
    fn seen(generations: usize) -> Vec<(ThreadId, usize)> {
        let workload = Noted(generations);
        let arrays = Arrays::new(&workload, 3);
        let make = |thread| {
            arrays.bring(thread, Idle, fastrand::Rng::with_seed(1));
            thread
        };
        let phases = [Phase { task: (), threads: 3 }];
        let (readings, _) =
            crew::run(&phases, || (), make, |thread: &mut usize, ()| arrays.pass(*thread), |_| ());
        assert_eq!(readings[0].operations, 3 * generations as u64);
        lock(&arrays.shared).clone()
    }

    #[test]
    fn each_array_goes_to_another_thread_in_each_generation() {
        let seen = seen(3);
        let distinct: BTreeSet<String> = seen.iter().map(|pair| format!("{pair:?}")).collect();
        assert_eq!((seen.len(), distinct.len()), (9, 9), "{seen:?}");
    }

    #[test]
    fn in_one_generation_each_thread_has_its_own_array() {
        let arrays: BTreeSet<usize> = seen(1).into_iter().map(|(_, array)| array).collect();
        assert_eq!(arrays.len(), 3);
    }
}
