//! `pmalloc bench`: that every benchmark runs, that results have the pinned keys and make sense, and what comparisons
//! say of them. Method: the built command runs the quick scale, which is for nothing else; no figure is judged.

use std::{collections::BTreeSet, fs, path::Path};

use crate::common::{Ran, run, str};
use pmalloc::HeapOptions;
use serde_json::Value;
use tempfile::TempDir;

/// Keys of a row that the interface pins, and those that were added.
const ROW_KEYS: [&str; 16] = [
    "bench",
    "allocator",
    "model",
    "policy",
    "threads",
    "cpu_ns_per_op",
    "ratio_to_bare",
    "flushes_per_op",
    "fences_per_op",
    "reflush",
    "p50_ns",
    "p99_ns",
    "p999_ns",
    "wall_ns_per_op",
    "speedup",
    "speedup_to_ring",
];

/// Keys of the results, likewise.
const KEYS: [&str; 10] = [
    "schema",
    "rows",
    "missing_peers",
    "machine",
    "flush_again",
    "scale",
    "rounds",
    "seed",
    "background_thread",
    "left_out",
];

/// A directory for heaps, in memory.
fn heaps() -> TempDir {
    tempfile::tempdir_in("/dev/shm").expect("/dev/shm can be written")
}

/// Runs `bench --quick --rounds 2` with `args`; nothing is left behind.
fn bench(args: &[&str]) -> Ran {
    let heaps = heaps();
    let ran =
        run(&[&["bench", "--quick", "--rounds", "2", "--heaps", str(heaps.path())], args].concat());
    assert_eq!(fs::read_dir(heaps.path()).expect("it is there").count(), 0, "heaps are left");
    ran
}

/// Expects that `value` is an object with exactly these keys.
#[track_caller]
fn expect_exactly(value: &Value, keys: &[&str]) {
    let found: BTreeSet<&str> =
        value.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(found, keys.iter().copied().collect());
}

/// The figures of an object with exactly these keys.
#[track_caller]
fn figures<const N: usize>(value: &Value, keys: [&str; N]) -> [f64; N] {
    expect_exactly(value, &keys);
    keys.map(|key| value[key].as_f64().expect("a number"))
}

#[track_caller]
fn expect_sound(row: &Value) {
    expect_exactly(row, &ROW_KEYS);
    for key in ["cpu_ns_per_op", "wall_ns_per_op"] {
        let [median, min, max] = figures(&row[key], ["median", "min", "max"]);
        assert!(0.0 < min && min <= median && median <= max && max < 1e12, "{key} of {row}");
    }
    for key in ["ratio_to_bare", "speedup", "speedup_to_ring"] {
        let is_there = key == "ratio_to_bare"
            || row["bench"].as_str().expect("a name").starts_with("speedup/");
        assert_eq!(row[key].is_null(), !is_there, "{key} of {row}");
        if is_there {
            let [value, lo, hi] = figures(&row[key], ["value", "lo", "hi"]);
            assert!(0.0 < lo && lo <= value && value <= hi && hi < 1e9, "{key} of {row}");
        }
    }
    let reflush = row["reflush"].as_array().expect("by distance");
    // Where every flush is one again, the sum may be larger by a rounding.
    let reflushes: f64 = reflush.iter().filter_map(Value::as_f64).sum::<f64>() * (1.0 - 1e-9);
    let flushes = row["flushes_per_op"].as_f64().expect("a number");
    assert_eq!(reflush.len(), 9);
    assert!(row["fences_per_op"].as_f64() >= Some(1.0) && reflushes <= flushes, "{row}");
    assert!(row["p50_ns"].as_u64() > Some(0), "{row}");
    assert!(row["p50_ns"].as_u64() <= row["p99_ns"].as_u64(), "{row}");
    assert!(row["p99_ns"].as_u64() <= row["p999_ns"].as_u64(), "{row}");
    // The one of the library's choice has the plain name.
    let policies = ["eager", "batched"];
    let allocator = row["allocator"].as_str().expect("a name");
    match row["policy"].as_str() {
        Some(policy) => {
            assert!(policies.contains(&policy) && row["model"] == "log", "{row}");
            let is_chosen = policy == HeapOptions::POLICY_DEFAULT.name();
            let name = if is_chosen { "pmalloc".into() } else { format!("pmalloc-{policy}") };
            assert_eq!(allocator, name, "{row}");
        }
        None => assert!(row["model"].is_null() && !allocator.starts_with("pmalloc"), "{row}"),
    }
}

