//! Goal: whenever a crash comes, a queue holds what it held before the operation in flight or after it, in order, and no
//! job is lost; a job that is passed over before it is freed is found out.
//!
//! Method: many random operations are compared with a queue in ordinary memory; the crashes of a few, among them those of
//! a full ring and of one that goes round, are explored against it.

use std::collections::VecDeque;

use pmalloc::{Heap, Result, persist::sim::Sim};

use super::{Job, PLACES, Queue, after};
use crate::explore::Structure;

#[derive(Debug, Clone, Copy)]
enum Op {
    Enqueue(u64),
    Dequeue,
}

const QUEUE: Structure<Op, VecDeque<u64>> = Structure { perform, expect, read };

/// The job `number`, whose input fills two lines with what is its own.
fn job(number: u64) -> Job {
    Job { number, input: [number.to_le_bytes()[0]; 120] }
}

fn perform(heap: &Heap<Sim>, op: Op) -> Result<()> {
    let mut queue = Queue::open(heap, "queue")?;
    match op {
        Op::Enqueue(number) => queue.enqueue(job(number)).map(drop),
        Op::Dequeue => queue.dequeue().map(drop),
    }
}

fn expect(model: &mut VecDeque<u64>, op: Op) {
    match op {
        Op::Enqueue(_) if model.len() == PLACES => {}
        Op::Enqueue(number) => model.push_back(number),
        Op::Dequeue => drop(model.pop_front()),
    }
}

fn read(heap: &Heap<Sim>) -> Result<(VecDeque<u64>, usize)> {
    let queue = Queue::open(heap, "queue")?;
    let guard = heap.pin();
    let whole = queue.iter(&guard).filter(|found| **found == job(found.number));
    Ok((whole.map(|job| job.number).collect(), queue.iter(&guard).count()))
}

#[test]
fn a_queue_does_what_one_in_memory_does() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    // As often one as the other: it is full now and then, and empty.
    QUEUE.follow((0..2000).map(|number| match random.bool() {
        true => Op::Enqueue(number),
        false => Op::Dequeue,
    }));
}

#[test]
fn a_queue_is_as_before_or_as_after() {
    let fill = (1..=PLACES as u64 + 1).map(Op::Enqueue);
    let go_round = [Op::Dequeue, Op::Dequeue, Op::Enqueue(101), Op::Enqueue(102), Op::Enqueue(103)];
    let empty = [Op::Dequeue; PLACES + 1];
    let ops: Vec<Op> = fill.chain(go_round).chain(empty).collect();
    for report in QUEUE.explore(&ops) {
        println!("{report}");
        report.assert_clean();
        assert!(report.is_exhaustive());
    }
}

/// A job that is taken in two steps: it is passed over, then freed.
fn passing_over_first(heap: &Heap<Sim>, op: Op) -> Result<()> {
    let Op::Dequeue = op else { return perform(heap, op) };
    let queue = Queue::open(heap, "queue")?;
    let first = queue.ring.first.load(heap);
    heap.set(&queue.ring.first, after(first))?;
    heap.free_from(queue.place(first))
}

#[test]
fn a_job_that_is_passed_over_first_is_found_out() {
    let ops = [Op::Enqueue(1), Op::Enqueue(2), Op::Dequeue];
    let planted = Structure { perform: passing_over_first, ..QUEUE };
    planted.follow(ops);
    for report in planted.explore(&ops) {
        println!("{report}");
        // In order, and yet the first job will be lost for ever.
        assert_eq!(
            report.violations[0].message,
            "in Dequeue: 3 blocks are live: 1 of roots, 1 of slots"
        );
    }
}
