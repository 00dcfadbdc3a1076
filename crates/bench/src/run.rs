//! The supervisor: from a plan to a table, one child after the other. Volatile, but for the heaps of the children.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use pmalloc::{HeapOptions, Policy};
use pmalloc_bench_peers::Peer;
use tempfile::TempDir;

use crate::{
    alloc::Subject,
    bench::{self, Bench},
    cell::{Cell, Latency, Mode, Outcome, PerOp, Scale, Timing},
    error::Error,
    launcher::Launcher,
    machine::{HeapTraits, room_bytes},
    report::{Report, Row, names_of},
    stats::Samples,
};

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Benchmarks, or single variants of them as `bench/variant`; all of them, if it is empty.
    pub names: Vec<String>,
    /// How much is run.
    pub scale: Scale,
    /// Numbers of threads; those of the scale, if it is empty.
    pub threads: Vec<usize>,
    /// Rounds, each a sample of every row; those of the scale, if none are given.
    pub rounds: Option<usize>,
    /// Policies of the heaps, each with rows of its own.
    pub policies: Vec<Policy>,
    /// Whether heaps have a thread of their own for rounds, which the options that go with the plan say as well.
    pub background_thread: bool,
    /// The rivals.
    pub peers: Peers,
    /// What random sizes are drawn from.
    pub seed: u64,
    /// Where the heaps are made, in a temporary directory that goes at the end.
    pub directory: PathBuf,
}

/// Which rivals are measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// Those that are installed.
    Auto,
    /// None.
    None,
    /// These, if they are installed.
    These(Vec<Peer>),
}

/// Who looks on.
pub trait Watcher {
    /// So many children will run.
    fn begin(&mut self, children: usize);

    /// The next child runs, and this is what it does.
    fn step(&mut self, what: &str);

    /// Something that the user has to know.
    fn note(&mut self, text: &str);

    /// Whether the user has had enough.
    fn is_stopped(&self) -> bool;
}

/// Measures what `plan` says, on heaps with the given `options`, in children that `launcher` starts.
///
/// # Errors
///
/// [`Error`]; nothing is left behind but what a killed supervisor leaves.
///
/// # Panics
///
/// If a child answers another question than it was asked.
pub fn run(
    plan: &Plan,
    options: &HeapOptions,
    launcher: &Launcher,
    watcher: &mut dyn Watcher,
) -> Result<Report, Error> {
    let (peers, missing) = installed(&plan.peers, watcher);
    let groups = select(plan, &peers)?;
    let scratch = scratch_in(&plan.directory)?;
    let traits = HeapTraits::find_out(&plan.directory, scratch.path(), options)?;
    let room_bytes = room_bytes(&plan.directory, traits.storage)?;
    let (groups, left_out) = leave_out(groups, room_bytes, watcher)?;
    let rounds = plan.rounds.unwrap_or_else(|| plan.scale.choose(3, 7, 9));
    let children = groups.iter().map(|group| group.subjects.len() * (rounds + EXTRA.len())).sum();
    watcher.begin(children);
    let mut supervisor = Supervisor { plan, launcher, watcher, scratch, rounds, traits };
    let mut rows = Vec::new();
    for group in &groups {
        rows.extend(supervisor.measure(group)?);
    }
    Ok(Report {
        rows,
        missing_peers: names_of(&missing),
        machine: supervisor.traits.machine,
        flush_again: supervisor.traits.flush_again,
        scale: plan.scale,
        rounds,
        seed: plan.seed,
        background_thread: plan.background_thread,
        left_out,
    })
}

/// What is found out once and not in every round.
const EXTRA: [Mode; 2] = [Mode::Count, Mode::Latency];

/// The rivals that are to be measured: those that are installed, and those that are missing.
fn installed(peers: &Peers, watcher: &mut dyn Watcher) -> (Vec<Peer>, Vec<Peer>) {
    let wanted = match peers {
        Peers::Auto => Peer::ALL.to_vec(),
        Peers::None => Vec::new(),
        Peers::These(peers) => peers.clone(),
    };
    wanted.into_iter().partition(|peer| match peer.load() {
        Ok(_) => true,
        Err(missing) => {
            watcher.note(&missing.to_string());
            false
        }
    })
}

/// Rows that are measured together, round by round: those that differ in the allocator only.
#[derive(Clone)]
struct Group {
    bench: &'static dyn Bench,
    variant: String,
    threads: usize,
    subjects: Vec<Subject>,
}

impl Group {
    /// Benchmark and variant.
    fn name(&self) -> String {
        format!("{}/{}", self.bench.name(), self.variant)
    }

