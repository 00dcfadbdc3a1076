//! Goal: on a file in the page cache a heap knows after a power loss whether it is whole, and the exploration would notice
//! if it did not.
//!
//! Method: a sample of the stories must be clean. Then each sync of the heap is left out, one at a time: some story must
//! find that a mixture opens, or that a whole heap is refused.

use pmalloc::{
    Policy,
    persist::sim::{Domain, SiteCount, SiteKind},
};
use pmalloc_verify::{
    cache::{self, Deed, Fate, Story},
    explore::{Case, Conditions, Scene},
    sets::{self, Set},
};

const THREADS: usize = 2;

fn set(domain: Domain, stories: Vec<Story>) -> Set {
    let case =
        |story| Case { scene: Scene::Cached(story), domain, nesting: 1, policy: Policy::Eager };
    Set { name: "page cache", cases: stories.into_iter().map(case).collect() }
}

#[test]
fn a_sample_of_the_stories_has_no_violation() {
    for domain in [Domain::Page4096, Domain::PageTorn] {
        let stories = cache::stories(Policy::Eager).into_iter().step_by(59).collect();
        let outcome = sets::run(&set(domain, stories), &Conditions::default(), THREADS);
        println!("{domain:?}: {} cases, {}", outcome.cases, outcome.report);
        assert_eq!(outcome.failure, None);
        assert!(outcome.report.is_exhaustive(), "no point is sampled");
    }
}

#[test]
fn a_sync_that_fails_is_not_forgotten() {
    let is_failing = |story: &Story| matches!(story.fate, Fate::Fails(_) | Fate::AllFail(_));
    let stories = cache::stories(Policy::Eager).into_iter().filter(is_failing).collect();
    let outcome = sets::run(&set(Domain::PageTorn, stories), &Conditions::default(), THREADS);
    println!("{} cases, {}", outcome.cases, outcome.report);
    assert!(outcome.cases > 100, "lives and first changes from six states");
    assert_eq!(outcome.failure, None);
}

#[test]
fn each_sync_that_is_left_out_is_found() {
    let is_short = |story: &Story| {
        story.fate == Fate::Returns && !matches!(story.deed, Deed::First(_) | Deed::Later(_))
    };
    let stories: Vec<Story> = cache::stories(Policy::Eager).into_iter().filter(is_short).collect();
    let set = set(Domain::Page4096, stories);
    let clean = sets::run(&set, &Conditions::default(), THREADS);
    assert_eq!(clean.failure, None);
    let syncs = clean.sites.into_iter().filter(|site| site.kind == SiteKind::Sync);
    let syncs: Vec<SiteCount> = syncs.collect();
    println!("{syncs:?}");
    assert!(syncs.len() >= 4, "before the flag, after it, before a change, in a creation");
    for sync in syncs {
        let conditions = Conditions { fault: Some(sync), ..Conditions::default() };
        let (case, violation) = sets::run(&set, &conditions, THREADS).failure.expect("it is found");
        println!("without the sync at {}: {case}\n{violation}", sync.location);
    }
}
