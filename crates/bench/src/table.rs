//! Results for people: aligned columns. Volatile.

use std::fmt::Write;

use crate::{
    compare::{Comparison, Difference},
    report::{Report, Row},
    stats::Estimate,
};

/// Columns on the left that are words.
const WORD_COLUMNS: usize = 2;

impl Report {
    /// The report for people: the machine, and the table.
    #[must_use]
    pub fn to_text(&self) -> String {
        report(self)
    }
}

impl Comparison {
    /// The comparison for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        comparison(self)
    }
}

/// The machine, the table, and what is missing from it.
fn report(report: &Report) -> String {
    let machine = &report.machine;
    let forced = if machine.durability_is_forced { " (forced)" } else { "" };
    let flush = machine.flush_instruction.as_deref().unwrap_or("no flush");
    let again = report
        .flush_again
        .map_or(String::new(), |ratio| format!(" (a line again at once: {ratio:.2} x another)"));
    let background = if report.background_thread { ", a background thread per heap" } else { "" };
    let mut text = format!(
        "{}, {} cores, {}, kernel {}\n{}{forced} on {} in {}, {flush}{again}; {:?}, {} rounds, seed {}{background}\n\n",
        machine.cpu,
        machine.cores,
        machine.arch,
        machine.kernel,
        machine.durability,
        machine.storage,
        machine.directory,
        report.scale,
        report.rounds,
        report.seed,
    );
    let has_speedup = report.rows.iter().any(|row| row.speedup.is_some());
    let mut lines = vec![heads(has_speedup)];
    lines.extend(report.rows.iter().map(|row| cells(row, has_speedup)));
    text.push_str(&align(&lines));
    for name in &report.missing_peers {
        writeln!(text, "{name} is not installed").expect("a string takes all");
    }
    for name in &report.left_out {
        writeln!(text, "{name} was left out: there is no room for it").expect("a string takes all");
    }
    text
}

fn heads(has_speedup: bool) -> Vec<String> {
    let fixed = [
        "bench",
        "allocator",
        "threads",
        "cpu ns/op",
        "x bare",
        "/fences",
        "flushes",
        "fences",
        "reflush<4",
        "p50 ns",
        "p99 ns",
        "p999 ns",
    ];
    let speedup = ["speed-up", "to ring"];
    let heads = fixed.into_iter().chain(has_speedup.then_some(speedup).into_iter().flatten());
    heads.map(str::to_owned).collect()
}

fn cells(row: &Row, has_speedup: bool) -> Vec<String> {
    let optional = |estimate: Option<Estimate>| estimate.map_or_else(|| "-".to_owned(), ratio);
    let mut cells = vec![
        row.bench.clone(),
        row.allocator.clone(),
        row.threads.to_string(),
        format!("{:.0}", row.cpu_ns_per_op),
        ratio(row.ratio_to_bare),
        row.ratio_per_fence().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
        format!("{:.2}", row.flushes_per_op),
        format!("{:.2}", row.fences_per_op),
        format!("{:.3}", row.near_reflush()),
        row.p50_ns.to_string(),
        row.p99_ns.to_string(),
        row.p999_ns.to_string(),
    ];
    if has_speedup {
        cells.extend([optional(row.speedup), optional(row.speedup_to_ring)]);
    }
    cells
}

/// What became of the rows of an older run.
fn comparison(comparison: &Comparison) -> String {
    let heads = ["bench", "allocator", "threads", "old x bare", "new x bare", "change", "verdict"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    lines.extend(comparison.rows.iter().map(difference));
    let mut text = align(&lines);
    if !comparison.same_machine {
        text.push_str("the machines differ: ratios may, too\n");
    }
    for (names, run) in [(&comparison.only_old, "old"), (&comparison.only_new, "new")] {
        for name in names {
            writeln!(text, "{name}: only in the {run} run").expect("a string takes all");
        }
    }
    text
}

fn difference(row: &Difference) -> Vec<String> {
    vec![
        row.bench.clone(),
        row.allocator.clone(),
        row.threads.to_string(),
        ratio(row.old),
        ratio(row.new),
        format!("{:+.1} %", (row.change - 1.0) * 100.0),
        row.verdict.to_string(),
    ]
}

/// An estimate with the digits that mean something.
fn ratio(estimate: Estimate) -> String {
    let digits = if estimate.value < 100.0 { 2 } else { 0 };
    format!("{estimate:.digits$}")
}

/// `lines` of cells in columns: words to the left, figures to the right.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| lines.iter().map(|cells| cells[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for cells in lines {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column < WORD_COLUMNS {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        let line = padded.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_left_and_figures_right() {
        let line = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = align(&[line(["bench", "by", "ns"]), line(["b", "pmalloc", "1000"])]);
        assert_eq!(text, "bench  by         ns\nb      pmalloc  1000\n");
    }

    #[test]
    fn a_large_ratio_has_no_digits_behind_the_point() {
        assert_eq!(ratio(Estimate { value: 1.5, lo: 1.25, hi: 2.0 }), "1.50 (1.25 to 2.00)");
        assert_eq!(
            ratio(Estimate { value: 2802.9, lo: 2573.0, hi: 3031.0 }),
            "2803 (2573 to 3031)"
        );
    }
}
