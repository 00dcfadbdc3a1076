//! Goal: whenever a crash comes, a cell holds its old value or the new one, and a typed root is there with its whole value
//! or not at all.
//!
//! Method: each operation runs alone on the simulator. Every image of every crash point is opened by the real recovery,
//! crashes in which are explored in turn, and compared with what was there before the operation and what is there after it.
//! Then each flush and fence by which the operations make cells, and values of roots, durable is left out, and the
//! exploration has to notice. A check that allocates sees that the heap can be used while the operation that crashed is in
//! the midst of a call.

use crate::common::shared::Shared;
use std::{
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Mutex},
};

use crate::common::options;
use pmalloc::{
    Heap, PCell, PPtr, Persistent, Slot,
    persist::sim::{
        Digest, Domain, ExploreOptions, Explorer, Report, Sim, SimOptions, SiteCount, SiteKind,
    },
};

const DOMAINS: [Domain; 2] = [Domain::Line64, Domain::Word8];

/// An operation, on what it is made, and what is seen of that.
struct Scene<S> {
    prepare: fn(&Heap<Sim>),
    act: fn(&Heap<Sim>),
    read: fn(&Heap<Sim>) -> S,
}

impl<S: PartialEq + Hash + Debug + Clone + Send + 'static> Scene<S> {
    /// What is seen before the operation and after it, where nothing crashes.
    fn ends(&self) -> [S; 2] {
        let heap = options().create_shared(medium(Domain::Line64)).expect("room");
        (self.prepare)(&heap);
        let before = (self.read)(&heap);
        (self.act)(&heap);
        [before, (self.read)(&heap)]
    }

    /// Explores the operation, with a fault if there is to be one; returns who stored, flushed and fenced as well.
    fn explore(&self, domain: Domain, fault: Option<SiteCount>) -> (Report, Vec<SiteCount>) {
        let [before, after] = self.ends();
        assert_ne!(before, after, "the operation changes something");
        let sim = medium(domain);
        let heap = options().create_shared(sim.clone()).expect("room");
        (self.prepare)(&heap);
        if let Some(fault) = fault {
            sim.mutate(fault);
        }
        let accepted = Arc::new(Mutex::new(vec![before, after.clone()]));
        let read = self.read;
        let seen = Arc::clone(&accepted);
        let options = ExploreOptions { nesting: 1, max_violations: 1, ..ExploreOptions::default() };
        let explorer = Explorer::watch(&sim, options, move |sim| {
            let accepted = seen.lock().expect("not poisoned").clone();
            judge(sim, read, &accepted)
        });
        (self.act)(&heap);
        *accepted.lock().expect("not poisoned") = vec![after];
        explorer.crash_point("returned");
        let report = explorer.finish();
        (report, sim.sites())
    }

    fn explore_cleanly(&self) {
        for domain in DOMAINS {
            let (report, _) = self.explore(domain, None);
            println!("{domain:?}: {report}");
            report.assert_clean();
            assert!(report.is_exhaustive() && report.untold_words == 0, "{report}");
            assert!(report.states.len() == 2, "before and after are both left by some crash");
        }
    }

    /// Expects that leaving out any of the flushes and fences that `vital` chooses is noticed, and that they are so many.
    fn notices_faults(&self, expected: usize, vital: fn(&[SiteCount]) -> Vec<SiteCount>) {
        for domain in DOMAINS {
            let (_, mut sites) = self.explore(domain, None);
            sites.retain(|site| site.kind != SiteKind::Store);
            let vital = vital(&sites);
            assert_eq!(vital.len(), expected, "{vital:?}");
            for site in vital {
                let (report, _) = self.explore(domain, Some(site));
                assert!(!report.violations.is_empty(), "{domain:?}: {site:?} is not missed");
            }
        }
    }
}

/// The sites in the source `file`.
fn sites_of(file: &str, sites: &[SiteCount]) -> Vec<SiteCount> {
    sites.iter().filter(|site| site.location.file().ends_with(file)).copied().collect()
}

fn medium(domain: Domain) -> Sim {
    Sim::new(SimOptions { len_bytes: options().heap_bytes().expect("valid"), domain })
}

