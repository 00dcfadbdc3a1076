//! Goal: whenever a crash comes, a table holds what it held before the operation in flight or after it, counts it, and no
//! entry is lost; an entry that is counted or filled in after it was published is found out.
//!
//! Method: many random operations are compared with a map; the crashes of a few, on one chain and beside it, are explored
//! against it.

use std::collections::BTreeMap;

use pmalloc::{Heap, PCell, Result, Slot, persist::sim::Sim};

use super::{BUCKETS, Entry, Table};
use crate::explore::Structure;

#[derive(Debug, Clone, Copy)]
enum Op {
    Insert(u64, u64),
    Remove(u64),
}

/// What a table holds, and how many keys it says that it has.
type Model = (BTreeMap<u64, u64>, u64);

const TABLE: Structure<Op, Model> = Structure { perform, expect, read };

fn perform(heap: &Heap<Sim>, op: Op) -> Result<()> {
    let mut table = Table::open(heap, "table")?;
    match op {
        Op::Insert(key, value) => table.insert(key, value).map(drop),
        Op::Remove(key) => table.remove(key).map(drop),
    }
}

fn expect((entries, len): &mut Model, op: Op) {
    match op {
        Op::Insert(key, value) => entries.insert(key, value),
        Op::Remove(key) => entries.remove(&key),
    };
    *len = entries.len() as u64;
}

fn read(heap: &Heap<Sim>) -> Result<(Model, usize)> {
    let table = Table::open(heap, "table")?;
    let entries: Vec<(u64, u64)> = table.iter(&heap.pin()).collect();
    // Only what is found where it is looked for counts as there.
    let found = entries.iter().copied().filter(|(key, value)| table.get(*key) == Some(*value));
    Ok(((found.collect(), table.len()), entries.len()))
}

#[test]
fn a_table_does_what_a_map_does() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    TABLE.follow((0..2000).map(|number| {
        let key = random.u64(..3 * BUCKETS as u64);
        if random.bool() { Op::Insert(key, number) } else { Op::Remove(key) }
    }));
}

#[test]
fn a_table_is_as_before_or_as_after() {
    // Three keys of one chain, and one of another.
    let [a, b, c, d] = [5, 5 + BUCKETS as u64, 5 + 2 * BUCKETS as u64, 6];
    let ops = [
        Op::Insert(a, 1),
        Op::Insert(b, 2),
        Op::Insert(d, 3),
        Op::Insert(c, 4),
        Op::Insert(b, 5),
        Op::Remove(b),
        Op::Remove(b),
        Op::Remove(a),
        Op::Insert(b, 6),
        Op::Remove(b),
        Op::Remove(c),
        Op::Remove(d),
    ];
    for report in TABLE.explore(&ops) {
        println!("{report}");
        report.assert_clean();
        assert!(report.is_exhaustive());
    }
}

/// An insertion whose entry is there before it is counted.
fn counting_later(heap: &Heap<Sim>, op: Op) -> Result<()> {
    let Op::Insert(key, value) = op else { return perform(heap, op) };
    let table = Table::open(heap, "table")?;
    let guard = heap.pin();
    let entry = Entry { key, value: PCell::new(value), next: Slot::new() };
    heap.alloc_value(table.place_of(key, &guard), entry)?;
    heap.set(&table.buckets.len, table.len() + 1)
}

#[test]
fn an_entry_that_is_counted_later_is_found_out() {
    let planted = Structure { perform: counting_later, ..TABLE };
    let ops = [Op::Insert(7, 70)];
    planted.follow(ops);
    for report in planted.explore(&ops) {
        println!("{report}");
        let expected =
            "in Insert(7, 70): found ({7: 70}, 0), expected one of [({}, 0), ({7: 70}, 1)]";
        assert_eq!(report.violations[0].message, expected);
    }
}

/// An insertion whose entry is there before it has its value.
fn filling_in_later(heap: &Heap<Sim>, op: Op) -> Result<()> {
    let Op::Insert(key, value) = op else { return perform(heap, op) };
    let mut table = Table::open(heap, "table")?;
    table.insert(key, 0)?;
    table.insert(key, value).map(drop)
}

#[test]
fn an_entry_that_is_filled_in_later_is_found_out() {
    let planted = Structure { perform: filling_in_later, ..TABLE };
    let ops = [Op::Insert(7, 70)];
    planted.follow(ops);
    for report in planted.explore(&ops) {
        println!("{report}");
        let expected =
            "in Insert(7, 70): found ({7: 0}, 1), expected one of [({}, 0), ({7: 70}, 1)]";
        assert_eq!(report.violations[0].message, expected);
    }
}
