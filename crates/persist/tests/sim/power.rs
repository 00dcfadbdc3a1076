//! The power of the explorer: a ring that is right is found right in every domain, with crashes in recovery
//! and a second life after each; every persist that is left out, and every planted bug, is found.

#[path = "../../examples/ring/ring.rs"]
#[allow(dead_code, reason = "the example uses more of it")]
mod ring;

use std::sync::{Arc, Mutex};

use crate::common::{flush, get, page, put};
use pmalloc_persist::{
    Medium, Span,
    sim::{Digest, Domain, ExploreOptions, Explorer, Report, Sim, SimOptions, SiteCount, SiteKind},
};
use ring::{BYTES, PLACES, Ring};

const DOMAINS: [Domain; 3] = [Domain::Line64, Domain::Word8, Domain::Eadr];

/// What the ring may hold.
#[derive(Debug, Default, Clone)]
struct Model {
    before: Vec<u64>,
    after: Vec<u64>,
}

/// A driver of rings: operations against the model, under an explorer.
struct Driver {
    sim: Sim,
    ring: Ring<Sim>,
    model: Arc<Mutex<Model>>,
    explorer: Explorer,
}

impl Driver {
    fn new(sim: &Sim, values: Vec<u64>, nesting: u32) -> Self {
        let model = Arc::new(Mutex::new(Model { before: values.clone(), after: values }));
        let seen = Arc::clone(&model);
        let options = ExploreOptions { nesting, max_violations: 1, ..ExploreOptions::default() };
        let explorer = Explorer::watch(sim, options, move |sim| {
            let model = seen.lock().expect("no panic inside").clone();
            check(sim, &model)
        });
        let ring = Ring::open(sim.clone()).expect("the medium is large enough");
        Self { sim: sim.clone(), ring, model, explorer }
    }

    fn step(&mut self, value: Option<u64>) {
        {
            let mut model = self.model.lock().expect("no panic inside");
            let mut after = model.before.clone();
            match value {
                Some(value) if (after.len() as u64) < PLACES => after.push(value),
                None if !after.is_empty() => drop(after.drain(..1)),
                _ => {}
            }
            model.after = after;
        }
        match value {
            Some(value) => drop(self.ring.push(value).then_some(())),
            None => drop(self.ring.pop().map(|_| ())),
        }
        {
            let mut model = self.model.lock().expect("no panic inside");
            model.before = model.after.clone();
        }
        self.explorer.crash_point("operation returned");
    }

    /// One step of which the crash is not explored but lived through: a medium on which it happened.
    fn crash(mut self, seed: u64) -> (Sim, Report) {
        self.explorer.pause();
        // The step is cut off before its fence by leaving the fence out.
        let fences = self.sim.sites().into_iter().filter(|site| site.kind == SiteKind::Fence);
        fences.for_each(|site| self.sim.drop_fence(site.location));
        self.step(Some(0xaaaa_aaaa_5555_5555));
        self.sim.clear_mutations();
        (self.sim.crash_state().sample(seed), self.explorer.finish())
    }
}

fn check(sim: &Sim, model: &Model) -> Result<Digest, String> {
    let ring = Ring::open(sim.clone()).map_err(|error| error.to_string())?;
    let values = ring.values();
    sim.recovered();
    if values != model.before && values != model.after {
        return Err(format!("found {values:x?}, expected {model:x?}"));
    }
    Ok(Digest::of(&values))
}

fn empty(domain: Domain) -> Sim {
    let sim = Sim::new(SimOptions { len_bytes: BYTES.len, domain });
    sim.back(BYTES).expect("the capacity suffices");
    sim
}

/// A first life of pushes and pops, a crash in the last push, and a second life from a random image of it.
fn two_lives(domain: Domain, nesting: u32, seed: u64, prepare: impl Fn(&Sim)) -> (Report, Sim) {
    let sim = empty(domain);
    prepare(&sim);
    let mut first = Driver::new(&sim, Vec::new(), nesting);
    (0..12).for_each(|n| first.step((n % 3 != 2).then_some(n << 32 | n)));
    let (boot, mut report) = first.crash(seed);
    prepare(&boot);
    // What the second life starts from is what its own recovery finds: its durability is judged, not
    // its content, which the explorer has judged in the first life.
    let values = Ring::open(boot.crash_state().newest()).expect("large enough").values();
    let mut second = Driver::new(&boot, values, nesting);
    second.explorer.crash_point("reopened");
    // First a push: it writes to the place of the record that the crash tore.
    (21..26).for_each(|n| second.step((n % 3 != 2).then_some(n << 32 | n)));
    report.merge(second.explorer.finish());
    (report, boot)
}

#[test]
fn a_right_ring_is_found_right() {
    for domain in DOMAINS {
        for seed in 0..8 {
            two_lives(domain, 2, seed, |_| {}).0.assert_clean();
        }
    }
}

/// The places in the ring's source that a life reaches.
fn sites_of_the_ring() -> Vec<SiteCount> {
    let mut sites = Vec::new();
    for seed in 0..8 {
        sites.extend(two_lives(Domain::Word8, 1, seed, |_| {}).1.sites());
    }
    sites.retain(|site| site.location.file().ends_with("ring.rs"));
    sites.sort();
    sites.dedup_by_key(|site| (site.kind, site.location));
    sites
}

