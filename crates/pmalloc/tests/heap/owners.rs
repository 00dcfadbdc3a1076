//! Goal: the check knows where slots are, by types and by what a program declares; what nothing owns is found, adopted or
//! freed, and nothing else is.
//!
//! Method: small heaps whose owners are known by construction; files are checked after they were closed, as the command
//! does it.

#![allow(unsafe_code)]
#![allow(clippy::cast_possible_truncation, reason = "places of small heaps as indexes")]

use std::alloc::Layout;

use pmalloc::{
    Block, BlockLayout, CheckReport, Error, Heap, PCell, Persistent, ProblemKind, Slot, SlotLayout,
    SlotScope,
};
use tempfile::TempDir;

/// A list with bytes, and arrays of arrays.
#[derive(Persistent)]
#[repr(C)]
struct Node {
    value: PCell<u64>,
    next: Slot<Self>,
    text: Slot,
}

#[derive(Persistent)]
#[repr(C)]
struct Shelf {
    books: [[Slot<Node>; 3]; 2],
    count: u64,
    pairs: [Pair; 2],
}

#[derive(Persistent)]
#[repr(C)]
struct Pair {
    weight: u64,
    left: Slot<Node>,
    right: Slot<[Slot<Node>; 2]>,
}

fn node(value: u64) -> Node {
    Node { value: PCell::new(value), next: Slot::new(), text: Slot::new() }
}

struct Case {
    folder: TempDir,
    heap: Heap,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let options = Heap::options().capacity_bytes(8 << 20).arenas(1);
        let heap = options.create(folder.path().join("heap")).expect("a new file");
        Self { folder, heap }
    }

    /// What the check says of the heap, and says again of its file when it is closed.
    fn check(self) -> (CheckReport, Self) {
        let Self { folder, heap } = self;
        let open = heap.check().expect("readable");
        heap.close().expect("the only handle");
        let path = folder.path().join("heap");
        let closed = pmalloc::check_file(&path).expect("readable");
        assert_eq!(open, closed);
        (closed, Self { heap: Heap::open(&path).expect("whole"), folder })
    }

    /// The heap with its file changed.
    fn patched(self, patch: impl FnOnce(&mut [u8])) -> Self {
        let Self { folder, heap } = self;
        heap.close().expect("the only handle");
        let path = folder.path().join("heap");
        let mut bytes = std::fs::read(&path).expect("a file");
        patch(&mut bytes);
        std::fs::write(&path, bytes).expect("a file");
        Self { heap: Heap::open(&path).expect("whole"), folder }
    }

    fn slots(&self) -> &[Slot] {
        self.heap.slots("slots", 8).expect("room")
    }

    /// Leaves a block of zeros behind that nothing owns; `fill` may give things to its slots before.
    fn orphan(&self, bytes: usize, tag: u8, fill: impl FnOnce(&Self, u64)) -> u64 {
        let parent = &self.slots()[7];
        let zeros = |bytes: &mut [u8]| bytes.fill(0);
        self.heap.alloc_init(parent, Layout::new::<[u64; 2]>(), zeros).expect("room");
        let place = self.block_of(parent).offset + 8;
        let layout = BlockLayout::new(Layout::from_size_align(bytes, 8).expect("valid"));
        self.heap.alloc_init(self.slot_at(place), layout.with_tag(tag), zeros).expect("room");
        let orphan = self.block_of(self.slot_at(place)).offset;
        fill(self, orphan);
        self.heap.free_from(parent).expect("it is full");
        // The memory of the parent names it still: somebody else writes there.
        self.heap.alloc_init(parent, Layout::new::<[u64; 2]>(), zeros).expect("room");
        self.heap.free_from(parent).expect("it is full");
        orphan
    }

    fn slot_at(&self, place: u64) -> &Slot {
        // SAFETY: the tests write slots by operations only, where they have made eight zero bytes or a value, and look at
        // no bytes of these blocks.
        unsafe { self.heap.slot_at(place) }.expect("in a live block")
    }

    fn block_of(&self, slot: &Slot) -> Block {
        self.heap.block_of(slot).expect("whole").expect("full")
    }
}

