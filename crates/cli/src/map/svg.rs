//! A map as a picture: a bar of what the file holds, a grid of the data area, and a legend with figures. Volatile.

use std::fmt::Write;

use pmalloc::HeapMap;

use super::{
    grid::{Cell, Grid},
    summary::{GROUPS, Slabs, Summary, Total, group_of},
};
use crate::output::{as_f64, bytes, ratio};

/// Colours of slabs by group of block sizes, from small to large: those of live blocks, and of the rest of the slab.
const SLABS: [(&str, &str); GROUPS.len()] = [
    ("#08519c", "#c6dbef"),
    ("#3182bd", "#d3e6f5"),
    ("#1b9e77", "#c5e8dd"),
    ("#66a61e", "#dcedc5"),
    ("#e6ab02", "#faecc0"),
    ("#e6730a", "#fadcc0"),
    ("#d7301f", "#f6cac5"),
    ("#c51b7d", "#f2c9e0"),
];
const LARGE: &str = "#54278f";
const FREE_WITH_DATA: &str = "#c8c8c8";
const FREE_BARE: &str = "#f1f1f1";
const METADATA: &str = "#737373";

const COLUMNS: usize = 96;
const ROWS: usize = 64;

/// Places and sizes in pixels.
const MARGIN: f64 = 24.0;
const GRID_LEFT: f64 = 120.0;
const GRID_TOP: f64 = 132.0;
const GRID_WIDTH: f64 = 864.0;
const CELL_MAX: f64 = 36.0;
const LEGEND_LEFT: f64 = 1020.0;
const LEGEND_WIDTH: f64 = 420.0;
const LINE: f64 = 19.0;
const WIDTH: f64 = LEGEND_LEFT + LEGEND_WIDTH + MARGIN;

/// A picture of `map`, whose heap is called `name`.
pub(crate) fn svg(map: &HeapMap, summary: &Summary, name: &str) -> String {
    let mut picture = Picture::default();
    let grid = Grid::new(map, COLUMNS, ROWS);
    picture.title(summary, name);
    picture.bar(summary);
    picture.grid(&grid);
    picture.legend(summary);
    picture.finish()
}

/// The colours of a group of slabs: in the bar, the grid and the legend.
fn slab_colours(group: &Slabs) -> (&'static str, &'static str) {
    SLABS[group_of(group.block_bytes_max)]
}

/// The picture so far.
#[derive(Debug, Default)]
struct Picture {
    body: String,
    /// Where the lowest thing ends.
    bottom: f64,
}

impl Picture {
    fn write(&mut self, args: std::fmt::Arguments<'_>) {
        self.body.write_fmt(args).expect("a string takes any text");
    }

    fn text(&mut self, (x, y): (f64, f64), style: &str, text: &str) {
        let text = escape(text);
        self.write(format_args!("<text x=\"{x}\" y=\"{y}\" {style}>{text}</text>\n"));
        self.bottom = self.bottom.max(y);
    }

    fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str) {
        self.write(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>\n"
        ));
        self.bottom = self.bottom.max(y + height);
    }

    fn title(&mut self, summary: &Summary, name: &str) {
        self.text((MARGIN, 34.0), "class=\"title\"", name);
        let live: u64 = summary.slabs.iter().map(|group| group.live).sum();
        let live_bytes: u64 = summary.slabs.iter().map(|group| group.live_bytes).sum();
        let figures = format!(
            "{} live in {} blocks; {} of the data area used so far, {} left to grow into",
            bytes(live_bytes + summary.large.bytes),
            live + summary.large.parts,
            bytes(summary.grown_bytes()),
            bytes(summary.ungrown_bytes)
        );
        self.text((MARGIN, 58.0), "", &figures);
    }

    /// What the file holds data for, in the colours of the legend.
    fn bar(&mut self, summary: &Summary) {
        let slab = |group: &Slabs| (slab_colours(group).0, group.total.data_bytes);
        let metadata = summary.metadata.iter().map(|area| area.total.data_bytes).sum();
        let shares = [
            ("metadata", vec![(METADATA, metadata)]),
            ("slabs", summary.slabs.iter().map(slab).collect()),
            ("large blocks", vec![(LARGE, summary.large.data_bytes)]),
            ("free", vec![(FREE_WITH_DATA, summary.free.data_bytes)]),
        ];
        let sum = |parts: &[(&str, u64)]| parts.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let total = shares.iter().map(|(_, parts)| sum(parts)).sum();
        let what = format!("The file holds {} of data", bytes(total));
        self.text((MARGIN, 86.0), "", &what);
        let (mut x, width) = (GRID_LEFT + 160.0, GRID_WIDTH - 160.0);
        for (name, parts) in &shares {
            let (left, share) = (x, sum(parts));
            for (fill, part) in parts {
                let wide = width * ratio(*part, total);
                self.rect((x, 72.0), (wide, 20.0), fill);
                x += wide;
            }
            if x - left > 110.0 {
                let ink = if *name == "free" { "#222" } else { "white" };
                let style = format!("fill=\"{ink}\" text-anchor=\"middle\" class=\"small\"");
                let label = format!("{name} {}", bytes(share));
                self.text((left.midpoint(x), 86.0), &style, &label);
            }
        }
    }

    fn grid(&mut self, grid: &Grid) {
        let cell = (GRID_WIDTH / as_f64(grid.columns as u64)).min(CELL_MAX).floor();
        let what = match grid.cells.is_empty() {
            true => "Nothing was ever allocated".to_owned(),
            false => format!("Data area, {} per cell, from left to right", bytes(grid.cell_bytes)),
        };
        self.text((MARGIN, GRID_TOP - 12.0), "class=\"head\"", &what);
        let mut layers = Layers::default();
        let rows = grid.cells.chunks(grid.columns);
        // So that no label touches the next, in cells of any size.
        let labels = rows.len().div_ceil(16).max(if cell < 24.0 { 3 } else { 1 });
        for (nth, row) in rows.enumerate() {
            let y = GRID_TOP + as_f64(nth as u64) * cell;
            if nth % labels == 0 {
                let offset = grid.start + (nth * grid.columns) as u64 * grid.cell_bytes;
                let style = "class=\"small\" text-anchor=\"end\"";
                self.text((GRID_LEFT - 8.0, y + 10.0), style, &format!("{offset:#x}"));
            }
            for (column, content) in row.iter().enumerate() {
                layers.add(content, (GRID_LEFT + as_f64(column as u64) * cell, y), cell - 1.0);
            }
            self.bottom = self.bottom.max(y + cell);
        }
        self.body.push_str(&layers.paths());
    }

    fn legend(&mut self, summary: &Summary) {
        let mut y = 8.0;
        if !summary.slabs.is_empty() {
            self.head(&mut y, "Slabs by block size", "live blocks, full");
        }
        for group in &summary.slabs {
            let (dark, tint) = slab_colours(group);
            let full = 100.0 * ratio(group.live, group.blocks);
            let name = format!("to {}: {}", bytes(group.block_bytes_max), bytes(group.total.bytes));
            // Spaces as wide as digits keep the columns.
            let figures = format!("{} {full:>5.0} %", group.live).replace(' ', "\u{2007}");
            self.row(&mut y, (dark, tint), &name, &figures);
        }
        self.head(&mut y, "Extents", "number");
        let rows = [
            (LARGE, format!("large blocks: {}", bytes(summary.large.bytes)), summary.large.parts),
            (
                FREE_WITH_DATA,
                format!("free, with data: {}", bytes(summary.free.data_bytes)),
                summary.free.parts,
            ),
        ];
        for (fill, name, parts) in rows {
            self.row(&mut y, (fill, fill), &name, &parts.to_string());
        }
        let bare = summary.free.bytes - summary.free.data_bytes.min(summary.free.bytes);
        self.row(&mut y, (FREE_BARE, FREE_BARE), &format!("free, without: {}", bytes(bare)), "");
        self.head(&mut y, "Metadata", "with data, of reserved");
        for area in &summary.metadata {
            let Total { bytes: reserved, data_bytes, .. } = area.total;
            let figures = format!("{} of {}", bytes(data_bytes), bytes(reserved));
            self.row(&mut y, (METADATA, METADATA), area.name, &figures);
        }
        y += 12.0;
        for note in [
            "A cell is filled from below: large blocks, live blocks of slabs,",
            "the free rest of slabs (pale), free pages (grey).",
        ] {
            y += LINE;
            self.text((LEGEND_LEFT, y), "class=\"small\"", note);
        }
    }

    fn head(&mut self, y: &mut f64, left: &str, right: &str) {
        *y += 26.0;
        self.text((LEGEND_LEFT, *y), "class=\"head\"", left);
        let end = LEGEND_LEFT + LEGEND_WIDTH;
        self.text((end, *y), "class=\"small\" text-anchor=\"end\"", right);
        *y += 6.0;
    }

    fn row(&mut self, y: &mut f64, (left, right): (&str, &str), name: &str, figures: &str) {
        self.rect((LEGEND_LEFT, *y + 3.0), (12.0, 12.0), left);
        self.rect((LEGEND_LEFT + 12.0, *y + 3.0), (12.0, 12.0), right);
        *y += LINE;
        self.text((LEGEND_LEFT + 32.0, *y - 5.0), "", name);
        let end = LEGEND_LEFT + LEGEND_WIDTH;
        self.text((end, *y - 5.0), "text-anchor=\"end\" xml:space=\"preserve\"", figures);
    }

    fn finish(self) -> String {
        let height = self.bottom + MARGIN;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n\
             <style>.title{{font-size:18px;font-weight:bold}}.head{{font-weight:bold}}.small{{font-size:11px}}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}</svg>\n",
            self.body
        )
    }
}

/// The rectangles of all cells, by colour: one path each, so that a picture of thousands of cells stays small.
#[derive(Debug, Default)]
struct Layers(Vec<(&'static str, String)>);

impl Layers {
    /// Adds a cell, filled from below.
    fn add(&mut self, cell: &Cell, (x, y): (f64, f64), side: f64) {
        let mut shares = vec![(LARGE, cell.large)];
        for ((live, rest), (dark, tint)) in cell.slabs.into_iter().zip(SLABS) {
            shares.extend([(dark, live), (tint, rest)]);
        }
        shares.extend([(FREE_WITH_DATA, cell.free.0), (FREE_BARE, cell.free.1)]);
        let mut below = y + side;
        for (fill, share) in shares.into_iter().filter(|(_, share)| *share > 1e-9) {
            let height = share * side;
            below -= height;
            let path = self.path(fill);
            write!(path, "M{x:.0} {below:.2}h{side:.0}v{height:.2}h-{side:.0}z")
                .expect("a string takes any text");
        }
    }

    fn path(&mut self, fill: &'static str) -> &mut String {
        let found = self.0.iter().position(|(colour, _)| *colour == fill);
        let at = found.unwrap_or_else(|| {
            self.0.push((fill, String::new()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    fn paths(&self) -> String {
        let path =
            |(fill, path): &(&str, String)| format!("<path fill=\"{fill}\" d=\"{path}\"/>\n");
        self.0.iter().map(path).collect()
    }
}

/// `text` as XML has it.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
