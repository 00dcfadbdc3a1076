//! The power of the exploration: faults are planted one at a time, and the sets must find each.

use std::time::Instant;

use pmalloc::persist::sim::{SiteCount, SiteKind};

use crate::{
    explore::Conditions,
    sets::{self, Set},
};

/// What became of a planted fault.
#[derive(Debug)]
pub struct Mutant {
    /// Where a flush or fence is left out, or a store delayed behind the next one.
    pub site: SiteCount,
    /// The first case that noticed, or `None` if none did.
    pub killed_by: Option<String>,
    /// Seconds until then, or for all sets.
    pub elapsed_s: f64,
}

impl Mutant {
    /// The fault in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let what = match self.site.kind {
            SiteKind::Flush => "no flush at",
            SiteKind::Fence => "no fence at",
            SiteKind::Store => "store delayed at",
        };
        format!("{what} {}", self.site.location)
    }
}

/// Every site of the product that the sets reach.
#[must_use]
pub fn sites(threads: usize) -> Vec<SiteCount> {
    let mut sites: Vec<SiteCount> = Vec::new();
    let set = Set::smoke();
    for site in sets::run(&set, &Conditions::default(), threads).sites {
        if site.location.file().contains("crates/pmalloc/src") {
            sites.push(site);
        }
    }
    // Flushes and fences first: these are the persists whose absence must be noticed.
    sites.sort_by_key(|site| {
        let place = (site.location.file(), site.location.line(), site.location.column());
        (site.kind == SiteKind::Store, place)
    });
    sites
}

/// Plants `site` and runs the quick sets until one notices.
#[must_use]
pub fn judge(site: SiteCount, threads: usize) -> Mutant {
    let started = Instant::now();
    let conditions = Conditions { fault: Some(site), ..Conditions::default() };
    let killed_by = Set::quick().iter().find_map(|set| {
        let failure = sets::run(set, &conditions, threads).failure?;
        Some(failure.0.to_string())
    });
    Mutant { site, killed_by, elapsed_s: started.elapsed().as_secs_f64() }
}
