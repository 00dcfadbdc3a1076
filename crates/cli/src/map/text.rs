//! A map for a terminal. Volatile.

use pmalloc::HeapMap;

use super::{
    grid::{Cell, Grid},
    summary::{Summary, Total},
};
use crate::output::{bytes, ratio};

const COLUMNS: usize = 64;
const ROWS: usize = 16;

/// `map` as figures, and as a grid of letters.
pub(crate) fn text(map: &HeapMap, summary: &Summary) -> String {
    let mut lines = vec![total("metadata", &sum(summary.metadata.iter().map(|area| area.total)))];
    for group in &summary.slabs {
        let name = format!("slabs to {}", bytes(group.block_bytes_max));
        let full = 100.0 * ratio(group.live, group.blocks);
        lines.push(format!(
            "{}, {} blocks live, {full:.0} % full",
            total(&name, &group.total),
            group.live
        ));
    }
    lines.push(total("large blocks", &summary.large));
    lines.push(total("free", &summary.free));
    lines.push(format!("{:<16}{:>12}", "not grown yet", bytes(summary.ungrown_bytes)));
    if summary.unowned_blocks > 0 {
        lines.push(format!(
            "{:<16}{:>12} blocks: `pmalloc check` says where they are",
            "nothing owns", summary.unowned_blocks
        ));
    }
    let grid = Grid::new(map, COLUMNS, ROWS);
    if !grid.cells.is_empty() {
        lines.push(String::new());
        lines.extend(grid.cells.chunks(grid.columns).zip(0..).map(|(row, nth)| {
            let offset = grid.start + nth * grid.columns as u64 * grid.cell_bytes;
            format!("{offset:>#14x}  {}", row.iter().map(letter).collect::<String>())
        }));
        let unit = bytes(grid.cell_bytes);
        lines.push(format!(
            "\neach letter {unit}: # slabs, full; + half; - less; L large block; . free"
        ));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn sum(totals: impl Iterator<Item = Total>) -> Total {
    totals.fold(Total::default(), |sum, total| Total {
        parts: sum.parts + total.parts,
        bytes: sum.bytes + total.bytes,
        data_bytes: sum.data_bytes + total.data_bytes,
    })
}

fn total(name: &str, total: &Total) -> String {
    let data = bytes(total.data_bytes);
    format!("{name:<16}{:>12} in {} parts, {data} with data", bytes(total.bytes), total.parts)
}

/// What most of the cell is.
fn letter(cell: &Cell) -> char {
    let (slabs, live) = cell.slab_share();
    let free = cell.free.0 + cell.free.1;
    if free >= slabs.max(cell.large) {
        '.'
    } else if cell.large >= slabs {
        'L'
    } else if live >= 0.75 * slabs {
        '#'
    } else if live >= 0.4 * slabs {
        '+'
    } else {
        '-'
    }
}