/// Recovers the heap on `sim` and expects to read one of the `accepted` states.
fn judge<S: PartialEq + Hash + Debug>(
    sim: &Sim,
    read: fn(&Heap<Sim>) -> S,
    accepted: &[S],
) -> Result<Digest, String> {
    let heap = options().open_shared(sim.clone()).map_err(|error| format!("{error}"))?;
    sim.recovered();
    let found = read(&heap);
    let report = heap.check().map_err(|error| format!("{error}"))?;
    if !report.problems.is_empty() || !accepted.contains(&found) {
        return Err(format!("{found:?}, not one of {accepted:?}; {:?}", report.problems));
    }
    // The heap is of use; the operation that crashed holds this thread's sessions.
    let spare = heap.root("spare", Slot::<u64>::new).map_err(|error| format!("{error}"))?;
    heap.alloc_value(spare, 1).and_then(|()| heap.free_from(spare)).map_err(|e| format!("{e}"))?;
    Ok(Digest::of(&found))
}

#[derive(Persistent)]
#[repr(C)]
struct Cells {
    count: PCell<i64>,
    mean: PCell<f64>,
    last: PCell<PPtr>,
}

fn cells(heap: &Heap<Sim>) -> &Cells {
    let zero =
        || Cells { count: PCell::new(-7), mean: PCell::new(0.5), last: PCell::new(PPtr::NULL) };
    heap.root("cells", zero).expect("there is room")
}

fn read_cells(heap: &Heap<Sim>) -> (i64, u64, u64) {
    let Cells { count, mean, last } = cells(heap);
    (count.load(heap), mean.load(heap).to_bits(), last.load(heap).offset())
}

/// The scenes of a cell that changes by `act`.
fn changing(act: fn(&Heap<Sim>)) -> Scene<(i64, u64, u64)> {
    Scene {
        prepare: |heap| {
            cells(heap);
        },
        act,
        read: read_cells,
    }
}

#[test]
fn a_cell_holds_the_old_value_or_the_new_one() {
    let store = changing(|heap| cells(heap).mean.store(heap, f64::MIN).expect("it is live"));
    store.explore_cleanly();
    store.notices_faults(2, |sites| sites_of("core/in_place.rs", sites));
    changing(|heap| cells(heap).last.store(heap, PPtr::from_offset(64)).expect("it is live"))
        .explore_cleanly();
    changing(|heap| {
        cells(heap).count.fetch_add(heap, 1 << 40).expect("it is live");
    })
    .explore_cleanly();
    changing(|heap| {
        let done = cells(heap).count.compare_exchange(heap, -7, i64::MAX).expect("it is live");
        assert_eq!(done, Ok(-7));
    })
    .explore_cleanly();
}

/// The root `wide`, if there is one, and the live blocks.
fn read_root<const N: usize>(heap: &Heap<Sim>) -> (Option<Vec<u64>>, usize) {
    let blocks = heap.blocks().len();
    let found = heap.root_find("wide").expect("whole");
    let value = found.map(|_| heap.root("wide", || -> [u64; N] { panic!("it exists") }));
    (value.map(|value| value.expect("it exists").to_vec()), blocks)
}

/// The scene of a root that is created.
fn creation<const N: usize>() -> Scene<(Option<Vec<u64>>, usize)> {
    Scene {
        prepare: |_| {},
        act: |heap| {
            let value = heap.root("wide", || [7_u64; N]).expect("there is room");
            assert_eq!(value, &[7_u64; N]);
        },
        read: read_root::<N>,
    }
}

#[test]
fn a_typed_root_is_there_with_its_whole_value_or_not_at_all() {
    let small = creation::<9>();
    small.explore_cleanly();
    small.notices_faults(3, |sites| {
        let mut vital = sites_of("root/entry.rs", sites);
        // The contents are flushed and fenced at once, in one place; nothing else in that file is.
        let allocating = sites_of("op/alloc.rs", sites);
        let here = |at| allocating.iter().filter(|site| site.location == at).count();
        vital.extend(allocating.iter().filter(|site| here(site.location) == 2));
        vital
    });
    creation::<2100>().explore_cleanly();
}
