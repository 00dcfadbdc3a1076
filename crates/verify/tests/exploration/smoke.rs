//! Goal: the exploration works, on a sample of its cases, in seconds; and it finds what is planted.
//!
//! Method: the smoke set must be clean. A dropped flush, a dropped fence and a delayed store in an allocation must be
//! found by the single operations from a fragmented heap, and so must an oracle that is told a wrong state. A recovery that
//! does not flush what it read must be found where the process was killed in an operation. A slab and an
//! extent that no slot owns any more, and that do not come back, must be found as well.

use pmalloc::{
    Policy,
    persist::sim::{Domain, SiteCount, SiteKind},
};
use pmalloc_verify::{
    alphabet::{Op, Step},
    explore::{Case, Conditions, Lie, Scene},
    place::Place,
    sets::{self, Set},
    start::Start,
};

const THREADS: usize = 2;

/// Every single operation from a fragmented heap.
fn single_operations() -> Set {
    let case = |step| Case {
        scene: Scene::Steps(Start::Fragmented, vec![step]),
        domain: Domain::Word8,
        nesting: 0,
        policy: Policy::Eager,
    };
    Set {
        name: "single operations",
        cases: Step::all(Policy::Eager).into_iter().map(case).collect(),
    }
}

#[test]
fn a_sample_of_the_cases_has_no_violation() {
    let outcome = sets::run(&Set::smoke(Policy::Eager), &Conditions::default(), THREADS);
    println!("{}: {} cases, {}", outcome.name, outcome.cases, outcome.report);
    assert_eq!(outcome.failure, None);
    assert!(outcome.report.is_exhaustive(), "no point is sampled");
    assert_eq!(outcome.report.untold_words, 0, "every plain store was announced");
}

/// Faults at the sites of `kind` in `op/`: how many are found, of how many.
fn found(kind: SiteKind) -> (usize, usize) {
    let set = single_operations();
    let is_wanted =
        |site: &SiteCount| site.kind == kind && site.location.file().contains("pmalloc/src/op/");
    let sites = sets::run(&set, &Conditions::default(), THREADS).sites;
    let wanted: Vec<SiteCount> = sites.into_iter().filter(is_wanted).collect();
    let notices = |site: &&SiteCount| {
        let conditions = Conditions { fault: Some(**site), ..Conditions::default() };
        sets::run(&set, &conditions, THREADS).failure.is_some()
    };
    (wanted.iter().filter(notices).count(), wanted.len())
}

#[test]
fn dropped_flushes_of_allocations_are_found() {
    let (found, sites) = found(SiteKind::Flush);
    println!("{found} of {sites}");
    assert!(found >= 3, "{found} of {sites}");
}

#[test]
fn dropped_fences_of_allocations_are_found() {
    let (found, sites) = found(SiteKind::Fence);
    println!("{found} of {sites}");
    assert!(found >= 3, "{found} of {sites}");
}

#[test]
fn delayed_stores_of_allocations_are_found() {
    let (found, sites) = found(SiteKind::Store);
    println!("{found} of {sites}");
    assert!(found >= 1, "{found} of {sites}");
}

#[test]
fn a_wrong_model_is_found() {
    for lie in [Lie::Lost, Lie::Leaked, Lie::Changed, Lie::Set] {
        let conditions = Conditions { lie: Some(lie), ..Conditions::default() };
        let outcome = sets::run(&single_operations(), &conditions, THREADS);
        assert!(outcome.failure.is_some(), "{lie:?}");
    }
}

/// Whether a recovery that leaves out what `write_back` in `file` flushes is found: that of a heap whose process was killed in
/// a step that changes the bookkeeping log and a lane, and that works on.
fn is_write_back_found(file: &str) -> bool {
    let step = Step { op: Op::AllocPages, lane: 0 };
    let case = |nth| {
        let scene = Scene::Killed(Start::FastGcPending, step, nth, step);
        Case { scene, domain: Domain::Word8, nesting: 0, policy: Policy::Eager }
    };
    let cases = (0..sets::calls(Policy::Eager, Start::FastGcPending, step)).map(case).collect();
    let set = Set { name: "killed", cases };
    let clean = sets::run(&set, &Conditions::default(), THREADS);
    assert_eq!(clean.failure, None);
    let is_wanted = |site: &SiteCount| {
        let place = Place::of(site).expect("the sources are there");
        site.kind == SiteKind::Flush
            && place.is_some_and(|place| place.file == file && place.function == "write_back")
    };
    let mut sites = clean.sites.into_iter().filter(is_wanted);
    sites.any(|site| {
        let conditions = Conditions { fault: Some(site), ..Conditions::default() };
        sets::run(&set, &conditions, THREADS).failure.is_some()
    })
}

#[test]
fn a_recovery_that_leaves_what_it_read_in_the_caches_is_found() {
    assert!(is_write_back_found("book/replay.rs"));
    assert!(is_write_back_found("lane/replay.rs"));
}

/// What the exploration says of one step from a fresh heap, if memory that the oracle frees waits for a guard.
fn hoarded(op: Op) -> String {
    let steps = vec![Step { op, lane: 0 }];
    let case = Case {
        scene: Scene::Steps(Start::Fresh, steps),
        domain: Domain::Word8,
        nesting: 0,
        policy: Policy::Eager,
    };
    let conditions = Conditions { lie: Some(Lie::Hoarded), ..Conditions::default() };
    let (report, _) = case.run(&conditions);
    report.violations.first().expect("it is found").message.clone()
}

#[test]
fn a_slab_that_does_not_come_back_is_found() {
    let message = hoarded(Op::AllocSmallest);
    assert!(message.contains("bytes are in use after all was freed"), "{message}");
    assert!(
        message.contains("block_bytes: 16, tag: 0, slabs: 1"),
        "the slab has no live block: {message}"
    );
}

#[test]
fn pages_that_do_not_come_back_are_found() {
    let message = hoarded(Op::AllocPages);
    assert!(message.contains("bytes are in use after all was freed"), "{message}");
    assert!(!message.contains("block_bytes: 16,"), "no slab but those of the roots: {message}");
}
