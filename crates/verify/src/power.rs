//! The power of the exploration: faults are planted one at a time, and the quick sets must find each.
//!
//! A fault is a flush or a fence that is left out, or a store that persists only after the next one. What finds one fault
//! mostly finds its neighbours: the cases that killed earlier mutants come first, those of the same file before others.
//! All cases are run briefly before those that have more images are run in full.

use std::{
    fmt, io,
    time::{Duration, Instant},
};

use pmalloc::{
    Policy,
    persist::sim::{SiteCount, SiteKind},
};

use crate::{
    explore::{Case, Conditions, Effort},
    place::Place,
    sets::{self, Outcome, Set},
};

/// Cases apart in their sets that follow each other for a mutant: a prime, so that all have their turn.
const STRIDE: usize = 4001;

/// A place where a fault can be planted.
#[derive(Debug, Clone)]
pub struct Site {
    /// For the simulator.
    pub count: SiteCount,
    /// For the reader.
    pub place: Place,
}

/// What became of a planted fault.
#[derive(Debug)]
pub struct Mutant {
    /// Where it was planted.
    pub place: Place,
    /// Whether it was found.
    pub verdict: Verdict,
    /// Seconds that this took.
    pub elapsed_s: f64,
}

/// What the sets say of a fault.
#[derive(Debug)]
pub enum Verdict {
    /// The first case that noticed.
    Killed(String),
    /// No case noticed.
    Survived,
    /// Time was up after so many cases in the end, brief or in full.
    Undecided(usize),
    /// No case comes there: nothing could notice.
    Unreached,
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:6.1} s  ", self.elapsed_s)?;
        match &self.verdict {
            Verdict::Killed(case) => write!(f, "killed     {}  by {case}", self.place),
            Verdict::Survived => write!(f, "SURVIVED   {}", self.place),
            Verdict::Undecided(cases) => {
                write!(f, "UNDECIDED  {}  after {cases} cases", self.place)
            }
            Verdict::Unreached => write!(f, "UNREACHED  {}", self.place),
        }
    }
}

/// Plants faults.
#[derive(Debug)]
pub struct Judge {
    cases: Vec<Case>,
    /// Cases that killed, the latest last, with the file of the fault.
    killers: Vec<(String, Case)>,
    patience: Duration,
    threads: usize,
}

/// The sets of CI, of either policy: most places are reached under one of them only.
fn quick() -> Vec<Set> {
    [Policy::Eager, Policy::Batched].into_iter().flat_map(Set::quick).collect()
}

impl Judge {
    /// A judge that gives each mutant `patience`, looked at between cases.
    ///
    /// # Panics
    ///
    /// If the number of cases is a multiple of the stride between them.
    #[must_use]
    pub fn new(patience: Duration, threads: usize) -> Self {
        let cases: Vec<Case> = quick().into_iter().flat_map(|set| set.cases).collect();
        assert!(!cases.len().is_multiple_of(STRIDE), "every case is reached");
        let strided = (0..cases.len()).map(|at| cases[at * STRIDE % cases.len()].clone()).collect();
        Self { cases: strided, killers: Vec::new(), patience, threads }
    }

    /// Every place of the heap that the sets reach: flushes, fences and syncs first, whose absence must be noticed, then
    /// stores.
    ///
    /// # Errors
    ///
    /// If the sources can't be read, or a case fails without any fault.
    pub fn sites(&self) -> io::Result<Vec<Site>> {
        let set = Set { name: "no fault", cases: self.cases.clone() };
        let Outcome { sites, failure, .. } = sets::run(&set, &Conditions::default(), self.threads);
        if let Some((case, violation)) = failure {
            return Err(io::Error::other(format!("without a fault, {case} fails: {violation}")));
        }
        let mut sites = named(sites)?;
        let in_order = |site: &Site| {
            let SiteCount { kind, location, .. } = site.count;
            (kind == SiteKind::Store, location.file(), location.line(), location.column())
        };
        sites.sort_by_key(in_order);
        // Two persists of one kind on one line: one name, one mutant.
        sites.dedup_by(|later, first| later.place == first.place);
        Ok(sites)
    }

