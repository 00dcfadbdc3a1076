//! Images of heaps: closed, and as crashes leave them.

use super::shared::{Raw, Shared};
use std::sync::Arc;

use pmalloc::{
    Heap, Policy, Slot,
    persist::{
        Anon, Medium, Offset, Span, Word,
        sim::{Domain, Sim, SimOptions},
    },
};

use super::{ROOTS, SIZES, contents, fill, layout, options, tap::Tap};

/// All words of a heap.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) name: &'static str,
    pub(crate) words: Vec<u64>,
    /// Where the slots of the root arrays are.
    pub(crate) arrays: Vec<Span>,
    /// What [`contents`] says when it is opened undamaged.
    pub(crate) contents: u64,
}

/// Length of every image, in bytes.
pub(crate) fn heap_bytes() -> u64 {
    options().heap_bytes().expect("valid options")
}

/// The index of the word that holds byte `offset`.
pub(crate) fn word_index(offset: u64) -> usize {
    usize::try_from(offset / 8).expect("an offset in a small heap")
}

/// The words of a medium.
pub(crate) fn words<M: Medium>(m: &M) -> &[Word] {
    m.region().array(Offset::new(0), heap_bytes() / 8).expect("the whole heap")
}

impl Image {
    /// The words of `m`, which is wholly backed.
    pub(crate) fn of<M: Medium>(name: &'static str, m: &M) -> Self {
        let words = words(m).iter().map(|word| m.load(word)).collect();
        let mut image = Self { name, words, arrays: Vec::new(), contents: 0 };
        let medium = Arc::new(Anon::new(heap_bytes()));
        image.restore(&medium);
        let heap = options().open_shared(Arc::clone(&medium)).expect("an undamaged image");
        for (name, count) in ROOTS {
            let slots = heap.slots(name, count).expect("an undamaged root");
            let first = medium.region().span_of(&slots[0]);
            image.arrays.push(Span::new(first.start, count * 8));
        }
        assert_eq!(heap.check().expect("readable").problems, [], "{}", image.name);
        image.contents = contents(&heap).expect("undamaged roots");
        image
    }

    /// Makes `m` hold the image.
    pub(crate) fn restore(&self, m: &Anon) {
        for (word, value) in words(m).iter().zip(&self.words) {
            if m.load(word) != *value {
                m.store(word, *value);
            }
        }
    }

    /// The bytes of metadata: all areas in front of the data, and the slots in it.
    pub(crate) fn metadata(&self) -> Vec<Span> {
        let areas = options().areas().expect("valid options");
        let fixed = areas.into_iter().filter(|(name, _)| *name != "data").map(|(_, span)| span);
        fixed.chain(self.arrays.iter().copied()).collect()
    }

    /// The byte at `offset`.
    pub(crate) fn byte(&self, offset: u64) -> u8 {
        self.words[word_index(offset)].to_le_bytes()[(offset % 8) as usize]
    }

    /// Whether the line of byte `offset` holds anything.
    pub(crate) fn is_line_used(&self, offset: u64) -> bool {
        let first = word_index(offset / 64 * 64);
        self.words[first..first + 8].iter().any(|word| *word != 0)
    }
}

/// Sets the byte at `offset`.
pub(crate) fn set_byte<M: Medium>(m: &M, offset: u64, byte: u8) {
    let word = &words(m)[word_index(offset)];
    let mut bytes = m.load(word).to_le_bytes();
    bytes[(offset % 8) as usize] = byte;
    m.store(word, u64::from_le_bytes(bytes));
}

/// Fills slots, frees a part, and goes on until the logs were collected both ways.
fn populate<M: Medium>(heap: &Heap<M>) -> (&[Slot], &[Slot]) {
    let [first, second] =
        ROOTS.map(|(name, count)| heap.slots(name, count).expect("there is room"));
    for round in 0..40 {
        heap.alloc_init(&first[0], layout(20_000), fill(round)).expect("there is room");
        heap.free_from(&first[0]).expect("it is full");
    }
    for (at, slot) in first.iter().enumerate().skip(2) {
        heap.alloc_init(slot, layout(SIZES[at % 7]), fill(at)).expect("there is room");
    }
    for slot in first.iter().skip(2).step_by(3) {
        heap.free_from(slot).expect("it is full");
    }
    for (at, slot) in second.iter().enumerate().take(5) {
        heap.alloc_init(slot, layout(SIZES[at]), fill(100 + at)).expect("there is room");
    }
    (first, second)
}

/// A heap that was closed.
pub(crate) fn closed() -> Image {
    let medium = Arc::new(Anon::new(heap_bytes()));
    let heap = options().create_shared(Arc::clone(&medium)).expect("created");
    populate(&heap);
    let log = heap.stats().expect("anonymous").log;
    assert!(log.fast_gc + log.slow_gc > 0, "{log:?}");
    heap.close().expect("closed");
    Image::of("closed", &*medium)
}

/// Which operation a crash interrupts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Interrupted {
    AllocSmall,
    FreeSmall,
    AllocLarge,
    FreeLarge,
}

/// A heap whose power failed in front of the second fence of an operation, when the record was durable; `name` says
/// which stores after that are there.
pub(crate) fn crashed(name: &'static str, interrupted: Interrupted, seed: Option<u64>) -> Image {
    crashed_under(Policy::Eager, name, interrupted, seed)
}

/// As [`crashed`]; under Batched the second fence is that of the round behind the operation.
pub(crate) fn crashed_under(
    policy: Policy,
    name: &'static str,
    interrupted: Interrupted,
    seed: Option<u64>,
) -> Image {
    let sim = Sim::new(SimOptions { len_bytes: heap_bytes(), domain: Domain::Word8 });
    let heap = options().policy(policy).create_shared(Tap::new(sim)).expect("created");
    let (first, _) = populate(&heap);
    let is_large = |size: usize| size > 14 << 10;
    let full = |large: bool| {
        let slot = first
            .iter()
            .enumerate()
            .skip(2)
            .find(|(at, slot)| !slot.is_empty(&heap.pin()) && is_large(SIZES[at % 7]) == large);
        slot.expect("a full slot").1
    };
    // Two fences of the initialiser's contents and none of a slab come before those of the operation.
    let (slot, size) = match interrupted {
        Interrupted::AllocSmall => (&first[0], Some(200)),
        Interrupted::AllocLarge => (&first[0], Some(20_000)),
        Interrupted::FreeSmall => (full(false), None),
        Interrupted::FreeLarge => (full(true), None),
    };
    let sync = || heap.sync().expect("nothing fails");
    // What is inside the lane is then this one operation.
    if policy == Policy::Batched {
        sync();
    }
    heap.raw().arm(1);
    match size {
        Some(size) => heap.alloc_to(slot, layout(size)).expect("there is room"),
        None => heap.free_from(slot).expect("it is full"),
    }
    sync();
    let state = heap.raw().take();
    let boot = match seed {
        None => state.oldest(),
        Some(0) => state.newest(),
        Some(seed) => state.sample(seed),
    };
    boot.back(Span::new(0, heap_bytes())).expect("inside the medium");
    Image::of(name, &boot)
}
