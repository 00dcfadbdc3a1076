//! Builds the volatile side of a heap from its metadata.

use pmalloc_persist::Medium;

use super::state::StateImage;
use crate::{
    arena::{Arena, Space},
    book::{Book, Held, LogId},
    error::{Error, Result},
    extent::Extents,
    layout::{
        book::ExtentKind,
        geometry::{Geometry, PageRange},
    },
    page_map::{PageMap, SlabUse},
    slab::{Descriptor, Inventory, Kind},
};

/// Builds page map, extents, slabs and arenas from the extents that the logs hold.
pub(super) fn rebuild<M: Medium>(
    medium: M,
    geometry: Geometry,
    state: &StateImage,
    book: Book,
    held: &[Held],
) -> Result<(Space<M>, Vec<Arena>)> {
    let ranges: Vec<PageRange> = held.iter().map(|held| held.extent.range).collect();
    let extents = Extents::new(geometry, state.grown_pages, &ranges)?;
    let pages = u32::try_from(geometry.data_pages()).expect("a valid geometry has 32-bit pages");
    let page_map = PageMap::new(pages).map_err(Error::io("mapping the page map"))?;
    let mut slabs: Vec<Vec<Inventory>> = (0..geometry.logs).map(|_| Vec::new()).collect();
    for Held { extent, log } in held {
        match extent.kind {
            ExtentKind::Large => page_map.set_large(extent.range, log.code(), extent.tag),
            ExtentKind::Slab => {
                let slab = Descriptor::open(&medium, &geometry, extent.range)?;
                let Kind { class, tag } = slab.kind();
                page_map.set_slab(SlabUse { range: extent.range, class, log: log.code(), tag });
                slabs[log.0 as usize].push(Inventory::read(&medium, slab, state.clean)?);
            }
        }
    }
    let space = Space::new(medium, geometry, page_map, extents, book);
    let arenas = (0..).map(LogId).zip(slabs).map(|(log, slabs)| Arena::new(log, slabs)).collect();
    Ok((space, arenas))
}
