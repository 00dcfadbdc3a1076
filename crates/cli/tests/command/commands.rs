//! The commands on heaps that are whole, open elsewhere, damaged or none: pinned JSON keys and exit codes.
//!
//! Every test runs the built command, as a script would.

use std::{alloc::Layout, fs, os::unix::fs::MetadataExt};

use crate::common::{Place, expect_keys, run, spawn, str};
use pmalloc::{Heap, HeapOptions, Policy};
use uuid::{Uuid, Variant};

const INFO_KEYS: [&str; 14] = [
    "format",
    "uuid",
    "layout",
    "model",
    "policy",
    "durability",
    "survives",
    "capacity_bytes",
    "heap_bytes",
    "stripes",
    "nodes",
    "clean",
    "features",
    "owner",
];

#[test]
fn create_makes_a_heap_and_says_what_it_is() {
    let place = Place::new();
    let path = place.path("heap");
    let args = ["create", str(&path), "--capacity", "64M", "--layout", "cache-1", "--stripes", "3"];
    let made = run(&[&args[..], &["--json"]].concat()).expect_code(0).json();
    expect_keys(&made, &INFO_KEYS);
    assert_eq!(made["layout"], "cache-1");
    assert_eq!(made["capacity_bytes"], 64 << 20);
    assert_eq!(made["stripes"], 3);
    assert_eq!(made["clean"], true);
    let again = run(&["info", str(&path), "--json"]).expect_code(0).json();
    assert_eq!(again["uuid"], made["uuid"]);
}

#[test]
fn a_heap_has_the_policy_that_was_asked_for_or_that_of_the_library() {
    let place = Place::new();
    let shown = |path: &str| {
        let [info, stats] = ["info", "stats"].map(|command| {
            let json = run(&[command, path, "--json"]).expect_code(0).json();
            json["policy"].as_str().expect("a name").to_owned()
        });
        let prom = run(&["stats", path, "--prom"]).expect_code(0).stdout();
        assert!(prom.contains(&format!("pmalloc_policy{{policy=\"{stats}\"}} 1\n")), "{prom}");
        assert_eq!(info, stats);
        info
    };
    for policy in [Policy::Eager, Policy::Batched] {
        let path = place.path(policy.name());
        let args = ["create", str(&path), "--policy", policy.name(), "--json"];
        assert_eq!(run(&args).expect_code(0).json()["policy"], policy.name());
        assert_eq!(shown(str(&path)), policy.name());
        // Commands that open a heap leave it the policy that it has.
        for command in ["check", "map", "trim", "recover"] {
            run(&[command, str(&path)]).expect_code(0);
        }
        assert_eq!(shown(str(&path)), policy.name());
        assert_eq!(Heap::open(&path).expect("a heap").policy(), policy);
    }
    assert_eq!(shown(str(&place.heap("heap"))), HeapOptions::POLICY_DEFAULT.name());
    let refused = run(&["create", str(&place.path("lazy")), "--policy", "lazy"]).expect_code(2);
    assert!(refused.stderr().contains("eager, batched"), "{}", refused.stderr());
}

#[test]
fn the_identity_of_a_heap_is_a_random_uuid_and_its_own() {
    let place = Place::new();
    let uuid = |name: &str| {
        let info = run(&["info", str(&place.heap(name)), "--json"]).expect_code(0).json();
        let text = info["uuid"].as_str().expect("a text").to_owned();
        (Uuid::parse_str(&text).expect("as RFC 9562 has it"), text)
    };
    let ((one, text), (other, _)) = (uuid("one"), uuid("other"));
    // Hyphenated, in lower case.
    assert_eq!(text, one.to_string());
    for uuid in [one, other] {
        assert_eq!((uuid.get_version_num(), uuid.get_variant()), (4, Variant::RFC4122), "{uuid}");
    }
    assert_ne!(one, other);
}