    /// Benchmark and variant, and with how many threads.
    fn name_with_threads(&self) -> String {
        let plural = if self.threads == 1 { "" } else { "s" };
        format!("{} with {} thread{plural}", self.name(), self.threads)
    }

    /// Room that its cells take.
    fn need_bytes(&self) -> u64 {
        self.bench.need_bytes(&self.variant, self.threads)
    }

    /// The cell of the first allocator's first round.
    fn cell(&self, plan: &Plan, directory: &Path) -> Cell {
        Cell {
            bench: self.bench.name().to_owned(),
            variant: self.variant.clone(),
            subject: self.subjects[0],
            threads: self.threads,
            mode: Mode::Time,
            scale: plan.scale,
            round: 0,
            seed: plan.seed,
            directory: directory.to_owned(),
        }
    }
}

/// The groups that `plan` asks for, with the given rivals.
fn select(plan: &Plan, peers: &[Peer]) -> Result<Vec<Group>, Error> {
    let threads = match &*plan.threads {
        [] => plan.scale.choose(&[1, 2][..], &[1, 2], &[1, 2, 8]),
        threads => threads,
    };
    let mut policies = plan.policies.clone();
    policies.sort_by_key(|&policy| policy != HeapOptions::POLICY_DEFAULT);
    policies.dedup();
    let subjects: Vec<Subject> = policies
        .into_iter()
        .map(Subject::Heap)
        .chain([Subject::Bare])
        .chain(peers.iter().copied().map(Subject::Pointer))
        .collect();
    let mut groups = Vec::new();
    for (bench, variant) in select_variants(plan)? {
        for &threads in threads {
            let mut subjects = subjects.clone();
            subjects.retain(|&subject| bench.fits(subject, threads));
            if !subjects.is_empty() {
                groups.push(Group { bench, variant: variant.clone(), threads, subjects });
            }
        }
    }
    if groups.is_empty() { Err(Error::Nothing) } else { Ok(groups) }
}

/// The variants that `plan` names.
fn select_variants(plan: &Plan) -> Result<Vec<(&'static dyn Bench, String)>, Error> {
    let all_of = |bench: &'static dyn Bench| {
        bench.variants(plan.scale).into_iter().map(move |variant| (bench, variant))
    };
    if plan.names.is_empty() {
        return Ok(bench::ALL.iter().copied().flat_map(all_of).collect());
    }
    let mut selected = Vec::new();
    for name in &plan.names {
        match name.split_once('/') {
            None => selected.extend(all_of(bench::find(name)?)),
            Some((name, variant)) => {
                let bench = bench::find(name)?;
                let known = bench.variants(plan.scale);
                if !known.iter().any(|known| known == variant) {
                    let (bench, variant) = (bench.name(), variant.to_owned());
                    return Err(Error::UnknownVariant { bench, variant, known });
                }
                selected.push((bench, variant.to_owned()));
            }
        }
    }
    Ok(selected)
}

/// Parts `groups` into those that there is room for, and the names of the others.
fn leave_out(
    groups: Vec<Group>,
    room_bytes: u64,
    watcher: &mut dyn Watcher,
) -> Result<(Vec<Group>, Vec<String>), Error> {
    let fits = |group: &Group| group.need_bytes() <= room_bytes;
    let (fitting, large): (Vec<_>, Vec<_>) = groups.into_iter().partition(fits);
    let names: Vec<String> = large.iter().map(Group::name_with_threads).collect();
    for (group, name) in large.iter().zip(&names) {
        let need = group.need_bytes() >> 20;
        watcher.note(&format!("{name} needs {need} MiB, and {} MiB are free", room_bytes >> 20));
    }
    if fitting.is_empty() { Err(Error::NoRoom) } else { Ok((fitting, names)) }
}

/// A temporary directory; the process id tells whose it is, should it ever be left behind.
fn scratch_in(directory: &Path) -> Result<TempDir, Error> {
    let prefix = format!("pmalloc-bench-{}-", std::process::id());
    let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(directory);
    made.map_err(Error::io(format!("make heaps in {}", directory.display())))
}

/// Runs the children.
struct Supervisor<'a> {
    plan: &'a Plan,
    launcher: &'a Launcher,
    watcher: &'a mut dyn Watcher,
    scratch: TempDir,
    rounds: usize,
    traits: HeapTraits,
}

