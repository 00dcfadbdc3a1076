//! A hash table from number to number, with chains.
//!
//! Persistent: the buckets, the entries, and how many there are. Each bucket owns the first entry of its chain, and each
//! entry the next.

use std::iter;

use pmalloc::{
    Guard, Heap, PCell, Persistent, Result, Slot, VersionedCell,
    persist::{Mapped, Medium},
};

/// Chains. A prime number, so that keys with a pattern are spread over all of them.
pub const BUCKETS: usize = 61;

/// A key with its value.
#[derive(Debug, Persistent)]
#[repr(C)]
struct Entry {
    key: u64,
    value: PCell<u64>,
    next: Slot<Entry>,
}

/// What a table's name stands for.
#[derive(Debug, Persistent)]
#[repr(C)]
struct Buckets {
    len: VersionedCell,
    chains: [Slot<Entry>; BUCKETS],
}

/// A table in a heap.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("heap");
/// use pmalloc::Heap;
/// use pmalloc_guide::table::Table;
///
/// let heap = Heap::create(&path)?;
/// let mut ages = Table::open(&heap, "ages")?;
/// ages.insert(17, 33)?;
/// ages.insert(4, 50)?;
/// heap.close()?;
///
/// let heap = Heap::open(&path)?;
/// let mut ages = Table::open(&heap, "ages")?;
/// assert_eq!(ages.insert(17, 34)?, Some(33));
/// assert_eq!(ages.remove(4)?, Some(50));
/// assert_eq!((ages.len(), ages.get(17), ages.get(4)), (1, Some(34), None));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Table<'h, M: Medium + 'static = Mapped> {
    heap: &'h Heap<M>,
    buckets: &'h Buckets,
}

impl<'h, M: Medium + 'static> Table<'h, M> {
    /// The table `name`, a new and empty one if there is none.
    ///
    /// # Errors
    ///
    /// As [`Heap::root`].
    pub fn open(heap: &'h Heap<M>, name: &str) -> Result<Self> {
        Ok(Self { heap, buckets: heap.root(name, Buckets::zeroed)? })
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.buckets.len.load(self.heap)
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: u64) -> Option<u64> {
        let guard = self.heap.pin();
        let entry = self.place_of(key, &guard).get(&guard)?;
        Some(entry.value.load(self.heap))
    }

    /// Gives `key` the value `value`, and returns the one that it had.
    ///
    /// # Errors
    ///
    /// As [`Heap::reserve_value`]. The table is as before then.
    ///
    /// # Crash consistency
    ///
    /// Atomic, and durable on return.
    pub fn insert(&mut self, key: u64, value: u64) -> Result<Option<u64>> {
        let guard = self.heap.pin();
        let place = self.place_of(key, &guard);
        if let Some(entry) = place.get(&guard) {
            let old = entry.value.load(self.heap);
            entry.value.store(self.heap, value)?;
            return Ok(Some(old));
        }
        let entry = Entry { key, value: PCell::new(value), next: Slot::new() };
        let entry = self.heap.reserve_value(entry)?;
        self.heap.publish().alloc(place, entry).set(&self.buckets.len, self.len() + 1).commit()?;
        Ok(None)
    }

    /// Removes `key`, and returns the value that it had.
    ///
    /// # Errors
    ///
    /// As [`Publish::commit`](pmalloc::Publish::commit). The table is as before then.
    ///
    /// # Crash consistency
    ///
    /// Atomic, and durable on return.
    pub fn remove(&mut self, key: u64) -> Result<Option<u64>> {
        let guard = self.heap.pin();
        let place = self.place_of(key, &guard);
        let Some(entry) = place.get(&guard) else { return Ok(None) };
        let value = entry.value.load(self.heap);
        let mut publish = self.heap.publish();
        publish.free(place).swap(&entry.next, place).set(&self.buckets.len, self.len() - 1);
        publish.commit()?;
        Ok(Some(value))
    }

    /// The keys and their values, in no order.
    pub fn iter<'g>(&'g self, guard: &'g Guard<'_, M>) -> impl Iterator<Item = (u64, u64)> + 'g {
        let chain = move |first: &'g Slot<Entry>| {
            iter::successors(first.get(guard), move |entry| entry.next.get(guard))
        };
        let entries = self.buckets.chains.iter().flat_map(chain);
        entries.map(|entry| (entry.key, entry.value.load(self.heap)))
    }

    /// The slot that owns the entry of `key`; if there is none, the empty one that would.
    fn place_of<'g>(&self, key: u64, guard: &'g Guard<'_, M>) -> &'g Slot<Entry>
    where
        'h: 'g,
    {
        let bucket = usize::try_from(key % BUCKETS as u64).expect("less than the buckets");
        let mut place = &self.buckets.chains[bucket];
        while let Some(entry) = place.get(guard)
            && entry.key != key
        {
            place = &entry.next;
        }
        place
    }
}

#[cfg(test)]
mod crashes;
