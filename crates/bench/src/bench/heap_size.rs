//! What an operation costs in heaps with more and more live data: it should not depend on that.
//!
//! A heap is filled with blocks until the requested bytes of the live ones reach the variant's size: a quarter of it, but
//! at most 256 MiB, in blocks of 64 bytes, the rest in blocks of 32 to 512 KiB. Then every sixteenth block of either
//! kind is freed, so that there are holes all over. The measured passes add at most 4 MiB.

use pmalloc::{Heap, persist::Medium};

use super::{
    Bench,
    pairs::{Contents, Pairs, Sizes, large_bytes},
};
use crate::{
    alloc::{Slots, Spacing, Subject, layout},
    cell::{Outcome, Scale},
    context::Context,
    measure::{Effort, Prepare, measure},
};

/// See the module.
#[derive(Debug)]
pub(super) struct HeapSize;

/// Names of the sizes, and the bytes in live blocks.
const SIZES: [(&str, u64); 4] =
    [("1M", 1 << 20), ("64M", 64 << 20), ("1G", 1 << 30), ("16G", 16 << 30)];
/// Blocks that are measured: their name, their sizes, and how many are live at once.
const KINDS: [(&str, Sizes, usize); 2] =
    [("small", Sizes::Fixed(SMALL_BYTES), 2_000), ("large", Sizes::Large, 8)];
/// Bytes of a small block.
const SMALL_BYTES: usize = 64;
/// Most bytes of small blocks that a heap is filled with.
const SMALL_SUM_MAX: u64 = 256 << 20;
/// Blocks that are freed after filling: one in so many.
const HOLE_EVERY: usize = 16;
/// Blocks that a pass allocates, and frees.
const BLOCKS: usize = 10_000;
/// Timed passes of a round.
const PASSES: [usize; 3] = [1, 5, 10];

impl Bench for HeapSize {
    fn name(&self) -> &'static str {
        "heap-size"
    }

    fn about(&self) -> &'static str {
        "2 000 small or 8 large blocks, allocated and freed in heaps of 1 MiB to 16 GiB of live blocks with holes"
    }

    fn variants(&self, scale: Scale) -> Vec<String> {
        let sizes = &SIZES[..scale.choose(2, 3, 4)];
        let names = |kind| sizes.iter().map(move |(size, _)| format!("{kind}-{size}"));
        KINDS.into_iter().flat_map(|(kind, ..)| names(kind)).collect()
    }

    fn fits(&self, subject: Subject, threads: usize) -> bool {
        threads == 1 && subject.is_heap()
    }

    fn need_bytes(&self, variant: &str, _: usize) -> u64 {
        let live_bytes = Fill::of(variant).live_bytes;
        live_bytes + live_bytes / 8 + (256 << 20)
    }

    fn run(&self, context: &Context<'_>) -> Outcome {
        let variant = &*context.cell.variant;
        let kind = KINDS.into_iter().find(|(kind, ..)| variant.starts_with(kind));
        let (_, sizes, live) = kind.expect("a variant of this benchmark");
        let workload = Pairs {
            slots: Slots { count: live, spacing: Spacing::OwnLine },
            repeats: BLOCKS.div_ceil(live),
            sizes,
            contents: Contents::None,
        };
        measure(context, &workload, Effort::of(context.cell.scale, PASSES), &Fill::of(variant))
    }
}

/// Fills a heap up to a size, and punches holes into it.
#[derive(Debug, Clone, Copy)]
struct Fill {
    live_bytes: u64,
}

impl Fill {
    fn of(variant: &str) -> Self {
        let size = SIZES.into_iter().find(|(size, _)| variant.ends_with(&format!("-{size}")));
        Self { live_bytes: size.expect("a variant of this benchmark").1 }
    }
}

impl Prepare for Fill {
    fn fill<M: Medium + 'static>(&self, heap: &Heap<M>) {
        let small_bytes = (self.live_bytes / 4).min(SMALL_SUM_MAX);
        let small_count = usize::try_from(small_bytes).expect("64 bits") / SMALL_BYTES;
        // The heap is the same in every round.
        let mut rng = fastrand::Rng::with_seed(0);
        let mut left = self.live_bytes - small_bytes;
        let large: Vec<usize> = std::iter::repeat_with(|| large_bytes(&mut rng))
            .map_while(|bytes| {
                left = left.checked_sub(bytes as u64)?;
                Some(bytes)
            })
            .collect();
        fill(heap, "small blocks", &vec![SMALL_BYTES; small_count]);
        fill(heap, "large blocks", &large);
    }
}

/// Allocates a block of each of `sizes`, and then frees some.
fn fill<M: Medium + 'static>(heap: &Heap<M>, name: &str, sizes: &[usize]) {
    let slots = heap.slots(name, sizes.len().max(1) as u64).expect("the heap has room");
    for (slot, &bytes) in slots.iter().zip(sizes) {
        heap.alloc_to(slot, layout(bytes)).expect("the heap has room");
    }
    for slot in slots.iter().take(sizes.len()).skip(1).step_by(HOLE_EVERY) {
        heap.free_from(slot).expect("the slot is full");
    }
}
