//! The explorer itself: that it reaches every image and crash point, reports what a check rejects in a way
//! that can be replayed, and stops where it should.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::common::{flush, get, images_eagerly, images_with, page, pages, put, word};
use pmalloc_persist::{
    Medium, PAGE_BYTES, Span,
    sim::{
        Digest, Domain, ExploreOptions, Explorer, Fate, PointKind, Report, Sim, explore_eagerly,
        explore_state,
    },
};
use proptest::prelude::*;

const DOMAINS: [Domain; 5] =
    [Domain::Line64, Domain::Word8, Domain::Eadr, Domain::Page4096, Domain::PageTorn];

fn one_violation(report: &Report) -> &pmalloc_persist::sim::Violation {
    let [violation] = &report.violations[..] else { panic!("one violation expected: {report}") };
    violation
}

fn ok(_: &Sim) -> Result<Digest, String> {
    Ok(Digest(0))
}

fn with_nesting(nesting: u32) -> ExploreOptions {
    ExploreOptions { nesting, ..ExploreOptions::default() }
}

/// A step of a random program over a few words of three lines.
#[derive(Debug, Clone)]
enum Step {
    Put(u64, u64),
    Flush(u64),
    Fence,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = || (0..3_u64, 0..3_u64).prop_map(|(line, word)| line * 8 + word);
    let step = prop_oneof![
        5 => (place(), 1..4_u64).prop_map(|(at, value)| Step::Put(at, value)),
        2 => place().prop_map(Step::Flush),
        1 => Just(Step::Fence),
    ];
    prop::collection::vec(step, 0..14)
}

fn run(sim: &Sim, steps: &[Step]) {
    for step in steps {
        match *step {
            Step::Put(at, value) => put(sim, at, value),
            Step::Flush(at) => flush(sim, at),
            Step::Fence => sim.fence(),
        }
    }
}

/// A check whose reads depend on what it has read, and which writes: it follows the words as links, marks
/// where it was, and reports all that it then sees.
fn wander(sim: &Sim) -> Result<Digest, String> {
    let mut at = 0;
    let mut path = Vec::new();
    for _ in 0..4 {
        let value = get(sim, at);
        path.push(value);
        if value == 2 {
            put(sim, at + 1, 9);
            path.push(get(sim, at));
        }
        at = (at + value * 5) % 19;
    }
    Ok(Digest::of(&path))
}

proptest! {
    #[test]
    fn lazy_finds_what_eager_finds(steps in steps()) {
        for domain in DOMAINS {
            let sim = page(domain);
            run(&sim, &steps);
            let state = sim.crash_state();
            let lazy = explore_state(&state, ExploreOptions::default(), wander);
            let eager = explore_eagerly(&state, 1 << 18, wander).expect("few stores");
            prop_assert_eq!(&lazy.states, &eager.states);
            prop_assert!(lazy.classes <= eager.classes);
            let words = &[0, 1, 2, 8, 9, 10, 16, 17, 18];
            prop_assert_eq!(images_with(&sim, words).0, images_eagerly(&sim, words));
        }
    }

    #[test]
    fn torn_lines_include_whole_ones(steps in steps()) {
        let states = |domain| {
            let sim = page(domain);
            run(&sim, &steps);
            explore_state(&sim.crash_state(), ExploreOptions::default(), wander).states
        };
        let (whole, torn, cached) =
            (states(Domain::Line64), states(Domain::Word8), states(Domain::Eadr));
        prop_assert!(whole.is_subset(&torn));
        prop_assert!(cached.is_subset(&whole));
    }

    #[test]
    fn images_are_as_a_naive_model_says(steps in steps()) {
        // Naive: per line all contents since the last guaranteed one; the product of the lines.
        let words = &[0, 1, 2, 8, 9, 10, 16, 17, 18];
        let mut history = [const { vec![] }; 3].map(|mut line: Vec<[u64; 3]>| { line.push([0; 3]); line });
        let mut captured = [None; 3];
        for step in &steps {
            match *step {
                Step::Put(at, value) => {
                    let (line, word) = ((at / 8) as usize, (at % 8) as usize);
                    let mut next = *history[line].last().expect("never empty");
                    next[word] = value;
                    history[line].push(next);
                }
                Step::Flush(at) => captured[(at / 8) as usize] = Some(history[(at / 8) as usize].len() - 1),
                Step::Fence => for (line, captured) in history.iter_mut().zip(&mut captured) {
                    line.drain(..captured.take().unwrap_or(0));
                },
            }
        }
        let mut expected = BTreeSet::new();
        for a in &history[0] {
            for b in &history[1] {
                for c in &history[2] {
                    expected.insert([*a, *b, *c].concat());
                }
            }
        }
        let sim = page(Domain::Line64);
        run(&sim, &steps);
        prop_assert_eq!(images_with(&sim, words).0, expected);
    }
}