    /// The site at `place`, found by running cases until one reaches it.
    ///
    /// # Errors
    ///
    /// If the sources can't be read, or no case reaches such a place.
    pub fn find(&self, place: &Place) -> io::Result<Site> {
        for case in &self.cases {
            let (_, sites) = case.run(&Conditions::default());
            if let Some(site) = named(sites)?.into_iter().find(|site| site.place == *place) {
                return Ok(site);
            }
        }
        Err(io::Error::other(format!("no case reaches {place}")))
    }

    /// Plants a fault at `site` and runs the quick sets until a case notices or time is up.
    pub fn judge(&mut self, site: &Site) -> Mutant {
        let started = Instant::now();
        let deadline = started + self.patience;
        let place = site.place.clone();
        let all = self.order(&place.file);
        let (brief, sampled) = self.try_all(site, all, Effort::Brief, deadline);
        let verdict = match brief {
            Verdict::Survived => self.try_all(site, sampled, Effort::Full, deadline).0,
            decided => decided,
        };
        Mutant { place, verdict, elapsed_s: started.elapsed().as_secs_f64() }
    }

    /// The verdict of `cases`, and those of them of which not every image was tried.
    fn try_all(
        &mut self,
        site: &Site,
        cases: Vec<Case>,
        effort: Effort,
        deadline: Instant,
    ) -> (Verdict, Vec<Case>) {
        let set = Set { name: "mutant", cases };
        let conditions = Conditions { fault: Some(site.count), effort, ..Conditions::default() };
        let outcome = sets::run_until(&set, &conditions, self.threads, Some(deadline));
        let verdict = match outcome.failure {
            Some((case, _)) => {
                let name = case.to_string();
                self.killers.push((site.place.file.clone(), case));
                Verdict::Killed(name)
            }
            None if outcome.cases == set.cases.len() => Verdict::Survived,
            None => Verdict::Undecided(outcome.cases),
        };
        (verdict, outcome.sampled)
    }

    /// The cases, those first that killed before.
    fn order(&self, file: &str) -> Vec<Case> {
        let killers = |here: bool| {
            let latest = self.killers.iter().rev();
            latest.filter(move |(other, _)| (other == file) == here).map(|(_, case)| case)
        };
        let mut order: Vec<Case> = Vec::with_capacity(self.cases.len());
        for case in killers(true).chain(killers(false)) {
            if !order.contains(case) {
                order.push(case.clone());
            }
        }
        let first = order.len();
        for case in &self.cases {
            if !order[..first].contains(case) {
                order.push(case.clone());
            }
        }
        order
    }
}

/// The flushes and fences of the sources that are not among `sites`.
///
/// # Errors
///
/// If the sources can't be read.
pub fn unreached(sites: &[Site]) -> io::Result<Vec<Mutant>> {
    let mut places = Place::persists()?;
    places.retain(|place| sites.iter().all(|site| site.place != *place));
    let mutant = |place| Mutant { place, verdict: Verdict::Unreached, elapsed_s: 0.0 };
    Ok(places.into_iter().map(mutant).collect())
}

/// Names the sites that are the heap's.
fn named(sites: Vec<SiteCount>) -> io::Result<Vec<Site>> {
    let name = |count| Ok(Place::of(&count)?.map(|place| Site { count, place }));
    sites.into_iter().filter_map(|count| name(count).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_killed_before_comes_first_and_nothing_is_left_out() {
        let mut judge = Judge::new(Duration::ZERO, 1);
        let [a, b, c] = [7, 8, 9].map(|at| judge.cases[at].clone());
        for (file, case) in [("x", &a), ("y", &b), ("x", &c), ("x", &c)] {
            judge.killers.push((file.into(), case.clone()));
        }
        let order = judge.order("x");
        assert_eq!(order[..3], [c, a, b]);
        assert_eq!(order.len(), judge.cases.len());
        let distinct: HashSet<&Case> = order.iter().collect();
        assert_eq!(distinct.len(), order.len());
        assert_eq!(distinct.len(), quick().iter().map(|set| set.cases.len()).sum::<usize>());
    }

    #[test]
    fn time_is_up_when_it_is_up() {
        let mut judge = Judge::new(Duration::ZERO, 2);
        let place = "fence op/commit.rs commit 1: m.fence();";
        let (_, sites) = judge.cases[0].run(&Conditions::default());
        let place: Place = place.parse().expect("a place");
        let mutant = judge.judge(&Site { count: sites[0], place });
        assert!(matches!(mutant.verdict, Verdict::Undecided(0)), "{mutant}");
    }
}
