//! Goal: the explorer leaves out no image that matters, on the heap itself.
//!
//! Method: every single operation from every start state is frozen at each of its crash points, and each such moment is
//! explored both as the sets are and by the plain product of all images. The recovered states must be the same, and none
//! may be a violation. Then a persist is left out, and whatever one of the two finds, the other must find too.

use pmalloc::{
    Policy,
    persist::sim::{Domain, SiteCount, SiteKind},
};
use pmalloc_verify::{
    alphabet::{Op, Step},
    eager::{Moment, moments},
    explore::{Case, Conditions, Scene},
    start::Start,
};

/// Images of one moment that are run one by one.
const LIMIT: u64 = 1 << 13;

fn moments_of(domain: Domain, start: Start, op: Op, fault: Option<SiteCount>) -> Vec<Moment> {
    moments(domain, start, &[Step { op, lane: 0 }], fault)
}

/// What comparing moments came to.
#[derive(Debug, Default)]
struct Tally {
    moments: u64,
    /// Of those, how many had more images than are run one by one.
    skipped: u64,
    classes: u64,
    images: u64,
}

impl Tally {
    fn compare(&mut self, moment: &Moment, what: &str) {
        self.moments += 1;
        let lazy = moment.lazily();
        lazy.assert_clean();
        let Some(eager) = moment.eagerly(LIMIT) else {
            self.skipped += 1;
            return;
        };
        eager.assert_clean();
        assert_eq!(lazy.sampled_points, 0, "{what}: all classes are run");
        assert_eq!(lazy.states, eager.states, "{what}");
        assert_eq!(eager.classes, moment.images(), "{what}: each image is run");
        self.classes += lazy.classes;
        self.images += eager.classes;
    }
}

fn compare_all(domain: Domain) -> Tally {
    let mut tally = Tally::default();
    for start in Start::ALL {
        // An open wipes the rings: all images of that are more than can be run one by one.
        for op in Op::ALL.into_iter().filter(|op| !matches!(op, Op::Kill | Op::Reopen)) {
            let what = format!("{op:?} from {start:?} in {domain:?}");
            for moment in moments_of(domain, start, op, None) {
                tally.compare(&moment, &what);
            }
        }
    }
    println!("{domain:?}: {tally:?}");
    // The explorer has less to leave out than there are histories: images with equal contents are one already.
    assert!(tally.classes * 2 < tally.images, "few of the images differ: {tally:?}");
    tally
}

#[test]
fn the_same_states_are_recovered_where_lines_persist_in_order() {
    assert_eq!(compare_all(Domain::Line64).skipped, 0, "there is no moment with too many images");
}

#[test]
fn the_same_states_are_recovered_where_each_word_persists_on_its_own() {
    let tally = compare_all(Domain::Word8);
    // Of the lines of a new chunk 32 words may be zero or not, of contents 23 old or new, and of the records of a full
    // group 16 words old or new: each operation has one or two such moments where it makes, writes or records them.
    assert!(tally.skipped * 12 <= tally.moments, "more is skipped than those: {tally:?}");
}

/// The flushes and fences of `op/commit.rs` in an allocation of a small block.
fn persists_of_an_allocation(domain: Domain, start: Start) -> Vec<SiteCount> {
    let scene = Scene::Steps(start, vec![Step { op: Op::AllocSmallest, lane: 0 }]);
    let (_, mut sites) =
        Case { scene, domain, nesting: 0, policy: Policy::Eager }.run(&Conditions::default());
    sites.retain(|site| {
        site.kind != SiteKind::Store && site.location.file().ends_with("op/commit.rs")
    });
    sites
}

#[test]
fn a_missing_persist_is_found_by_both() {
    let (start, op) = (Start::Wrapped, Op::AllocSmallest);
    for domain in [Domain::Line64, Domain::Word8] {
        let mut found = 0;
        for fault in persists_of_an_allocation(domain, start) {
            let mut found_here = false;
            for moment in moments_of(domain, start, op, Some(fault)) {
                let lazy = moment.lazily();
                let eager = moment.eagerly(LIMIT).expect("few images");
                assert_eq!(lazy.violations.is_empty(), eager.violations.is_empty(), "{fault:?}");
                found_here |= !lazy.violations.is_empty();
            }
            found += u32::from(found_here);
        }
        println!("{domain:?}: {found} faults found by both");
        assert!(found >= 2, "{domain:?}: {found}");
    }
}