#[test]
fn what_is_not_read_is_not_enumerated() {
    let sim = pages(Domain::Line64, 4);
    (0..2048).for_each(|index| put(&sim, index, 1));
    let (images, report) = images_with(&sim, &[0, 9]);
    assert_eq!((images.len(), report.classes), (4, 4));
    assert_eq!(sim.crash_state().image_count(), u64::MAX);
    assert!(explore_eagerly(&sim.crash_state(), 1 << 20, ok).is_err());
}

#[test]
fn crash_points_are_where_the_images_change() {
    let sim = page(Domain::Line64);
    let explorer = Explorer::watch(&sim, ExploreOptions::default(), ok);
    put(&sim, 0, 1);
    sim.fence();
    flush(&sim, 8);
    sim.fence();
    explorer.pause();
    explorer.crash_point("not explored");
    explorer.resume();
    assert_eq!(sim.violations(), [""; 0]);
    put(&sim, 0, 2);
    flush(&sim, 0);
    sim.fence();
    sim.fence();
    sim.punch(Span::new(0, PAGE_BYTES)).expect("punching works");
    sim.back(Span::new(0, 1)).expect("the capacity suffices");
    sim.back(Span::new(0, 1)).expect("the capacity suffices");
    explorer.crash_point("end");
    let report = explorer.finish();
    report.assert_clean();
    assert_eq!(report.points, 4, "a fence, the punch, the backing, the end");
    put(&sim, 0, 3);
    flush(&sim, 0);
    sim.fence();
}

#[test]
fn where_caches_are_durable_every_store_is_a_crash_point() {
    let sim = page(Domain::Eadr);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let pairs = Arc::clone(&seen);
    let explorer = Explorer::watch(&sim, ExploreOptions::default(), move |sim| {
        pairs.lock().expect("no panic inside").push((get(sim, 0), get(sim, 1)));
        Ok(Digest(0))
    });
    put(&sim, 0, 1);
    put(&sim, 1, 1);
    put(&sim, 0, 2);
    flush(&sim, 0);
    sim.fence();
    assert_eq!(explorer.finish().points, 3);
    assert_eq!(*seen.lock().expect("no panic inside"), [(1, 0), (1, 1), (2, 1)]);
}

#[test]
fn a_violation_names_the_image_and_replays_it() {
    let drive = |options| {
        let sim = page(Domain::Word8);
        let runs = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&runs);
        let explorer = Explorer::watch(&sim, options, move |sim| {
            counter.fetch_add(1, Ordering::Relaxed);
            let values = [0, 8, 16].map(|index| get(sim, index));
            put(sim, 24, values[0] + 1);
            flush(sim, 24);
            sim.fence();
            let is_bad = values == [1, 0, 1] && get(sim, 24) == 2;
            if is_bad { Err(format!("bad {values:?}")) } else { Ok(Digest::of(&values)) }
        });
        for index in [0, 8, 16] {
            put(&sim, index, 1);
            flush(&sim, index);
        }
        sim.fence();
        (explorer.finish(), runs.load(Ordering::Relaxed))
    };
    let (report, runs) = drive(with_nesting(1));
    assert!(runs > 4 && !report.violations.is_empty(), "{report}");
    for violation in &report.violations {
        let text = violation.image.to_string();
        assert!(!text.contains('\n') && text.starts_with("point=0 image=1.0.1"), "{text}");
        let image = text.parse().expect("the text of an image names it");
        let (replayed, runs) = drive(ExploreOptions { replay: Some(image), ..with_nesting(1) });
        assert!(runs <= 2, "a replay runs nothing else: {runs}");
        let again = one_violation(&replayed);
        assert_eq!(again.message, violation.message);
        assert_eq!(again.image, violation.image);
        assert_eq!(again.crashes, violation.crashes);
    }
    let (crash, fates) = &report.violations[0].crashes[0];
    assert_eq!((crash.point, crash.kind), (0, PointKind::Fence));
    let fates: Vec<(u64, Fate)> = fates.iter().map(|fate| (fate.at, fate.fate)).collect();
    assert_eq!(fates, [(0, Fate::Kept), (64, Fate::Lost), (128, Fate::Kept)]);
    assert!(report.to_string().contains("sim/explore.rs"), "{report}");
}

