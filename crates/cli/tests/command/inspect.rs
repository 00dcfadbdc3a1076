//! The commands that say what a heap is made of and what recovery did: `stats --prom`, `recover` and `map`.
//!
//! Every test runs the built command, as a script would.

use std::{alloc::Layout, collections::BTreeMap, fs, path::Path};

use crate::common::{Place, expect_keys, run, str};
use pmalloc::{Heap, Policy};

/// Fills the heap at `path` with small and large blocks, and closes it.
fn fill(path: &Path) {
    let heap = Heap::open(path).expect("a heap");
    let slots = heap.slots("test", 100).expect("slots");
    for (slot, size) in slots.iter().zip([100, 900, 50_000, 9000].into_iter().cycle()) {
        heap.alloc_to(slot, Layout::from_size_align(size, 8).expect("a layout")).expect("room");
    }
    slots.iter().step_by(3).for_each(|slot| heap.free_from(slot).expect("it is full"));
    heap.close().expect("closed");
}

/// The samples of a text exposition by name and labels, if every line is as the format wants it.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let mut families: BTreeMap<&str, &str> = BTreeMap::new();
    let mut samples = BTreeMap::new();
    assert!(text.ends_with("# EOF\n"), "cut off: {text}");
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut parts = comment.splitn(3, ' ');
            let (what, name) = (parts.next().expect("a kind"), parts.next().expect("a name"));
            let rest = parts.next().expect("what is said of it");
            assert!(is_name(name) && ["HELP", "TYPE", "UNIT"].contains(&what), "{line}");
            if what == "TYPE" {
                assert!(families.insert(name, rest).is_none(), "{name} is declared twice");
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}').expect("labels are closed");
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').expect("a label has a value");
            assert!(is_name(key) && value.starts_with('"') && value.ends_with('"'), "{line}");
        }
        let family = name.strip_suffix("_total").unwrap_or(name);
        let kind = families.get(family).expect("a sample follows its declaration");
        assert_eq!(*kind == "counter", name.ends_with("_total"), "{line}");
        let value = value.parse().expect("a number");
        assert!(samples.insert(series, value).is_none(), "{series} is there twice");
    }
    samples
}

#[test]
fn the_exposition_parses_and_says_what_the_json_says() {
    let place = Place::new();
    let path = place.heap("heap");
    fill(&path);
    let text = run(&["stats", str(&path), "--prom"]).expect_code(0).stdout();
    let samples = samples(&text);
    let json = run(&["stats", str(&path), "--json"]).expect_code(0).json();
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    for (series, key) in [
        ("pmalloc_live_blocks", "live_blocks"),
        ("pmalloc_live_bytes", "live_bytes"),
        ("pmalloc_used_bytes", "used_bytes"),
        ("pmalloc_largest_free_bytes", "largest_free"),
    ] {
        assert!((samples[series] - number(&json[key])).abs() < 0.5, "{series}: {text}");
    }
    assert!(samples["pmalloc_live_blocks"] > 60.0 && samples["pmalloc_recovery_seconds"] > 0.0);
    let classes = json["classes"].as_array().expect("classes");
    assert!(classes.len() >= 3, "{classes:?}");
    for class in classes {
        let series = format!(
            "pmalloc_class_live_blocks{{block_bytes=\"{}\",tag=\"{}\"}}",
            class["size"], class["tag"]
        );
        assert!((samples[&*series] - number(&class["live"])).abs() < 0.5, "{series}: {text}");
    }
    run(&["stats", str(&path), "--prom", "--json"]).expect_code(2);
}

