//! Goal: a command that only looks at a heap changes nothing in it, and says no more than can be seen from outside.
//!
//! Method: the built command runs on closed heaps, and on what a killed process leaves; bytes and times of the file are
//! compared before and after.

use std::{
    alloc::Layout,
    fs::{self, File},
    path::Path,
    time::{Duration, SystemTime},
};

use crate::common::{Place, run, str};
use pmalloc::{Heap, Persistent, Slot};

/// Fills the heap at `path` with blocks of several sizes and leaves it open.
fn fill(path: &Path) -> Heap {
    let heap = Heap::open(path).expect("a heap");
    let slots = heap.slots("test", 100).expect("slots");
    for (slot, size) in slots.iter().zip([100, 900, 50_000, 9000].into_iter().cycle()) {
        let layout = Layout::from_size_align(size, 8).expect("a layout");
        // A page that nobody writes to is none that holds data.
        heap.alloc_init(slot, layout, |bytes| bytes.fill(1)).expect("room");
    }
    slots.iter().step_by(3).for_each(|slot| heap.free_from(slot).expect("it is full"));
    heap
}

/// Everything that a change of a file would change.
fn state_of(path: &Path) -> (Vec<u8>, SystemTime) {
    let modified = fs::metadata(path).and_then(|file| file.modified()).expect("a time");
    (fs::read(path).expect("readable"), modified)
}

/// Gives a file a time in the past: a write now would be seen.
fn make_old(path: &Path) {
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let file = File::options().write(true).open(path).expect("writable");
    file.set_modified(an_hour_ago).expect("a time can be set");
}

#[test]
fn a_look_at_a_killed_or_closed_heap_changes_nothing() {
    let place = Place::new();
    let (closed, killed, empty) = (place.heap("closed"), place.path("killed"), place.heap("empty"));
    let heap = fill(&closed);
    fs::copy(&closed, &killed).expect("what a killed process leaves");
    heap.close().expect("closed");
    for path in [&closed, &killed, &empty] {
        make_old(path);
        let before = state_of(path);
        for command in [
            &["info"][..],
            &["check"],
            &["map"],
            &["map", "--svg", "-"],
            &["stats"],
            &["stats", "--prom"],
            &["stats", "--json"],
        ] {
            let ran = run(&[command, &[str(path)]].concat()).expect_code(0);
            assert!(state_of(path) == before, "{command:?} changed {}", path.display());
            let is_told = ran.stderr().contains("the heap was not closed");
            assert_eq!(is_told, path == &killed && command != ["info"], "{command:?}");
        }
    }
    // What it was, it still is; and what was shown is what recovery makes of it.
    let info = run(&["info", str(&killed), "--json"]).expect_code(0).json();
    assert_eq!(info["clean"], false);
    let shown = run(&["stats", str(&killed), "--json"]).expect_code(0).json();
    assert_eq!(
        run(&["recover", str(&killed), "--json"]).expect_code(0).json()["was_closed"],
        false
    );
    let recovered = run(&["stats", str(&killed), "--json"]).expect_code(0).json();
    for key in ["live_blocks", "live_bytes", "free_bytes", "used_bytes", "classes", "tags"] {
        assert_eq!(shown[key], recovered[key], "{key}");
    }
    assert_eq!(shown["live_blocks"], 67);
}

/// The value of an attribute of an element.
fn attribute<'e>(element: &'e str, name: &str) -> &'e str {
    let (_, rest) = element.split_once(&format!(" {name}=\"")).expect("the attribute");
    rest.split('"').next().expect("a value")
}

