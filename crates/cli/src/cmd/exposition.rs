//! The figures of `pmalloc stats` for a monitoring system: the text format of Prometheus. Volatile.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::ConstCounter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Registry, Unit},
};

use super::figures::{Class, Shown, Tag};
use crate::output::as_f64;

/// Which size class and tag a figure is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabel {
    /// Bytes of a block.
    block_bytes: u64,
    tag: u8,
}

/// Which tag a figure is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TagLabel {
    tag: u8,
}

/// Which policy a heap has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabel {
    policy: &'static str,
}

/// Name, explanation, and where the figure is.
type ClassFigure = (&'static str, &'static str, fn(&Class) -> u64);

type ByClass = Family<ClassLabel, Gauge>;
type ByTag = Family<TagLabel, Gauge>;

/// What is exposed of the class sizes: name, explanation and figure.
const CLASS_FIGURES: [ClassFigure; 3] = [
    ("class_slabs", "Slabs of the size class", |class| class.slabs),
    ("class_blocks", "Blocks in the slabs of the size class, live or free", |class| class.blocks),
    ("class_live_blocks", "Live blocks of the size class", |class| class.live),
];

/// `shown` in the text format; every name begins with `pmalloc_`.
pub(super) fn text(shown: &Shown) -> String {
    let mut registry = Registry::with_prefix("pmalloc");
    let policies = Family::<PolicyLabel, Gauge>::default();
    policies.get_or_create(&PolicyLabel { policy: shown.policy }).set(1);
    registry.register("policy", "1 for the policy that the heap has", policies);
    for (name, help, bytes) in [
        ("live", "Usable bytes of live blocks", shown.live_bytes),
        ("heap", "Memory that the heap's file occupies", shown.heap_bytes),
        ("used", "Slabs and page-granular blocks", shown.used_bytes),
        ("free", "Free extents below the grown length", shown.free_bytes),
        ("largest_free", "The largest block that fits without growing", shown.largest_free),
        ("dram", "Volatile memory of the heap's own structures", shown.dram_bytes),
    ] {
        registry.register_with_unit(name, help, Unit::Bytes, ConstGauge::new(signed(bytes)));
    }
    for (name, help, count) in [
        ("live_blocks", "Blocks that slots own", shown.live_blocks),
        ("recovery_replayed_records", "Records that opening redid", shown.replayed),
        ("log_chunks", "Chunks of the bookkeeping logs", shown.log.chunks),
        ("log_live_extents", "Extents that the bookkeeping logs hold", shown.log.live),
    ] {
        registry.register(name, help, ConstGauge::new(signed(count)));
    }
    let seconds = ConstGauge::new(as_f64(shown.recovery_ns) / 1e9);
    registry.register_with_unit("recovery", "Time that opening took", Unit::Seconds, seconds);
    for (name, help, count) in [
        ("log_fast_collections", "Collections that unlinked chunks", shown.log.fast_gc),
        ("log_slow_collections", "Collections that copied a log", shown.log.slow_gc),
        ("morphs", "Slabs that changed their size class", shown.morphs),
    ] {
        registry.register(name, help, ConstCounter::new(count));
    }
    for (name, help, figure) in CLASS_FIGURES {
        let family = ByClass::default();
        for class in &shown.classes {
            let label = ClassLabel { block_bytes: class.size, tag: class.tag };
            family.get_or_create(&label).set(signed(figure(class)));
        }
        registry.register(name, help, family);
    }
    register_tags(&mut registry, &shown.tags);
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string takes any text");
    text
}

fn register_tags(registry: &mut Registry, tags: &[Tag]) {
    let (blocks, live) = (ByTag::default(), ByTag::default());
    for tag in tags {
        let label = TagLabel { tag: tag.tag };
        blocks.get_or_create(&label).set(signed(tag.blocks));
        live.get_or_create(&label).set(signed(tag.live_bytes));
    }
    registry.register("tag_live_blocks", "Live blocks of the tag", blocks);
    registry.register_with_unit(
        "tag_live",
        "Usable bytes of live blocks of the tag",
        Unit::Bytes,
        live,
    );
}

/// The number as the format has it; no figure of a heap comes near its end.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