#[test]
fn a_size_that_the_command_printed_is_one_that_it_takes() {
    let place = Place::new();
    let printed = |name: &str, size: &str| {
        let path = place.path(name);
        let text = run(&["create", str(&path), "--capacity", size]).expect_code(0).stdout();
        let line = text.lines().find_map(|line| line.strip_prefix("capacity"));
        line.expect("a capacity").trim().to_owned()
    };
    let size = printed("first", "1.5G");
    assert_eq!(size, "1.5 GiB");
    assert_eq!(printed("second", &size), size);
}

#[test]
fn create_leaves_what_exists_alone() {
    let place = Place::new();
    let path = place.file("precious", b"not a heap");
    run(&["create", str(&path)]).expect_code(1);
    assert_eq!(fs::read(&path).expect("still there"), b"not a heap");
}

#[test]
fn trim_gives_back_what_is_free_and_says_how_much() {
    let place = Place::new();
    let path = place.heap("heap");
    let heap = Heap::open(&path).expect("a heap");
    let slots = heap.slots("test", 2).expect("slots");
    for slot in slots {
        heap.alloc_to(slot, Layout::new::<[u8; 1 << 20]>()).expect("room");
    }
    heap.free_from(&slots[0]).expect("full");
    let in_use = run(&["trim", str(&path)]).expect_code(4);
    assert!(in_use.stderr().contains("in use"), "{}", in_use.stderr());
    heap.close().expect("closed");
    let occupied = || fs::metadata(&path).expect("a file").blocks() * 512;
    let before = occupied();
    let trimmed = run(&["trim", str(&path), "--json"]).expect_code(0);
    assert_eq!(trimmed.stderr(), "");
    let trimmed = trimmed.json();
    expect_keys(&trimmed, &["freed_bytes", "heap_bytes"]);
    assert_eq!(trimmed["heap_bytes"], occupied());
    assert!(trimmed["freed_bytes"].as_u64().expect("a number") >= 1 << 20);
    assert!(occupied() <= before - (1 << 20));
    let again = run(&["trim", str(&path), "--json"]).expect_code(0).json();
    assert_eq!(again["freed_bytes"], 0, "nothing is left");
    let heap = Heap::open(&path).expect("a heap");
    let slots = heap.slots("test", 2).expect("slots");
    assert!(slots[1].get(&heap.pin()).is_some(), "what is in use stays");
    run(&["trim", str(&place.path("none"))]).expect_code(1);
    run(&["trim", str(&place.file("text", b"not a heap"))]).expect_code(5);
}

#[test]
fn a_forced_durability_is_warned_of() {
    let place = Place::new();
    let path = place.path("heap");
    let made = run(&["create", str(&path), "--durability", "powerfail", "--capacity", "64M"]);
    assert!(made.expect_code(0).stderr().contains("loss of power"), "a warning");
}

#[test]
fn usage_is_code_2() {
    let place = Place::new();
    let path = place.path("heap");
    for args in [
        &["frobnicate"][..],
        &["create"],
        &["create", str(&path), "--capacity", "1X"],
        &["create", str(&path), "--capacity", "-1"],
        &["create", str(&path), "--stripes", "99"],
        &["create", str(&path), "--model", "gc"],
        &["replay", "--kills", "many"],
    ] {
        run(args).expect_code(2);
    }
    assert!(!path.exists());
    run(&["--version"]).expect_code(0);
}

