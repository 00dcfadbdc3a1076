//! The figures of a replay, as JSON and for people. Volatile.

use std::fmt;

use clap::ValueEnum;
use pmalloc_persist::{Counts, Medium};
use serde::{Serialize, Serializer};

use super::{
    heap::Survival,
    journal::{Journal, Tally},
    mix::Mix,
    plan::Plan,
    request::Kind,
};
use crate::{
    args::{Order, PolicyArg, name_of},
    exit::Failure,
    output::{as_f64, bytes, duration, print_rows, print_text, ratio},
};

/// What a replay found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(super) trace: String,
    #[serde(serialize_with = "as_name")]
    pub(super) order: Order,
    #[serde(serialize_with = "as_name")]
    policy: PolicyArg,
    durability: String,
    events: u64,
    threads: u16,
    allocs: u64,
    frees: u64,
    wall_ns: u64,
    cpu_ns: u64,
    ns_per_op: f64,
    /// Whether the durability makes instructions of flushes: they are counted all the same.
    flushes_are_executed: bool,
    /// Likewise of fences.
    fences_are_executed: bool,
    flushes_per_op: f64,
    fences_per_op: f64,
    /// By distance: the number of distinct other lines flushed since; the last stands for all above.
    reflushes_per_op: [f64; REFLUSH_DISTANCES],
    peak_live_bytes: u64,
    peak_heap_bytes: u64,
    heap_ratio: f64,
    dram_bytes: u64,
    verified_blocks: u64,
    /// So many in a hundred operations were of the publish family.
    publish_percent: u8,
    /// Operations that had returned, by kind; those of all rounds.
    operations: ByKind<u64>,
    #[serde(flatten)]
    pub(super) campaign: Campaign,
    pub(crate) violations: u64,
}

/// What the kills of a replay came to.
#[derive(Debug, Default, Serialize)]
pub(super) struct Campaign {
    /// Kills made.
    pub(super) kills: u32,
    /// Those that hit an operation begun and not returned.
    pub(super) kills_in_flight: u32,
    /// Those that hit the recovery from the kill before.
    pub(super) kills_in_recovery: u32,
    /// Kills by the number of operations in flight, those in recovery left out.
    pub(super) in_flight_histogram: Vec<u32>,
    /// Operations in flight at kills, by kind.
    pub(super) in_flight: ByKind<u32>,
    /// Time to reopen after a kill.
    pub(super) recovery_ms: Recovery,
    /// Seed of the moments, and of what was published.
    pub(super) seed: Option<u64>,
    /// Times the trace was begun, each on a fresh heap.
    pub(super) rounds: u32,
}

/// A figure of each kind of operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ByKind<T>([T; Kind::COUNT]);

impl<T: Copy> ByKind<T> {
    /// The figures that `figure` tells.
    fn of(figure: impl FnMut(Kind) -> T) -> Self {
        Self(Kind::ALL.map(figure))
    }

    fn iter(&self) -> impl Iterator<Item = (&'static str, T)> {
        Kind::ALL.into_iter().map(Kind::name).zip(self.0)
    }
}

impl<T: Copy + Serialize> Serialize for ByKind<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<T: Copy + fmt::Display> fmt::Display for ByKind<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.iter().map(|(name, figure)| format!("{name} {figure}")).collect();
        f.write_str(&texts.join(", "))
    }
}

/// Time to reopen a heap after a kill, in milliseconds; nothing where there was no kill.
#[derive(Debug, Default, Serialize)]
pub(super) struct Recovery {
    median: Option<f64>,
    max: Option<f64>,
}

impl Recovery {
    /// The figures of `samples_ns`.
    pub(super) fn of(mut samples_ns: Vec<u64>) -> Self {
        samples_ns.sort_unstable();
        let milliseconds = |ns: &u64| as_f64(*ns) / 1e6;
        Self {
            median: samples_ns.get(samples_ns.len() / 2).map(milliseconds),
            max: samples_ns.last().map(milliseconds),
        }
    }
}

