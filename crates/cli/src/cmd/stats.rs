//! `pmalloc stats`: how full a heap is. Volatile.

use super::{
    exposition,
    figures::{Class, Log, Shown, Tag},
    notes::note_if_not_closed,
};
use crate::{
    args::StatsArgs,
    exit::Failure,
    output::{as_f64, bytes, duration, print_either, print_rows, print_text},
};

/// Shows the figures of the heap that `args` name.
pub(super) fn run(args: &StatsArgs) -> Result<(), Failure> {
    let shown = shown(pmalloc::stats_file(&args.path).map_err(Failure::heap(&args.path))?);
    note_if_not_closed(&args.path);
    if args.prom {
        return print_text(&exposition::text(&shown));
    }
    print_either(args.output, &shown, |shown| {
        print_rows(&rows(shown))?;
        print_classes(&shown.classes)?;
        print_tags(&shown.tags)
    })
}

fn shown(stats: pmalloc::Stats) -> Shown {
    let classes = stats.classes.into_iter().map(|class| Class {
        size: class.block_bytes,
        tag: class.tag,
        slabs: class.slabs,
        blocks: class.blocks,
        live: class.live,
    });
    let tags = stats.tags.into_iter().map(|tag| Tag {
        tag: tag.tag,
        blocks: tag.blocks,
        live_bytes: tag.live_bytes,
    });
    Shown {
        policy: stats.policy.name(),
        live_blocks: stats.live_blocks,
        live_bytes: stats.live_bytes,
        heap_bytes: stats.heap_bytes,
        peak_heap_bytes: stats.peak_heap_bytes,
        used_bytes: stats.used_bytes,
        free_bytes: stats.free_bytes,
        largest_free: stats.largest_free_bytes,
        dram_bytes: stats.dram_bytes,
        recovery_ns: stats.recovery_ns,
        replayed: stats.replayed,
        classes: classes.collect(),
        tags: tags.collect(),
        morphs: 0,
        log: Log {
            chunks: stats.log.chunks,
            live: stats.log.live,
            fast_gc: stats.log.fast_gc,
            slow_gc: stats.log.slow_gc,
        },
    }
}

fn rows(shown: &Shown) -> Vec<(&'static str, String)> {
    let live = format!(
        "{} in {} blocks, in slabs and extents of {}",
        bytes(shown.live_bytes),
        shown.live_blocks,
        bytes(shown.used_bytes)
    );
    let free =
        format!("{}, at most {} in one piece", bytes(shown.free_bytes), bytes(shown.largest_free));
    let log = format!(
        "{} extents in {} chunks, {} fast and {} slow collections",
        shown.log.live, shown.log.chunks, shown.log.fast_gc, shown.log.slow_gc
    );
    vec![
        ("policy", shown.policy.to_owned()),
        ("live", live),
        ("size", bytes(shown.heap_bytes)),
        ("free", free),
        ("volatile", bytes(shown.dram_bytes)),
        (
            "opened in",
            format!("{}, {} records redone", duration(shown.recovery_ns), shown.replayed),
        ),
        ("log", log),
    ]
}

fn print_classes(classes: &[Class]) -> Result<(), Failure> {
    if classes.is_empty() {
        return Ok(());
    }
    let lines = classes.iter().map(|class| {
        let percent = 100.0 * as_f64(class.live) / as_f64(class.blocks.max(1));
        format!(
            "{:>8}  {:>3}  {:>7}  {:>9}  {:>9}  {percent:>5.1} %\n",
            class.size, class.tag, class.slabs, class.blocks, class.live
        )
    });
    let head = "\n    size  tag    slabs     blocks       live     full\n".to_owned();
    print_text(&(head + &lines.collect::<String>()))
}

fn print_tags(tags: &[Tag]) -> Result<(), Failure> {
    let lines = tags
        .iter()
        .map(|tag| format!("{:>8}  {:>9}  {:>14}\n", tag.tag, tag.blocks, tag.live_bytes));
    let head = "\n     tag     blocks      live bytes\n".to_owned();
    print_text(&(head + &lines.collect::<String>()))
}