fn owners(report: &CheckReport) -> (usize, u64, u64) {
    (report.problems.len(), report.unowned_blocks, report.unknown_blocks)
}

#[test]
fn all_that_typed_roots_lead_to_is_known_in_a_file_that_no_program_has_open() {
    let case = Case::new();
    let heap = &case.heap;
    let zero = |slot: &Slot| heap.alloc_init(slot, Layout::new::<u64>(), |bytes| bytes.fill(0));
    let shelf = heap.root("shelf", Shelf::zeroed).expect("room");
    let guard = heap.pin();
    for slot in shelf.books.iter().flatten().chain([&shelf.pairs[1].left]) {
        heap.alloc_value(slot, node(1)).expect("room");
        let first = slot.get(&guard).expect("full");
        heap.alloc_value(&first.next, node(2)).expect("room");
        zero(&first.next.get(&guard).expect("full").text).expect("room");
    }
    heap.alloc_value(&shelf.pairs[0].right, [Slot::new(), Slot::new()]).expect("room");
    let two = shelf.pairs[0].right.get(&guard).expect("full");
    heap.alloc_value(&two[1], node(3)).expect("room");
    drop(guard);
    let (report, case) = case.check();
    // The shelf, seven lists of two nodes and a text, a pair of slots and its node.
    assert_eq!((report.blocks, owners(&report)), (1 + 7 * 3 + 2, (0, 0, 0)));
    assert_eq!(case.heap.iter().count() as u64, report.blocks);
    assert_eq!(case.heap.roots().expect("whole").len(), 1);

    // Bytes that nothing is known of are asked who may own a block only if nobody else does.
    let orphan = case.orphan(100, 0, |_, _| {});
    let (report, case) = case.check();
    assert_eq!((owners(&report), report.orphans[0].offset), ((0, 1, 0), orphan));
    case.heap.free_orphan(orphan).expect("nothing owns it");
    assert_eq!(owners(&case.check().0), (0, 0, 0));
}

/// A node and its child, of which nobody owns the first.
fn orphaned_list(case: &Case) -> (u64, u64) {
    let child = |case: &Case, parent: u64| {
        let zeros = |bytes: &mut [u8]| bytes.fill(0);
        case.heap.alloc_init(case.slot_at(parent + 8), Layout::new::<Node>(), zeros).expect("room");
    };
    let orphan = case.orphan(size_of::<Node>(), 0, child);
    (orphan, case.block_of(case.slot_at(orphan + 8)).offset)
}

#[test]
fn a_value_without_an_owner_is_adopted_with_all_that_it_owns() {
    let case = Case::new();
    case.heap.root("list", Slot::<Node>::new).expect("room");
    let (orphan, child) = orphaned_list(&case);
    // The child is named by a block of which nothing is known: it may be owned.
    let (report, case) = case.check();
    assert_eq!((owners(&report), report.orphans[0].offset), ((0, 1, 1), orphan));
    let refused = case.heap.adopt(child, &case.slots()[0]).expect_err("it may be owned");
    assert!(matches!(refused, Error::Owned { slot, .. } if slot == orphan + 8), "{refused}");

    let root: &Slot<Node> = case.heap.root("list", || unreachable!()).expect("it is there");
    case.heap.adopt(orphan, root).expect("a node, and its child");
    let guard = case.heap.pin();
    let next = &root.get(&guard).expect("full").next;
    assert!(next.get(&guard).is_some_and(|node| node.next.is_empty(&guard)));
    assert!(matches!(case.heap.adopt(orphan, &case.slots()[0]), Err(Error::Pinned)));
    drop(guard);
    assert!(matches!(case.heap.adopt(orphan, &case.slots()[0]), Err(Error::Owned { .. })));
    assert_eq!(owners(&case.check().0), (0, 0, 0));
}