impl Campaign {
    /// Notes a kill that found these operations, and so many others, begun and not returned.
    pub(super) fn add_kill(&mut self, by_kind: &[u32; Kind::COUNT], others: u32) {
        self.in_flight = ByKind::of(|kind| self.in_flight.0[kind.index()] + by_kind[kind.index()]);
        let in_flight = by_kind.iter().sum::<u32>() + others;
        self.kills += 1;
        self.kills_in_flight += u32::from(in_flight > 0);
        let bin = in_flight as usize;
        if self.in_flight_histogram.len() <= bin {
            self.in_flight_histogram.resize(bin + 1, 0);
        }
        self.in_flight_histogram[bin] += 1;
    }

    /// Notes a kill that hit a recovery.
    pub(super) fn add_kill_in_recovery(&mut self) {
        self.kills += 1;
        self.kills_in_recovery += 1;
    }
}

impl Report {
    /// The report of a replay of `plan` whose figures stand in `journal`.
    pub(super) fn new<J: Medium>(
        plan: &Plan,
        journal: &Journal<J>,
        counts: &Counts,
        survival: Survival,
    ) -> Self {
        let operations = journal.tally(Tally::Operations);
        let peak_blocks = journal.tally(Tally::PeakLiveBlocks);
        let peak_live_bytes = journal.tally(Tally::PeakLiveBytes) + peak_blocks * SLOT_BYTES;
        let peak_heap_bytes = journal.tally(Tally::PeakHeapBytes);
        Self {
            trace: String::new(),
            order: Order::Threads,
            policy: PolicyArg::DEFAULT,
            durability: survival.to_string(),
            events: plan.events(),
            threads: plan.threads(),
            allocs: plan.allocs(),
            frees: plan.frees(),
            wall_ns: journal.tally(Tally::WallNs),
            cpu_ns: journal.tally(Tally::CpuNs),
            ns_per_op: ratio(journal.tally(Tally::CpuNs), operations),
            flushes_are_executed: survival.flushes(),
            fences_are_executed: survival.fences(),
            flushes_per_op: ratio(counts.flushes, plan.events()),
            fences_per_op: ratio(counts.fences, plan.events()),
            reflushes_per_op: counts.reflushes.map(|count| ratio(count, plan.events())),
            peak_live_bytes,
            peak_heap_bytes,
            heap_ratio: ratio(peak_heap_bytes, peak_live_bytes),
            dram_bytes: journal.tally(Tally::DramBytes),
            verified_blocks: journal.tally(Tally::VerifiedBlocks),
            publish_percent: 0,
            operations: ByKind::of(|kind| journal.count(kind)),
            campaign: Campaign { rounds: 1, ..Campaign::default() },
            violations: journal.tally(Tally::Violations),
        }
    }

    /// Tells which policy the heap has, and which operations were of the publish family.
    pub(super) fn tell(&mut self, policy: PolicyArg, mix: Mix) {
        self.policy = policy;
        self.publish_percent = mix.percent;
        if !mix.is_off() || self.campaign.kills > 0 {
            self.campaign.seed = Some(mix.seed);
        }
    }

    /// Prints the report for people.
    pub(crate) fn print(&self) -> Result<(), Failure> {
        let mut rows = self.rows();
        if self.campaign.kills > 0 {
            rows.extend(self.campaign.rows());
        }
        rows.push(("violations", self.violations.to_string()));
        print_rows(&rows)?;
        if self.campaign.kills > 0 { print_text(&self.campaign.histogram()) } else { Ok(()) }
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let events = format!(
            "{} ({} allocations, {} frees) by {} threads, order {}",
            self.events,
            self.allocs,
            self.frees,
            self.threads,
            name_of(&self.order)
        );
        let peak_heap =
            format!("{}, {:.3} x peak live", bytes(self.peak_heap_bytes), self.heap_ratio);
        let published = match (self.publish_percent, self.campaign.seed) {
            (0, _) | (_, None) => String::new(),
            (percent, Some(seed)) => format!("; {percent} % of the publish family, seed {seed}"),
        };
        vec![
            ("trace", self.trace.clone()),
            ("events", events),
            ("policy", name_of(&self.policy)),
            ("durability", self.durability.clone()),
            ("time", format!("{} wall, {} cpu", duration(self.wall_ns), duration(self.cpu_ns))),
            ("per operation", format!("{:.0} ns cpu with contents", self.ns_per_op)),
            ("persists", self.persists()),
            ("reflushes", self.reflushes()),
            ("peak live", bytes(self.peak_live_bytes)),
            ("peak heap", peak_heap),
            ("volatile", bytes(self.dram_bytes)),
            ("verified", format!("{} blocks", self.verified_blocks)),
            ("operations", format!("{}{published}", self.operations)),
        ]
    }

