//! Goal: where addresses are scarce, a heap without a wish gets a capacity that fits, and everything else is refused with a
//! sentence that says what to do.
//!
//! Method: a shell sets the limit on address space (`RLIMIT_AS`) and runs the built command.

use std::fs;

use crate::common::{Place, run, run_within, str};

const GIB: u64 = 1 << 30;

#[test]
fn a_heap_without_a_wish_gets_a_capacity_that_fits() {
    let place = Place::new();
    let mut last = u64::MAX;
    for limit in [64 * GIB, 8 * GIB, GIB] {
        let path = place.path(&limit.to_string());
        let made = run_within(limit, &["create", str(&path), "--json"]).expect_code(0);
        assert!(made.stderr().contains("ulimit -v"), "{}", made.stderr());
        let capacity = made.json()["capacity_bytes"].as_u64().expect("a number");
        // Half of the addresses are left, and no more than was needed is given away.
        assert!((limit / 8..limit / 2).contains(&capacity), "{capacity} of {limit}");
        assert!(capacity.is_power_of_two() && capacity < last, "{capacity}");
        last = capacity;
        // It can be used where it was made.
        for command in ["info", "check", "stats", "map", "recover"] {
            run_within(limit, &[command, str(&path)]).expect_code(0);
        }
    }
    let path = place.path("wide");
    let made = run(&["create", str(&path), "--json"]).expect_code(0);
    assert_eq!((&made.json()["capacity_bytes"], &*made.stderr()), (&(256 * GIB).into(), ""));
}

#[test]
fn what_does_not_fit_is_refused_and_says_what_to_do() {
    let place = Place::new();
    let path = place.path("heap");
    let create = ["create", str(&path), "--capacity", "8G"];
    let refused = |args: &[&str]| {
        let said = run_within(4 * GIB, args).expect_code(1).stderr();
        for word in ["ulimit -v", "smaller capacity", str(&path)] {
            assert!(said.contains(word), "{said}");
        }
    };
    refused(&create);
    assert_eq!(fs::read_dir(path.parent().expect("a folder")).expect("readable").count(), 0);

    run(&create).expect_code(0);
    let modified = || fs::metadata(&path).and_then(|file| file.modified()).expect("a time");
    let before = modified();
    for command in ["check", "stats", "map", "recover"] {
        refused(&[command, str(&path)]);
    }
    assert_eq!(modified(), before, "a refusal changes nothing");
    // What needs no more than the file is there is shown all the same.
    let info = run_within(4 * GIB, &["info", str(&path), "--json"]).expect_code(0).json();
    assert_eq!(info["capacity_bytes"], 8 * GIB);
    run_within(4 * GIB, &["destroy", str(&path)]).expect_code(0);
}