fn is_found(site: SiteCount) -> bool {
    (0..8).any(|seed| {
        let report = two_lives(Domain::Word8, 1, seed, |sim| sim.mutate(site)).0;
        !report.violations.is_empty()
    })
}

#[test]
fn every_persist_left_out_is_found() {
    let persists: Vec<SiteCount> =
        sites_of_the_ring().into_iter().filter(|site| site.kind != SiteKind::Store).collect();
    assert_eq!(persists.len(), 6, "push, pop and scrub each flush and fence: {persists:?}");
    let survivors: Vec<&SiteCount> = persists.iter().filter(|&&site| !is_found(site)).collect();
    assert!(survivors.is_empty(), "{survivors:?}");
}

/// A cell of two words under a flag, written by `write`; valid once the flag is set.
fn explore_cell(domain: Domain, write: fn(&Sim)) -> Report {
    let sim = page(domain);
    let explorer = Explorer::watch(&sim, ExploreOptions::default(), |sim| {
        let (flag, cell) = (get(sim, 0), [get(sim, 8), get(sim, 9)]);
        match (flag, cell) {
            (1, [7, 7]) | (0, _) => Ok(Digest::of(&(flag, cell))),
            _ => Err(format!("flag {flag}, cell {cell:?}")),
        }
    });
    write(&sim);
    explorer.crash_point("written");
    explorer.finish()
}

fn write_cell(sim: &Sim) {
    put(sim, 8, 7);
    put(sim, 9, 7);
    sim.persist(Span::new(64, 16));
    put(sim, 0, 1);
    sim.persist(Span::new(0, 8));
}

#[test]
fn contents_that_are_not_fenced_are_found() {
    let unfenced = |sim: &Sim| {
        put(sim, 8, 7);
        put(sim, 9, 7);
        flush(sim, 8);
        put(sim, 0, 1);
        flush(sim, 0);
        sim.fence();
    };
    for domain in [Domain::Line64, Domain::Word8] {
        explore_cell(domain, write_cell).assert_clean();
        assert!(!explore_cell(domain, unfenced).violations.is_empty(), "{domain:?}");
    }
    explore_cell(Domain::Eadr, unfenced).assert_clean();
}

#[test]
fn swapped_stores_are_found() {
    // The flag and what it guards in one line: the order of the stores alone makes it right.
    let explore = |domain, delayed: Option<SiteCount>| {
        let sim = page(domain);
        delayed.into_iter().for_each(|site| sim.mutate(site));
        let explorer = Explorer::watch(&sim, ExploreOptions::default(), |sim| {
            match (get(sim, 0), get(sim, 1)) {
                (1, 0) => Err("the flag without its value".into()),
                state => Ok(Digest::of(&state)),
            }
        });
        put(&sim, 1, 7);
        put(&sim, 0, 1);
        sim.persist(Span::new(0, 64));
        (explorer.finish(), sim.sites()[0])
    };
    for domain in [Domain::Line64, Domain::Eadr] {
        let (right, first) = explore(domain, None);
        right.assert_clean();
        assert!(!explore(domain, Some(first)).0.violations.is_empty(), "{domain:?}");
    }
    let torn = explore(Domain::Word8, None).0;
    assert!(!torn.violations.is_empty(), "torn lines know no such order");
}

#[test]
fn torn_records_that_are_accepted_are_found() {
    // A record of two words with the tag in the second only: right as long as lines don't tear.
    let explore = |domain| {
        let sim = page(domain);
        let explorer = Explorer::watch(&sim, ExploreOptions::default(), |sim| {
            match (get(sim, 0), get(sim, 1)) {
                (value, tag) if tag != 0 && value != tag * 10 => {
                    Err(format!("torn: {value}, {tag}"))
                }
                state => Ok(Digest::of(&state)),
            }
        });
        put(&sim, 0, 10);
        put(&sim, 1, 1);
        sim.persist(Span::new(0, 16));
        explorer.finish()
    };
    explore(Domain::Line64).assert_clean();
    explore(Domain::Eadr).assert_clean();
    assert!(!explore(Domain::Word8).violations.is_empty());
}

#[test]
fn a_recovery_that_is_not_repeatable_is_found() {
    // Recovery moves a value in place: first clears the source, then writes the target, both at one fence.
    let explore = |nesting| {
        let sim = page(Domain::Line64);
        let options = ExploreOptions { nesting, ..ExploreOptions::default() };
        put(&sim, 0, 5);
        sim.persist(Span::new(0, 8));
        let explorer = Explorer::watch(&sim, options, |sim| {
            let value = get(sim, 0);
            if value != 0 {
                put(sim, 8, value);
                put(sim, 0, 0);
                flush(sim, 0);
                flush(sim, 8);
                sim.fence();
            }
            sim.recovered();
            if get(sim, 8) == 5 { Ok(Digest(0)) } else { Err("the value is gone".into()) }
        });
        explorer.crash_point("moving");
        explorer.finish()
    };
    explore(0).assert_clean();
    assert!(!explore(1).violations.is_empty());
}
