//! Makes the call that an operation is, or the publish. Volatile.

use std::alloc::Layout;

use pmalloc::{Error, Session, Slot, VersionedCell};
use pmalloc_persist::{Medium, sync::Ordering};

use super::{
    content::Pattern,
    engine::Engine,
    medium::Watched,
    request::{Act, Kind, Request},
    slots::SlotId,
};
use crate::{exit::Failure, trace::BlockId};

/// Alignment of every block: that of `malloc`.
const ALIGN_BYTES: usize = 16;

/// A session of the heap, and where its slots are.
#[derive(Debug)]
pub(super) struct Caller<'e, 'h, M: Watched, J> {
    engine: &'e Engine<'h, M, J>,
    session: Session<M>,
    arrays: Vec<&'h [Slot]>,
    cell: Option<&'h VersionedCell>,
}

impl<'e, 'h, M: Watched, J: Medium> Caller<'e, 'h, M, J> {
    /// The caller for `thread`.
    pub(super) fn new(engine: &'e Engine<'h, M, J>, thread: u16) -> Self {
        Self {
            engine,
            session: engine.heap.session(),
            arrays: Vec::new(),
            cell: engine.cells.of(thread),
        }
    }

    /// Does `request`.
    pub(super) fn perform(&mut self, request: &Request<'_>) -> Result<(), Failure> {
        self.call(request).map_err(|error| self.failed(request, error))
    }

    /// Compares the contents of the blocks that `acts` free.
    pub(super) fn verify_freed(&mut self, acts: &[Act]) {
        for act in acts {
            let Act::Free { block, from } = *act else { continue };
            let slot = self.slot(from);
            let size_bytes = self.engine.plan.size_of(block);
            let guard = self.engine.heap.pin();
            match Pattern::whole(block, slot.get(&guard), size_bytes) {
                Ok(()) => drop(self.engine.verified.fetch_add(1, Ordering::Relaxed)),
                Err(what) => self.engine.violation(&format!("before its free, {what}")),
            }
        }
    }

    fn call(&mut self, request: &Request<'_>) -> Result<(), Error> {
        match (request.kind, request.acts) {
            (Kind::Alloc, &[Act::Alloc { block, to }]) => {
                let (slot, layout) = (self.slot(to), self.layout_of(block)?);
                self.session.alloc_init(slot, layout, fill(block))
            }
            (Kind::Free, &[Act::Free { from, .. }]) => {
                let slot = self.slot(from);
                self.session.free_from(slot)
            }
            (Kind::Replace, &[Act::Free { from, .. }, Act::Alloc { block, to }]) if from == to => {
                let (slot, layout) = (self.slot(to), self.layout_of(block)?);
                self.session.replace(slot, layout, fill(block))
            }
            (Kind::Move, &[Act::Move { from, to, .. }]) => {
                let (from, to) = (self.slot(from), self.slot(to));
                self.session.move_to(from, to)
            }
            (Kind::Swap, &[Act::Swap { one, other }]) => {
                let (one, other) = (self.slot(one.1), self.slot(other.1));
                self.session.swap(one, other)
            }
            (Kind::Set, &[Act::Set { value }]) => self.session.set(self.cell(), value),
            (Kind::Publish, acts) => self.publish(acts),
            (_, acts) => unreachable!("{request}: no such call has the acts {acts:?}"),
        }
    }

    fn publish(&mut self, acts: &[Act]) -> Result<(), Error> {
        let heap = self.engine.heap;
        let mut publish = heap.publish();
        for act in acts {
            match *act {
                Act::Alloc { block, to } => {
                    let layout = self.layout_of(block)?;
                    let mut reserved = heap.reserve_in(&mut self.session, layout)?;
                    reserved.write(fill(block));
                    publish.alloc(self.slot(to), reserved);
                }
                Act::Free { from, .. } => drop(publish.free(self.slot(from))),
                Act::Move { from, to, .. } => {
                    publish.move_to(self.slot(from), self.slot(to));
                }
                Act::Swap { one, other } => {
                    publish.swap(self.slot(one.1), self.slot(other.1));
                }
                Act::Set { value } => drop(publish.set(self.cell(), value)),
            }
        }
        publish.commit_in(&mut self.session)
    }

    fn layout_of(&self, block: BlockId) -> Result<Layout, Error> {
        let size_bytes = self.engine.plan.size_of(block);
        let size = usize::try_from(size_bytes).ok();
        size.and_then(|size| Layout::from_size_align(size, ALIGN_BYTES).ok()).ok_or_else(|| {
            Error::Invalid { what: "size", why: format!("no block can have {size_bytes} bytes") }
        })
    }

    fn slot(&mut self, slot: SlotId) -> &'h Slot {
        let (array, index) = slot.place();
        if array >= self.arrays.len() {
            self.engine.all_arrays(&mut self.arrays);
        }
        &self.arrays[array][index]
    }

    fn cell(&self) -> &'h VersionedCell {
        self.cell.expect("a replay that sets cells has them")
    }

    /// The failure of `request`. That a slot isn't as it was left is the heap's fault.
    fn failed(&self, request: &Request<'_>, error: Error) -> Failure {
        match error {
            Error::SlotFull { .. } | Error::SlotEmpty { .. } | Error::NotLive { .. } => {
                let what = format!("{request}: {error}");
                self.engine.violation(&what);
                Failure::Inconsistent(what)
            }
            other => Failure::heap(Watched::path(self.engine.heap))(other),
        }
    }
}

/// Writes the contents of `block`.
fn fill(block: BlockId) -> impl FnOnce(&mut [u8]) {
    move |bytes| Pattern::of(block).fill(bytes)
}