#[test]
fn the_bar_of_a_map_has_the_colours_of_the_legend() {
    let place = Place::new();
    let path = place.heap("heap");
    fill(&path).close().expect("closed");
    let svg = run(&["map", str(&path), "--svg", "-"]).expect_code(0).stdout();
    let json = run(&["map", str(&path), "--json"]).expect_code(0).json();
    let groups = json["slabs"].as_array().expect("groups");
    let groups: Vec<f64> =
        groups.iter().map(|group| group["data_bytes"].as_f64().expect("a number")).collect();
    assert!(groups.len() >= 3 && groups.iter().all(|bytes| *bytes > 0.0), "{groups:?}");

    let of_bar = |line: &&str| line.starts_with("<rect ") && line.contains(" y=\"72.0\"");
    let bar: Vec<(f64, f64, &str)> = svg
        .lines()
        .filter(of_bar)
        .map(|rect| {
            let number = |name| attribute(rect, name).parse().expect("a number");
            (number("x"), number("width"), attribute(rect, "fill"))
        })
        .collect();
    // Metadata, each group of slabs, large blocks, and free pages if the close left any that hold data.
    assert!((groups.len() + 2..=groups.len() + 3).contains(&bar.len()), "{bar:?}");
    for (nth, (left, wide, fill)) in bar.iter().enumerate() {
        let square = format!("width=\"12.0\" height=\"12.0\" fill=\"{fill}\"");
        assert!(svg.contains(&square), "{fill} is in the legend");
        assert!(bar[..nth].iter().all(|(_, _, other)| other != fill), "{fill} means one thing");
        if let Some(next) = bar.get(nth + 1) {
            assert!((left + wide - next.0).abs() < 0.2, "{fill} reaches the next");
        }
    }
    // Widths are rounded: the largest tells best how wide a byte is.
    let sized = || groups.iter().zip(&bar[1..]);
    let largest = sized().max_by(|one, other| one.0.total_cmp(other.0)).expect("groups");
    for (bytes, (_, wide, fill)) in sized() {
        let expected = largest.1.1 * bytes / largest.0;
        assert!((wide - expected).abs() < 0.3, "{fill} is {wide} wide for {bytes} bytes");
    }
}

#[test]
fn a_picture_goes_to_standard_output_and_never_over_the_heap() {
    let place = Place::new();
    let path = place.heap("heap");
    let ran = run(&["map", str(&path), "--svg", "-"]).expect_code(0);
    assert!(ran.stdout().starts_with("<svg ") && ran.stdout().ends_with("</svg>\n"));
    assert_eq!(ran.stderr(), "");
    assert!(!Path::new("-").exists());
    run(&["map", str(&path), "--svg", "-", "--json"]).expect_code(2);
    let before = fs::read(&path).expect("readable");
    fs::hard_link(&path, place.path("alias")).expect("a second name");
    for picture in ["heap", "alias"] {
        run(&["map", str(&path), "--svg", str(&place.path(picture))]).expect_code(2);
    }
    assert_eq!(fs::read(&path).expect("readable"), before);
}

#[derive(Debug, Persistent)]
#[repr(C)]
struct Node {
    next: Slot<Node>,
}

#[test]
fn check_calls_no_block_lost_whose_owner_it_can_not_see() {
    let place = Place::new();
    let path = place.heap("heap");
    let owners = || {
        let text = run(&["check", str(&path)]).expect_code(0).stdout();
        assert!(!text.contains("unowned"), "{text}");
        let line = text.lines().find_map(|line| line.strip_prefix("owners"));
        line.expect("a line on owners").trim().to_owned()
    };
    let hidden = || {
        let json = run(&["check", str(&path), "--json"]).expect_code(0).json();
        json["unknown_owner_blocks"].as_u64().expect("a count")
    };
    let heap = Heap::open(&path).expect("a heap");
    heap.alloc_to(&heap.slots("slots", 8).expect("slots")[0], Layout::new::<u64>()).expect("room");
    heap.close().expect("closed");
    assert_eq!((owners().as_str(), hidden()), ("all 2 blocks are owned", 0));

    // A list: all but its first node are owned by slots inside nodes. Where those are, stands in the heap.
    let heap = Heap::open(&path).expect("a heap");
    let head: &Slot<Node> = heap.root("list", Slot::new).expect("a root");
    for _ in 0..5 {
        let node = heap.reserve_value(Node { next: Slot::new() }).expect("room");
        let next = node.slot(|node| &node.next);
        heap.publish().swap(head, next).alloc(head, node).commit().expect("published");
    }
    heap.close().expect("closed");
    assert_eq!((owners().as_str(), hidden()), ("all 8 blocks are owned", 0));
}
