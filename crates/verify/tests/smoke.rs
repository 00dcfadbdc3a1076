//! Goal: the exploration works, on a sample of its cases, in seconds; and it finds what is planted.
//!
//! Method: the smoke set must be clean; a dropped flush, a dropped fence and swapped stores in the two durable
//! operations must be found by it, and so must an oracle that is told a wrong state.

use pmalloc::persist::sim::SiteKind;
use pmalloc_verify::{
    explore::{Conditions, Lie},
    power,
    sets::{self, Set},
};

const THREADS: usize = 2;

#[test]
fn a_sample_of_the_cases_has_no_violation() {
    let outcome = sets::run(&Set::smoke(), &Conditions::default(), THREADS);
    println!("{}: {} cases, {}", outcome.name, outcome.cases, outcome.report);
    assert_eq!(outcome.failure, None);
    assert_eq!(outcome.report.sampled_points, 0, "every image was explored");
    assert_eq!(outcome.report.untold_words, 0, "every plain store was announced");
}

/// Plants a fault at the first site of `kind` in a file whose name contains `file`, and expects it to be found.
fn expect_found(kind: SiteKind, file: &str) {
    let site = power::sites(THREADS)
        .into_iter()
        .find(|site| site.kind == kind && site.location.file().contains(file))
        .expect("the sets reach the file");
    let mutant = power::judge(site, THREADS);
    assert!(mutant.killed_by.is_some(), "{} was not noticed", mutant.describe());
}

#[test]
fn a_dropped_flush_of_a_record_is_found() {
    expect_found(SiteKind::Flush, "lane/ring.rs");
}

#[test]
fn a_dropped_fence_of_an_allocation_is_found() {
    expect_found(SiteKind::Fence, "heap/alloc.rs");
}

#[test]
fn swapped_stores_of_a_lane_are_found() {
    expect_found(SiteKind::Store, "lane/mod.rs");
}

#[test]
fn a_wrong_model_is_found() {
    for lie in [Lie::Lost, Lie::Leaked, Lie::Changed] {
        let conditions = Conditions { lie: Some(lie), ..Conditions::default() };
        let outcome = sets::run(&Set::smoke(), &conditions, THREADS);
        assert!(outcome.failure.is_some(), "{lie:?}");
    }
}
