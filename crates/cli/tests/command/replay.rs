//! `pmalloc replay` on tiny traces, on malformed ones and on the bundled one, with kills and without.
//!
//! The figures of a tiny trace are known beforehand; those of the kills are that nothing is violated and all
//! kills happen.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    Event::{Alloc, Free},
    Place, expect_keys, run, spawn, str, trace,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const KEYS: [&str; 25] = [
    "trace",
    "events",
    "threads",
    "allocs",
    "frees",
    "wall_ns",
    "cpu_ns",
    "ns_per_op",
    "flushes_per_op",
    "fences_per_op",
    "reflushes_per_op",
    "peak_live_bytes",
    "peak_heap_bytes",
    "heap_ratio",
    "dram_bytes",
    "verified_blocks",
    "publish_percent",
    "operations",
    "kills",
    "kills_in_flight",
    "kills_in_recovery",
    "in_flight",
    "recovery_ms",
    "violations",
    "schema",
];

/// Two threads that hand a block over, one block that stays.
fn tiny() -> Vec<u8> {
    trace(2, &[Alloc(100, 0), Alloc(5000, 1), Free(0, 1), Alloc(40_000, 0), Free(1, 0)])
}

/// Two threads that free each other's blocks, `rounds` times; four blocks stay.
fn exchange(rounds: u64) -> Vec<u8> {
    let mut events = Vec::new();
    for round in 0..rounds {
        let size = 16 + round * 37 % 3000;
        events.extend([Alloc(size, 0), Alloc(size * 2, 1), Alloc(size + 1, 0)]);
        if round > 0 {
            let first = (round - 1) * 3;
            events.extend([Free(first, 1), Free(first + 1, 0), Free(first + 2, 0)]);
        }
    }
    events.push(Alloc(20_000, 1));
    trace(2, &events)
}

#[test]
fn a_tiny_trace_gives_its_own_figures_in_both_orders() {
    let place = Place::new();
    let path = place.file("tiny.mtr", &tiny());
    for order in ["threads", "trace"] {
        let report = run(&["replay", str(&path), "--order", order, "--json"]).expect_code(0).json();
        expect_keys(&report, &KEYS);
        assert_eq!(report["trace"], str(&path));
        assert_eq!((&report["events"], &report["threads"]), (&5.into(), &2.into()));
        assert_eq!((&report["allocs"], &report["frees"]), (&3.into(), &2.into()));
        assert_eq!(report["violations"], 0);
        // Before each of the two frees, and the block that stays after the reopening.
        assert_eq!(report["verified_blocks"], 3);
        assert_eq!(
            (&report["operations"]["alloc"], &report["operations"]["free"]),
            (&3.into(), &2.into())
        );
        assert_eq!(report["reflushes_per_op"].as_array().map(Vec::len), Some(9));
        let live = report["peak_live_bytes"].as_u64().expect("a count");
        let heap = report["peak_heap_bytes"].as_u64().expect("a count");
        assert!((40_000..=45_100 + 3 * 8).contains(&live), "{live}");
        assert!(heap >= live, "{heap} holds {live}");
        assert!(report["fences_per_op"].as_f64().expect("a ratio") >= 1.0);
    }
    let in_trace_order = run(&["replay", str(&path), "--order", "trace", "--json"]).json();
    assert_eq!(in_trace_order["peak_live_bytes"], 45_000 + 2 * 8);
}

#[test]
fn the_bundled_trace_is_replayed_by_default() {
    let report = run(&["replay", "--json"]).expect_code(0).json();
    assert_eq!((&report["events"], &report["threads"]), (&300_173.into(), &10.into()));
    assert_eq!((&report["verified_blocks"], &report["violations"]), (&156_533.into(), &0.into()));
}

#[test]
fn people_get_figures_without_a_bar() {
    let place = Place::new();
    let path = place.file("tiny.mtr", &tiny());
    let ran = run(&["replay", str(&path), "--no-verify"]).expect_code(0);
    assert!(ran.stdout().contains("x peak live"), "{}", ran.stdout());
    // The durability of a file in memory makes no persists, and the figures say so.
    assert!(ran.stdout().contains("fences per operation; only counted"), "{}", ran.stdout());
    assert_eq!(ran.stderr(), "", "no bar where there is no terminal");
}

#[test]
fn persists_that_no_instruction_makes_are_told_apart() {
    let place = Place::new();
    let path = place.file("tiny.mtr", &tiny());
    for (durability, flushes, fences) in
        [("process", false, false), ("eadr", false, true), ("powerfail", true, true)]
    {
        let args = ["replay", str(&path), "--durability", durability];
        let report = run(&[&args[..], &["--json"]].concat()).expect_code(0).json();
        assert_eq!(report["flushes_are_executed"], flushes, "{durability}");
        assert_eq!(report["fences_are_executed"], fences, "{durability}");
        // Counted everywhere: they are the protocol's.
        assert!(report["flushes_per_op"].as_f64() >= Some(1.0), "{report}");
        let text = run(&args).expect_code(0).stdout();
        assert_eq!(text.contains("only counted"), !flushes, "{text}");
    }
}