#[test]
fn a_value_whose_child_another_slot_owns_is_not_adopted() {
    let case = Case::new();
    case.heap.root("list", Slot::<Node>::new).expect("room");
    let (orphan, child) = orphaned_list(&case);
    case.slots();
    let slots = case.heap.root_find("slots").expect("whole").expect("it is there").offset;
    let case = case.patched(|bytes| {
        let word: [u8; 8] = bytes[orphan as usize + 8..][..8].try_into().expect("eight bytes");
        bytes[slots as usize + 3 * 8..][..8].copy_from_slice(&word);
    });
    let root: &Slot<Node> = case.heap.root("list", || unreachable!()).expect("it is there");
    let refused = case.heap.adopt(orphan, root).expect_err("its child is not its own");
    assert!(matches!(refused, Error::Corrupted { offset, .. } if offset == orphan), "{refused}");
    // As bytes it is not looked into; the child is not without an owner.
    assert!(matches!(case.heap.adopt(child, &case.slots()[0]), Err(Error::Owned { .. })));
    case.heap.adopt(orphan, &case.slots()[0]).expect("nothing owns it");
}

#[test]
fn what_is_adopted_fits_its_slot() {
    let case = Case::new();
    let root = case.heap.root("list", Slot::<Node>::new).expect("room");
    let small = case.orphan(8, 3, |_, _| {});
    assert!(matches!(case.heap.adopt(small, root), Err(Error::Corrupted { .. })));
    assert!(matches!(case.heap.adopt(small + 8, &case.slots()[0]), Err(Error::NotLive { .. })));
    assert!(matches!(case.heap.adopt(0, &case.slots()[0]), Err(Error::NotLive { .. })));
    let own = case.slot_at(small);
    assert!(matches!(case.heap.adopt(small, own), Err(Error::Invalid { .. })));
    let foreign: Slot = Slot::new();
    assert!(matches!(case.heap.adopt(small, &foreign), Err(Error::SlotForeign)));
    let zeros = |bytes: &mut [u8]| bytes.fill(0);
    case.heap.alloc_init(&case.slots()[0], Layout::new::<[u64; 2]>(), zeros).expect("room");
    assert!(matches!(case.heap.adopt(small, &case.slots()[0]), Err(Error::SlotFull { .. })));
    // A root is not without an owner.
    let list = case.heap.root_find("list").expect("whole").expect("it is there").offset;
    assert!(matches!(case.heap.free_orphan(list), Err(Error::Owned { .. })));
    assert_eq!(case.heap.orphans().expect("whole").len(), 1);
}

#[test]
fn orphans_of_a_tag_go_with_those_that_they_owned() {
    let case = Case::new();
    let zeros = |bytes: &mut [u8]| bytes.fill(0);
    let layout = BlockLayout::new(Layout::new::<[u64; 2]>()).with_tag(9);
    let mut last = 0;
    // A chain of a hundred behind each; nothing is declared, and the words tell.
    for bytes in [16, 20_000] {
        case.orphan(bytes, 9, |case, mut parent| {
            for _ in 0..100 {
                case.heap.alloc_init(case.slot_at(parent), layout, zeros).expect("room");
                parent = case.block_of(case.slot_at(parent)).offset;
            }
            last = parent;
        });
    }
    // The last one of the second chain is named by a slot as well, which keeps it, and nothing else.
    case.slots();
    let slots = case.heap.root_find("slots").expect("whole").expect("it is there").offset;
    let case = case.patched(|bytes| {
        bytes[slots as usize..][..8].copy_from_slice(&(last / 16).to_le_bytes());
    });
    assert_eq!(case.heap.orphans().expect("whole").len(), 2);
    assert_eq!(case.heap.free_orphans_with_tag(8).expect("none"), 0);
    assert_eq!(case.heap.free_orphans_with_tag(9).expect("whole"), 201);
    assert_eq!(case.block_of(&case.slots()[0]).offset, last);
    assert_eq!(owners(&case.check().0), (0, 0, 0));
}

