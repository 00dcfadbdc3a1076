//! Litmus tests of the persistency model: which images a crash can leave after a few stores, flushes and
//! fences. Each test states the complete set, so an image too many fails as well as one too few.

use crate::common::{flush, get, images, images_eagerly, page, pages, put, set, word};
use pmalloc_persist::{
    Medium, PAGE_BYTES, Span,
    sim::{BackFault, Domain, Sim, SimOptions, SiteKind},
};

#[test]
fn a_store_may_survive_unflushed() {
    let sim = page(Domain::Line64);
    put(&sim, 0, 1);
    assert_eq!(images(&sim, &[0]), set([[0], [1]]));
}

#[test]
fn a_flush_alone_guarantees_nothing() {
    let sim = page(Domain::Line64);
    put(&sim, 0, 1);
    flush(&sim, 0);
    assert_eq!(images(&sim, &[0]), set([[0], [1]]));
    sim.fence();
    assert_eq!(images(&sim, &[0]), set([[1]]));
}

#[test]
fn a_fence_alone_guarantees_nothing() {
    let sim = page(Domain::Line64);
    put(&sim, 0, 1);
    sim.fence();
    assert_eq!(images(&sim, &[0]), set([[0], [1]]));
}

#[test]
fn a_flush_captures_only_earlier_stores() {
    let sim = page(Domain::Line64);
    put(&sim, 0, 1);
    flush(&sim, 0);
    put(&sim, 0, 2);
    sim.fence();
    assert_eq!(images(&sim, &[0]), set([[1], [2]]));
}

#[test]
fn stores_to_one_line_keep_their_order() {
    let sim = page(Domain::Line64);
    put(&sim, 0, 1);
    put(&sim, 7, 1);
    put(&sim, 0, 2);
    assert_eq!(images(&sim, &[0, 7]), set([[0, 0], [1, 0], [1, 1], [2, 1]]));
    assert_eq!(images(&sim, &[7, 0]), set([[0, 0], [0, 1], [1, 1], [1, 2]]));
}

