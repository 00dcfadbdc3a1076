//! The simulator under the schedule tests: it yields before each access, so that schedules interleave
//! accesses to media; and a crash in the midst of a schedule is explored like any other.
//!
//! Needs `RUSTFLAGS="--cfg shuttle"`.

#![cfg(shuttle)]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use pmalloc_persist::{
    Medium, Offset, PAGE_BYTES, Span, Word,
    sim::{Digest, Domain, ExploreOptions, Explorer, Sim, SimOptions},
};
use shuttle::thread;

fn page() -> Sim {
    let sim = Sim::new(SimOptions { len_bytes: PAGE_BYTES, domain: Domain::Line64 });
    sim.back(Span::new(0, PAGE_BYTES)).expect("the capacity suffices");
    sim
}

fn word(sim: &Sim, line: u64) -> &Word {
    sim.at(Offset::new(line * 64)).expect("in bounds")
}

#[test]
fn accesses_of_threads_interleave() {
    let sums = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&sums);
    let increments = move || {
        let sim = page();
        let threads = [(); 2].map(|()| {
            let sim = sim.clone();
            thread::spawn(move || sim.store(word(&sim, 0), sim.load(word(&sim, 0)) + 1))
        });
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        seen.lock().expect("no panic").insert(sim.load(word(&sim, 0)));
    };
    shuttle::check_random(increments, 200);
    assert_eq!(*sums.lock().expect("no panic"), BTreeSet::from([1, 2]), "a lost update is found");
}

#[test]
fn what_another_thread_has_not_fenced_may_be_lost() {
    let found = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&found);
    // One thread copies what the other has written but perhaps not made durable yet.
    let copy = move || {
        let sim = page();
        let seen = Arc::clone(&seen);
        let explorer = Explorer::watch(&sim, ExploreOptions::default(), move |sim| {
            let state = (sim.load(word(sim, 0)), sim.load(word(sim, 1)));
            seen.lock().expect("no panic").insert(state);
            Ok(Digest::of(&state))
        });
        let writer = sim.clone();
        let writer = thread::spawn(move || {
            writer.store(word(&writer, 0), 1);
            writer.persist(Span::new(0, 8));
        });
        sim.store(word(&sim, 1), 10 + sim.load(word(&sim, 0)));
        sim.persist(Span::new(64, 8));
        writer.join().expect("no panic");
        explorer.crash_point("end");
        explorer.finish().assert_clean();
    };
    shuttle::check_pct(copy, 500, 3);
    let found = found.lock().expect("no panic");
    assert!(found.contains(&(0, 11)), "the copy without its original: {found:?}");
    assert!(found.contains(&(1, 10)) && found.contains(&(1, 11)), "{found:?}");
}
