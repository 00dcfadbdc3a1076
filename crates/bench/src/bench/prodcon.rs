//! Prod-con: one thread of each pair allocates, the other one frees.
//!
//! What is allocated goes through a queue, some hundred blocks at a time: a queue of single blocks measures how threads wait
//! for each other.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use pmalloc::persist::sync::{Mutex, lock};

use super::benchmark::{Bench, names};
use crate::{
    alloc::{Slots, Spacing, Subject, Worker},
    cell::{Outcome, Scale},
    context::Context,
    measure::{Effort, Empty, measure},
    relay::Workload,
};

/// See the module.
#[derive(Debug)]
pub(super) struct ProdCon;

/// Bytes of a block.
const BLOCK_BYTES: usize = 64;
/// Blocks that go through the queue together.
const BATCH: usize = 256;
/// Batches that a pair has slots for.
const BATCHES: usize = 16;
/// Batches that wait in the queue. Two more are on the way: one is being filled while another one is freed, and the
/// slots of that are not used again before.
const QUEUED: usize = BATCHES - 2;
/// Batches of a pass.
const PASS_BATCHES: usize = 400;
/// The same, where no figure is wanted.
const PASS_BATCHES_QUICK: usize = 40;
/// Timed passes of a round.
const PASSES: [usize; 3] = [1, 2, 5];

impl Bench for ProdCon {
    fn name(&self) -> &'static str {
        "prod-con"
    }

    fn about(&self) -> &'static str {
        "of each pair of threads one allocates blocks of 64 bytes and the other one frees them"
    }

    fn variants(&self, scale: Scale) -> Vec<String> {
        names(scale.choose(&["packed"][..], &["packed", "own-line"], &["packed", "own-line"]))
    }

    fn fits(&self, _: Subject, threads: usize) -> bool {
        threads.is_multiple_of(2)
    }

    fn run(&self, context: &Context<'_>) -> Outcome {
        let cell = context.cell;
        let spacing = if cell.variant == "packed" { Spacing::Packed } else { Spacing::OwnLine };
        let batches = cell.scale.choose(PASS_BATCHES_QUICK, PASS_BATCHES, PASS_BATCHES);
        measure(context, &Couples { spacing, batches }, Effort::of(cell.scale, PASSES), &Empty)
    }
}

/// Pairs of threads, each with a queue.
struct Couples {
    spacing: Spacing,
    batches: usize,
}

/// The queue of a pair.
struct Queue<T> {
    sender: SyncSender<Vec<T>>,
    receiver: Mutex<Receiver<Vec<T>>>,
}

/// What a thread does, and in which pair.
#[derive(Debug, Clone, Copy)]
enum Role {
    Produce(usize),
    Consume(usize),
}

impl Workload for Couples {
    type State = Role;

    fn slots(&self) -> Slots {
        Slots { count: BATCHES * BATCH, spacing: self.spacing }
    }

    fn state(&self, thread: usize, _: fastrand::Rng) -> Role {
        let role = if thread.is_multiple_of(2) { Role::Produce } else { Role::Consume };
        role(thread / 2)
    }

    type Shared<T: Send> = Vec<Queue<T>>;

    fn shared<T: Send>(&self, threads: usize) -> Vec<Queue<T>> {
        let queue = |_| {
            let (sender, receiver) = sync_channel(QUEUED);
            Queue { sender, receiver: Mutex::new(receiver) }
        };
        (0..threads / 2).map(queue).collect()
    }

    fn pass<W: Worker>(
        &self,
        worker: &mut W,
        role: &mut Role,
        queues: &Vec<Queue<W::Given>>,
    ) -> u64 {
        match *role {
            Role::Produce(pair) => {
                for batch in 0..self.batches {
                    let first = batch % BATCHES * BATCH;
                    let allocate = |at| {
                        worker.alloc(at, BLOCK_BYTES);
                        worker.give(at)
                    };
                    let batch = (first..first + BATCH).map(allocate).collect();
                    queues[pair].sender.send(batch).expect("the queue is there");
                }
            }
            Role::Consume(pair) => {
                let receiver = lock(&queues[pair].receiver);
                for _ in 0..self.batches {
                    let batch = receiver.recv().expect("the queue is there");
                    batch.into_iter().for_each(|given| worker.free_given(given));
                }
            }
        }
        (self.batches * BATCH) as u64
    }
}
