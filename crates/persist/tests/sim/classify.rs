//! Reads that ask for less than a value, and stores over what nobody read: the explorer tells no more images
//! apart than the program does, and still misses none.
//!
//! Random programs run on the simulator and on a naive model, which enumerates whole memories. A program is
//! crashed, its recovery is a program as well, and that is crashed again; what is left must be the same.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use crate::common::{flush, get, page, put, word};
use pmalloc_persist::{
    Anon, Medium, Offset, Span, Traced, Word,
    sim::{Digest, Domain, ExploreOptions, Report, Sim, explore_eagerly, explore_state},
};
use proptest::prelude::*;

const DOMAINS: [Domain; 3] = [Domain::Line64, Domain::Word8, Domain::Eadr];
const WORDS: usize = 9;

/// A step of a program over words 0 to 8, three in each of three lines.
#[derive(Debug, Clone, Copy)]
enum Step {
    Put(usize, u64),
    /// Puts into the second word the value, if the first holds more than the limit.
    PutIf(usize, u64, usize, u64),
    /// Puts into the second word one more than the first holds.
    PutNext(usize, usize),
    Flush(usize),
    Fence,
}

fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    let value = || 0..3_u64;
    let step = prop_oneof![
        4 => (0..WORDS, value()).prop_map(|(at, value)| Step::Put(at, value)),
        2 => (0..WORDS, value(), 0..WORDS, value()).prop_map(|(a, b, c, d)| Step::PutIf(a, b, c, d)),
        1 => (0..WORDS, 0..WORDS).prop_map(|(from, to)| Step::PutNext(from, to)),
        2 => (0..WORDS).prop_map(Step::Flush),
        1 => Just(Step::Fence),
    ];
    prop::collection::vec(step, 0..count)
}

/// The index of a word of the model on the simulator.
fn place(at: usize) -> u64 {
    (at / 3 * 8 + at % 3) as u64
}

fn run(sim: &Sim, steps: &[Step]) {
    for step in steps {
        match *step {
            Step::Put(at, value) => put(sim, place(at), value),
            Step::PutIf(at, limit, to, value) => {
                if sim.classify(word(sim, place(at)), |found| found > limit) {
                    put(sim, place(to), value);
                }
            }
            Step::PutNext(from, to) => put(sim, place(to), get(sim, place(from)) + 1),
            Step::Flush(at) => flush(sim, place(at)),
            Step::Fence => sim.fence(),
        }
    }
}

type Contents = [u64; WORDS];

/// A memory whose every image is enumerated.
#[derive(Debug, Clone)]
struct Naive {
    domain: Domain,
    live: Contents,
    durable: Contents,
    /// Stores to each unit since it was last guaranteed, and how many of them are flushed.
    stores: Vec<Vec<(usize, u64)>>,
    flushed: Vec<usize>,
}

impl Naive {
    fn new(domain: Domain, contents: Contents) -> Self {
        let (stores, flushed) = (vec![Vec::new(); WORDS], vec![0; WORDS]);
        Self { domain, live: contents, durable: contents, stores, flushed }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(at, value) => self.put(at, value),
            Step::PutIf(at, limit, to, value) if self.live[at] > limit => self.put(to, value),
            Step::PutIf(..) => {}
            Step::PutNext(from, to) => self.put(to, self.live[from] + 1),
            Step::Flush(at) => self.flush(at / 3),
            Step::Fence => self.fence(),
        }
    }

    fn unit(&self, at: usize) -> usize {
        if self.domain == Domain::Line64 { at / 3 } else { at }
    }

    fn put(&mut self, at: usize, value: u64) {
        self.live[at] = value;
        if self.domain == Domain::Eadr {
            self.durable[at] = value;
        } else {
            let unit = self.unit(at);
            self.stores[unit].push((at, value));
        }
    }

    fn flush(&mut self, line: usize) {
        for at in line * 3..line * 3 + 3 {
            let unit = self.unit(at);
            self.flushed[unit] = self.stores[unit].len();
        }
    }

    fn fence(&mut self) {
        for (stores, flushed) in self.stores.iter_mut().zip(&mut self.flushed) {
            for (at, value) in stores.drain(..*flushed) {
                self.durable[at] = value;
            }
            *flushed = 0;
        }
    }

    fn images(&self) -> BTreeSet<Contents> {
        let mut images = vec![self.durable];
        for stores in &self.stores {
            let before = images.clone();
            for kept in 1..=stores.len() {
                images.extend(before.iter().map(|image| {
                    let mut image = *image;
                    stores[..kept].iter().for_each(|&(at, value)| image[at] = value);
                    image
                }));
            }
        }
        images.into_iter().collect()
    }
}

