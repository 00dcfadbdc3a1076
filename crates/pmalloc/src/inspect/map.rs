//! What each part of a heap is: a list in address order, for pictures and reports.

use std::path::Path;

use pmalloc_persist::{Access, MapOptions, Medium, PAGE_BYTES, Span};

use super::{
    owner,
    owners::{BlockOwner, Owners},
};
use crate::{
    core::{Core, header},
    error::{Error, Result},
    layout::geometry::{Geometry, Page, PageRange},
    page_map::Use,
    recovery::recover,
};

/// Every part of a heap in the order of places, without gap or overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeapMap {
    /// The parts: metadata first, then slabs, large blocks and free space as they lie, then what the heap may still grow
    /// into.
    pub parts: Vec<Part>,
}

/// A part of a heap.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// What it is.
    pub kind: PartKind,
    /// Byte offset from the base of the heap.
    pub offset: u64,
    /// Its bytes.
    pub len: u64,
    /// Bytes of it that hold data in the file, as far as the file system tells: it may keep memory for more. `None`
    /// where the heap is not in a file that was looked at.
    pub data_bytes: Option<u64>,
    /// Live blocks in it that nothing owns, as the check finds them; `None` for a heap that is open, in which owners change.
    pub unowned_blocks: Option<u64>,
}

/// What a part of a heap is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartKind {
    /// An area of the heap's own; the name is that of `docs/format.md`.
    Metadata {
        /// Which.
        name: &'static str,
    },
    /// Blocks of one size.
    Slab {
        /// Bytes of a block.
        block_bytes: u64,
        /// Blocks.
        blocks: u64,
        /// Live blocks.
        live: u64,
        /// The tag of all of them.
        tag: u8,
    },
    /// One block of whole pages.
    Large {
        /// Its tag.
        tag: u8,
    },
    /// Pages that had memory once and are free.
    Free,
    /// Pages that were never used.
    Ungrown,
}

/// Maps the heap in the file at `path`. A heap that was not closed is recovered in a private copy; the file is not
/// touched.
///
/// # Errors
///
/// [`Error::Map`] if the file can't be opened or is in use, [`Error::NotAHeap`], [`Error::Version`], and
/// [`Error::Corrupted`] where the heap can't be read.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("heap");
/// pmalloc::Heap::create(&path)?.close()?;
/// for part in pmalloc::map_file(&path)?.parts {
///     println!("{:#x}: {:?}", part.offset, part.kind);
/// }
/// # Ok(())
/// # }
/// ```
pub fn map_file(path: impl AsRef<Path>) -> Result<HeapMap> {
    let file = owner::open_file(path, Access::PrivateCopy)?;
    let header = header::read_header(&file)?;
    // Before the file is mapped: reading a hole may fill it.
    let data = file.data_spans().map_err(Error::io("asking where the file holds data"))?;
    let mapped = file.map(&MapOptions::new(header.geometry.heap_bytes()))?;
    let recovered = recover(mapped, header.geometry)?;
    let core = Core::new(header, recovered);
    let mut map = map(&core);
    map.add_data(&data);
    let owners = Owners::of(&core)?;
    let orphans = owners.blocks().filter(|(_, owner)| *owner == BlockOwner::Nobody);
    map.add_unowned(&orphans.map(|(block, _)| block.offset).collect::<Vec<_>>());
    Ok(map)
}

/// Maps an open heap. Blocks that other threads allocate or free meanwhile are counted or not.
pub(crate) fn map<M: Medium>(core: &Core<M>) -> HeapMap {
    let mut map = HeapMap { parts: Vec::new() };
    let [metadata @ .., (_, data)] = areas(&core.header.geometry);
    let mut end = 0;
    for (name, span) in metadata {
        map.push(PartKind::Metadata { name }, Span::new(end, span.end() - end));
        end = span.end();
    }
    // Data starts where a slab may: what lies in front of that belongs to nobody else.
    map.parts.last_mut().expect("there is metadata").len += data.start - end;
    let grown = core.space.extents.grown_pages();
    let mut page = 0;
    while page < grown {
        page += map.push_page(core, Page(page));
    }
    let grown_end = data.start + u64::from(grown) * PAGE_BYTES;
    map.push(PartKind::Ungrown, Span::new(grown_end, data.end() - grown_end));
    map
}

impl HeapMap {
    /// Counts the blocks at the offsets `orphans`, which ascend, in the parts that they lie in.
    fn add_unowned(&mut self, orphans: &[u64]) {
        for part in &mut self.parts {
            let first = orphans.partition_point(|offset| *offset < part.offset);
            let end = orphans.partition_point(|offset| *offset < part.offset + part.len);
            part.unowned_blocks = Some((end - first) as u64);
        }
    }

    /// Adds the slab, block or page at `page`, and returns how many pages that are.
    fn push_page<M: Medium>(&mut self, core: &Core<M>, page: Page) -> u32 {
        let (kind, pages) = match core.space.page_map.get(page) {
            Use::Slab(slab) => {
                let descriptor = core.space.descriptor(slab);
                let blocks = u64::from(descriptor.blocks());
                let live = descriptor.live_blocks(core.medium());
                let block_bytes = slab.class.block_bytes();
                let kind = PartKind::Slab { block_bytes, blocks, live, tag: slab.tag };
                (kind, slab.range.pages)
            }
            Use::LargeStart(large) => (PartKind::Large { tag: large.tag }, large.pages),
            // An inside whose start was freed while this ran is free as well.
            Use::Free | Use::LargeInside(_) => (PartKind::Free, 1),
        };
        self.push(kind, core.space.geometry.span_of(PageRange::new(page, pages)));
        pages
    }

