//! Every crash of a structure, explored: what a program needs to try its own.
//!
//! A [`Structure`] says three things of itself: how an operation is performed on it, what the same operation does to a
//! model in ordinary memory, and how it is read. [`Structure::explore`] performs operations on a heap that lies on the
//! simulator. Wherever power can fail, each content that the memory can have then is opened by the heap's real recovery
//! and read.

use std::{
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Mutex},
};

use pmalloc::{
    Heap, HeapOptions,
    persist::sim::{Digest, Domain, ExploreOptions, Explorer, Report, Sim, SimOptions},
};

/// Operations from one sync of the heap to the next, where crashes are explored.
const SYNC_OPERATIONS: u32 = 2;

/// A structure that can be explored.
#[derive(Debug, Clone, Copy)]
pub struct Structure<Op, Model> {
    /// Performs an operation on the structure in the heap, which is made if it is not there.
    pub perform: fn(&Heap<Sim>, Op) -> pmalloc::Result<()>,
    /// Performs it on the model.
    pub expect: fn(&mut Model, Op),
    /// What the structure in the heap holds, and how many blocks its slots own.
    pub read: fn(&Heap<Sim>) -> pmalloc::Result<(Model, usize)>,
}

impl<Op, Model> Structure<Op, Model>
where
    Op: Copy + Debug,
    Model: Default + Clone + PartialEq + Hash + Debug + Send + 'static,
{
    /// Performs `ops` where nothing crashes, and compares the structure with the model after each.
    ///
    /// # Panics
    ///
    /// If an operation fails, or if they differ.
    pub fn follow(&self, ops: impl IntoIterator<Item = Op>) {
        let heap = create(&simulator(Domain::Line64));
        let mut model = Model::default();
        for (op, number) in ops.into_iter().zip(1..) {
            (self.expect)(&mut model, op);
            (self.perform)(&heap, op).expect("there is room");
            let judged = judge(&heap, self.read, &[model.clone()]);
            judged.unwrap_or_else(|what| panic!("operation {number}, {op:?}: {what}"));
        }
    }

    /// Explores every crash of `ops`, one after the other, on a new heap that is synced after every second one; once where the words of a cache line become
    /// durable in order, and once where each becomes so on its own.
    ///
    /// What is found after a crash must be the model before the operation in flight or after it, and that after it once
    /// it has returned; no other block may be live.
    ///
    /// # Panics
    ///
    /// If an operation fails where nothing crashes.
    #[must_use]
    pub fn explore(&self, ops: &[Op]) -> [Report; 2] {
        [Domain::Line64, Domain::Word8].map(|domain| self.explore_in(domain, ops))
    }

    fn explore_in(&self, domain: Domain, ops: &[Op]) -> Report {
        let sim = simulator(domain);
        let heap = create(&sim);
        let read = self.read;
        let expected = Arc::new(Mutex::new((String::new(), Vec::new())));
        let seen = Arc::clone(&expected);
        let explorer = Explorer::watch(&sim, ExploreOptions::default(), move |sim| {
            let heap = open(sim).map_err(|error| error.to_string())?;
            // For those who ask for crashes in recovery: it ends here, and the lock is free, as one check runs inside another.
            sim.recovered();
            let (doing, models) = seen.lock().expect("nobody panicked").clone();
            judge(&heap, read, &models).map_err(|what| format!("{doing}: {what}"))
        });
        let expect = |doing, models| *expected.lock().expect("nobody panicked") = (doing, models);

        let mut model = Model::default();
        for (&op, number) in ops.iter().zip(1..) {
            let before = model.clone();
            (self.expect)(&mut model, op);
            expect(format!("in {op:?}"), vec![before, model.clone()]);
            (self.perform)(&heap, op).expect("there is room");
            expect(format!("after {op:?}"), vec![model.clone()]);
            explorer.crash_point("the operation returned");
            // Under the policy Batched each operation leaves lines that a crash may find written or not: those of many are
            // more contents than can be tried.
            if number % SYNC_OPERATIONS == 0 {
                heap.sync().expect("a simulator writes everything");
            }
        }
        explorer.finish()
    }
}

/// Sees that the structure in the heap is as one of the models, and that nothing is lost.
fn judge<Model: PartialEq + Hash + Debug>(
    heap: &Heap<Sim>,
    read: fn(&Heap<Sim>) -> pmalloc::Result<(Model, usize)>,
    models: &[Model],
) -> Result<Digest, String> {
    let told = |error| format!("an error: {error}");
    let (found, owned) = read(heap).map_err(told)?;
    if !models.contains(&found) {
        return Err(format!("found {found:?}, expected one of {models:?}"));
    }
    // Each slot was seen to own a live block, and its value told it from the others: as many blocks are the same blocks.
    let (live, roots) = (heap.iter().count(), heap.roots().map_err(told)?.len());
    if live != roots + owned {
        return Err(format!("{live} blocks are live: {roots} of roots, {owned} of slots"));
    }
    let problems = heap.check().map_err(told)?.problems;
    if !problems.is_empty() {
        return Err(format!("problems: {problems:?}"));
    }
    Ok(Digest::of(&found))
}

/// Memory that can lose power, of the size of a heap.
fn simulator(domain: Domain) -> Sim {
    let len_bytes = heap_options().heap_bytes().expect("valid options");
    Sim::new(SimOptions { len_bytes, domain })
}

/// A new heap on the simulator.
fn create(sim: &Sim) -> Heap<Sim> {
    // SAFETY:
    // 1. who explores looks at the memory, and stores through the heap only;
    // 2. no other heap is opened on it: each crash has memory of its own.
    let heap = unsafe { heap_options().create_on_shared(sim.clone()) };
    heap.expect("an empty medium has room")
}

/// The heap that a crash left.
fn open(sim: &Sim) -> pmalloc::Result<Heap<Sim>> {
    // SAFETY: as for `create`.
    unsafe { heap_options().open_on_shared(sim.clone()) }
}

/// A heap as small as can be: all that is in use of it is copied for each crash.
fn heap_options() -> HeapOptions {
    Heap::options().capacity_bytes(1 << 20).arenas(1)
}
