//! Figures.

use std::{
    ffi::{c_char, c_int},
    fmt::{self, Display, Write},
    ptr,
};

use pmalloc::{Stats, persist::Counts};

use crate::{
    arguments::{null, optional},
    error::{Failure, Result},
    handle::{Served, call, pma_heap, served},
    numbers::{PMA_E_LIMIT, PMA_E_MODEL},
    types::{pma_counts, pma_stats},
};

/// What a heap holds and costs.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_stats_get(heap: *mut pma_heap, stats: *mut pma_stats) -> c_int {
    let get = |heap: &pma_heap| {
        let figures = |size| Ok(figures(size, &stats_of(heap)?));
        // SAFETY: 1 of the library's list; the size is the first member.
        unsafe { fill(stats, figures) }
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, get) }
}

/// What was asked of the memory under a heap since it was opened.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_counts_get(heap: *mut pma_heap, counts: *mut pma_counts) -> c_int {
    let get = |heap: &pma_heap| {
        // SAFETY: 1 of the library's list; the size is the first member.
        unsafe { fill(counts, |size| counts_of(size, heap)) }
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, get) }
}

/// Fills a structure that starts with its size with what `value` makes of the size that was filled.
///
/// A program that knows more members than this library finds in the size which of them are filled.
///
/// # Safety
///
/// `place` is null or points to a size, and to as many bytes as it says, if those are enough for a `T`.
unsafe fn fill<T>(place: *mut T, value: impl FnOnce(usize) -> Result<T>) -> Result<()> {
    if place.is_null() {
        return Err(null("place for the figures"));
    }
    // SAFETY: not null; else as the caller guarantees.
    let size = unsafe { place.cast::<usize>().read() };
    let known = size_of::<T>();
    if size < known {
        let why = format!("{size} bytes; it is set to the size of the structure, {known} bytes");
        return Err(Failure::invalid("size of the figures", why));
    }
    let value = value(known)?;
    // SAFETY: large enough; else as the caller guarantees.
    unsafe { place.write(value) };
    Ok(())
}

fn counts_of(size: usize, heap: &pma_heap) -> Result<pma_counts> {
    let Served::Counted(owned) = &heap.0 else {
        let text = "nothing was counted: open the heap with the flag PMA_F_COUNT";
        return Err(Failure::new(PMA_E_MODEL, text));
    };
    let Counts { flushes, fences, bytes, reflushes } = owned.heap().counts();
    Ok(pma_counts { size, flushes, fences, bytes, reflush: reflushes })
}

fn stats_of(heap: &pma_heap) -> Result<Stats> {
    Ok(served!(heap, owned => owned.heap().stats())?)
}

fn figures(size: usize, stats: &Stats) -> pma_stats {
    pma_stats {
        size,
        live_blocks: stats.live_blocks,
        live_bytes: stats.live_bytes,
        heap_bytes: stats.heap_bytes,
        peak_heap_bytes: stats.peak_heap_bytes,
        free_bytes: stats.free_bytes,
        largest_free: stats.largest_free_bytes,
        dram_bytes: stats.dram_bytes,
        recovery_ns: stats.recovery_ns,
        replayed: stats.replayed,
    }
}

/// What a heap holds and costs, as text.
///
/// # Safety
///
/// That of [all functions](crate#safety).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pma_stats_json(
    heap: *mut pma_heap,
    buffer: *mut c_char,
    capacity: usize,
    need: *mut usize,
) -> c_int {
    let print = |heap: &pma_heap| -> Result<()> {
        if capacity != 0 && buffer.is_null() {
            return Err(null("buffer"));
        }
        let text = json(&stats_of(heap)?) + "\0";
        // SAFETY: 1 of the library's list.
        if let Some(need) = unsafe { optional(need) } {
            need.write(text.len());
        }
        if capacity == 0 {
            return Ok(());
        }
        if capacity < text.len() {
            let sentence = format!("the answer has {} bytes, the buffer {capacity}", text.len());
            return Err(Failure::new(PMA_E_LIMIT, sentence));
        }
        // SAFETY: the buffer is not null and has room; else 1 of the library's list. The text is the library's own.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, text.len()) };
        Ok(())
    };
    // SAFETY: 1 and 4 of the library's list.
    unsafe { call(heap, print) }
}

/// The figures as one object, as the command `pmalloc stats` prints them.
fn json(stats: &Stats) -> String {
    let classes = stats.classes.iter().map(|class| {
        Object(vec![
            ("size", &class.block_bytes),
            ("tag", &class.tag),
            ("slabs", &class.slabs),
            ("blocks", &class.blocks),
            ("live", &class.live),
        ])
        .to_string()
    });
    let tags = stats.tags.iter().map(|tag| {
        let members: Vec<Member> =
            vec![("tag", &tag.tag), ("blocks", &tag.blocks), ("live_bytes", &tag.live_bytes)];
        Object(members).to_string()
    });
    let (classes, tags) = (array(classes), array(tags));
    let policy = format!("\"{}\"", stats.policy.name());
    let log = &stats.log;
    let log = Object(vec![
        ("chunks", &log.chunks),
        ("live", &log.live),
        ("fast_gc", &log.fast_gc),
        ("slow_gc", &log.slow_gc),
    ]);
    Object(vec![
        ("schema", &1),
        ("policy", &policy),
        ("live_blocks", &stats.live_blocks),
        ("live_bytes", &stats.live_bytes),
        ("heap_bytes", &stats.heap_bytes),
        ("peak_heap_bytes", &stats.peak_heap_bytes),
        ("used_bytes", &stats.used_bytes),
        ("free_bytes", &stats.free_bytes),
        ("largest_free", &stats.largest_free_bytes),
        ("dram_bytes", &stats.dram_bytes),
        ("recovery_ns", &stats.recovery_ns),
        ("replayed", &stats.replayed),
        ("classes", &classes),
        ("tags", &tags),
        ("morphs", &0),
        ("log", &log),
    ])
    .to_string()
}

/// A member of an object: a name, and a number or what is JSON already.
type Member<'a> = (&'static str, &'a dyn Display);

/// An object, as JSON.
struct Object<'a>(Vec<Member<'a>>);

impl Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = '{';
        for (name, value) in &self.0 {
            write!(f, "{before}\"{name}\":{value}")?;
            before = ',';
        }
        f.write_char('}')
    }
}

fn array(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(","))
}