#[test]
fn recover_closes_what_a_killed_process_left() {
    let place = Place::new();
    for policy in [Policy::Eager, Policy::Batched] {
        let [path, left] = ["heap", "left"].map(|name| place.path(&format!("{name}-{policy:?}")));
        let options = Heap::options().capacity_bytes(64 << 20).policy(policy);
        let heap = options.create(&path).expect("room");
        let slots = heap.slots("test", 8).expect("slots");
        heap.alloc_to(&slots[0], Layout::new::<[u8; 100]>()).expect("room");
        fs::copy(&path, &left).expect("what a killed process leaves");
        heap.close().expect("closed");

        let is_clean =
            || run(&["info", str(&left), "--json"]).expect_code(0).json()["clean"] == true;
        assert!(!is_clean());
        let recovered = run(&["recover", str(&left), "--json"]).expect_code(0).json();
        expect_keys(&recovered, &["ms", "replayed", "reclaimed", "rolled_back", "rolled_forward"]);
        assert!(recovered["ms"].as_f64().expect("a number") > 0.0);
        // Between two operations nothing is in flight under Eager. Under Batched the two have not become durable in place:
        // the root and the block.
        let redone = if policy == Policy::Eager { 0 } else { 2 };
        for key in ["replayed", "rolled_forward"] {
            assert_eq!(recovered[key], redone, "{policy:?}: {recovered}");
        }
        assert_eq!(recovered["rolled_back"], 0);
        assert!(is_clean());
        assert_eq!(recovered["was_closed"], false);
        assert_eq!(run(&["check", str(&left), "--json"]).expect_code(0).json()["blocks"], 2);

        // Once more: there is nothing left to do, and it says so.
        let text = run(&["recover", str(&left)]).expect_code(0).stdout();
        assert_eq!(text, "the heap was closed: there was nothing to do\n");
        let again = run(&["recover", str(&left), "--json"]).expect_code(0).json();
        assert_eq!((&again["was_closed"], &again["replayed"]), (&true.into(), &0.into()));
        assert!(is_clean());
    }
}

/// The figures of a map's JSON.
fn number(value: &serde_json::Value) -> u64 {
    value.as_u64().expect("a number")
}

#[test]
fn a_map_adds_up_and_draws_every_kind_of_part() {
    let place = Place::new();
    let (path, picture) = (place.heap("a <heap> & more"), place.path("picture.svg"));
    fill(&path);
    let before = fs::read(&path).expect("readable");
    let json = run(&["map", str(&path), "--json"]).expect_code(0).json();
    let stats = run(&["stats", str(&path), "--json"]).expect_code(0).json();
    let slabs = json["slabs"].as_array().expect("slabs");
    let live: u64 = slabs.iter().map(|group| number(&group["live"])).sum();
    assert_eq!(live + number(&json["large"]["parts"]), number(&stats["live_blocks"]));
    assert_eq!(json["free"]["bytes"], stats["free_bytes"]);
    assert_eq!(json["metadata"].as_array().expect("areas").len(), 9);

    let text = run(&["map", str(&path)]).expect_code(0).stdout();
    assert!(text.contains("large blocks") && text.contains("each letter 4.0 KiB"), "{text}");
    run(&["map", str(&path), "--svg", str(&picture)]).expect_code(0);
    let svg = fs::read_to_string(&picture).expect("drawn");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("a &lt;heap&gt; &amp; more") && !svg.contains("NaN"));
    // Large blocks and slabs of 128 B are filled areas, not only words.
    for colour in ["#54278f", "#1b9e77"] {
        assert!(svg.contains(&format!("<path fill=\"{colour}\" d=\"M")), "{colour}");
    }
    let open = svg.matches("<text ").count();
    assert_eq!(open, svg.matches("</text>").count());

    // One that a killed process left, and one that was never used.
    let (left, empty) = (place.path("left"), place.heap("empty"));
    let heap = Heap::open(&path).expect("a heap");
    fs::copy(&path, &left).expect("what a killed process leaves");
    heap.close().expect("closed");
    let bytes = fs::read(&left).expect("readable");
    for heap in [&left, &empty] {
        run(&["map", str(heap), "--svg", str(&picture)]).expect_code(0);
    }
    assert_eq!(fs::read(&left).expect("readable"), bytes, "a map changes nothing");
    assert_eq!(fs::metadata(&path).expect("there").len(), before.len() as u64);
}
