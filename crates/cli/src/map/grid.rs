//! The data area cut into cells that stand for equally many bytes. Volatile.

use pmalloc::{HeapMap, Part, PartKind};

use super::summary::{GROUPS, group_of};
use crate::output::as_f64;

/// Fewest bytes of a cell: a page.
const CELL_MIN_BYTES: u64 = 4096;

/// The data area of a heap as far as it was ever used, row by row.
#[derive(Debug)]
pub(super) struct Grid {
    pub(super) cell_bytes: u64,
    pub(super) columns: usize,
    /// Byte offset of the first cell from the base of the heap.
    pub(super) start: u64,
    pub(super) cells: Vec<Cell>,
}

/// What the bytes of a cell are, as shares of the cell; the rest, in the last one, lies behind the grown length.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Cell {
    /// By group of block sizes: live blocks, and the rest of their slabs.
    pub(super) slabs: [(f64, f64); GROUPS.len()],
    pub(super) large: f64,
    /// Free pages that hold data, and those that don't.
    pub(super) free: (f64, f64),
}

impl Grid {
    /// A grid of at most `columns` times `rows` cells, not much wider than high.
    pub(super) fn new(map: &HeapMap, columns: usize, rows: usize) -> Self {
        let is_data =
            |part: &&Part| !matches!(part.kind, PartKind::Metadata { .. } | PartKind::Ungrown);
        let parts: Vec<&Part> = map.parts.iter().filter(is_data).collect();
        let start = parts.first().map_or(0, |part| part.offset);
        let len = parts.last().map_or(0, |part| part.offset + part.len - start);
        let mut cell_bytes = CELL_MIN_BYTES;
        while len.div_ceil(cell_bytes) > (columns * rows) as u64 {
            cell_bytes *= 2;
        }
        let count = usize::try_from(len.div_ceil(cell_bytes)).expect("few cells");
        let columns = (1..columns).find(|side| side * side >= 3 * count).unwrap_or(columns);
        let mut grid = Self { cell_bytes, columns, start, cells: vec![Cell::default(); count] };
        parts.into_iter().for_each(|part| grid.add(part));
        grid
    }

    fn add(&mut self, part: &Part) {
        let (mut place, end) = (part.offset - self.start, part.offset + part.len - self.start);
        while place < end {
            let index = place / self.cell_bytes;
            let next = end.min((index + 1) * self.cell_bytes);
            let share = as_f64(next - place) / as_f64(self.cell_bytes);
            self.cells[usize::try_from(index).expect("few cells")].add(part, share);
            place = next;
        }
    }
}

impl Cell {
    /// Adds a part that takes `share` of the cell.
    fn add(&mut self, part: &Part, share: f64) {
        let of_part = |bytes: u64| share * as_f64(bytes) / as_f64(part.len);
        match part.kind {
            PartKind::Slab { block_bytes, live, .. } => {
                let full = of_part(live * block_bytes);
                let group = &mut self.slabs[group_of(block_bytes)];
                group.0 += full;
                group.1 += share - full;
            }
            PartKind::Large { .. } => self.large += share,
            _ => {
                let data = of_part(part.data_bytes.unwrap_or(part.len));
                self.free.0 += data;
                self.free.1 += share - data;
            }
        }
    }

    /// The share of slabs, and that of their live blocks.
    pub(super) fn slab_share(&self) -> (f64, f64) {
        self.slabs
            .iter()
            .fold((0.0, 0.0), |(all, live), group| (all + group.0 + group.1, live + group.0))
    }
}