/// What crashes of `recovery`, in a medium on which `first` was crashed at its end, leave on the simulator.
fn crash_twice(domain: Domain, first: &[Step], recovery: Vec<Step>) -> BTreeSet<Contents> {
    let sim = page(domain);
    run(&sim, first);
    let images = Arc::new(Mutex::new(BTreeSet::new()));
    let (seen, is_recovering) = (Arc::clone(&images), Mutex::new(false));
    let recover = move |sim: &Sim| {
        let is_outer = !std::mem::replace(&mut *is_recovering.lock().expect("no panic"), true);
        if is_outer {
            sim.crash_point("before");
            run(sim, &recovery);
            sim.crash_point("after");
            *is_recovering.lock().expect("no panic") = false;
        } else {
            let image = std::array::from_fn(|at| get(sim, place(at)));
            seen.lock().expect("no panic").insert(image);
        }
        Ok(Digest(0))
    };
    let options = ExploreOptions { nesting: 1, ..ExploreOptions::default() };
    let report = explore_state(&sim.crash_state(), options, recover);
    assert!(report.violations.is_empty(), "{report}");
    std::mem::take(&mut *images.lock().expect("no panic"))
}

/// The same, in the naive model.
fn crash_twice_naively(domain: Domain, first: &[Step], recovery: &[Step]) -> BTreeSet<Contents> {
    let mut model = Naive::new(domain, [0; WORDS]);
    first.iter().for_each(|step| model.step(*step));
    let mut images = BTreeSet::new();
    for image in model.images() {
        let mut model = Naive::new(domain, image);
        images.extend(model.images());
        for step in recovery {
            model.step(*step);
            images.extend(model.images());
        }
    }
    images
}

/// A check that asks for classes, then for values, and writes over what it has not read.
fn ask(sim: &Sim) -> Result<Digest, String> {
    let class = |at| sim.classify(word(sim, at), |value| value.min(2));
    let first = class(0);
    put(sim, 1, 7);
    let second = if first == 1 { class(9) } else { get(sim, 8) };
    let bits = [10, 1, 0].map(|at| sim.classify(word(sim, at), |value| value & 1 == 0));
    let value = if second == 2 { get(sim, 0) } else { 0 };
    Ok(Digest::of(&(first, second, bits, value, get(sim, 1))))
}

proptest! {
    #[test]
    fn crashes_of_a_recovery_leave_what_a_naive_model_says(first in steps(10), recovery in steps(8)) {
        for domain in DOMAINS {
            let found = crash_twice(domain, &first, recovery.clone());
            prop_assert_eq!(found, crash_twice_naively(domain, &first, &recovery), "{:?}", domain);
        }
    }

    #[test]
    fn lazy_finds_what_eager_finds(steps in steps(14)) {
        for domain in DOMAINS {
            let sim = page(domain);
            run(&sim, &steps);
            let state = sim.crash_state();
            let lazy = explore_state(&state, ExploreOptions::default(), ask);
            let eager = explore_eagerly(&state, 1 << 18, ask).expect("few stores");
            prop_assert_eq!(&lazy.states, &eager.states);
            prop_assert!(lazy.classes <= eager.classes);
        }
    }
}