#[test]
fn names_of_images_are_checked() {
    for text in ["", "point=1", "point=x image=-", "point=1 image=0..1", "point=1 image=- nested=3"]
    {
        assert!(text.parse::<pmalloc_persist::sim::ImageId>().is_err(), "{text}");
    }
    for text in ["point=1 image=-", "point=7 image=0.2 nested=1:-/0:3.1"] {
        let image: pmalloc_persist::sim::ImageId = text.parse().expect("a name");
        assert_eq!(image.to_string(), text);
    }
}

#[test]
fn crashes_in_recovery_are_explored() {
    // Recovery doubles a counter in two steps; a crash between them makes it double again. Only a crash
    // inside recovery shows it, and three doublings need two of them.
    let worst = |nesting| {
        let sim = page(Domain::Line64);
        put(&sim, 0, 1);
        let most = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&most);
        let report = explore_state(&sim.crash_state(), with_nesting(nesting), move |sim| {
            if get(sim, 0) == 1 && get(sim, 16) == 0 {
                put(sim, 8, get(sim, 8) + 1);
                sim.persist(Span::new(64, 8));
                put(sim, 16, 1);
                sim.persist(Span::new(128, 8));
            }
            let doubled = get(sim, 8);
            sim.recovered();
            seen.fetch_max(doubled, Ordering::Relaxed);
            Ok(Digest(doubled))
        });
        report.assert_clean();
        (most.load(Ordering::Relaxed), report.nested_classes > 0)
    };
    assert_eq!([0, 1, 2].map(worst), [(1, false), (2, true), (3, true)]);
}

#[test]
fn nothing_is_explored_after_recovery() {
    let points = |is_recovered: u64| {
        let sim = page(Domain::Line64);
        let report = explore_state(&sim.crash_state(), with_nesting(1), move |sim| {
            if is_recovered == 1 {
                sim.recovered();
            }
            put(sim, 0, get(sim, 0) + 1);
            sim.persist(Span::new(0, 8));
            Ok(Digest(0))
        });
        report.nested_points
    };
    assert_eq!([0, 1].map(points), [1, 1]);
}

#[test]
fn undecided_units_stay_open_over_a_nested_crash() {
    let sim = page(Domain::Line64);
    put(&sim, 0, 1);
    put(&sim, 8, 1);
    let pairs = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&pairs);
    // The first recovery reads only one of two undecided words; the second must still find both contents.
    explore_state(&sim.crash_state(), with_nesting(1), move |sim| {
        let first = get(sim, 0);
        if get(sim, 16) == 0 {
            put(sim, 16, 1 + first);
            sim.persist(Span::new(128, 8));
        } else {
            seen.lock().expect("no panic inside").insert((get(sim, 16), first, get(sim, 8)));
        }
        Ok(Digest(0))
    })
    .assert_clean();
    let expected = [(1, 0, 0), (1, 0, 1), (2, 1, 0), (2, 1, 1)];
    assert_eq!(*pairs.lock().expect("no panic inside"), BTreeSet::from(expected));
}

#[test]
fn panics_are_violations() {
    let sim = page(Domain::Line64);
    put(&sim, 0, 1);
    let report = explore_state(&sim.crash_state(), ExploreOptions::default(), |sim| {
        assert_eq!(get(sim, 0), 0, "recovery gives up");
        Ok(Digest(0))
    });
    let violation = one_violation(&report);
    assert!(violation.message.contains("recovery gives up"), "{violation}");
    assert!(violation.message.contains("sim/explore.rs"), "{violation}");
}

#[test]
fn hangs_are_violations() {
    let sim = page(Domain::Line64);
    put(&sim, 0, 1);
    let options = ExploreOptions { step_limit: 1000, ..ExploreOptions::default() };
    let report = explore_state(&sim.crash_state(), options, |sim| {
        while get(sim, 0) == 1 {}
        Ok(Digest(0))
    });
    assert!(one_violation(&report).message.contains("no end after 1000 accesses"), "{report}");
}

