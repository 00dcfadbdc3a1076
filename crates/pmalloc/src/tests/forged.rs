//! Goal: metadata that is damaged *and* carries good checksums, as only malice makes it, never makes a call panic, hang
//! or leave the heap's bounds.
//!
//! Method: small heaps are changed at random, a few structures each, in the ways that the layout allows, and sealed
//! again; then everything that the public interface offers is done to what opens. Values that stand elsewhere in the
//! heap are the likeliest to be believed, so most are taken from there. `PMALLOC_FORGED` sets the number of heaps.

use super::common::shared::Shared;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use fastrand::Rng;
use pmalloc_persist::{Anon, Medium, Offset, Word};

use super::common::{
    exercise,
    image::{self, Image, Interrupted},
    options,
    watchdog::Watchdog,
};
use crate::{
    layout::{
        book::{CHUNK_MAGIC, ENTRY_BYTES, EntryOp, ExtentKind, LogEntry},
        cell::{CELL_VALUE_MAX, CellValue},
        geometry::Geometry,
        lane::{MARK_LINES, NUMBER_MAX, Op, Record, Tag},
        root::RootEntry,
        sealed::{checksum, seal},
        slab::SLAB_MAGIC,
        slot::{SlotWord, Version},
        state::State,
        superblock::{Header, Model},
    },
    recovery::superblock_places,
    tests::small_geometry,
};

const LINE: u64 = 64;

/// Heaps that are tried when the environment asks for no other number.
const HEAPS: u64 = 30_000;

/// A heap that is being forged.
struct Forger<'a> {
    m: &'a Anon,
    geometry: Geometry,
    rng: Rng,
}