#[test]
fn heaps_may_have_a_background_thread() {
    let only = ["small/packed", "--threads", "1", "--policy", "batched", "--peers", "none"];
    let with_thread = [&only[..], &["--background-thread"]].concat();
    let results = bench(&[&with_thread[..], &["--json"]].concat()).expect_code(0).json();
    assert_eq!(results["background_thread"], true);
    let text = bench(&with_thread).expect_code(0).stdout();
    assert!(text.contains(", a background thread per heap\n"), "{text}");
    let text = bench(&only).expect_code(0).stdout();
    assert!(!text.contains("background"), "{text}");
}

#[test]
fn every_benchmark_runs_and_its_results_make_sense() {
    let ran = bench(&["--json"]).expect_code(0);
    let results = ran.json();
    expect_exactly(&results, &KEYS);
    expect_exactly(
        &results["machine"],
        &[
            "cpu",
            "arch",
            "cores",
            "kernel",
            "flush_instruction",
            "durability",
            "durability_is_forced",
            "storage",
            "directory",
        ],
    );
    assert_eq!(results["machine"]["durability"], "powerfail");
    assert_eq!(results["background_thread"], false);
    let flush_again = results["flush_again"].as_f64().expect("something is flushed");
    assert!((0.1..100.0).contains(&flush_again), "{flush_again}");
    let rows = results["rows"].as_array().expect("rows");
    rows.iter().for_each(expect_sound);
    let ran: BTreeSet<&str> =
        rows.iter().filter_map(|row| Some(row["bench"].as_str()?.split_once('/')?.0)).collect();
    let all = [
        "heap-size",
        "large",
        "larson",
        "prod-con",
        "reopen",
        "shbench",
        "small",
        "speedup",
        "threadtest",
    ];
    assert_eq!(ran.into_iter().collect::<Vec<_>>(), all);
    let threadtest = rows.iter().filter(|row| row["bench"] == "threadtest/packed");
    let threads: BTreeSet<u64> = threadtest.filter_map(|row| row["threads"].as_u64()).collect();
    assert_eq!(threads.into_iter().collect::<Vec<_>>(), [1, 2]);
    let count = |policy: &str| rows.iter().filter(|row| row["policy"] == policy).count();
    assert_eq!(count("eager"), count("batched"));
}

#[test]
fn heaps_of_the_policies_that_are_named_are_measured() {
    for (list, expected) in [
        (None, &["batched", "eager"][..]),
        (Some("eager"), &["eager"]),
        (Some("batched"), &["batched"]),
        (Some("batched,eager"), &["batched", "eager"]),
    ] {
        let args = ["small/packed", "--threads", "1", "--peers", "none", "--json"];
        let policy = list.map_or_else(Vec::new, |list| vec!["--policy", list]);
        let results = bench(&[&args[..], &policy].concat()).expect_code(0).json();
        let rows = results["rows"].as_array().expect("rows");
        let found: BTreeSet<&str> = rows.iter().filter_map(|row| row["policy"].as_str()).collect();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
        // And the bare persists, once.
        assert_eq!(rows.len(), expected.len() + 1, "{results}");
    }
}