#[test]
fn a_whole_heap_checks_and_has_stats() {
    let place = Place::new();
    let path = place.heap("heap");
    let heap = Heap::open(&path).expect("a heap");
    let slots = heap.slots("test", 8).expect("slots");
    heap.alloc_to(&slots[0], Layout::new::<[u8; 100]>()).expect("room");
    heap.close().expect("closed");
    let checked = run(&["check", str(&path), "--json"]).expect_code(0).json();
    expect_keys(&checked, &["ok", "problems", "blocks", "live_bytes", "ms"]);
    assert_eq!((&checked["ok"], &checked["blocks"]), (&true.into(), &2.into()));
    let stats = run(&["stats", str(&path), "--json"]).expect_code(0).json();
    expect_keys(
        &stats,
        &[
            "policy",
            "live_blocks",
            "live_bytes",
            "heap_bytes",
            "peak_heap_bytes",
            "used_bytes",
            "free_bytes",
            "largest_free",
            "dram_bytes",
            "recovery_ns",
            "replayed",
            "classes",
            "tags",
            "morphs",
        ],
    );
    assert_eq!(stats["live_blocks"], 2, "the block and the array of slots");
    // Two slabs, of a block each.
    assert!(stats["used_bytes"].as_u64() >= Some(2 * 4096));
    assert!(stats["used_bytes"].as_u64() > stats["live_bytes"].as_u64());
    expect_keys(&stats["classes"][0], &["size", "tag", "slabs", "blocks", "live"]);
    expect_keys(&stats["tags"][0], &["tag", "blocks", "live_bytes"]);
    expect_keys(&stats["log"], &["chunks", "live", "fast_gc", "slow_gc"]);
    for command in ["check", "stats", "info"] {
        let text = run(&[command, str(&path)]).expect_code(0).stdout();
        assert!(text.lines().count() > 3, "{text}");
    }
}

#[test]
fn an_open_heap_is_in_use_but_has_info() {
    let place = Place::new();
    let path = place.heap("heap");
    let heap = Heap::open(&path).expect("a heap");
    for command in ["check", "stats", "destroy"] {
        run(&[command, str(&path)]).expect_code(4);
    }
    let info = run(&["info", str(&path), "--json"]).expect_code(0).json();
    assert_eq!(info["clean"], false);
    assert_eq!(info["owner"]["pid"], std::process::id());
    heap.close().expect("closed");
    let info = run(&["info", str(&path), "--json"]).expect_code(0).json();
    assert!(info["owner"].is_null(), "this process runs, and has closed it: {info}");
    assert_eq!(info["warnings"], serde_json::json!([]));
    run(&["destroy", str(&path), "--json"]).expect_code(0).json();
    assert!(!path.exists());
}

#[test]
fn what_is_no_heap_is_code_5_and_survives() {
    let place = Place::new();
    let text = place.file("text", &b"precious ".repeat(10_000));
    let empty = place.file("empty", b"");
    let directory = place.path("directory");
    fs::create_dir(&directory).expect("a directory");
    for path in [&text, &empty, &directory] {
        for command in ["info", "check", "stats", "destroy"] {
            run(&[command, str(path)]).expect_code(5);
        }
        assert!(path.exists());
    }
    for command in ["info", "check", "stats", "destroy"] {
        run(&[command, str(&place.path("nothing"))]).expect_code(1);
    }
}

/// Flips one byte of every 4 KiB page that holds anything: no page of metadata goes unharmed.
fn damage(contents: &mut [u8]) {
    for page in contents.chunks_mut(4096) {
        if let Some(byte) = page.iter_mut().skip(24).find(|byte| **byte != 0) {
            *byte ^= 0x5a;
        }
    }
}

#[test]
fn a_damaged_heap_is_code_3_and_can_be_destroyed() {
    let place = Place::new();
    let path = place.heap("heap");
    let heap = Heap::open(&path).expect("a heap");
    heap.slots("test", 8).expect("slots");
    heap.close().expect("closed");
    let mut contents = fs::read(&path).expect("readable");
    damage(&mut contents);
    fs::write(&path, &contents).expect("writable");
    let checked = run(&["check", str(&path), "--json"]).expect_code(3).json();
    assert_eq!(checked["ok"], false);
    expect_keys(&checked["problems"][0], &["kind", "offset", "text"]);
    run(&["stats", str(&path)]).expect_code(3);
    assert_eq!(fs::read(&path).expect("readable"), contents, "a look changes nothing");
    run(&["destroy", str(&path)]).expect_code(0);
}