#[test]
fn a_named_heap_stays_and_is_whole() {
    let place = Place::new();
    let path = place.file("tiny.mtr", &tiny());
    let heap = place.path("heap");
    run(&["replay", str(&path), "--heap", str(&heap)]).expect_code(0);
    let checked = run(&["check", str(&heap), "--json"]).expect_code(0).json();
    assert_eq!(checked["blocks"], 2, "the block that stays, and the array of slots");
    let again = run(&["replay", str(&path), "--heap", str(&heap)]).expect_code(2);
    assert!(again.stderr().contains("exists"), "{}", again.stderr());
}

#[test]
fn a_kept_heap_is_where_it_is_said_to_be() {
    let place = Place::new();
    let path = place.file("tiny.mtr", &tiny());
    let ran = run(&["replay", str(&path), "--keep"]).expect_code(0);
    let stderr = ran.stderr();
    let (_, kept) = stderr.trim().rsplit_once(": ").expect("a path");
    run(&["check", kept]).expect_code(0);
    let directory = Path::new(kept).parent().expect("a directory of its own");
    fs::remove_dir_all(directory).expect("ours to remove");
}

#[test]
fn malformed_traces_are_refused_with_a_sentence() {
    let place = Place::new();
    let whole = tiny();
    let empty_thread = trace(0, &[]);
    let mut bomb = whole.clone();
    bomb[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut many = whole.clone();
    many[8..16].copy_from_slice(&(1_u64 << 26).to_le_bytes());
    for (bytes, words) in [
        (&b"MTR"[..], "not a trace"),
        (b"", "not a trace"),
        (&whole[..whole.len() - 1], "cut off"),
        (&empty_thread, "threads"),
        (&bomb, "events"),
        (&many, "cut off"),
        (&trace(1, &[Alloc(0, 0)]), "0 bytes"),
        (&trace(1, &[Alloc(1, 1)]), "thread 1"),
        (&trace(1, &[Free(3, 0)]), "never allocated"),
        (&trace(1, &[Alloc(1, 0), Free(0, 0), Free(0, 0)]), "second free"),
        (&[&whole[..], b"more"].concat(), "after its last event"),
        (b"\x28\xb5\x2f\xfd broken", "can't be read"),
    ] {
        let path = place.file("malformed", bytes);
        let ran = run(&["replay", str(&path)]).expect_code(1);
        assert!(ran.stderr().contains(words), "{words:?} not in {}", ran.stderr());
        assert_eq!(ran.stdout(), "");
    }
    run(&["replay", str(&place.path("nothing"))]).expect_code(1);
}

#[test]
fn a_trace_that_can_not_fit_is_refused_before_anything_is_filled() {
    let place = Place::new();
    let path = place.file("huge", &trace(1, &[Alloc(1 << 40, 0), Alloc(1 << 40, 0)]));
    let ran = run(&["replay", str(&path)]).expect_code(1);
    assert!(ran.stderr().contains("free"), "{}", ran.stderr());
}

#[test]
fn kills_lose_nothing_and_are_all_made() {
    let place = Place::new();
    let path = place.file("exchange.mtr", &exchange(3000));
    for order in ["threads", "trace"] {
        let args = ["replay", str(&path), "--kills", "6", "--seed", "1", "--order", order];
        let report = run(&[&args[..], &["--json"]].concat()).expect_code(0).json();
        expect_keys(&report, &KEYS);
        assert_eq!((&report["kills"], &report["violations"]), (&6.into(), &0.into()));
        expect_keys(&report["recovery_ms"], &["median", "max"]);
        assert!(report["recovery_ms"]["max"].as_f64() > Some(0.0));
        let bins = report["in_flight_histogram"].as_array().expect("a histogram");
        let kills: u64 = bins.iter().filter_map(Value::as_u64).sum();
        assert_eq!(report["kills_in_recovery"], 1, "the second one");
        assert_eq!(kills, 5, "each of the others is in one bin");
        let in_flight = report["kills_in_flight"].as_u64().expect("a count");
        assert!(in_flight >= 3, "{in_flight}: those at persist calls are in an operation");
    }
}

/// Numbers of operations of the kinds that take steps of the trace; how often the others are done depends on kills.
fn steps_taken(report: &Value) -> Vec<&Value> {
    ["alloc", "free", "replace", "publish"].map(|kind| &report["operations"][kind]).to_vec()
}

#[test]
fn what_is_published_is_the_seed_s_choice_in_both_orders() {
    let place = Place::new();
    let path = place.file("exchange.mtr", &exchange(3000));
    let replay = |seed, order| {
        let args = ["replay", str(&path), "--publish", "60", "--seed", seed, "--order", order];
        run(&[&args[..], &["--json"]].concat()).expect_code(0).json()
    };
    let report = replay("7", "threads");
    assert_eq!((&report["publish_percent"], &report["seed"]), (&60.into(), &7.into()));
    // Before each free, and the four blocks that stay.
    assert_eq!((&report["verified_blocks"], &report["violations"]), (&9001.into(), &0.into()));
    let operations = report["operations"].as_object().expect("by kind");
    assert!(operations.values().all(|count| count.as_u64() > Some(0)), "{operations:?}");
    assert_eq!(replay("7", "trace")["operations"], report["operations"]);
    assert_ne!(replay("8", "threads")["operations"], report["operations"]);
    let plain = run(&["replay", str(&path), "--json"]).json();
    assert_eq!(steps_taken(&plain), [9001, 8997, 0, 0]);
}

#[test]
fn kills_lose_nothing_of_what_is_published() {
    let place = Place::new();
    let path = place.file("exchange.mtr", &exchange(6000));
    for order in ["threads", "trace"] {
        let args = ["replay", str(&path), "--publish", "100", "--seed", "3", "--order", order];
        let unkilled = run(&[&args[..], &["--json"]].concat()).expect_code(0).json();
        let kill = || {
            let args = [&args[..], &["--kills", "8", "--json"]].concat();
            let killed = run(&args).expect_code(0).json();
            assert_eq!((&killed["kills"], &killed["violations"]), (&8.into(), &0.into()));
            killed
        };
        // A kill at a moment comes too late at times; then the trace is begun again, and takes its steps twice.
        let killed = std::iter::repeat_with(kill).take(10).find(|killed| killed["rounds"] == 1);
        let killed = killed.expect("the kills come in time once in ten times");
        assert_eq!(steps_taken(&killed), steps_taken(&unkilled), "each is done once");
        let in_flight = killed["in_flight"].as_object().expect("by kind");
        let family = in_flight.values().filter_map(Value::as_u64).sum::<u64>();
        assert!(family > 0, "{in_flight:?}");
    }
}

#[test]
fn kills_publish_unless_told_otherwise() {
    let place = Place::new();
    let path = place.file("exchange.mtr", &exchange(500));
    for (percent, is_published) in [(None, true), (Some("0"), false)] {
        let mut args = vec!["replay", str(&path), "--kills", "1", "--json"];
        args.extend(percent.into_iter().flat_map(|percent| ["--publish", percent]));
        let report = run(&args).expect_code(0).json();
        assert_eq!(report["operations"]["publish"].as_u64() > Some(0), is_published);
    }
    run(&["replay", str(&path), "--publish", "101"]).expect_code(2);
}

#[test]
fn a_trace_too_short_for_its_kills_is_begun_again() {
    let place = Place::new();
    let path = place.file("exchange.mtr", &exchange(20));
    let args = ["replay", str(&path), "--kills", "8", "--json"];
    let report = run(&args).expect_code(0).json();
    assert_eq!((&report["kills"], &report["violations"]), (&8.into(), &0.into()));
}

#[test]
fn an_empty_trace_can_be_replayed_but_not_killed() {
    let place = Place::new();
    let path = place.file("empty.mtr", &trace(1, &[]));
    let report = run(&["replay", str(&path), "--json"]).expect_code(0).json();
    assert_eq!((&report["events"], &report["verified_blocks"]), (&0.into(), &0.into()));
    let killed = run(&["replay", str(&path), "--kills", "1"]).expect_code(2);
    assert!(killed.stderr().contains("too short"), "{}", killed.stderr());
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    let place = Place::new();
    let path = place.file("exchange.mtr", &exchange(20_000));
    for signal in [Signal::INT, Signal::TERM] {
        let mut child = spawn(&["replay", str(&path), "--kills", "1000"]);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !scratch_of(&child).iter().any(|directory| directory.join("heap").exists()) {
            assert!(Instant::now() < deadline, "the campaign begins");
            thread::sleep(Duration::from_millis(1));
        }
        kill_process(Pid::from_child(&child), signal).expect("it runs");
        assert_eq!(child.wait().expect("it ends").code(), Some(1));
        assert_eq!(scratch_of(&child), Vec::<PathBuf>::new());
    }
}

/// The scratch directories of a process that runs the command.
fn scratch_of(child: &Child) -> Vec<PathBuf> {
    let prefix = format!("pmalloc-replay-{}-", child.id());
    [PathBuf::from("/dev/shm"), env::temp_dir()]
        .iter()
        .flat_map(|parent| fs::read_dir(parent).into_iter().flatten().flatten())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect()
}