#[test]
fn a_rival_is_measured_or_named_with_what_to_install() {
    let ran = bench(&["threadtest/packed", "--threads", "1", "--json"]).expect_code(0);
    let results = ran.json();
    let names: BTreeSet<&str> = results["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["allocator"].as_str())
        .collect();
    assert!(names.contains("pmalloc") && names.contains("bare") && names.contains("glibc+pointer"));
    let missing: Vec<&str> = results["missing_peers"]
        .as_array()
        .expect("names")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let is_named = missing == ["mimalloc"] && ran.stderr().contains("libmimalloc2.0");
    assert_ne!(names.contains("mimalloc+pointer"), is_named, "{missing:?} {}", ran.stderr());

    let none = ["threadtest/packed", "--threads", "1", "--peers", "none", "--policy", "eager"];
    let none = bench(&[&none[..], &["--json"]].concat());
    let none = none.expect_code(0).json();
    assert_eq!(none["rows"].as_array().map(Vec::len), Some(2), "{none}");
    assert_eq!(none["missing_peers"].as_array().map(Vec::len), Some(0), "{none}");
}

#[test]
fn what_can_t_be_measured_is_a_usage_error_that_says_what_can() {
    for (args, part) in [
        (&["thread-test"][..], "threadtest"),
        (&["small/loose"], "own-line, packed, contents"),
        (&["speedup", "--threads", "1"], "numbers of threads"),
        (&["--threads", "0"], "0 is not in 1..=1024"),
        (&["--peers", "tcmalloc"], "mimalloc, glibc"),
        (&["--policy", "lazy"], "eager, batched"),
        (&["--full"], "--quick"),
    ] {
        let ran = bench(args).expect_code(2);
        assert!(ran.stderr().contains(part), "no {part:?} in {}", ran.stderr());
    }
}

#[test]
fn a_child_that_panics_says_why() {
    let cell = |directory: &str| {
        format!(
            r#"{{"bench":"small","variant":"packed","subject":"pmalloc","threads":1,"mode":"Time",
            "scale":"Quick","round":0,"seed":1,"directory":"{directory}"}}"#
        )
    };
    let died = run(&["bench-cell", &cell("/no/such/directory")]);
    assert!(died.stderr().contains("/no/such/directory/heap"), "{}", died.stderr());
    assert!(died.stdout().is_empty());
    let heaps = heaps();
    let lived = run(&["bench-cell", &cell(str(heaps.path()))]).expect_code(0);
    assert!(lived.stdout().contains("Timed"), "{}", lived.stdout());
    run(&["bench-cell", "nonsense"]).expect_code(1);
}

/// Writes `results`, with the ratio of every row of the heap times `factor`.
fn write_slower(results: &Value, factor: f64, path: &Path) {
    let mut results = results.clone();
    for row in results["rows"].as_array_mut().expect("rows") {
        if row["policy"].is_string() {
            for key in ["value", "lo", "hi"] {
                let figure = row["ratio_to_bare"][key].as_f64().expect("a number") * factor;
                row["ratio_to_bare"][key] = figure.into();
            }
        }
    }
    fs::write(path, results.to_string()).expect("a file");
}

#[test]
fn results_are_kept_and_a_regression_is_code_3() {
    let place = crate::common::Place::new();
    let kept = place.path("kept");
    let args = ["small/packed", "--threads", "1", "--peers", "none", "--policy", "batched"];
    let args = [&args[..], &["--out", str(&kept), "--json"]].concat();
    let results = bench(&args).expect_code(0).json();
    let text = fs::read_to_string(kept.join("bench.txt")).expect("a table");
    assert!(text.contains("small/packed") && text.contains("pmalloc"), "{text}");

    let same = run(&["bench", "compare", str(&kept), str(&kept), "--json"]).expect_code(0).json();
    assert_eq!((&same["regressions"], &same["same_machine"]), (&0.into(), &true.into()));

    let slower = place.path("slower.json");
    write_slower(&results, 100.0, &slower);
    let compared = run(&["bench", "compare", str(&kept), str(&slower)]).expect_code(3);
    assert!(compared.stdout().contains("SLOWER"), "{}", compared.stdout());
    assert!(compared.stderr().contains("1 regressions"), "{}", compared.stderr());
    let compared = run(&["bench", "compare", str(&slower), str(&kept), "--json"]).expect_code(0);
    let verdicts: Vec<Value> = compared.json()["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| row["verdict"].clone())
        .collect();
    assert_eq!(verdicts, ["faster", "same"]);
}

#[test]
fn what_is_no_result_is_not_compared() {
    let place = crate::common::Place::new();
    let text = place.file("text", b"no results");
    let other = place.file("other", br#"{"schema": 1, "rows": 3}"#);
    let future = place.file("future", br#"{"schema": 99}"#);
    for path in [&text, &other, &future] {
        let ran = run(&["bench", "compare", str(path), str(path)]).expect_code(1);
        assert!(ran.stderr().contains("not results of `pmalloc bench`"), "{}", ran.stderr());
    }
    run(&["bench", "compare", str(&place.path("nothing")), str(&text)]).expect_code(1);
    run(&["bench", "compare", str(&text)]).expect_code(2);
}