#[test]
fn torn_lines_keep_order_only_within_a_word() {
    let sim = page(Domain::Word8);
    put(&sim, 0, 1);
    put(&sim, 7, 1);
    put(&sim, 0, 2);
    let all = set([[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]);
    assert_eq!(images(&sim, &[0, 7]), all);
}

#[test]
fn lines_are_independent() {
    let sim = page(Domain::Line64);
    put(&sim, 0, 1);
    put(&sim, 8, 1);
    assert_eq!(images(&sim, &[0, 8]), set([[0, 0], [1, 0], [0, 1], [1, 1]]));
}

#[test]
fn a_flush_covers_the_whole_line_and_no_other() {
    for domain in [Domain::Line64, Domain::Word8] {
        let sim = page(domain);
        put(&sim, 0, 1);
        put(&sim, 3, 1);
        put(&sim, 8, 1);
        flush(&sim, 7);
        sim.fence();
        assert_eq!(images(&sim, &[0, 3, 8]), set([[1, 1, 0], [1, 1, 1]]), "{domain:?}");
    }
}

#[test]
fn a_span_is_flushed_to_its_last_byte() {
    let sim = page(Domain::Line64);
    put(&sim, 0, 1);
    put(&sim, 8, 1);
    sim.flush(Span::new(60, 5));
    sim.fence();
    assert_eq!(images(&sim, &[0, 8]), set([[1, 1]]));
}

#[test]
fn the_fence_of_another_thread_does_not_help() {
    let sim = page(Domain::Line64);
    put(&sim, 0, 1);
    flush(&sim, 0);
    std::thread::scope(|scope| scope.spawn(|| sim.fence()).join()).expect("no panic");
    assert_eq!(images(&sim, &[0]), set([[0], [1]]));
    sim.fence();
    assert_eq!(images(&sim, &[0]), set([[1]]));
}

#[test]
fn the_flush_of_another_thread_counts_for_that_thread() {
    let sim = page(Domain::Line64);
    put(&sim, 0, 1);
    let flush_and_fence = || {
        flush(&sim, 0);
        sim.fence();
    };
    std::thread::scope(|scope| scope.spawn(flush_and_fence).join()).expect("no panic");
    assert_eq!(images(&sim, &[0]), set([[1]]));
}

#[test]
fn every_store_survives_where_caches_are_durable() {
    let sim = page(Domain::Eadr);
    put(&sim, 0, 1);
    put(&sim, 8, 1);
    assert_eq!(images(&sim, &[0, 8]), set([[1, 1]]));
}

#[test]
fn atomic_updates_are_stores() {
    let sim = page(Domain::Line64);
    assert_eq!(sim.compare_exchange(word(&sim, 0), 0, 4), Ok(0));
    assert_eq!(sim.compare_exchange(word(&sim, 0), 0, 9), Err(4));
    assert_eq!(sim.fetch_or(word(&sim, 0), 1), 4);
    assert_eq!(sim.fetch_and(word(&sim, 0), 3), 5);
    assert_eq!(images(&sim, &[0]), set([[0], [4], [5], [1]]));
}

#[test]
fn announced_plain_stores_are_stores_in_ascending_order() {
    let sim = page(Domain::Line64);
    write_plainly(&sim, 4, &[7; 20]);
    sim.stored(Span::new(4, 20));
    let [low, full] = [0x0707_0707_0000_0000, 0x0707_0707_0707_0707];
    let prefixes = set([[0, 0, 0], [low, 0, 0], [low, full, 0], [low, full, full]]);
    assert_eq!(images(&sim, &[0, 1, 2]), prefixes);
}

#[test]
fn plain_stores_are_found_at_the_flush_at_the_latest() {
    let sim = page(Domain::Line64);
    write_plainly(&sim, 0, &[1]);
    flush(&sim, 0);
    sim.fence();
    assert_eq!(images(&sim, &[0]), set([[1]]));
}

#[test]
fn plain_loads_see_a_settled_image() {
    let sim = page(Domain::Word8);
    put(&sim, 0, 1);
    put(&sim, 1, 1);
    let boots = [sim.crash_state().oldest(), sim.crash_state().newest()];
    for (boot, value) in boots.iter().zip([0_u8, 1]) {
        boot.settle(Span::new(0, 16));
        let place = boot.region().pointer(Span::new(8, 1)).expect("in bounds");
        // SAFETY: one byte inside the region; nothing else accesses it now.
        assert_eq!(unsafe { place.read() }, value);
    }
}

#[test]
fn a_boot_goes_on_with_what_it_found() {
    let sim = page(Domain::Line64);
    put(&sim, 0, 1);
    let boot = sim.crash_state().oldest();
    assert_eq!(get(&boot, 0), 0);
    put(&boot, 8, 5);
    assert_eq!(images(&boot, &[0, 8]), set([[0, 0], [0, 5]]));
    assert_eq!(images(&sim, &[0, 8]), set([[0, 0], [1, 0]]), "the original is as before");
}

#[test]
fn samples_are_images() {
    let sim = page(Domain::Word8);
    (0..16).for_each(|index| put(&sim, index, 1));
    let state = sim.crash_state();
    let sample = |seed| {
        let boot = state.sample(seed);
        (0..16).map(|index| get(&boot, index)).sum::<u64>()
    };
    assert_eq!(sample(3), sample(3), "a seed names an image");
    let sums: std::collections::BTreeSet<u64> = (0..16).map(sample).collect();
    assert!(sums.len() > 3, "random images differ: {sums:?}");
}

#[test]
fn untouched_pages_are_violations() {
    type Access = fn(&Sim);
    let accesses: [(&str, Access); 6] = [
        ("load", |sim| assert_eq!(get(sim, 600), 0)),
        ("store", |sim| put(sim, 600, 1)),
        ("flush", |sim| flush(sim, 600)),
        ("plain stores", |sim| sim.stored(Span::new(4090, 10))),
        ("plain loads", |sim| sim.settle(Span::new(4096, 1))),
        ("update", |sim| assert_eq!(sim.fetch_or(word(sim, 600), 1), 0)),
    ];
    for (name, access) in accesses {
        let sim = Sim::new(SimOptions { len_bytes: 2 * PAGE_BYTES, domain: Domain::Line64 });
        sim.back(Span::new(0, 1)).expect("the capacity suffices");
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| access(&sim)));
        assert!(outcome.is_err(), "a {name} of a page without memory");
        let [violation] = &sim.violations()[..] else { panic!("one violation per access") };
        assert!(violation.contains(name) && violation.contains("page 1"), "{violation}");
        assert!(violation.contains("sim/model.rs"), "it names the place: {violation}");
    }
}

#[test]
fn backing_grows_and_keeps() {
    let sim = Sim::new(SimOptions { len_bytes: 4 * PAGE_BYTES, domain: Domain::Line64 });
    assert!(sim.is_empty());
    sim.back(Span::new(0, 10)).expect("the capacity suffices");
    put(&sim, 0, 1);
    sim.back(Span::new(0, PAGE_BYTES + 1)).expect("the capacity suffices");
    assert_eq!((sim.len(), sim.occupied_bytes().ok()), (2 * PAGE_BYTES, Some(2 * PAGE_BYTES)));
    assert_eq!((get(&sim, 0), get(&sim, 512)), (1, 0));
    let full = sim.back(Span::new(4 * PAGE_BYTES, 1)).expect_err("beyond the capacity");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
}

#[test]
fn chosen_backings_fail() {
    let sim = Sim::new(SimOptions { len_bytes: 4 * PAGE_BYTES, domain: Domain::Line64 });
    let outcomes = |fault| {
        sim.fail_backs(fault);
        [0, 1, 2].map(|page| sim.back(Span::new(page * PAGE_BYTES, 1)).is_ok())
    };
    assert_eq!(outcomes(BackFault::Once(1)), [true, false, true]);
    assert_eq!(outcomes(BackFault::From(1)), [true, false, false]);
    assert_eq!(sim.back_calls(), 3);
    assert_eq!(outcomes(BackFault::Never), [true; 3]);
}