#[test]
fn a_declaration_takes_the_place_of_the_one_before_and_outlives_the_program() {
    let case = Case::new();
    let list = SlotLayout::none().to_the_end(0, 8);
    let (root, tag) = (SlotScope::RootType(7), SlotScope::Tag(1));
    assert_eq!(case.heap.declared_slots().expect("none"), []);
    case.heap.declare_slots(root, &SlotLayout::any_word()).expect("room");
    case.heap.declare_slots(tag, &SlotLayout::none()).expect("room");
    case.heap.declare_slots(root, &list).expect("room");
    let blocks = case.heap.blocks();
    case.heap.declare_slots(root, &list).expect("it stands already");
    assert_eq!(case.heap.blocks(), blocks);
    let (_, case) = case.check();
    let stands = [(root, list), (tag, SlotLayout::none())];
    assert_eq!(case.heap.declared_slots().expect("whole"), stands);

    let refused = [
        SlotLayout::none().at(4),
        SlotLayout::none().every(0, 12, 2),
        SlotLayout::none().every(0, 0, 2),
        SlotLayout::none().every(0, 8, 0),
        SlotLayout::none().at(u64::MAX - 7),
        SlotLayout::none().every(8, 1 << 40, 1 << 30),
        SlotLayout::none().at(16).to_the_end(0, 8),
    ];
    for layout in &refused {
        let error = case.heap.declare_slots(tag, layout).expect_err("it is none");
        assert!(matches!(error, Error::Invalid { what: "slot layout", .. }), "{error}");
    }
    case.heap.root_bytes("short", 64, 8).expect("room");
    let short = case.heap.declare_slots(SlotScope::RootType(8), &SlotLayout::none().at(64));
    assert!(matches!(short, Err(Error::Invalid { .. })));
    assert_eq!(case.heap.declared_slots().expect("whole"), stands);
}

#[test]
fn damaged_declarations_are_a_problem_and_nothing_else() {
    let case = Case::new();
    case.heap.root("list", Slot::<Node>::new).expect("room");
    case.heap.declare_slots(SlotScope::Tag(0), &SlotLayout::none()).expect("room");
    let case = case.patched(|bytes| {
        let is_magic = |place: &usize| bytes[*place..].starts_with(b"PMALDECL");
        // The block that was replaced names itself so, too.
        let places: Vec<usize> = (0..bytes.len()).step_by(8).filter(is_magic).collect();
        assert!(!places.is_empty());
        places.iter().for_each(|place| bytes[place + 33] ^= 1);
    });
    let (report, case) = case.check();
    let kinds: Vec<_> = report.problems.iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [ProblemKind::Damaged]);
    assert!(matches!(case.heap.declared_slots(), Err(Error::Corrupted { .. })));
    let root: &Slot<Node> = case.heap.root("list", || unreachable!()).expect("it is there");
    case.heap.alloc_value(root, node(1)).expect("room");
    // Asking for the root has declared its type anew.
    assert_eq!(owners(&case.check().0), (0, 0, 0));
}

#[test]
fn the_names_of_the_heap_are_its_own() {
    let case = Case::new();
    case.heap.declare_slots(SlotScope::Tag(0), &SlotLayout::none()).expect("room");
    let name = "pmalloc:slots";
    let refused = |error: Error| matches!(error, Error::Invalid { what: "root name", .. });
    assert!(refused(case.heap.slots(name, 2).map(drop).expect_err("taken")));
    assert!(refused(case.heap.root_bytes(name, 16, 0).map(drop).expect_err("taken")));
    assert!(refused(case.heap.root_remove(name).expect_err("taken")));
    assert!(refused(case.heap.root_find(name).map(drop).expect_err("taken")));
    assert_eq!(case.heap.roots().expect("whole"), []);
}
