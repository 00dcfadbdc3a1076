//! A queue of jobs: what was put in first is taken out first, by this run of the program or by a later one.
//!
//! Persistent: a ring of slots, each of which owns a job or is empty; the place of the next job to be taken, and that of
//! the next one to be put in. A full queue is told from an empty one by the slots.

use std::iter;

use pmalloc::{
    Guard, Heap, Persistent, Result, Slot, VersionedCell,
    persist::{Mapped, Medium},
};

/// Most jobs in a queue.
pub const PLACES: usize = 16;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Persistent)]
#[repr(C)]
pub struct Job {
    /// Which job.
    pub number: u64,
    /// What it is made of.
    pub input: [u8; 120],
}

/// What a queue's name stands for.
#[derive(Debug, Persistent)]
#[repr(C)]
struct Ring {
    first: VersionedCell,
    free: VersionedCell,
    places: [Slot<Job>; PLACES],
}

/// A queue in a heap.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("heap");
/// use pmalloc::Heap;
/// use pmalloc_guide::queue::{Job, Queue};
///
/// let heap = Heap::create(&path)?;
/// let mut jobs = Queue::open(&heap, "jobs")?;
/// for number in [17, 4] {
///     assert!(jobs.enqueue(Job { number, input: [7; 120] })?);
/// }
/// heap.close()?;
///
/// let heap = Heap::open(&path)?;
/// let mut jobs = Queue::open(&heap, "jobs")?;
/// let guard = heap.pin();
/// assert_eq!(jobs.iter(&guard).next().map(|job| job.number), Some(17));
/// assert_eq!(jobs.dequeue()?.map(|job| job.number), Some(17));
/// assert_eq!(jobs.iter(&guard).count(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Queue<'h, M: Medium + 'static = Mapped> {
    heap: &'h Heap<M>,
    ring: &'h Ring,
}

impl<'h, M: Medium + 'static> Queue<'h, M> {
    /// The queue `name`, a new and empty one if there is none.
    ///
    /// # Errors
    ///
    /// As [`Heap::root`].
    pub fn open(heap: &'h Heap<M>, name: &str) -> Result<Self> {
        Ok(Self { heap, ring: heap.root(name, Ring::zeroed)? })
    }

    /// Puts `job` behind all others, if there is room; returns whether there was.
    ///
    /// # Errors
    ///
    /// As [`Heap::reserve_value`]. The queue is as before then.
    ///
    /// # Crash consistency
    ///
    /// Atomic, and durable on return.
    pub fn enqueue(&mut self, job: Job) -> Result<bool> {
        let free = self.ring.free.load(self.heap);
        let place = self.place(free);
        if !place.is_empty(&self.heap.pin()) {
            return Ok(false);
        }
        let job = self.heap.reserve_value(job)?;
        self.heap.publish().alloc(place, job).set(&self.ring.free, after(free)).commit()?;
        Ok(true)
    }

    /// Takes the job that is in front of all others.
    ///
    /// # Errors
    ///
    /// As [`Publish::commit`](pmalloc::Publish::commit). The queue is as before then.
    ///
    /// # Crash consistency
    ///
    /// Atomic, and durable on return.
    pub fn dequeue(&mut self) -> Result<Option<Job>> {
        let guard = self.heap.pin();
        let first = self.ring.first.load(self.heap);
        let place = self.place(first);
        let Some(job) = place.get(&guard) else { return Ok(None) };
        self.heap.publish().free(place).set(&self.ring.first, after(first)).commit()?;
        Ok(Some(*job))
    }

    /// The jobs, in the order in which they will be taken.
    pub fn iter<'g>(&'g self, guard: &'g Guard<'_, M>) -> impl Iterator<Item = &'g Job> + 'g {
        let first = self.ring.first.load(self.heap);
        let places = iter::successors(Some(first), |place| Some(after(*place)));
        places.take(PLACES).map_while(|place| self.place(place).get(guard))
    }

    fn place(&self, number: u64) -> &'h Slot<Job> {
        &self.ring.places[usize::try_from(number).expect("a place of the ring")]
    }
}

/// The place behind `place`.
fn after(place: u64) -> u64 {
    (place + 1) % PLACES as u64
}

#[cfg(test)]
mod crashes;
