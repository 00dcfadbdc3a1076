//! A linked list: what was pushed last is popped first.
//!
//! Persistent: the nodes, and the slot that owns the first one. Each node owns the next.

use std::iter;

use pmalloc::{
    Guard, Heap, Persistent, Result, Slot,
    persist::{Mapped, Medium},
};

/// A value, and the slot that owns the rest of the list.
#[derive(Debug, Persistent)]
#[repr(C)]
struct Node {
    value: u64,
    next: Slot<Node>,
}

/// A list of numbers in a heap.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("heap");
/// use pmalloc::Heap;
/// use pmalloc_guide::list::List;
///
/// let heap = Heap::create(&path)?;
/// let mut visitors = List::open(&heap, "visitors")?;
/// visitors.push(17)?;
/// visitors.push(4)?;
/// heap.close()?;
///
/// let heap = Heap::open(&path)?;
/// let mut visitors = List::open(&heap, "visitors")?;
/// assert!(visitors.iter(&heap.pin()).eq([4, 17]));
/// assert_eq!(visitors.pop()?, Some(4));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct List<'h, M: Medium + 'static = Mapped> {
    heap: &'h Heap<M>,
    /// Persistent: owns the first node.
    head: &'h Slot<Node>,
}

impl<'h, M: Medium + 'static> List<'h, M> {
    /// The list `name`, a new and empty one if there is none.
    ///
    /// # Errors
    ///
    /// As [`Heap::root`].
    pub fn open(heap: &'h Heap<M>, name: &str) -> Result<Self> {
        Ok(Self { heap, head: heap.root(name, Slot::new)? })
    }

    /// Puts `value` in front.
    ///
    /// # Errors
    ///
    /// As [`Heap::reserve_value`]. The list is as before then.
    ///
    /// # Crash consistency
    ///
    /// Atomic, and durable on return.
    pub fn push(&mut self, value: u64) -> Result<()> {
        let node = self.heap.reserve_value(Node { value, next: Slot::new() })?;
        let next = node.slot(|node| &node.next);
        self.heap.publish().swap(self.head, next).alloc(self.head, node).commit()
    }

    /// Takes the value in front.
    ///
    /// # Errors
    ///
    /// As [`Publish::commit`](pmalloc::Publish::commit). The list is as before then.
    ///
    /// # Crash consistency
    ///
    /// Atomic, and durable on return.
    pub fn pop(&mut self) -> Result<Option<u64>> {
        let guard = self.heap.pin();
        let Some(first) = self.head.get(&guard) else { return Ok(None) };
        self.heap.publish().free(self.head).swap(&first.next, self.head).commit()?;
        Ok(Some(first.value))
    }

    /// The values, the one in front first.
    pub fn iter<'g>(&self, guard: &'g Guard<'_, M>) -> impl Iterator<Item = u64> + use<'g, M> {
        let first = self.head.get(guard);
        iter::successors(first, move |node| node.next.get(guard)).map(|node| node.value)
    }
}

#[cfg(test)]
mod crashes;
