//! Makes the metadata of a damaged heap such that recovery accepts it, without inventing anything.
//!
//! Which extents there are is put together from the bookkeeping logs and, where those are silent, from the headers of
//! slabs; then the logs are written anew. What can't be believed is dropped and said. The heap is one that nobody can
//! open meanwhile, so nothing here has an order that a crash could break.

use pmalloc_persist::{LINE_BYTES, Medium, PAGE_BYTES, Span};

use super::state::{self, StateImage};
use crate::{
    book::{Book, Extent, Held, HeldExtents, LogId},
    error::{Error, Findings, Result},
    lane,
    layout::{
        book::ExtentKind,
        geometry::{Geometry, Page},
        state::Clean,
    },
    slab::{Descriptor, Inventory, Wrong},
};

/// Sees that nothing on `m` was written by a program that knows more than this one: what is sealed and not known is
/// neither damage nor to be mended.
///
/// # Errors
///
/// [`Error::Version`].
pub(crate) fn require_known<M: Medium>(m: &M, geometry: &Geometry) -> Result<()> {
    state::require_known(m)?;
    Book::require_known(m, geometry)?;
    let headers = geometry.descriptor_span().start;
    let pages = (m.len().saturating_sub(headers) / LINE_BYTES).min(geometry.data_pages());
    for page in (0..pages).filter_map(|page| u32::try_from(page).ok()).map(Page) {
        if let Err(error @ Error::Version { .. }) = Descriptor::find(m, geometry, page) {
            return Err(error);
        }
    }
    Ok(())
}

/// Mends state page, logs, slabs and lanes of the heap on `m`.
///
/// # Errors
///
/// [`Error::NoSpace`] or [`Error::OutOfMemory`] if there is no room for what has to be written.
///
/// # Crash consistency
///
/// None: nobody may open the heap before this is done and durable.
pub(crate) fn salvage<M: Medium>(
    m: &M,
    geometry: &Geometry,
    findings: &mut Findings,
) -> Result<()> {
    // Bytes behind the present end are gone, whatever they were.
    let end = m.len();
    state::mend(m, geometry, findings)?;
    let state = state::read(m, geometry)?;
    let grown = u64::from(state.grown_pages);
    let mut extents = Book::salvage(m, geometry, (grown, state.clean), findings);
    let mut refused = Ok(());
    extents.retain(|held| {
        let is_kept = is_whole(m, geometry, held, end, findings);
        is_kept.unwrap_or_else(|error| {
            refused = Err(error);
            false
        })
    });
    refused?;
    add_unlogged_slabs(m, geometry, &state, &mut extents, findings)?;
    for held in extents.iter() {
        back(m, geometry.span_of(held.extent.range))?;
        if held.extent.kind == ExtentKind::Slab {
            mend_slab(m, geometry, held, (end, state.clean), findings)?;
        }
    }
    Book::rewrite(m, geometry, &extents)?;
    lane::salvage(m, geometry, state.left(), findings)
}

fn back<M: Medium>(m: &M, span: Span) -> Result<()> {
    m.back(span).map_err(Error::backing("giving a salvaged heap memory"))
}

/// Whether what a log says of an extent can be used; says so if not.
fn is_whole<M: Medium>(
    m: &M,
    geometry: &Geometry,
    held: &Held,
    end: u64,
    findings: &mut Findings,
) -> Result<bool> {
    let range = held.extent.range;
    let span = geometry.span_of(range);
    match held.extent.kind {
        ExtentKind::Large if span.end() > end => {
            findings.lost(span.start, "a large block lies behind the end of the file");
            Ok(false)
        }
        ExtentKind::Large => Ok(true),
        ExtentKind::Slab => match Descriptor::open(m, geometry, range) {
            Ok(_) => Ok(true),
            Err(Error::Corrupted { offset, what }) => {
                findings.lost(offset, what);
                findings.lost(span.start, "the blocks of a slab whose header can't be read");
                Ok(false)
            }
            Err(error) => Err(error),
        },
    }
}

/// Adds the slabs with live blocks that no log names: a slab goes back to the free pages only when it is empty.
fn add_unlogged_slabs<M: Medium>(
    m: &M,
    geometry: &Geometry,
    state: &StateImage,
    extents: &mut HeldExtents,
    findings: &mut Findings,
) -> Result<()> {
    let grown_pages = state.grown_pages;
    for page in (0..grown_pages).map(Page) {
        let Ok(slab) = Descriptor::find(m, geometry, page) else { continue };
        let range = slab.range();
        if range.end() > u64::from(grown_pages) || extents.overlaps(range) {
            continue;
        }
        // Only blocks that exist count.
        Inventory::clear_strays(m, slab)?;
        // Live bits of a closed heap match their check, unless the slab went back before the close.
        let is_stale = state.clean == Clean::Closed
            && slab.live_blocks(m) > 0
            && slab.mend_bit(m)? == Wrong::More;
        if slab.live_blocks(m) > 0 && !is_stale {
            let extent = Extent { range, kind: ExtentKind::Slab, tag: 0 };
            extents.add(Held { extent, log: LogId(page.0 % geometry.logs) });
            findings.repaired(geometry.page_offset(page), "a slab that no log named");
        }
    }
    Ok(())
}

/// Makes the bitmap of a slab name only blocks that exist, and that lie in front of the `end` of the file.
fn mend_slab<M: Medium>(
    m: &M,
    geometry: &Geometry,
    held: &Held,
    (end, clean): (u64, Clean),
    findings: &mut Findings,
) -> Result<()> {
    let slab = Descriptor::open(m, geometry, held.extent.range)?;
    back(m, geometry.descriptor_of(held.extent.range))?;
    if clean == Clean::Closed {
        mend_bits(m, slab, geometry.span_of(held.extent.range).start, findings)?;
    }
    mend_blocks(m, geometry, (held, slab), end, findings)?;
    // What is live now is what counts.
    slab.seal_bits(m)
}

/// Makes the live bits of a closed heap's slab match their check, or give no block away.
fn mend_bits<M: Medium>(
    m: &M,
    slab: Descriptor,
    place: u64,
    findings: &mut Findings,
) -> Result<()> {
    match slab.mend_bit(m)? {
        Wrong::Nothing => {}
        Wrong::OneBit => findings.repaired(place, "a slab with one wrong bit among its live bits"),
        Wrong::More => {
            slab.take_all_as_live(m)?;
            let what = "which blocks of a slab are live: all are taken for it, and those that nobody owns stay";
            findings.lost(place, what);
        }
    }
    Ok(())
}

/// Clears the bits of blocks that do not exist, or that lie behind the `end` of the file.
fn mend_blocks<M: Medium>(
    m: &M,
    geometry: &Geometry,
    (held, slab): (&Held, Descriptor),
    end: u64,
    findings: &mut Findings,
) -> Result<()> {
    if Inventory::clear_strays(m, slab)? {
        let at = geometry.descriptor_of(held.extent.range).start;
        findings.repaired(at, "a bitmap marked blocks that do not exist");
    }
    if geometry.span_of(held.extent.range).end() <= end {
        return Ok(());
    }
    for block in 0..slab.blocks() {
        let place = slab.block_offset(block);
        if place + slab.class().block_bytes() > end && slab.live_bit(block).clear(m) {
            findings.lost(place, "a block lies behind the end of the file");
        }
    }
    Ok(())
}

/// Pages of the data area that a file of `len` bytes reaches.
pub(super) fn pages_in(geometry: &Geometry, len: u64) -> u64 {
    let data = geometry.data_span().start;
    len.saturating_sub(data).div_ceil(PAGE_BYTES).min(geometry.data_pages())
}