/// Explores a crash after sixteen words were stored to, each with a value of its own.
fn explore_sixteen<C>(domain: Domain, check: C) -> Report
where
    C: Fn(&Sim) -> Result<Digest, String> + Send + Sync + 'static,
{
    let sim = page(domain);
    (0..16).for_each(|at| put(&sim, at, 100 + at));
    let report = explore_state(&sim.crash_state(), ExploreOptions::default(), check);
    report.assert_clean();
    report
}

#[test]
fn only_the_answers_are_told_apart() {
    for domain in [Domain::Line64, Domain::Word8] {
        let never = explore_sixteen(domain, |sim| {
            let large = (0..16).any(|at| sim.classify(word(sim, at), |value| value > 200));
            Ok(Digest::of(&large))
        });
        assert_eq!((never.classes, never.states.len()), (1, 1), "{domain:?}");
        let once = explore_sixteen(domain, |sim| {
            let large = (0..16).any(|at| sim.classify(word(sim, at), |value| value == 107));
            Ok(Digest::of(&large))
        });
        assert_eq!((once.classes, once.states.len()), (2, 2), "{domain:?}");
    }
}

#[test]
fn a_class_may_have_gaps() {
    // The line holds a prefix of six stores; of those with an even value, a later read finds each.
    let sim = page(Domain::Line64);
    (1..=6).for_each(|value| put(&sim, 0, value));
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let pairs = Arc::clone(&seen);
    let report = explore_state(&sim.crash_state(), ExploreOptions::default(), move |sim| {
        let is_even = sim.classify(word(sim, 0), |value| value % 2 == 0);
        let value = if is_even { get(sim, 0) } else { 99 };
        pairs.lock().expect("no panic").insert(value);
        Ok(Digest(value))
    });
    report.assert_clean();
    assert_eq!(report.classes, 5);
    assert_eq!(*seen.lock().expect("no panic"), BTreeSet::from([0, 2, 4, 6, 99]));
}

#[test]
fn what_a_class_hides_a_later_read_finds() {
    let report = explore_sixteen(Domain::Word8, |sim| {
        assert!(!sim.classify(word(sim, 3), |value| value > 200), "both values are below");
        Ok(Digest(get(sim, 3)))
    });
    assert_eq!(report.states, [Digest(0), Digest(103)].into());
}

#[test]
fn what_is_written_over_unread_is_not_told_apart() {
    for domain in [Domain::Line64, Domain::Word8] {
        let report = explore_sixteen(domain, |sim| {
            (0..16).for_each(|at| put(sim, at, 0));
            sim.persist(Span::new(0, 128));
            Ok(Digest::of(&[0, 7, 15].map(|at| get(sim, at))))
        });
        assert_eq!((report.classes, report.states.len()), (1, 1), "{domain:?}");
    }
}

#[test]
fn a_wipe_that_is_cut_off_leaves_old_words_and_zeros() {
    // Three generations of a recovery that wipes without looking: still the old value or zero, no more.
    let sim = page(Domain::Word8);
    put(&sim, 0, 5);
    sim.persist(Span::new(0, 8));
    put(&sim, 0, 6);
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let values = Arc::clone(&seen);
    let options = ExploreOptions { nesting: 3, ..ExploreOptions::default() };
    let report = explore_state(&sim.crash_state(), options, move |sim| {
        put(sim, 0, 0);
        sim.persist(Span::new(0, 8));
        sim.recovered();
        put(sim, 8, 1);
        values.lock().expect("no panic").insert(get(sim, 0));
        Ok(Digest(0))
    });
    report.assert_clean();
    assert_eq!(*seen.lock().expect("no panic"), BTreeSet::from([0]));
    // A wipe cut off leaves the same at every depth, and is explored once. Its end is met two crashes deep before it is
    // met one crash deep, where more is to be explored.
    assert_eq!((report.classes, report.nested_points, report.nested_classes), (1, 3, 3));
}

#[test]
fn on_hardware_the_word_is_read_and_classified() {
    let medium = Traced::new(Arc::new(Anon::new(4096)));
    let word = medium.at::<Word>(Offset::new(8)).expect("in bounds");
    medium.store(word, 12);
    assert_eq!(medium.classify(word, |value| value / 5), 2);
}