impl Supervisor<'_> {
    /// The rows of `group`.
    fn measure(&mut self, group: &Group) -> Result<Vec<Row>, Error> {
        let mut timings = vec![Vec::new(); group.subjects.len()];
        for round in 0..self.rounds {
            for turn in 0..group.subjects.len() {
                // Each allocator is the first one now and then.
                let at = (turn + round) % group.subjects.len();
                timings[at].push(self.time(group, group.subjects[at], round as u64)?);
            }
        }
        let rows = group.subjects.iter().zip(timings);
        rows.map(|(&subject, timings)| {
            let (counts, latency) = self.extra(group, subject)?;
            Ok(self.row(group, subject, &timings, counts, latency))
        })
        .collect()
    }

    fn time(&mut self, group: &Group, subject: Subject, round: u64) -> Result<Timing, Error> {
        match self.child(group, subject, Mode::Time, round)? {
            Outcome::Timed(timing) => Ok(timing),
            other => panic!("a child that was to time answered {other:?}"),
        }
    }

    fn extra(&mut self, group: &Group, subject: Subject) -> Result<(PerOp, Latency), Error> {
        let [counted, clocked] = EXTRA.map(|mode| self.child(group, subject, mode, 0));
        match (counted?, clocked?) {
            (Outcome::Counted(counts), Outcome::Latency(latency)) => Ok((counts, latency)),
            others => panic!("children that were to count and to clock answered {others:?}"),
        }
    }

    /// Runs a child, and removes the heap that it leaves.
    fn child(
        &mut self,
        group: &Group,
        subject: Subject,
        mode: Mode,
        round: u64,
    ) -> Result<Outcome, Error> {
        let directory = self.scratch.path();
        let cell = Cell { subject, mode, round, ..group.cell(self.plan, directory) };
        self.watcher.step(&cell.to_string());
        let outcome = self.launcher.run(&cell);
        // The terminal interrupts the child as well, so its end may have no other cause.
        if self.watcher.is_stopped() {
            return Err(Error::Interrupted);
        }
        match fs::remove_file(cell.heap_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove a heap")(error))
            }
            _ => outcome,
        }
    }

    fn row(
        &self,
        group: &Group,
        subject: Subject,
        timings: &[Timing],
        counts: PerOp,
        latency: Latency,
    ) -> Row {
        let samples = |figure: fn(&Timing) -> f64| timings.iter().map(figure).collect::<Samples>();
        let speedups: Vec<_> = timings.iter().filter_map(|timing| timing.speedup).collect();
        let own: Samples = speedups.iter().map(|speedup| speedup.own).collect();
        let ring: Samples = speedups.iter().map(|speedup| speedup.ring).collect();
        let estimate = |samples: &Samples| (!samples.is_empty()).then(|| samples.estimate());
        let policy = match subject {
            Subject::Heap(policy) => Some(policy.name().to_owned()),
            Subject::Bare | Subject::Pointer(_) => None,
        };
        let cpu = samples(|timing| timing.cpu_ns);
        Row {
            bench: group.name(),
            allocator: subject.name(),
            model: subject.is_heap().then(|| self.traits.model.clone()),
            policy,
            threads: group.threads,
            cpu_ns_per_op: cpu.spread(),
            wall_ns_per_op: samples(|timing| timing.wall_ns).spread(),
            ratio_to_bare: cpu.over(&samples(|timing| timing.bare_ns)).estimate(),
            flushes_per_op: counts.flushes,
            fences_per_op: counts.fences,
            reflush: counts.reflush,
            p50_ns: latency.p50_ns,
            p99_ns: latency.p99_ns,
            p999_ns: latency.p999_ns,
            speedup: estimate(&own),
            speedup_to_ring: estimate(&own.over(&ring)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Estimate, Spread};

    fn plan(names: &[&str], threads: &[usize]) -> Plan {
        Plan {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            scale: Scale::Usual,
            threads: threads.to_vec(),
            rounds: None,
            policies: vec![HeapOptions::POLICY_DEFAULT],
            background_thread: false,
            peers: Peers::None,
            seed: 1,
            directory: std::env::temp_dir(),
        }
    }

    fn names(plan: &Plan, peers: &[Peer]) -> Vec<String> {
        let groups = select(plan, peers).expect("something is measured");
        groups.iter().map(|group| format!("{} x{}", group.name(), group.threads)).collect()
    }

    #[test]
    fn a_name_selects_a_benchmark_or_a_variant() {
        let selected = names(&plan(&["threadtest/packed", "reopen"], &[1, 2]), &[]);
        assert_eq!(
            selected,
            [
                "threadtest/packed x1",
                "threadtest/packed x2",
                "reopen/kill-10k x1",
                "reopen/kill-1M x1",
                "reopen/close-10k x1",
                "reopen/close-1M x1"
            ]
        );
    }

    #[test]
    fn everything_is_selected_without_a_name_and_rivals_where_they_fit() {
        let groups = select(&plan(&[], &[]), &Peer::ALL).expect("something is measured");
        for bench in bench::ALL {
            assert!(groups.iter().any(|group| group.bench.name() == bench.name()));
        }
        let rivals = Peer::ALL.map(Subject::Pointer);
        for group in &groups {
            let has_rivals = rivals.iter().all(|rival| group.subjects.contains(rival));
            let heap_only = ["heap-size", "reopen"].contains(&group.bench.name());
            assert_eq!(has_rivals, !heap_only, "{}", group.name());
        }
    }

    /// The policy of the library's choice comes first, whoever names it where.
    #[test]
    fn each_policy_that_is_named_has_rows_of_its_own() {
        let subjects = |policies: &[Policy]| {
            let plan = Plan { policies: policies.to_vec(), ..plan(&["small/packed"], &[1]) };
            select(&plan, &[]).expect("something is measured").remove(0).subjects
        };
        let all = [Policy::Eager, Policy::Batched];
        for policy in all {
            assert_eq!(subjects(&[policy]), [Subject::Heap(policy), Subject::Bare]);
            assert_eq!(subjects(&[policy, policy]), [Subject::Heap(policy), Subject::Bare]);
        }
        let other = all.into_iter().find(|&policy| policy != HeapOptions::POLICY_DEFAULT);
        let [first, second] = [HeapOptions::POLICY_DEFAULT, other.expect("two")].map(Subject::Heap);
        assert_eq!(subjects(&all), [first, second, Subject::Bare]);
        assert_eq!(subjects(&[all[1], all[0], all[1]]), [first, second, Subject::Bare]);
        assert_eq!(first.name(), "pmalloc");
    }

    #[test]
    fn what_does_not_exist_is_refused_with_what_does() {
        for (names, threads, part) in [
            (&["nothing"][..], &[1][..], "threadtest"),
            (&["threadtest/loose"], &[1], "packed, own-line"),
            (&["heap-size/small-16G"], &[1], "small-1G"),
            (&["speedup"], &[1], "numbers of threads"),
        ] {
            let error = select(&plan(names, threads), &[]).err().expect("refused").to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_full_run_has_more_threads_than_processors() {
        let groups = select(&Plan { scale: Scale::Full, ..plan(&["threadtest"], &[]) }, &[]);
        let threads: Vec<_> = groups.iter().flatten().map(|group| group.threads).collect();
        assert_eq!(threads, [1, 2, 8, 1, 2, 8]);
    }

    /// Remembers what it is told, and has had enough after so many children.
    #[derive(Default)]
    struct Notes {
        announced: usize,
        steps: Vec<String>,
        notes: Vec<String>,
        patience: Option<usize>,
    }

    impl Watcher for Notes {
        fn begin(&mut self, children: usize) {
            self.announced = children;
        }
        fn step(&mut self, what: &str) {
            self.steps.push(what.to_owned());
        }
        fn note(&mut self, text: &str) {
            self.notes.push(text.to_owned());
        }
        fn is_stopped(&self) -> bool {
            self.patience.is_some_and(|patience| self.steps.len() >= patience)
        }
    }

    #[test]
    fn rivals_that_are_not_wanted_are_not_missed() {
        let mut watcher = Notes::default();
        assert_eq!(installed(&Peers::None, &mut watcher), (Vec::new(), Vec::new()));
        let glibc = Peers::These(vec![Peer::Glibc]);
        assert_eq!(installed(&glibc, &mut watcher), (vec![Peer::Glibc], Vec::new()));
        assert_eq!(watcher.notes, [""; 0]);
    }

    /// Runs three rounds of a benchmark whose children are a shell that runs `script`.
    fn run_scripted(script: &str, watcher: &mut Notes) -> Result<Report, Error> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let plan = Plan {
            rounds: Some(3),
            directory: directory.path().to_owned(),
            ..plan(&["speedup/small"], &[2])
        };
        let options = pmalloc::Heap::options().capacity_bytes(64 << 20);
        let args = ["-c", script, "sh"].map(Into::into).into();
        let launcher = Launcher { program: "/bin/sh".into(), args };
        let result = run(&plan, &options, &launcher, watcher);
        let left = fs::read_dir(directory.path()).expect("it is there").count();
        assert_eq!(left, 0, "the heaps' directory is gone");
        result
    }

    /// Round n costs 300 n nanoseconds, a bare persist 100.
    const ANSWERS: &str = r#"
        case "$1" in
            *'"mode":"Count"'*) echo '{"Counted":{"flushes":4,"fences":3,"reflush":[0,0,1,2,0,0,0,0,0.5]}}';;
            *'"mode":"Latency"'*) echo '{"Latency":{"p50_ns":1,"p99_ns":2,"p999_ns":3}}';;
            *'"round":'[0-9]*)
                round=${1#*'"round":'} && round=$((${round%%,*} + 1))
                echo '{"Timed":{"cpu_ns":'$((300 * round))',"wall_ns":'$((100 * round))',"bare_ns":100,'
                echo '"speedup":{"own":1.8,"ring":2.0}}}';;
        esac"#;

    #[test]
    fn a_row_is_made_of_what_its_children_say() {
        let mut watcher = Notes::default();
        let report = run_scripted(ANSWERS, &mut watcher).expect("results");
        assert_eq!(report.rows.len(), 1, "nobody else is measured");
        let row = &report.rows[0];
        assert_eq!((&*row.bench, &*row.allocator, row.threads), ("speedup/small", "pmalloc", 2));
        let chosen = HeapOptions::POLICY_DEFAULT.name();
        assert_eq!((row.model.as_deref(), row.policy.as_deref()), (Some("log"), Some(chosen)));
        assert_eq!(row.cpu_ns_per_op, Spread { median: 600.0, min: 300.0, max: 900.0 });
        assert_eq!(row.wall_ns_per_op, Spread { median: 200.0, min: 100.0, max: 300.0 });
        assert_eq!(row.ratio_to_bare, Estimate { value: 6.0, lo: 3.0, hi: 9.0 });
        assert_eq!(row.ratio_per_fence(), Some(2.0));
        assert_eq!((row.flushes_per_op, row.fences_per_op, row.near_reflush()), (4.0, 3.0, 3.0));
        assert_eq!((row.p50_ns, row.p99_ns, row.p999_ns), (1, 2, 3));
        assert_eq!(row.speedup, Some(Estimate { value: 1.8, lo: 1.8, hi: 1.8 }));
        assert_eq!(row.speedup_to_ring, Some(Estimate { value: 0.9, lo: 0.9, hi: 0.9 }));
        assert_eq!((watcher.announced, watcher.steps.len()), (5, 5));
        let text = report.to_text();
        for part in ["speedup/small", "6.00 (3.00 to 9.00)", "0.90 (0.90 to 0.90)"] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
    }

    #[test]
    fn a_child_that_dies_ends_the_run_with_its_last_words() {
        let script = r#"case "$1" in *'"round":1'*) echo 'no more' >&2; kill -9 $$;; esac"#;
        let script = format!("{script}{ANSWERS}");
        let error = run_scripted(&script, &mut Notes::default()).expect_err("it died").to_string();
        for part in ["speedup/small, pmalloc, 2 threads, Time, round 1", "signal: 9", "no more"] {
            assert!(error.contains(part), "no {part:?} in {error}");
        }
    }

    #[test]
    fn the_user_ends_the_run() {
        let mut watcher = Notes { patience: Some(2), ..Notes::default() };
        let error = run_scripted(ANSWERS, &mut watcher).expect_err("ended");
        assert!(matches!(error, Error::Interrupted), "{error}");
        assert_eq!(watcher.steps.len(), 2);
    }

    #[test]
    fn what_there_is_no_room_for_is_left_out_and_named() {
        let mut watcher = Notes::default();
        let names = ["threadtest/packed", "larson/large", "heap-size/small-1G"];
        let groups = select(&plan(&names, &[1, 8]), &[]).expect("they exist");
        let room = groups[2].need_bytes() + (256 << 20);
        let (fitting, left_out) = leave_out(groups, room, &mut watcher).expect("some fit");
        let fitting_names: Vec<_> = fitting.iter().map(Group::name_with_threads).collect();
        assert_eq!(
            fitting_names,
            [
                "threadtest/packed with 1 thread",
                "threadtest/packed with 8 threads",
                "larson/large with 1 thread"
            ]
        );
        assert_eq!(left_out, ["larson/large with 8 threads", "heap-size/small-1G with 1 thread"]);
        let note = "larson/large with 8 threads needs 2048 MiB, and 624 MiB are free";
        assert_eq!(watcher.notes[0], note);
        let error = leave_out(fitting, 1 << 20, &mut watcher).err().expect("nothing fits");
        assert!(matches!(error, Error::NoRoom), "{error}");
    }
}