    /// Flushes and fences; where they are no instructions, they are those that the same operations need elsewhere.
    fn persists(&self) -> String {
        let executed = match (self.flushes_are_executed, self.fences_are_executed) {
            (true, _) => "",
            (false, true) => "; the flushes are only counted: this durability needs none",
            (false, false) => "; only counted: this durability executes none, powerfail does",
        };
        let (flushes, fences) = (self.flushes_per_op, self.fences_per_op);
        format!("{flushes:.2} flushes, {fences:.2} fences per operation{executed}")
    }

    fn reflushes(&self) -> String {
        let texts = self.reflushes_per_op.iter().enumerate().map(|(distance, count)| {
            let above = if distance + 1 == REFLUSH_DISTANCES { "+" } else { "" };
            format!("{distance}{above}: {count:.3}")
        });
        format!("{} (per operation, by distance)", texts.collect::<Vec<_>>().join("  "))
    }
}

impl Campaign {
    fn rows(&self) -> [(&'static str, String); 4] {
        let figure = |value: Option<f64>| value.map_or_else(String::new, |ms| format!("{ms:.2}"));
        let (median, max) = (figure(self.recovery_ms.median), figure(self.recovery_ms.max));
        let kills = format!(
            "{}, {} of them with an operation in flight; rounds {}, seed {}",
            self.kills,
            self.kills_in_flight,
            self.rounds,
            self.seed.unwrap_or_default()
        );
        [
            ("kills", kills),
            ("in flight", self.in_flight.to_string()),
            ("killed in recovery", self.kills_in_recovery.to_string()),
            ("recovery", format!("{median} ms median, {max} ms at most")),
        ]
    }

    fn histogram(&self) -> String {
        let most = self.in_flight_histogram.iter().copied().max().unwrap_or(0).max(1);
        let line = |(operations, &kills): (u32, &u32)| {
            let bar = "#".repeat((kills * BAR_WIDTH).div_ceil(most) as usize);
            format!("{operations:>11}  {kills:>5}  {bar}\n")
        };
        let lines: String = (0..).zip(&self.in_flight_histogram).map(line).collect();
        format!("\n  in flight  kills\n{lines}")
    }
}

fn as_name<S: Serializer>(value: &impl ValueEnum, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&name_of(value))
}

/// Number of distances by which reflushes are told apart.
const REFLUSH_DISTANCES: usize = 9;

/// Width of the longest bar of a histogram, in characters.
const BAR_WIDTH: u32 = 40;

/// What a slot adds to the live bytes.
const SLOT_BYTES: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_times_are_ordered_first() {
        let recovery = Recovery::of(vec![3_000_000, 1_000_000, 2_000_000]);
        assert_eq!((recovery.median, recovery.max), (Some(2.0), Some(3.0)));
        assert_eq!(Recovery::of(Vec::new()).median, None);
    }

    #[test]
    fn a_kill_counts_in_its_bin() {
        let mut campaign = Campaign::default();
        for (allocs, publishes, others) in [(0, 0, 0), (2, 1, 0), (2, 0, 1)] {
            campaign.add_kill(&[allocs, 0, 0, 0, 0, 0, publishes], others);
        }
        campaign.add_kill_in_recovery();
        assert_eq!((campaign.kills, campaign.kills_in_flight), (4, 2));
        assert_eq!(campaign.kills_in_recovery, 1);
        assert_eq!(campaign.in_flight_histogram, [1, 0, 0, 2]);
        assert_eq!(
            campaign.in_flight.to_string(),
            "alloc 4, free 0, replace 0, move 0, swap 0, set 0, publish 1"
        );
    }
}