    /// Adds a part, unless it is empty; free pages that follow each other are one part.
    fn push(&mut self, kind: PartKind, span: Span) {
        match self.parts.last_mut() {
            Some(last) if last.kind == PartKind::Free && kind == PartKind::Free => {
                last.len += span.len;
            }
            _ if span.is_empty() => {}
            _ => {
                let Span { start: offset, len } = span;
                let (data_bytes, unowned_blocks) = (None, None);
                self.parts.push(Part { kind, offset, len, data_bytes, unowned_blocks });
            }
        }
    }

    /// Notes how much of each part is in `data`, spans in ascending order.
    fn add_data(&mut self, data: &[Span]) {
        let mut rest = data;
        for part in &mut self.parts {
            let end = part.offset + part.len;
            let mut bytes = 0;
            while let [span, behind @ ..] = rest {
                bytes += span.end().min(end).saturating_sub(span.start.max(part.offset));
                if span.end() > end {
                    break;
                }
                rest = behind;
            }
            part.data_bytes = Some(bytes);
        }
    }
}

/// The areas of a heap of this geometry, in the order of their places; the data area is the last one.
pub(crate) fn areas(geometry: &Geometry) -> [(&'static str, Span); 10] {
    let lanes = geometry.lane_span(0).start;
    [
        ("superblock", Span::new(0, PAGE_BYTES)),
        ("superblock copy", Span::new(Geometry::second_superblock(), PAGE_BYTES)),
        ("state", Span::new(Geometry::state(), PAGE_BYTES)),
        ("log roots", Span::new(Geometry::log_roots().bytes(), PAGE_BYTES)),
        ("root table", geometry.root_span()),
        ("lane directory", geometry.directory_span()),
        ("lanes", Span::new(lanes, geometry.book_span().start - lanes)),
        ("book", geometry.book_span()),
        ("descriptors", geometry.descriptor_span()),
        ("data", geometry.data_span()),
    ]
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use std::sync::Arc;

    use pmalloc_persist::Anon;

    use super::*;
    use crate::tests::common::{
        image::{self, Interrupted},
        options,
        shared::Shared,
    };

    /// Checks that the parts of `heap` cover it and agree with its figures.
    fn check(heap: &crate::Heap<Arc<Anon>>) {
        let (map, stats) = (heap.map(), heap.stats().expect("anonymous"));
        let mut end = 0;
        let (mut live, mut used, mut free) = (0, 0, 0);
        for part in &map.parts {
            assert_eq!(part.offset, end, "{part:?}");
            assert!(part.len > 0, "{part:?}");
            end += part.len;
            match part.kind {
                PartKind::Slab { live: blocks, block_bytes, blocks: all, .. } => {
                    assert!(blocks <= all && all * block_bytes <= part.len, "{part:?}");
                    live += blocks;
                    used += part.len;
                }
                PartKind::Large { .. } => {
                    live += 1;
                    used += part.len;
                }
                PartKind::Free => free += part.len,
                PartKind::Metadata { .. } | PartKind::Ungrown => {}
            }
        }
        assert_eq!(end, image::heap_bytes());
        assert_eq!((live, used, free), (stats.live_blocks, stats.used_bytes, stats.free_bytes));
    }

    #[test]
    fn the_parts_cover_the_heap_and_agree_with_its_figures() {
        let m = Arc::new(Anon::new(image::heap_bytes()));
        check(&options().create_shared(Arc::clone(&m)).expect("created"));
        for image in [image::closed(), image::crashed("crashed", Interrupted::FreeLarge, None)] {
            image.restore(&m);
            check(&options().open_shared(Arc::clone(&m)).expect("opened"));
        }
    }

    #[test]
    fn blocks_that_nothing_owns_are_counted_where_they_lie() {
        let part = |offset, len| Part {
            kind: PartKind::Free,
            offset,
            len,
            data_bytes: None,
            unowned_blocks: None,
        };
        let mut map = HeapMap { parts: vec![part(0, 16), part(16, 32), part(48, 16)] };
        map.add_unowned(&[16, 32, 48]);
        let counts: Vec<_> = map.parts.iter().map(|part| part.unowned_blocks).collect();
        assert_eq!(counts, [Some(0), Some(2), Some(1)]);
    }

    #[test]
    fn data_is_shared_out_to_the_parts_that_it_overlaps() {
        let part = |offset, len| Part {
            kind: PartKind::Free,
            offset,
            len,
            data_bytes: None,
            unowned_blocks: None,
        };
        let mut map = HeapMap { parts: vec![part(0, 10), part(10, 10), part(20, 10), part(30, 5)] };
        map.add_data(&[Span::new(2, 3), Span::new(8, 14), Span::new(29, 4)]);
        let bytes: Vec<_> = map.parts.iter().map(|part| part.data_bytes).collect();
        assert_eq!(bytes, [Some(5), Some(10), Some(3), Some(3)]);
    }
}