#[test]
fn check_salvage_says_what_it_lost_and_leaves_a_heap_that_opens() {
    let place = Place::new();
    let path = place.heap("heap");
    let heap = Heap::open(&path).expect("a heap");
    let slots = heap.slots("test", 8).expect("slots");
    heap.alloc_to(&slots[0], Layout::new::<[u8; 100]>()).expect("room");
    heap.close().expect("closed");
    let whole = fs::read(&path).expect("readable");
    let salvage = ["check", "--salvage", str(&path), "--json"];
    assert_eq!(run(&salvage).expect_code(0).json()["ok"], true);
    assert_eq!(fs::read(&path).expect("readable"), whole, "there was nothing to do");

    // One superblock copy is enough to write the other one.
    let mut contents = whole.clone();
    contents[100] ^= 1;
    fs::write(&path, &contents).expect("writable");
    let report = run(&salvage).expect_code(0).json();
    assert_eq!(report["repaired"].as_array().expect("a list").len(), 1, "{report}");
    let kept = place.path("heap.damaged");
    assert_eq!(fs::read(&kept).expect("kept"), contents);
    fs::remove_file(&kept).expect("removed");

    damage(&mut contents);
    contents[..4096].copy_from_slice(&whole[..4096]);
    fs::write(&path, &contents).expect("writable");
    let report = run(&salvage).expect_code(3).json();
    let keys = ["ok", "problems", "blocks", "live_bytes", "ms", "repaired", "kept", "report"];
    expect_keys(&report, &keys);
    let lost = report["problems"].as_array().expect("a list");
    assert!(!lost.is_empty());
    // What was lost used to be told once: a script that salvaged again was told that all is well.
    let again = run(&salvage).expect_code(3).json();
    assert!(lost.iter().all(|problem| again["problems"].as_array().unwrap().contains(problem)));
    assert_eq!(again["kept"], report["kept"]);
    fs::remove_file(place.path("heap.salvaged")).expect("kept until it was read");
    assert_eq!(run(&salvage).expect_code(0).json()["ok"], true);
    assert_eq!(run(&["check", str(&path), "--json"]).expect_code(0).json()["ok"], true);
    Heap::open(&path).expect("it opens").close().expect("closed");
}

#[test]
fn a_salvage_that_is_killed_leaves_the_damaged_heap_or_the_salvaged_one() {
    let place = Place::new();
    let path = place.heap("heap");
    let heap = Heap::open(&path).expect("a heap");
    let slots = heap.slots("test", 64).expect("slots");
    for slot in slots {
        heap.alloc_init(slot, Layout::new::<[u8; 500_000]>(), |bytes| bytes.fill(7)).expect("room");
    }
    heap.close().expect("closed");
    let mut damaged = fs::read(&path).expect("readable");
    damage(&mut damaged[4096..]);
    let mut interrupted = 0;
    for delay_us in (0..60_000).step_by(3000) {
        let copy = place.file("copy", &damaged);
        let mut child = spawn(&["check", "--salvage", str(&copy)]);
        std::thread::sleep(std::time::Duration::from_micros(delay_us));
        child.kill().expect("a child");
        child.wait().expect("reaped");
        let is_salvaged = fs::read(&copy).expect("it has its name") != damaged;
        interrupted += u32::from(!is_salvaged);
        let opens = Heap::open(&copy).is_ok_and(|heap| heap.close().is_ok());
        assert_eq!(opens, is_salvaged, "after {delay_us} us");
        let _ = fs::remove_file(place.path("copy.damaged"));
        if !is_salvaged {
            run(&["check", "--salvage", str(&copy)]).expect_code(3);
            Heap::open(&copy).expect("it opens now").close().expect("closed");
            fs::remove_file(place.path("copy.damaged")).expect("kept");
        }
        fs::remove_file(place.path("copy.salvaged")).expect("a salvage was made");
        fs::remove_file(&copy).expect("removed");
    }
    assert!(interrupted > 2, "{interrupted} were in time");
}
