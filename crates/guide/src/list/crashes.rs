//! Goal: whenever a crash comes, a list holds what it held before the operation in flight or after it, and no node is
//! lost; a push that is made in steps is found out.
//!
//! Method: many random operations are compared with a vector; the crashes of a few are explored against it.

use pmalloc::{Heap, Result, Slot, persist::sim::Sim};

use super::{List, Node};
use crate::explore::Structure;

#[derive(Debug, Clone, Copy)]
enum Op {
    Push(u64),
    Pop,
}

const LIST: Structure<Op, Vec<u64>> = Structure { perform, expect, read };

fn perform(heap: &Heap<Sim>, op: Op) -> Result<()> {
    let mut list = List::open(heap, "list")?;
    match op {
        Op::Push(value) => list.push(value),
        Op::Pop => list.pop().map(drop),
    }
}

fn expect(model: &mut Vec<u64>, op: Op) {
    match op {
        Op::Push(value) => model.insert(0, value),
        Op::Pop if model.is_empty() => {}
        Op::Pop => drop(model.remove(0)),
    }
}

fn read(heap: &Heap<Sim>) -> Result<(Vec<u64>, usize)> {
    let values: Vec<u64> = List::open(heap, "list")?.iter(&heap.pin()).collect();
    let nodes = values.len();
    Ok((values, nodes))
}

#[test]
fn a_list_does_what_a_vector_does() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    LIST.follow((0..2000).map(|number| match random.u8(..5) {
        0..3 => Op::Push(number),
        _ => Op::Pop,
    }));
}

#[test]
fn a_list_is_as_before_or_as_after() {
    let ops = [Op::Push(1), Op::Push(2), Op::Pop, Op::Push(3), Op::Pop, Op::Pop, Op::Pop];
    for report in LIST.explore(&ops) {
        println!("{report}");
        report.assert_clean();
        assert!(report.is_exhaustive());
    }
}

/// A push by operations of their own: the list is taken off, the node put in its place, the list hung behind it.
fn in_steps(heap: &Heap<Sim>, op: Op) -> Result<()> {
    let Op::Push(value) = op else { return perform(heap, op) };
    let List { head, .. } = List::open(heap, "list")?;
    let rest: &Slot<Node> = heap.root("rest", Slot::new)?;
    heap.swap(head, rest)?;
    heap.alloc_value(head, Node { value, next: Slot::new() })?;
    let guard = heap.pin();
    let node = head.get(&guard).expect("it was just allocated");
    heap.swap(rest, &node.next)
}

#[test]
fn a_push_in_steps_is_found_out() {
    let planted = Structure { perform: in_steps, ..LIST };
    let ops = [Op::Push(1), Op::Push(2)];
    planted.follow(ops);
    for report in planted.explore(&ops) {
        println!("{report}");
        // The crash came while the list was off.
        assert_eq!(
            report.violations[0].message,
            "in Push(2): found [], expected one of [[1], [2, 1]]"
        );
    }
}