#[test]
fn pages_without_memory_are_violations_even_if_the_check_hides_them() {
    let sim = pages(Domain::Line64, 2);
    sim.punch(Span::new(PAGE_BYTES, PAGE_BYTES)).expect("punching works");
    let report = explore_state(&sim.crash_state(), ExploreOptions::default(), |sim| {
        let peek = || get(sim, 512);
        drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(peek)));
        Ok(Digest(0))
    });
    assert!(one_violation(&report).message.contains("no memory"), "{report}");
}

#[test]
fn a_boot_has_the_pages_of_the_crash_in_every_run() {
    let sim = pages(Domain::Line64, 2);
    sim.punch(Span::new(PAGE_BYTES, PAGE_BYTES)).expect("punching works");
    put(&sim, 0, 1);
    let report = explore_state(&sim.crash_state(), ExploreOptions::default(), |sim| {
        let before = sim.occupied_bytes().map_err(|error| error.to_string())?;
        get(sim, 0);
        sim.back(Span::new(0, 2 * PAGE_BYTES)).map_err(|error| error.to_string())?;
        Ok(Digest(before))
    });
    report.assert_clean();
    assert_eq!((report.classes, report.states.len()), (2, 1));
    assert!(report.states.contains(&Digest(PAGE_BYTES)));
}

#[test]
fn a_recovery_that_is_not_deterministic_is_a_violation() {
    let sim = page(Domain::Line64);
    put(&sim, 0, 1);
    put(&sim, 8, 1);
    let runs = AtomicU64::new(0);
    let report = explore_state(&sim.crash_state(), ExploreOptions::default(), move |sim| {
        let order = if runs.fetch_add(1, Ordering::Relaxed) == 0 { [0, 8] } else { [8, 0] };
        Ok(Digest::of(&order.map(|index| get(sim, index))))
    });
    assert!(report.violations[0].message.contains("not deterministic"), "{report}");
}

#[test]
fn unannounced_plain_stores_are_violations() {
    let sim = page(Domain::Line64);
    let report = explore_state(&sim.crash_state(), ExploreOptions::default(), |sim| {
        let place = sim.region().pointer(Span::new(128, 1)).expect("in bounds");
        // SAFETY: one byte inside the region; nothing else accesses it now.
        unsafe { place.write(1) };
        Ok(Digest(0))
    });
    assert!(one_violation(&report).message.contains("0x80"), "{report}");
}

#[test]
fn above_the_budget_a_sample_is_run() {
    let sim = page(Domain::Word8);
    (0..20).for_each(|index| put(&sim, index, 1));
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let sums = Arc::clone(&seen);
    let options = ExploreOptions { budget: 100, samples: 50, ..ExploreOptions::default() };
    let report = explore_state(&sim.crash_state(), options, move |sim| {
        let sum: u64 = (0..20).map(|index| get(sim, index)).sum();
        sums.lock().expect("no panic inside").insert(sum);
        Ok(Digest(sum))
    });
    report.assert_clean();
    assert_eq!(report.sampled_points, 1);
    assert!(!report.is_exhaustive());
    assert_eq!(report.classes, 100 + 2 + 2 * 20 + 50);
    let sums = seen.lock().expect("no panic inside");
    assert!(
        [0, 1, 19, 20].iter().all(|sum| sums.contains(sum)),
        "the extremes are there: {sums:?}"
    );
}

#[test]
fn what_was_judged_is_not_judged_again() {
    let repeated = |oracle: [u64; 2]| {
        let sim = page(Domain::Line64);
        let explorer =
            Explorer::watch(&sim, ExploreOptions::default(), |sim| Ok(Digest(get(sim, 0))));
        for state in oracle {
            explorer.set_oracle(state);
            put(&sim, 0, 1);
            explorer.crash_point("one");
            put(&sim, 0, 0);
            flush(&sim, 0);
            sim.fence();
        }
        let report = explorer.finish();
        (report.points, report.repeated_points)
    };
    // The second store brings back what was there, so that the two crashes of a round leave the same.
    assert_eq!(repeated([5, 5]), (4, 3));
    assert_eq!(repeated([5, 6]), (4, 2));
}

#[test]
fn an_explorer_stops_after_enough_violations() {
    let sim = page(Domain::Line64);
    let options = ExploreOptions { max_violations: 2, ..ExploreOptions::default() };
    let explorer = Explorer::watch(&sim, options, |_| Err("never right".into()));
    for value in 1..10 {
        sim.store(word(&sim, 0), value);
        sim.persist(Span::new(0, 8));
    }
    assert!(explorer.is_over());
    let report = explorer.finish();
    assert_eq!((report.violations.len(), report.classes), (2, 2));
}