#[test]
fn a_punch_leaves_zeroes_that_may_be_lost() {
    let sim = pages(Domain::Word8, 2);
    put(&sim, 512, 7);
    flush(&sim, 512);
    sim.fence();
    sim.punch(Span::new(100, 2 * PAGE_BYTES - 200)).expect("punching works");
    assert_eq!(sim.occupied_bytes().ok(), Some(2 * PAGE_BYTES), "no whole page inside");
    sim.punch(Span::new(PAGE_BYTES, PAGE_BYTES)).expect("punching works");
    assert_eq!(sim.occupied_bytes().ok(), Some(PAGE_BYTES));
    sim.back(Span::new(PAGE_BYTES, PAGE_BYTES)).expect("the capacity suffices");
    assert_eq!(get(&sim, 512), 0);
    assert_eq!(images(&sim, &[512]), set([[0], [7]]));
}

#[test]
fn a_sync_makes_everything_durable() {
    let sim = page(Domain::Word8);
    put(&sim, 0, 1);
    put(&sim, 9, 1);
    sim.sync().expect("syncing works");
    assert_eq!(images(&sim, &[0, 9]), set([[1, 1]]));
}

#[test]
fn the_fence_of_the_next_process_does_not_help() {
    let sim = page(Domain::Line64);
    put(&sim, 0, 1);
    flush(&sim, 0);
    sim.kill();
    let next = sim.new_process();
    assert_eq!(get(&next, 0), 1);
    next.fence();
    assert_eq!(images(&sim, &[0]), set([[0], [1]]));
    flush(&next, 0);
    next.fence();
    assert_eq!(images(&sim, &[0]), set([[1]]));
}

#[test]
fn a_process_is_killed_at_the_chosen_call() {
    let work = |sim: &Sim| {
        put(sim, 0, 1);
        flush(sim, 0);
        sim.fence();
        put(sim, 0, 2);
    };
    let killed_at = |nth| {
        let sim = page(Domain::Line64);
        let is_done = sim.kill_in(nth, || work(&sim)).is_some();
        assert_eq!(sim.forked(), !is_done);
        (get(&sim.new_process(), 0), images(&sim, &[0]))
    };
    assert_eq!(killed_at(0), (0, set([[0]])));
    assert_eq!(killed_at(1), (1, set([[0], [1]])));
    assert_eq!(killed_at(2), (1, set([[0], [1]])));
    assert_eq!(killed_at(3), (1, set([[1]])));
    assert_eq!(killed_at(4), (2, set([[1], [2]])));
}

#[test]
#[should_panic(expected = "a killed process changes the medium")]
fn the_dead_change_nothing() {
    let sim = page(Domain::Line64);
    sim.kill();
    put(&sim, 0, 1);
}

#[test]
fn mutations_leave_out_what_they_name() {
    let persist = |sim: &Sim| {
        put(sim, 0, 1);
        flush(sim, 0);
        sim.fence();
    };
    let sim = page(Domain::Line64);
    persist(&sim);
    let sites = sim.sites();
    assert_eq!(sites.len(), 3, "a store, a flush, a fence: {sites:?}");
    for site in sites {
        let sim = page(Domain::Line64);
        sim.mutate(site);
        persist(&sim);
        let left = if site.kind == SiteKind::Store { set([[0]]) } else { set([[0], [1]]) };
        assert_eq!(images(&sim, &[0]), left, "without {site:?}");
        sim.clear_mutations();
        persist(&sim);
        assert_eq!(images(&sim, &[0]), set([[1]]));
    }
}

#[test]
fn a_delayed_store_follows_the_next_one() {
    let two = |sim: &Sim| {
        sim.store(word(sim, 0), 1);
        assert_eq!(get(sim, 0), 1, "the program reads what it wrote");
        sim.store(word(sim, 1), 1);
    };
    let sim = page(Domain::Line64);
    two(&sim);
    assert_eq!(images(&sim, &[0, 1]), set([[0, 0], [1, 0], [1, 1]]));
    let first = sim.sites()[0].location;
    let sim = page(Domain::Line64);
    sim.delay_store(first);
    two(&sim);
    assert_eq!(images(&sim, &[0, 1]), set([[0, 0], [0, 1], [1, 1]]));
}

#[test]
fn eager_and_lazy_agree_on_the_litmus_tests() {
    for domain in [Domain::Line64, Domain::Word8, Domain::Eadr] {
        let sim = page(domain);
        for (index, value) in [(0, 1), (1, 1), (8, 1), (0, 2), (9, 3), (16, 1)] {
            put(&sim, index, value);
        }
        flush(&sim, 8);
        sim.fence();
        let words = &[16, 0, 8, 1, 9];
        assert_eq!(images(&sim, words), images_eagerly(&sim, words), "{domain:?}");
    }
}

fn write_plainly(sim: &Sim, at: u64, bytes: &[u8]) {
    let span = Span::new(at, bytes.len() as u64);
    let place = sim.region().pointer(span).expect("in bounds");
    // SAFETY: `pointer` checked that the bytes lie inside the region; nothing else accesses them now.
    unsafe { place.copy_from_nonoverlapping(core::ptr::NonNull::from(bytes).cast(), bytes.len()) }
}