impl Forger<'_> {
    fn put(&self, at: u64, values: &[u64]) {
        for (nth, value) in (0..).zip(values) {
            self.m.store(self.m.at::<Word>(Offset::new(at + nth * 8)).expect("inside"), *value);
        }
    }

    fn get(&self, at: u64) -> u64 {
        self.m.load(self.m.at::<Word>(Offset::new(at)).expect("inside"))
    }

    fn any(&mut self, values: &[u64]) -> u64 {
        values[self.rng.usize(..values.len())]
    }

    /// A page number: mostly one that exists.
    fn page(&mut self) -> u32 {
        match self.rng.u32(..10) {
            0 => u32::MAX,
            1 => 64,
            _ => self.rng.u32(..64),
        }
    }

    fn pages(&mut self) -> u32 {
        let some = [0, 1, 2, 3, 4, 5, 8, 16, 17, 64, 65, 257, u32::MAX];
        some[self.rng.usize(..some.len())]
    }

    /// A place that a block, or nothing, may be at.
    fn place(&mut self) -> u64 {
        let data = self.geometry.data_span();
        let inside = data.start + u64::from(self.rng.u32(..64)) * 4096;
        let choice = [
            inside,
            inside,
            inside + self.rng.u64(..256) * 16,
            inside + 16 * self.rng.u64(..8),
            data.end(),
            self.geometry.descriptor_span().start,
            Geometry::state(),
            16,
            (1 << 44) - 16,
        ];
        choice[self.rng.usize(..choice.len())]
    }

    fn slot_place(&mut self) -> u64 {
        let root = Geometry::root_table().bytes() + self.rng.u64(..10) * 128;
        match self.rng.u32(..4) {
            0 => root + std::mem::offset_of!(RootEntry, slot) as u64,
            1 => root + self.rng.u64(..16) * 8,
            _ => self.place() / 8 * 8,
        }
    }

    fn forge(&mut self) {
        match self.rng.u32(..12) {
            0 => self.forge_state(),
            1 => self.forge_mark(),
            2..=4 => self.forge_record(),
            5 | 6 => self.forge_entry(),
            7 => self.forge_chunk(),
            8 => self.forge_slab(),
            9 => self.forge_root(),
            10 => self.forge_slot(),
            _ => self.forge_superblock(),
        }
    }

    fn forge_state(&mut self) {
        let at = Geometry::state();
        let pages = self.any(&[0, 1, 16, 63, 64, 65, 1 << 32, (1 << 48) - 1]);
        let code = self.rng.u64(..5);
        match self.rng.u32(..3) {
            0 => self.put(at + std::mem::offset_of!(State, grown_pages) as u64, &[seal(pages)]),
            1 => self.put(at + std::mem::offset_of!(State, policy) as u64, &[seal(code)]),
            _ => self.put(at, &[seal(code)]),
        }
    }

    fn lane(&mut self) -> u64 {
        let lane = self.rng.u32(..self.geometry.lanes);
        self.geometry.lane_span(lane).start
    }

    fn forge_mark(&mut self) {
        let line = self.rng.u64(..MARK_LINES);
        let number = self.any(&[line, 8 + line, 800 + line, NUMBER_MAX - 7 + line, 1 << 41]);
        let at = self.lane() + (1 + line) * LINE;
        self.put(at, &[seal(number)]);
    }

    fn newest_mark(&self, lane: u64) -> u64 {
        let marks = (1..=MARK_LINES).map(|line| self.get(lane + line * LINE) & NUMBER_MAX);
        marks.max().unwrap_or(0)
    }

    /// A record in flight, of an operation on anything; the heap is made to look unclosed.
    fn forge_record(&mut self) {
        self.put(Geometry::state(), &[seal(1)]);
        let lane = self.lane();
        let tag = if self.rng.bool() { 0 } else { self.rng.u8(..) };
        let value = CellValue::new(self.rng.u64(..=CELL_VALUE_MAX)).expect("in range");
        let ops = [
            Op::AllocSmall,
            Op::FreeSmall,
            Op::AllocLarge(tag),
            Op::FreeLarge,
            Op::Fill,
            Op::Empty,
            Op::Set(value),
        ];
        let count = if self.rng.u32(..4) == 0 { 2 } else { 1 };
        let number = self.newest_mark(lane) + 1;
        for index in 0..count {
            let record = Record {
                op: ops[self.rng.usize(..ops.len())],
                block: self.place(),
                slot: self.slot_place(),
                version: Version::from_bits(self.rng.u64(..3)),
                number,
                index,
                count,
                pages: self.pages(),
            };
            let ring = lane + (1 + MARK_LINES) * LINE;
            let place = ring + (self.rng.u64(..4) * 2 + u64::from(index)) * 32;
            self.put(place, &record.encode(Tag::of_count(5)));
        }
    }

    /// A chunk that was made, linked or not.
    fn chunk(&mut self) -> Option<u64> {
        let book = self.geometry.book_span();
        let chunks: Vec<u64> = (0..book.len / self.geometry.chunk_bytes)
            .map(|index| book.start + index * self.geometry.chunk_bytes)
            .filter(|chunk| self.get(*chunk) == CHUNK_MAGIC)
            .collect();
        if chunks.is_empty() { None } else { Some(chunks[self.rng.usize(..chunks.len())]) }
    }

    fn forge_entry(&mut self) {
        let Some(chunk) = self.chunk() else { return };
        let nth = self.rng.u64(..6);
        let place = chunk + (1 + nth % 3) * LINE + nth / 3 * ENTRY_BYTES;
        let ops =
            [EntryOp::Alloc(ExtentKind::Large), EntryOp::Alloc(ExtentKind::Slab), EntryOp::Free];
        let entry = LogEntry {
            op: ops[self.rng.usize(..3)],
            start_page: self.page(),
            pages: self.pages(),
            tag: self.rng.u8(..),
            sequence: self.get(chunk + 16).wrapping_add(nth),
        };
        self.put(place, &entry.encode(place));
    }

    fn forge_chunk(&mut self) {
        let link = seal(self.any(&[0, 1, 2, 3, 7, 64, 65, 1 << 32]));
        let Some(chunk) = self.chunk() else { return };
        match self.rng.u32(..3) {
            0 => {
                let log = self.rng.u64(..2);
                self.put(Geometry::log_roots().bytes() + log * LINE, &[link]);
            }
            1 => self.put(chunk + LINE - 8, &[link]),
            _ => {
                let base = self.any(&[0, 1, 6, 100, 1 << 62, (1 << 62) + 1, u64::MAX]);
                let header = [CHUNK_MAGIC, self.rng.u64(..3), base, 0, 0, 0];
                self.put(chunk, &header);
                self.put(chunk + 48, &[checksum(&header, chunk)]);
            }
        }
    }

    fn forge_slab(&mut self) {
        let line = self.geometry.descriptor_span().start + self.rng.u64(..64) * LINE;
        let extent = if self.rng.bool() {
            self.get(line + 8)
        } else {
            u64::from(self.page()) | u64::from(self.pages()) << 32
        };
        let tag = self.any(&[0, 0, 1 << 32, 255 << 32, 256 << 32]);
        let class = tag | self.any(&[0, 8, 16, 48, 1024, 4096, 14 << 10, 16 << 10, u64::MAX]);
        let words = [SLAB_MAGIC, extent, class, 0, 0, 0];
        self.put(line, &words);
        self.put(line + 48, &[checksum(&words, line)]);
        if self.rng.bool() {
            let (nth, bits) = (self.rng.u64(..8), self.rng.u64(..));
            self.put(line + LINE + nth * 8, &[bits]);
        }
    }

    fn forge_root(&mut self) {
        let entry = Geometry::root_table().bytes() + self.rng.u64(..3) * 128;
        let mut words: [u64; 11] = std::array::from_fn(|nth| self.get(entry + nth as u64 * 8));
        match self.rng.u32(..3) {
            0 => words[8] = self.rng.u64(..5),
            1 => words[9] = self.any(&[0, 1, 8, 24, 1 << 20, 1 << 60, 1 << 61, u64::MAX]),
            _ => words[self.rng.usize(..8)] = self.rng.u64(..),
        }
        self.put(entry, &words);
        self.put(entry + 88, &[1 << 32 | checksum(&words, entry)]);
        if self.rng.bool() {
            let place = self.place();
            self.put(entry + 96, &[SlotWord::owning(place, Version::from_bits(1)).bits()]);
        }
    }

    /// Makes a slot own what a root or another slot owns, or any other place.
    fn forge_slot(&mut self) {
        let roots: Vec<u64> = (0..2)
            .filter_map(|nth| {
                let entry = Geometry::root_table().bytes() + nth * 128;
                SlotWord::from_bits(self.get(entry + 96)).place()
            })
            .collect();
        let inside = |place: &u64| self.geometry.page_at(*place).is_some();
        let roots: Vec<u64> = roots.into_iter().filter(inside).collect();
        let Some(&array) = roots.get(self.rng.usize(..2)) else { return };
        let (from, to) = (self.rng.u64(..8), self.rng.u64(..8));
        let value = match self.rng.u32(..3) {
            0 => self.get(array + from * 8),
            1 => {
                SlotWord::owning(roots[self.rng.usize(..roots.len())], Version::from_bits(2)).bits()
            }
            _ => SlotWord::owning(self.place(), Version::from_bits(3)).bits(),
        };
        self.put(array + to * 8, &[value]);
    }

    fn forge_superblock(&mut self) {
        let mut geometry = self.geometry;
        let size = self.any(&[0, 1, 4096, 1 << 14, 1 << 16, 1 << 18, 1 << 30, 1 << 43, u64::MAX]);
        let count = self.pages();
        match self.rng.u32(..7) {
            0 => geometry.capacity_bytes = size,
            1 => geometry.slab_bytes = size,
            2 => geometry.chunk_bytes = self.any(&[64, 256, 512, 4096, 8192]),
            3 => geometry.ring_places = count,
            4 => geometry.lanes = count,
            5 => geometry.logs = count,
            _ => geometry.stripes = count,
        }
        let layout_name = String::new();
        let header = Header { uuid: 1, model: Model::Log, created_s: 0, layout_name, geometry };
        for place in superblock_places() {
            self.put(place, &header.encode(place));
        }
    }
}

