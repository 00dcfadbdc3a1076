//! The versioned cells of a replay, one for each thread, each in a line of its own. Volatile: found again by name.

use pmalloc::{Heap, VersionedCell};
use pmalloc_persist::LINE_BYTES;

use super::{medium::Watched, mix::Mix};
use crate::exit::Failure;

/// Name of the root that they lie in.
const ROOT: &str = "replay/cells";

/// The cells in one heap.
#[derive(Debug)]
pub(super) struct Cells<'h> {
    cells: Vec<&'h VersionedCell>,
    /// Byte offset of the block that they lie in, if there are any.
    block: Option<u64>,
}

impl<'h> Cells<'h> {
    /// The cells of so many threads in `heap`, made if they are not there; none if `mix` needs none.
    pub(super) fn open<M: Watched>(
        heap: &'h Heap<M>,
        threads: u16,
        mix: Mix,
    ) -> Result<Self, Failure> {
        if mix.is_off() {
            return Ok(Self { cells: Vec::new(), block: None });
        }
        let len = usize::from(threads) * usize::try_from(LINE_BYTES).expect("a line is short");
        let root = heap.root_bytes(ROOT, len, 0).map_err(Failure::heap(Watched::path(heap)))?;
        let cell = |thread| {
            let cell = heap.root_cell(&root, u64::from(thread) * LINE_BYTES);
            cell.map_err(Failure::heap(Watched::path(heap)))
        };
        let cells = (0..threads).map(cell).collect::<Result<_, _>>()?;
        Ok(Self { cells, block: Some(root.offset) })
    }

    /// The cell of `thread`.
    pub(super) fn of(&self, thread: u16) -> Option<&'h VersionedCell> {
        self.cells.get(usize::from(thread)).copied()
    }

    /// The block that they lie in, if there are any.
    pub(super) fn block(&self) -> Option<u64> {
        self.block
    }
}