fn try_one(image: &Image, m: &Arc<Anon>, seed: u64) {
    image.restore(m);
    let mut forger = Forger { m, geometry: small_geometry(), rng: Rng::with_seed(seed) };
    for _ in 0..forger.rng.u32(1..5) {
        forger.forge();
    }
    exercise(m, image.contents);
    image.restore(m);
    let mut forger = Forger { rng: Rng::with_seed(seed), ..forger };
    for _ in 0..forger.rng.u32(1..5) {
        forger.forge();
    }
    // A heap of which a superblock is left can be salvaged, and opens then.
    if options().salvage_on(m).is_ok() {
        let heap = options().open_shared(Arc::clone(m)).expect("a salvaged heap opens");
        assert_eq!(heap.check().expect("readable").problems, []);
    }
}

#[test]
fn forged_heaps_are_refused_or_work() {
    let heaps = std::env::var("PMALLOC_FORGED").map_or(HEAPS, |n| n.parse().expect("a number"));
    let images = [
        image::closed(),
        image::crashed("in alloc", Interrupted::AllocLarge, None),
        image::crashed("in free", Interrupted::FreeSmall, Some(0)),
    ];
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let failed: Vec<u64> = std::thread::scope(|scope| {
        let run = |thread| {
            let images = &images;
            move || {
                let watchdog = Watchdog::new("forged heap");
                let mut m = Arc::new(Anon::new(image::heap_bytes()));
                let mut failed = Vec::new();
                for seed in (thread..heaps).filter(|seed| seed % threads == thread) {
                    watchdog.begin(seed);
                    let image = &images[(seed % 3) as usize];
                    if catch_unwind(AssertUnwindSafe(|| try_one(image, &m, seed))).is_err() {
                        failed.push(seed);
                        m = Arc::new(Anon::new(image::heap_bytes()));
                        if failed.len() > 5 {
                            break;
                        }
                    }
                }
                failed
            }
        };
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(run(thread))).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("caught inside")).collect()
    });
    assert!(failed.is_empty(), "seeds {failed:?}");
    println!(
        "{heaps} forged heaps, peak {} MiB",
        super::common::watchdog::peak_memory_bytes() >> 20
    );
}
